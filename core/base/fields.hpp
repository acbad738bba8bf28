// Named options of a struct, said once. A struct lists its fields in a function
//
//   void bind(Fields& fields, QuantSettings& settings) {
//     fields.add("bits", settings.bits, {.min = 2, .max = 16}, "width of a code in bits");
//   }
//
// and parsing, printing, --help and the reference page all read that one list.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

/// One option: how to set it from text, how to print it back, and what to tell a reader.
struct Field {
  std::string name;
  std::string type;  ///< "integer", "number", "true or false", "text", "one of a|b", "list of ..."
  std::string help;
  std::string initial;                               ///< the default, printed
  std::function<void(const std::string& text)> set;  ///< throws Error: "found 'x', expected ..."
  std::function<std::string()> get;                  ///< the value in the spelling that set() takes
};

template <class T>
struct Range {
  T min = std::numeric_limits<T>::lowest();
  T max = std::numeric_limits<T>::max();
};

class Fields {
 public:
  void add(std::string name, Index& value, Range<Index> range, std::string help);
  void add(std::string name, double& value, Range<double> range, std::string help);
  void add(std::string name, bool& value, std::string help);
  void add(std::string name, std::string& value, std::string help);
  /// Text restricted to `choices`.
  void add_choice(std::string name, std::string& value, std::vector<std::string> choices,
                  std::string help);
  /// A number that may be the word "none" (an absent optional).
  void add(std::string name, std::optional<double>& value, Range<double> range, std::string help);
  /// A comma-separated list; in YAML also a sequence.
  void add(std::string name, std::vector<Index>& value, Range<Index> range, std::string help);
  void add(std::string name, std::vector<std::string>& value, std::vector<std::string> choices,
           std::string help);
  /// A choice that stands for values of other fields: `after` runs when it is set. List it before
  /// them, since fields are set in the order of this list whatever the order in the file.
  void add_preset(std::string name, std::string& value, std::vector<std::string> choices,
                  std::string help, std::function<void(const std::string&)> after);
  void add(Field field) { fields_.push_back(std::move(field)); }

  const std::vector<Field>& all() const { return fields_; }
  const Field* find(std::string_view name) const;
  /// Sets one field; Error names the field, its range and the nearest known name.
  void set(const std::string& name, const std::string& text);
  std::vector<std::string> names() const;

 private:
  std::vector<Field> fields_;
};

}  // namespace ruq
