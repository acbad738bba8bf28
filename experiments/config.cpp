#include "experiments/config.hpp"

#include "ruquant/base/error.hpp"
#include "ruquant/quant/rounding.hpp"

namespace ruq {
namespace {

const std::vector<std::string>& rule_choices() {
  static const std::vector<std::string> names = {to_string(GridRule::omniquant),
                                                 to_string(GridRule::quarot_activation),
                                                 to_string(GridRule::quarot_weight)};
  return names;
}

// A GridRule is kept as an enum and set by name.
void add_rule(Fields& fields, const std::string& name, GridRule& rule) {
  fields.add(Field{name, fmt::format("one of {}", fmt::join(rule_choices(), ", ")),
                   "how step and zero point follow from a row's range", to_string(rule),
                   [&rule](const std::string& text) { rule = grid_rule(text); },
                   [&rule] { return to_string(rule); }});
}

void bind_spec(Fields& fields, const std::string& prefix, QuantSpec& spec) {
  add_rule(fields, prefix + "rule", spec.rule);
  fields.add(prefix + "symmetric", spec.symmetric, "symmetric codes");
  fields.add(prefix + "group_size", spec.group_size, {.min = 0},
             "channels of one group; 0: the whole row");
  fields.add(prefix + "clip_ratio", spec.clip_ratio, {.min = 0.01, .max = 1},
             "rho: factor of the row's range");
  fields.add(prefix + "search", spec.search,
             "search the range shrink of least error (rule quarot_weight)");
}

void bind_inputs(Fields& fields, Config& config) {
  fields.add("model.name", config.model.name,
             "named model: smollm2-135m, or qwen2.5-coder-1.5b (fetched when asked for)");
  fields.add("model.path", config.model.path, "a Hugging Face directory instead of a named model");
  fields.add_choice("text.source", config.text.source, {"wikipedia", "wikitext2", "file", "tokens"},
                    "text for calibration and evaluation");
  fields.add("text.path", config.text.path,
             "folder of WikiText-2 raw, a UTF-8 file, or a token file (HDF5)");
  fields.add_choice(
      "calibration.source", config.calibration_text.source,
      {"same", "random", "wikipedia", "wikitext2", "file", "tokens"},
      "text for calibration alone: the same text, uniformly random tokens, or another "
      "text");
  fields.add("calibration.path", config.calibration_text.path,
             "of calibration.source, as text.path is of text.source");
  fields.add("calibration.windows", config.calibration.windows, {.min = 1, .max = 4096},
             "S: sequences for channel maxima and for the sample streams");
  fields.add("calibration.mean_windows", config.calibration.mean_windows, {.min = 1, .max = 4096},
             "sequences averaged into the mean sequence");
  fields.add("calibration.window_tokens", config.calibration.window_tokens,
             {.min = 2, .max = 1 << 20}, "tokens of a calibration sequence");
  fields.add("calibration.seed", config.calibration.seed, {.min = 0},
             "seed of the positions of the calibration windows");
}

void bind_measurements(Fields& fields, Config& config) {
  fields.add_choice("evaluation.language", config.evaluation.language, {"auto", "true", "false"},
                    "run the model on text; auto: unless activations.path is given");
  fields.add_choice("evaluation.split", config.evaluation.split,
                    {"calibration", "validation", "test"}, "split that is scored");
  fields.add("evaluation.windows", config.evaluation.windows, {.min = 1, .max = 1 << 20},
             "windows scored");
  fields.add("evaluation.window_tokens", config.evaluation.window_tokens,
             {.min = 2, .max = 1 << 20}, "tokens of a window");
  fields.add("evaluation.spread", config.evaluation.spread,
             "windows at equal distances over the whole split, instead of one after another from "
             "its start");
  fields.add("tasks.names", config.tasks.names,
             {"piqa", "arc_easy", "arc_challenge", "hellaswag", "winogrande", "boolq", "openbookqa",
              "mmlu", "lambada", "gsm8k"},
             "zero-shot tasks that are scored (fetched when asked for); none named: none");
  fields.add("tasks.path", config.tasks.path,
             "folder of JSON lines that holds the tasks, instead of fetching them");
  fields.add("tasks.items", config.tasks.items, {.min = 0},
             "items of each task, from its beginning; 0: all");
  ActivationSettings& activations = config.activations;
  fields.add("activations.measure", activations.measure, "measure single sites (tensor level)");
  fields.add("activations.path", activations.path, "a dump to read instead of capturing");
  fields.add("activations.layers", activations.layers, {.min = 0},
             "layers whose sites are captured; none named: first, last and two between");
  fields.add("activations.kinds", activations.kinds, {"attn_in", "attn_out", "mlp_in", "mlp_out"},
             "kinds of site that are captured");
  fields.add_choice("activations.stream", activations.stream, {"float_samples", "mean_prefix"},
                    "stream that calibrates at tensor level: sample windows, or the mean sequence, "
                    "both through the float network");
  fields.add("activations.calibration_tokens", activations.calibration_tokens, {.min = 1},
             "rows of a site that calibrate");
  fields.add("activations.test_tokens", activations.test_tokens, {.min = 1},
             "rows of a site that are measured");
  fields.add(
      "activations.sample_tokens", activations.sample_tokens, {.min = 0},
      "rows of the two outlier-rich sites (behind a norm, of down_proj) kept for figures; 0 keeps "
      "none");
}

}  // namespace

Config::Config(const std::string& name) : method_name(name), method(make_method(name)) {}

void Config::apply_quant_preset(const std::string& name) {
  const BitWidths widths = quant.widths();
  quant = QuantSettings{};
  if (name == "ruquant") {  // W4A4 script: swc 0.8, lac 0.9; W6A6 script: no clipping (§1.2, §1.9)
    if (widths.weight <= 4) quant.weight.clip_ratio = 0.8;
    if (widths.activation <= 4) quant.activation.clip_ratio = 0.9;
    if (widths.queries <= 4) quant.queries.clip_ratio = 0.9;
    if (widths.keys <= 4) quant.keys.clip_ratio = 0.9;
  } else if (name == "quarot") {  // the paper's setup (§2.2)
    quant.weight = {.symmetric = true, .rule = GridRule::quarot_weight, .search = true};
    quant.activation = {.symmetric = true, .rule = GridRule::quarot_activation, .clip_ratio = 0.9};
    quant.queries = quant.keys =
        quant.values = {.rule = GridRule::quarot_activation, .clip_ratio = 0.95};
  } else if (name == "flatquant") {  // symmetric, nothing clipped but what it learns (§2.4)
    quant.weight = {.symmetric = true, .rule = GridRule::quarot_weight};
    quant.activation = {.symmetric = true, .rule = GridRule::quarot_activation};
    quant.queries = quant.keys = quant.values = {.rule = GridRule::quarot_activation};
  }
  quant.set_widths(widths);
}

Fields Config::fields() {
  Fields fields;
  bind_inputs(fields, *this);
  bind_measurements(fields, *this);
  fields.add(Field{"quant.widths", "five widths such as W4A4-Q16K4V4",
                   "bits of weights, activations, queries, keys and values", widths_,
                   [this](const std::string& widths) {
                     quant.set_widths(bit_widths(widths));
                     widths_ = widths;
                   },
                   [this] { return widths_; }});
  fields.add_preset("quant.preset", quant_preset_, {"plain", "ruquant", "quarot", "flatquant"},
                    "plain: asymmetric, unclipped; ruquant: its scripts' clip ratios; quarot and "
                    "flatquant: their papers' quantizers",
                    [this](const std::string& name) { apply_quant_preset(name); });
  bind_spec(fields, "quant.weight.", quant.weight);
  bind_spec(fields, "quant.activation.", quant.activation);
  fields.add("quant.attn_out_group_size", quant.attn_out_group_size, {.min = 0},
             "channels of a group of o_proj's input, such as the head width; 0: as other inputs");
  bind_spec(fields, "quant.queries.", quant.queries);
  bind_spec(fields, "quant.keys.", quant.keys);
  bind_spec(fields, "quant.values.", quant.values);
  fields.add_choice("quant.rounding", quant.rounding, rounding_names(), "how weights are rounded");
  ruq::bind(fields, quant.rounding_options, "quant.");
  fields.add_choice("quant.activation_levels", quant.activation_levels,
                    {"midpoint", "centroid", "lloyd_max"},
                    "levels of the linear sites: the uniform grid, the calibrated means of its "
                    "bins, or calibrated thresholds and levels");
  fields.add("record.plans", record.plans, "keep plan.h5 of every trial");
  fields.add("seed", seed, {.min = 0}, "seed of the method's random streams");

  Fields own;
  method->bind(own);
  for (Field field : own.all()) {
    field.name = "method." + field.name;
    fields.add(std::move(field));
  }
  return fields;
}

std::vector<std::pair<std::string, std::string>> Config::flat() const {
  std::vector<std::pair<std::string, std::string>> pairs = {{"method", method_name}};
  const Fields all = const_cast<Config*>(this)->fields();  // of which only getters are called
  for (const Field& field : all.all()) pairs.emplace_back(field.name, field.get());
  return pairs;
}

std::vector<std::pair<std::string, std::string>> Config::flat_changes() const {
  const auto defaults = Config(method_name).flat();
  const auto all = flat();
  std::vector<std::pair<std::string, std::string>> changes;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].first == "method" || all[i] != defaults[i]) changes.push_back(all[i]);
  }
  return changes;
}

bool Config::is_random() const {
  return method->is_random() ||
         (quant.weight.rounds() && rounding_needs(quant.rounding) == RoundingNeeds::block);
}

bool Config::measures_language() const {
  return evaluation.language == "auto" ? activations.path.empty() : evaluation.language == "true";
}

}  // namespace ruq
