#include "ruquant/quant/plan.hpp"

#include <algorithm>
#include <charconv>
#include <ranges>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq {
namespace {

constexpr std::int64_t kFormatVersion = 3;

std::string place(const TensorReader& file, const std::string& group) {
  return fmt::format("{}: {}", file.path().string(), group);
}

// An integer attribute of at least `least`.
Index count_attribute(const TensorReader& file, const std::string& group, const char* name,
                      Index least = 0) {
  const Index count = file.integer_attribute(group, name);
  if (count < least) {
    fail("{}: found {} = {}, expected at least {}", place(file, group), name, count, least);
  }
  return count;
}

// Transforms in a file: one group a step, named by its position, with attribute "kind".

void write_map(TensorWriter& file, const std::string& name, const SquareMap<double>& square) {
  file.write(name + "/map", square.map);
  if (square.dual.size() > 0) file.write(name + "/dual", square.dual);
}

SquareMap<double> read_map(const TensorReader& file, const std::string& name) {
  SquareMap<double> square;
  if (file.has(name + "/map")) square.map = file.matrix<double>(name + "/map");
  if (file.has(name + "/dual")) square.dual = file.matrix<double>(name + "/dual");
  return square;
}

struct WriteStep {
  TensorWriter& file;
  const std::string& group;

  void kind(const char* name) const { file.attribute(group, "kind", std::string(name)); }

