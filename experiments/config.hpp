// One resolved experiment: every option by name, with its default, range and help line.
//
// A configuration is flat: "method.block_size", "quant.weight.clip_ratio", ... YAML nests the same
// names. The one list of fields made by bind() serves parsing, overrides, --help, --print-config
// and the reference page.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ruquant/base/fields.hpp"
#include "ruquant/method/method.hpp"
#include "ruquant/model/calibration.hpp"
#include "ruquant/quant/plan.hpp"

namespace ruq {

struct ModelSource {
  std::string name = "smollm2-135m";  ///< a named source that the data room can prepare
  std::string path;                   ///< a Hugging Face directory instead
};

struct TextSource {
  std::string source = "wikipedia";  ///< wikipedia, wikitext2, file or tokens
  std::string path;                  ///< folder of WikiText-2, a UTF-8 file, or a token file

  /// Whether it is a text of its own, not "same" or "random" (of calibration).
  bool is_other() const { return source != "same" && source != "random"; }
  bool reads_path() const { return is_other() && source != "wikipedia"; }
};

/// Language metrics on windows of a split: consecutive ones from its start, or spread over it.
struct EvaluationSettings {
  std::string language = "auto";  ///< true, false, or auto: unless activations come from a file
  std::string split = "test";
  Index windows = 8;
  Index window_tokens = 1024;
  bool spread = false;  ///< windows at equal distances from the start of the split to its end
};

/// The tensor-level part: which sites, how many tokens, and an optional dump to read instead.
struct ActivationSettings {
  bool measure = true;
  std::string path;
  std::vector<Index> layers;  ///< empty: first, last and two between
  std::vector<std::string> kinds = {"attn_in", "attn_out", "mlp_in", "mlp_out"};
  std::string stream = "float_samples";  ///< float_samples or mean_prefix (dumps name theirs)
  Index calibration_tokens = 512;
  Index test_tokens = 512;
  Index sample_tokens = 64;  ///< rows of the outlier-rich site kept for figures; 0 keeps none
};

/// Zero-shot tasks; none unless named.
struct TaskSettings {
  std::vector<std::string> names;
  std::string path;   ///< folder of JSON lines instead of the wheel
  Index items = 500;  ///< scored items of each task, from its beginning; 0: all
};

struct RecordSettings {
  bool plans = true;  ///< keep plan.h5 of every trial
};

class Config {
 public:
  /// The defaults with the named method.
  explicit Config(const std::string& method_name);

  /// All options; setters write into this object.
  Fields fields();
  /// Every option with its value, in the order of fields(): the canonical form that is hashed.
  std::vector<std::pair<std::string, std::string>> flat() const;
  /// The same without options that have their default: an option that is added later leaves the
  /// names of earlier trials alone. Whoever changes a default raises a result version.
  std::vector<std::pair<std::string, std::string>> flat_changes() const;
  /// Whether the model runs on text, and whether single tensors are measured.
  bool measures_language() const;
  bool measures_tensors() const { return activations.measure; }
  /// Whether results depend on the seed: the method draws, or the rounding of weights does.
  bool is_random() const;
  bool needs_model() const { return measures_language() || activations.path.empty(); }

  ModelSource model;
  TextSource text;
  /// Whose calibration range calibrates: a source of text, "same" as text, or "random" tokens.
  TextSource calibration_text{"same", ""};
  CalibrationOptions calibration;
  EvaluationSettings evaluation;
  ActivationSettings activations;
  TaskSettings tasks;
  QuantSettings quant;
  RecordSettings record;
  Index seed = 1;
  std::string method_name;
  std::unique_ptr<Method> method;

 private:
  void apply_quant_preset(const std::string& name);

  std::string widths_ = "W16A16-Q16K16V16";
  std::string quant_preset_ = "plain";
};

}  // namespace ruq
