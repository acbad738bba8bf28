#include "ruquant/base/fields.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

template <class T>
T parse_number(const std::string& text, std::string_view kind) {
  T value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc{} || end != text.data() + text.size()) {
    fail("found '{}', expected {}", text, kind);
  }
  return value;
}

template <class T>
std::string describe(std::string_view kind, const Range<T>& range) {
  const bool low = range.min != std::numeric_limits<T>::lowest();
  const bool high = range.max != std::numeric_limits<T>::max();
  if (low && high) return fmt::format("{} from {} to {}", kind, range.min, range.max);
  if (low) return fmt::format("{} of at least {}", kind, range.min);
  if (high) return fmt::format("{} of at most {}", kind, range.max);
  return std::string(kind);
}

template <class T>
T parse_in_range(const std::string& text, const Range<T>& range, const std::string& kind) {
  const T value = parse_number<T>(text, kind);
  if (!(value >= range.min && value <= range.max)) fail("found {}, expected {}", text, kind);
  return value;
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= text.size() && !text.empty()) {
    const std::size_t comma = std::min(text.find(',', begin), text.size());
    std::string part = text.substr(begin, comma - begin);
    part.erase(0, part.find_first_not_of(" \t"));
    part.erase(part.find_last_not_of(" \t") + 1);
    parts.push_back(std::move(part));
    begin = comma + 1;
  }
  return parts;
}

void check_choice(const std::string& text, const std::vector<std::string>& choices) {
  if (std::find(choices.begin(), choices.end(), text) != choices.end()) return;
  fail("found '{}', expected one of {}{}", text, fmt::join(choices, ", "),
       nearest_name(text, choices).empty() ? std::string() : suggestion(text, choices));
}

}  // namespace

void Fields::add(std::string name, Index& value, Range<Index> range, std::string help) {
  const std::string kind = describe("an integer", range);
  fields_.push_back({std::move(name), kind, std::move(help), std::to_string(value),
                     [&value, range, kind](const std::string& text) {
                       value = parse_in_range<Index>(text, range, kind);
                     },
                     [&value] { return std::to_string(value); }});
}

void Fields::add(std::string name, double& value, Range<double> range, std::string help) {
  const std::string kind = describe("a number", range);
  fields_.push_back({std::move(name), kind, std::move(help), fmt::format("{}", value),
                     [&value, range, kind](const std::string& text) {
                       value = parse_in_range<double>(text, range, kind);
                     },
                     [&value] { return fmt::format("{}", value); }});
}

void Fields::add(std::string name, bool& value, std::string help) {
  fields_.push_back({std::move(name), "true or false", std::move(help), value ? "true" : "false",
                     [&value](const std::string& text) {
                       if (text != "true" && text != "false") {
                         fail("found '{}', expected true or false", text);
                       }
                       value = text == "true";
                     },
                     [&value] { return std::string(value ? "true" : "false"); }});
}

void Fields::add(std::string name, std::string& value, std::string help) {
  fields_.push_back({std::move(name), "text", std::move(help), value,
                     [&value](const std::string& text) { value = text; },
                     [&value] { return value; }});
}

void Fields::add_choice(std::string name, std::string& value, std::vector<std::string> choices,
                        std::string help) {
  std::string kind = fmt::format("one of {}", fmt::join(choices, ", "));
  fields_.push_back({std::move(name), std::move(kind), std::move(help), value,
                     [&value, choices = std::move(choices)](const std::string& text) {
                       check_choice(text, choices);
                       value = text;
                     },
                     [&value] { return value; }});
}

void Fields::add(std::string name, std::optional<double>& value, Range<double> range,
                 std::string help) {
  const std::string kind = describe("a number", range) + ", or none";
  const auto print = [&value] { return value ? fmt::format("{}", *value) : std::string("none"); };
  fields_.push_back({std::move(name), kind, std::move(help), print(),
                     [&value, range, kind](const std::string& text) {
                       if (text == "none") {
                         value.reset();
                       } else {
                         value = parse_in_range<double>(text, range, kind);
                       }
                     },
                     print});
}

void Fields::add(std::string name, std::vector<Index>& value, Range<Index> range,
                 std::string help) {
  const std::string kind = describe("a list, each an integer", range);
  const auto print = [&value] { return fmt::format("{}", fmt::join(value, ",")); };
  fields_.push_back({std::move(name), kind, std::move(help), print(),
                     [&value, range, kind](const std::string& text) {
                       std::vector<Index> parsed;
                       for (const std::string& part : split_list(text)) {
                         parsed.push_back(parse_in_range<Index>(part, range, kind));
                       }
                       value = std::move(parsed);
                     },
                     print});
}

void Fields::add(std::string name, std::vector<std::string>& value,
                 std::vector<std::string> choices, std::string help) {
  std::string kind = fmt::format("a list out of {}", fmt::join(choices, ", "));
  const auto print = [&value] { return fmt::format("{}", fmt::join(value, ",")); };
  fields_.push_back({std::move(name), std::move(kind), std::move(help), print(),
                     [&value, choices = std::move(choices)](const std::string& text) {
                       std::vector<std::string> parsed = split_list(text);
                       for (const std::string& part : parsed) check_choice(part, choices);
                       value = std::move(parsed);
                     },
                     print});
}

void Fields::add_preset(std::string name, std::string& value, std::vector<std::string> choices,
                        std::string help, std::function<void(const std::string&)> after) {
  add_choice(std::move(name), value, std::move(choices), std::move(help));
  Field& field = fields_.back();
  field.set = [set = field.set, after = std::move(after)](const std::string& text) {
    set(text);
    after(text);
  };
}

const Field* Fields::find(std::string_view name) const {
  const auto found = std::find_if(fields_.begin(), fields_.end(),
                                  [&](const Field& field) { return field.name == name; });
  return found == fields_.end() ? nullptr : &*found;
}

std::vector<std::string> Fields::names() const {
  std::vector<std::string> names;
  for (const Field& field : fields_) names.push_back(field.name);
  return names;
}

void Fields::set(const std::string& name, const std::string& text) {
  const Field* field = find(name);
  if (field == nullptr) fail("unknown key '{}'{}", name, suggestion(name, names()));
  with_context(name, [&] { field->set(text); });
}

}  // namespace ruq