  void operator()(const Permutation& step) const {
    kind("permutation");
    file.write(group + "/index", step.index);
  }
  void operator()(const Reflection<double>& step) const {
    kind("reflection");
    file.write(group + "/v", step.v);
  }
  void operator()(const HadamardStep& step) const {
    kind("hadamard");
    file.attribute(group, "order", static_cast<std::int64_t>(step.order));
    file.attribute(group, "transposed", static_cast<std::int64_t>(step.transposed));
  }
  void operator()(const Scale<double>& step) const {
    kind("scale");
    file.write(group + "/factor", step.factor);
  }
  void operator()(const BlockDiagonal<double>& step) const {
    kind("block_diagonal");
    file.write(group + "/which", step.which);
    for (std::size_t i = 0; i < step.maps.size(); ++i) {
      write_map(file, fmt::format("{}/map{}", group, i), step.maps[i]);
    }
  }
  void operator()(const Kronecker<double>& step) const {
    kind("kronecker");
    file.attribute(group, "left_width", static_cast<std::int64_t>(step.left_width));
    file.attribute(group, "right_width", static_cast<std::int64_t>(step.right_width));
    if (step.left.map.size() > 0) write_map(file, group + "/left", step.left);
    if (step.right.map.size() > 0) write_map(file, group + "/right", step.right);
  }
};

Step<double> read_step(const TensorReader& file, const std::string& group) {
  const std::string kind = file.text_attribute(group, "kind");
  if (kind == "permutation") return Permutation{file.integers(group + "/index")};
  if (kind == "reflection") return Reflection<double>{file.vector<double>(group + "/v")};
  if (kind == "hadamard") {
    return HadamardStep{file.integer_attribute(group, "order"),
                        file.integer_attribute(group, "transposed") != 0};
  }
  if (kind == "scale") return Scale<double>{file.vector<double>(group + "/factor")};
  if (kind == "block_diagonal") {
    BlockDiagonal<double> step{{}, file.integers(group + "/which")};
    for (Index i = 0; file.has(fmt::format("{}/map{}", group, i)); ++i) {
      step.maps.push_back(read_map(file, fmt::format("{}/map{}", group, i)));
    }
    return step;
  }
  if (kind == "kronecker") {
    return Kronecker<double>{read_map(file, group + "/left"), read_map(file, group + "/right"),
                             file.integer_attribute(group, "left_width"),
                             file.integer_attribute(group, "right_width")};
  }
  fail("{}: unknown kind of step '{}'", place(file, group), kind);
}

void write_transform(TensorWriter& file, const std::string& group,
                     const Transform<double>& transform) {
  file.attribute(group, "width", static_cast<std::int64_t>(transform.width()));
  file.attribute(group, "steps", static_cast<std::int64_t>(transform.steps().size()));
  for (std::size_t i = 0; i < transform.steps().size(); ++i) {
    const std::string name = fmt::format("{}/step{}", group, i);
    std::visit(WriteStep{file, name}, transform.steps()[i]);
  }
}

Transform<double> read_transform(const TensorReader& file, const std::string& group) {
  Transform<double> transform(count_attribute(file, group, "width"));
  const Index steps = count_attribute(file, group, "steps");
  for (Index i = 0; i < steps; ++i) {
    const std::string name = fmt::format("{}/step{}", group, i);
    Step<double> step = read_step(file, name);
    with_context(place(file, name), [&] { transform.append(std::move(step)); });
  }
  return transform;
}

// Quantizers in a file: one group an operand.

template <class Settings, class Visit>
void for_each_operand(Settings& quant, const Visit& visit) {
  visit("weight", quant.weight);
  visit("activation", quant.activation);
  visit("queries", quant.queries);
  visit("keys", quant.keys);
  visit("values", quant.values);
}

void write_quant(TensorWriter& file, const QuantSettings& quant) {
  for_each_operand(quant, [&](const std::string& name, const QuantSpec& spec) {
    const std::string group = "quant/" + name;
    file.attribute(group, "bits", static_cast<std::int64_t>(spec.bits));
    file.attribute(group, "symmetric", static_cast<std::int64_t>(spec.symmetric));
    file.attribute(group, "rule", to_string(spec.rule));
    file.attribute(group, "group_size", static_cast<std::int64_t>(spec.group_size));
    file.attribute(group, "clip_ratio", spec.clip_ratio);
    file.attribute(group, "search", static_cast<std::int64_t>(spec.search));
  });
  file.attribute("quant", "rounding", quant.rounding);
  file.attribute("quant", "activation_levels", quant.activation_levels);
  file.attribute("quant", "attn_out_group_size",
                 static_cast<std::int64_t>(quant.attn_out_group_size));
  RoundingOptions options = quant.rounding_options;
  Fields fields;
  ruq::bind(fields, options);
  for (const Field& field : fields.all()) file.attribute("quant/options", field.name, field.get());
}

QuantSettings read_quant(const TensorReader& file) {
  QuantSettings quant;
  for_each_operand(quant, [&](const std::string& name, QuantSpec& spec) {
    const std::string group = "quant/" + name;
    spec.bits = count_attribute(file, group, "bits", 1);
    spec.symmetric = file.integer_attribute(group, "symmetric") != 0;
    const std::string rule = file.text_attribute(group, "rule");
    spec.rule = with_context(place(file, group), [&] { return grid_rule(rule); });
    spec.group_size = count_attribute(file, group, "group_size");
    spec.clip_ratio = file.real_attribute(group, "clip_ratio");
    spec.search = file.integer_attribute(group, "search") != 0;
  });
  quant.rounding = file.text_attribute("quant", "rounding");
  quant.activation_levels = file.text_attribute("quant", "activation_levels");
  quant.attn_out_group_size = count_attribute(file, "quant", "attn_out_group_size");
  Fields fields;
  ruq::bind(fields, quant.rounding_options);
  for (const Field& field : fields.all()) {
    const std::string text = file.text_attribute("quant/options", field.name);
    with_context(place(file, "quant/options/" + field.name), [&] { field.set(text); });
  }
  return quant;
}

void write_fitted(TensorWriter& file, const std::string& group, const SitePlan& site) {
  if (site.clips) {
    file.attribute(group, "clip_low", site.clips->low);
    file.attribute(group, "clip_high", site.clips->high);
  }
  if (site.levels.empty()) return;
  file.write(group + "/thresholds", site.levels.thresholds);
  file.write(group + "/levels", site.levels.levels);
}

void read_fitted(const TensorReader& file, const std::string& group, SitePlan& site) {
  if (file.has_attribute(group, "clip_low")) {
    site.clips = {file.real_attribute(group, "clip_low"), file.real_attribute(group, "clip_high")};
  }
  if (!file.has(group + "/levels")) return;
  site.levels = {file.vector<double>(group + "/thresholds"),
                 file.vector<double>(group + "/levels")};
  const auto& [thresholds, levels] = site.levels;
  if (thresholds.size() + 1 != levels.size()) {
    fail("{}: found {} thresholds, expected one less than the {} levels", place(file, group),
         thresholds.size(), levels.size());
  }
}

void write_weight_clips(TensorWriter& file, const std::string& group, const LayerPlan& layer) {
  for (const Linear linear : kLinears) {
    const auto& clips = layer.weight_clips[linear];
    if (!clips) continue;
    const std::string name = fmt::format("{}/weight_clips/{}", group, to_string(linear));
    file.write(name + "/low", clips->low);
    file.write(name + "/high", clips->high);
  }
}

void read_weight_clips(const TensorReader& file, const std::string& group, LayerPlan& layer) {
  for (const Linear linear : kLinears) {
    const std::string name = fmt::format("{}/weight_clips/{}", group, to_string(linear));
    if (!file.has(name)) continue;
    RowClips<double> clips{file.vector<double>(name + "/low"), file.vector<double>(name + "/high")};
    if (clips.low.size() != clips.high.size()) {
      fail("{}: found {} low and {} high factors, expected as many of both", place(file, name),
           clips.low.size(), clips.high.size());
    }
    layer.weight_clips[linear] = std::move(clips);
  }
}

// A record: numbers and texts as attributes, the losses as a dataset.
void write_record(TensorWriter& file, const std::string& group, const LearningRecord& record) {
  file.attribute(group, "where", record.where);
  file.attribute(group, "optimizer", record.optimizer);
  file.attribute(group, "objective", record.objective);
  file.attribute(group, "termination", record.termination);
  file.attribute(group, "initial_loss", record.initial_loss);
  file.attribute(group, "final_loss", record.final_loss);
  if (record.held_out_initial) file.attribute(group, "held_out_initial", *record.held_out_initial);
  if (record.held_out_final) file.attribute(group, "held_out_final", *record.held_out_final);
  file.attribute(group, "steps", static_cast<std::int64_t>(record.steps));
  file.attribute(group, "evaluations", static_cast<std::int64_t>(record.evaluations));
  file.attribute(group, "tokens", static_cast<std::int64_t>(record.tokens));
  file.attribute(group, "details",
                 fmt::format("{}", fmt::join(record.details | std::views::keys, "\n")));
  for (const auto& [name, value] : record.details) file.attribute(group, "detail." + name, value);
  file.write(group + "/losses", record.losses.data(), {std::ssize(record.losses)});
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

LearningRecord read_record(const TensorReader& file, const std::string& group) {
  LearningRecord record;
  record.where = file.text_attribute(group, "where");
  record.optimizer = file.text_attribute(group, "optimizer");
  record.objective = file.text_attribute(group, "objective");
  record.termination = file.text_attribute(group, "termination");
  record.initial_loss = file.real_attribute(group, "initial_loss");
  record.final_loss = file.real_attribute(group, "final_loss");
  const auto optional = [&](const char* name, std::optional<double>& value) {
    if (file.has_attribute(group, name)) value = file.real_attribute(group, name);
  };
  optional("held_out_initial", record.held_out_initial);
  optional("held_out_final", record.held_out_final);
  record.steps = file.integer_attribute(group, "steps");
  record.evaluations = file.integer_attribute(group, "evaluations");
  record.tokens = file.integer_attribute(group, "tokens");
  for (const std::string& name : lines_of(file.text_attribute(group, "details"))) {
    record.details[name] = file.real_attribute(group, "detail." + name);
  }
  const Vector<double> losses = file.vector<double>(group + "/losses");
  record.losses.assign(losses.begin(), losses.end());
  return record;
}

std::string layer_group(std::size_t layer) { return fmt::format("layers/{}", layer); }

// How many layers the file says it has, which must be how many it has.
Index layers_of(const TensorReader& file) {
  const Index said = file.integer_attribute("", "layers");
  const Index held = file.has("layers") ? std::ssize(file.children("layers")) : 0;
  if (said != held) {
    fail("{}: found layers = {}, expected {}, the number of groups in 'layers'",
         file.path().string(), said, held);
  }
  return said;
}

}  // namespace

std::string to_string(const BitWidths& w) {
  return fmt::format("W{}A{}-Q{}K{}V{}", w.weight, w.activation, w.queries, w.keys, w.values);
}

BitWidths bit_widths(const std::string& text) {
  BitWidths widths;
  const std::array<std::pair<char, Index*>, 5> parts = {{{'W', &widths.weight},
                                                         {'A', &widths.activation},
                                                         {'Q', &widths.queries},
                                                         {'K', &widths.keys},
                                                         {'V', &widths.values}}};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  bool good = true;
  for (const auto& [letter, width] : parts) {
    if (letter == 'Q') good = good && at < end && *at++ == '-';
    good = good && at < end && *at++ == letter;
    if (!good) break;
    const auto [next, problem] = std::from_chars(at, end, *width);
    good = problem == std::errc{} && ((*width >= 2 && *width <= 8) || *width == 16);
    at = next;
  }
  if (!good || at != end) {
    fail("found '{}', expected five widths of 2 to 8 or 16, such as W4A4-Q16K4V4", text);
  }
  return widths;
}

void QuantSettings::set_widths(const BitWidths& widths) {
  weight.bits = widths.weight;
  activation.bits = widths.activation;
  queries.bits = widths.queries;
  keys.bits = widths.keys;
  values.bits = widths.values;
}

bool QuantSettings::rounds() const {
  return weight.rounds() || activation.rounds() || queries.rounds() || keys.rounds() ||
         values.rounds();
}

QuantSpec QuantSettings::of(SiteKind kind) const {
  switch (kind) {
    case SiteKind::queries:
      return queries;
    case SiteKind::keys:
      return keys;
    case SiteKind::values:
      return values;
    default:
      QuantSpec spec = activation;
      if (kind == SiteKind::attn_out && attn_out_group_size > 0) {
        spec.group_size = attn_out_group_size;
      }
      return spec;
  }
}

QuantSettings QuantSettings::single(SiteKind kind) const {
  QuantSettings here = *this;
  here.activation = of(kind);
  return here;
}

Plan Plan::identity(std::string method, Index layers, const QuantSettings& quant) {
  Plan plan;
  plan.method = std::move(method);
  plan.quant = quant;
  plan.layers.resize(static_cast<std::size_t>(layers));
  return plan;
}

void Plan::note_fallback(const std::string& text) {
  if (std::find(fallbacks.begin(), fallbacks.end(), text) == fallbacks.end()) {
    fallbacks.push_back(text);
  }
}

void write_plan(const Plan& plan, TensorWriter& file) {
  file.attribute("", "format", std::string("ruquant-plan"));
  file.attribute("", "format_version", kFormatVersion);
  file.attribute("", "method", plan.method);
  file.attribute("", "layers", static_cast<std::int64_t>(plan.layers.size()));
  file.attribute("", "fallbacks", fmt::format("{}", fmt::join(plan.fallbacks, "\n")));
  write_quant(file, plan.quant);
  write_transform(file, "residual", plan.residual);
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    const LayerPlan& layer = plan.layers[l];
    for (const SiteKind kind : kLinearSites) {
      const std::string group = fmt::format("{}/{}", layer_group(l), to_string(kind));
      write_transform(file, group + "/folded", layer[kind].folded);
      write_transform(file, group + "/online", layer[kind].online);
      write_fitted(file, group, layer[kind]);
    }
    write_weight_clips(file, layer_group(l), layer);
    write_transform(file, layer_group(l) + "/query_key", layer.query_key);
  }
  for (std::size_t i = 0; i < plan.learning.size(); ++i) {
    write_record(file, fmt::format("learning/{}", i), plan.learning[i]);
  }
}

void save_plan(const Plan& plan, const std::filesystem::path& path) {
  TensorWriter file(path);
  write_plan(plan, file);
  file.commit();
}

Plan read_plan(const TensorReader& file) {
  if (!file.has_attribute("", "format") || file.text_attribute("", "format") != "ruquant-plan" ||
      file.integer_attribute("", "format_version") != kFormatVersion) {
    fail("{}: not a plan of format version {}", file.path().string(), kFormatVersion);
  }
  Plan plan = Plan::identity(file.text_attribute("", "method"), layers_of(file), read_quant(file));
  plan.fallbacks = lines_of(file.text_attribute("", "fallbacks"));
  for (Index i = 0; file.has(fmt::format("learning/{}", i)); ++i) {
    plan.learning.push_back(read_record(file, fmt::format("learning/{}", i)));
  }
  plan.residual = read_transform(file, "residual");
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    for (const SiteKind kind : kLinearSites) {
      const std::string group = fmt::format("{}/{}", layer_group(l), to_string(kind));
      plan.layers[l][kind].folded = read_transform(file, group + "/folded");
      plan.layers[l][kind].online = read_transform(file, group + "/online");
      read_fitted(file, group, plan.layers[l][kind]);
    }
    read_weight_clips(file, layer_group(l), plan.layers[l]);
    plan.layers[l].query_key = read_transform(file, layer_group(l) + "/query_key");
  }
  return plan;
}

Plan load_plan(const std::filesystem::path& path) { return read_plan(TensorReader(path)); }

std::string describe(const Plan& plan) {
  std::string text = fmt::format("{} {} residual: {}\n", plan.method,
                                 to_string(plan.quant.widths()), plan.residual.describe());
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    for (const SiteKind kind : kLinearSites) {
      text += fmt::format("layers.{}.{} folded: {} | online: {}\n", l, to_string(kind),
                          plan.layers[l][kind].folded.describe(),
                          plan.layers[l][kind].online.describe());
    }
    text += fmt::format("layers.{}.query_key {}\n", l, plan.layers[l].query_key.describe());
  }
  for (const std::string& fallback : plan.fallbacks)
    text += fmt::format("fallback: {}\n", fallback);
  return text;
}

}  // namespace ruq
