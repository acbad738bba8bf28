#include "ruquant/model/model.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/io/safetensors.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const std::vector<std::string>& known_types() {
  static const std::vector<std::string> types = {"llama", "mistral", "qwen2", "qwen3"};
  return types;
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("{}: no such file, or it cannot be read", path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The keys of one JSON object. A key that holds null counts as absent, as in Hugging Face's own
/// readers. Errors name the key; who calls adds the file.
class Keys {
 public:
  explicit Keys(const Json& object, std::string prefix = "")
      : object_(object), prefix_(std::move(prefix)) {}

  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }

  Index count(const char* key) const {
    const Json& value = get(key, "a positive integer");
    constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
    const std::int64_t found = value.is_number_integer() ? value.get<std::int64_t>() : 0;
    if (found < 1 || found > kMost) refuse(key, value, "a positive integer");
    return found;
  }
  Index count_or(const char* key, Index initial) const { return has(key) ? count(key) : initial; }

  double positive(const char* key) const {
    const Json& value = get(key, "a positive number");
    const bool usable = value.is_number() && value.get<double>() > 0;
    if (!usable) refuse(key, value, "a positive number");
    return value.get<double>();
  }

  std::string text(const char* key) const {
    const Json& value = get(key, "text");
    if (!value.is_string()) refuse(key, value, "text");
    return value.get<std::string>();
  }

  bool flag_or(const char* key, bool initial) const {
    if (!has(key)) return initial;
    if (!object_[key].is_boolean()) refuse(key, object_[key], "true or false");
    return object_[key].get<bool>();
  }

  Keys object(const char* key) const {
    const Json& value = get(key, "an object");
    if (!value.is_object()) refuse(key, value, "an object");
    return Keys(value, prefix_ + key + ".");
  }

  const Json& get(const char* key, const char* expected) const {
    if (!has(key)) fail("{}{}: missing, expected {}", prefix_, key, expected);
    return object_[key];
  }

  [[noreturn]] void refuse(const char* key, const Json& found, const std::string& expected) const {
    fail("{}{}: found {}, expected {}", prefix_, key, found.dump(), expected);
  }
  [[noreturn]] void refuse(const char* key, const std::string& expected) const {
    refuse(key, has(key) ? object_[key] : Json(), expected);
  }

 private:
  const Json& object_;
  std::string prefix_;
};

void check_model_type(const Keys& keys) {
  const std::string type = keys.text("model_type");
  const bool known =
      std::find(known_types().begin(), known_types().end(), type) != known_types().end();
  const bool experts = type.find("moe") != std::string::npos || type == "mixtral" ||
                       keys.has("num_local_experts") || keys.has("num_experts") ||
                       keys.has("n_routed_experts");
  if (experts) {
    fail("model_type: found '{}', a mixture of experts, which is not supported (one of {})", type,
         fmt::join(known_types(), ", "));
  }
  if (!known) {
    fail("model_type: found '{}', expected one of {}{}", type, fmt::join(known_types(), ", "),
         nearest_name(type, known_types()).empty() ? "" : suggestion(type, known_types()));
  }
}

/// Refuses what would change the numbers and is not implemented.
void check_supported(const Keys& keys, const ModelConfig& config) {
  if (keys.has("hidden_act") && keys.text("hidden_act") != "silu") {
    keys.refuse("hidden_act", "\"silu\"");
  }
  if (keys.has("quantization_config")) {
    const Keys quantization = keys.object("quantization_config");
    fail("quantization_config: found weights quantized by {}, expected floating-point weights",
         quantization.has("quant_method") ? quantization.text("quant_method") : "something");
  }
  if (config.model_type == "mistral") {
    if (keys.count_or("sliding_window", config.context) < config.context) {
      keys.refuse("sliding_window",
                  fmt::format("none, or at least max_position_embeddings = {}: sliding-window "
                              "attention is not supported",
                              config.context));
    }
  } else if (keys.flag_or("use_sliding_window", false)) {
    keys.refuse("use_sliding_window", "false: sliding-window attention is not supported");
  }
  if (keys.has("layer_types")) {
    for (const Json& type : keys.get("layer_types", "a list")) {
      if (type != "full_attention") keys.refuse("layer_types", "\"full_attention\" throughout");
    }
  }
  if (keys.has("partial_rotary_factor") && keys.positive("partial_rotary_factor") != 1) {
    keys.refuse("partial_rotary_factor", "1");
  }
}

RopeScaling read_scaling(const Keys& keys) {
  RopeScaling scaling;
  const char* key = keys.has("rope_type") ? "rope_type" : "type";
  const std::string type = keys.has(key) ? keys.text(key) : "default";
  if (type == "default") return scaling;
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::linear;
    scaling.factor = keys.positive("factor");
    return scaling;
  }
  if (type != "llama3") keys.refuse(key, "default, linear or llama3");
  scaling.kind = RopeScaling::Kind::llama3;
  scaling.factor = keys.positive("factor");
  scaling.low_freq_factor = keys.positive("low_freq_factor");
  scaling.high_freq_factor = keys.positive("high_freq_factor");
  scaling.original_context = keys.count("original_max_position_embeddings");
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    keys.refuse("high_freq_factor",
                fmt::format("more than low_freq_factor = {}", scaling.low_freq_factor));
  }
  return scaling;
}

void read_rope(const Keys& keys, ModelConfig& config) {
  const bool newer = keys.has("rope_parameters");
  if (newer) {
    if (keys.has("rope_scaling")) keys.refuse("rope_scaling", "none beside rope_parameters");
    const Keys rope = keys.object("rope_parameters");
    config.rope_scaling = read_scaling(rope);
    config.rope_base = (rope.has("rope_theta") ? rope : keys).positive("rope_theta");
    if (rope.has("partial_rotary_factor") && rope.positive("partial_rotary_factor") != 1) {
      rope.refuse("partial_rotary_factor", "1");
    }
  } else if (keys.has("rope_scaling")) {
    config.rope_scaling = read_scaling(keys.object("rope_scaling"));
  }
  if (!keys.has("rope_theta")) return;  // first Llama models leave it out: 10000
  const double base = keys.positive("rope_theta");
  if (newer && base != config.rope_base) {
    keys.refuse("rope_theta", fmt::format("{} as in rope_parameters", config.rope_base));
  }
  config.rope_base = base;
}

void read_heads(const Keys& keys, ModelConfig& config) {
  config.heads = keys.count("num_attention_heads");
  // Where a key may be left out, the Hugging Face defaults of Llama apply. Those of the others
  // are fixed numbers that fit one model alone, so there the key is required.
  config.kv_heads = config.model_type == "llama"
                        ? keys.count_or("num_key_value_heads", config.heads)
                        : keys.count("num_key_value_heads");
  if (config.heads % config.kv_heads != 0) {
    keys.refuse("num_key_value_heads",
                fmt::format("a divisor of num_attention_heads = {}", config.heads));
  }
  if (keys.has("head_dim") || config.model_type == "qwen3") {
    config.head_width = keys.count("head_dim");
    if (config.head_width % 2 != 0) keys.refuse("head_dim", "an even number");
    return;
  }
  if (config.width % (2 * config.heads) != 0) {
    keys.refuse("hidden_size", fmt::format("a multiple of 2·num_attention_heads = {}, since "
                                           "head_dim is not given",
                                           2 * config.heads));
  }
  config.head_width = config.width / config.heads;
}

void read_biases(const Keys& keys, ModelConfig& config) {
  const std::string& type = config.model_type;
  if (type == "llama" || type == "qwen3") {
    config.attention_bias = config.output_bias = keys.flag_or("attention_bias", false);
  }
  if (type == "qwen2") config.attention_bias = true;
  if (type == "llama") config.mlp_bias = keys.flag_or("mlp_bias", false);
  config.qk_norm = type == "qwen3";
}

ModelConfig parse_config(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) fail("not valid JSON, or not an object");
  const Keys keys(json);
  check_model_type(keys);
  ModelConfig config;
  config.model_type = keys.text("model_type");
  config.layers = keys.count("num_hidden_layers");
  config.width = keys.count("hidden_size");
  config.mlp_width = keys.count("intermediate_size");
  config.vocabulary = keys.count("vocab_size");
  config.context = keys.count("max_position_embeddings");
  config.norm_epsilon = keys.positive("rms_norm_eps");
  config.tied_embeddings = keys.flag_or("tie_word_embeddings", false);
  read_heads(keys, config);
  read_rope(keys, config);
  read_biases(keys, config);
  check_supported(keys, config);
  return config;
}

std::string block_of(Linear linear) {
  const SiteKind site = input_site(linear);
  return site == SiteKind::attn_in || site == SiteKind::attn_out ? "self_attn" : "mlp";
}

/// Reads tensors by name and remembers which, so that a file which holds more is noticed.
class TensorSource {
 public:
  explicit TensorSource(const fs::path& directory) : directory_(directory), file_(directory) {}

  template <class S>
  Matrix<S> matrix(const std::string& name, Index rows, Index cols) {
    used_.insert(name);
    return file_.matrix<S>(name, rows, cols);
  }
  template <class S>
  Vector<S> vector(const std::string& name, Index size) {
    used_.insert(name);
    return file_.vector<S>(name, size);
  }

  /// A bias or norm that the config does not speak of would be left out in silence: Error.
  void check_all_used(bool tied) const {
    std::vector<std::string> left;
    for (const std::string& name : file_.names()) {
      const bool derived = name.ends_with(".rotary_emb.inv_freq");
      const bool copy = tied && name == "lm_head.weight";
      if (!derived && !copy && !used_.contains(name)) left.push_back(name);
    }
    if (left.empty()) return;
    fail("{}: config.json does not account for tensor '{}' ({} such in all)", directory_.string(),
         left.front(), left.size());
  }

 private:
  fs::path directory_;
  Safetensors file_;
  std::set<std::string> used_;
};

template <class S>
LayerWeights<S> load_layer(TensorSource& source, const ModelConfig& config, Index index) {
  const std::string prefix = fmt::format("model.layers.{}.", index);
  LayerWeights<S> layer;
  layer.attn_norm = source.vector<S>(prefix + "input_layernorm.weight", config.width);
  layer.mlp_norm = source.vector<S>(prefix + "post_attention_layernorm.weight", config.width);
  if (config.qk_norm) {
    layer.q_norm = source.vector<S>(prefix + "self_attn.q_norm.weight", config.head_width);
    layer.k_norm = source.vector<S>(prefix + "self_attn.k_norm.weight", config.head_width);
  }
  for (const Linear linear : kLinears) {
    const std::string name = fmt::format("{}{}.{}", prefix, block_of(linear), to_string(linear));
    layer[linear].weight =
        source.matrix<S>(name + ".weight", config.out_width(linear), config.in_width(linear));
    if (config.has_bias(linear)) {
      layer[linear].bias = source.vector<S>(name + ".bias", config.out_width(linear));
    }
  }
  return layer;
}

}  // namespace

Index ModelConfig::in_width(Linear linear) const { return site_width(input_site(linear)); }

Index ModelConfig::out_width(Linear linear) const {
  switch (linear) {
    case Linear::q_proj:
      return query_width();
    case Linear::k_proj:
    case Linear::v_proj:
      return kv_width();
    case Linear::gate_proj:
    case Linear::up_proj:
      return mlp_width;
    case Linear::o_proj:
    case Linear::down_proj:
      return width;
  }
  fail("unknown linear {}", static_cast<int>(linear));
}

Index ModelConfig::site_width(SiteKind kind) const {
  switch (kind) {
    case SiteKind::attn_in:
    case SiteKind::mlp_in:
      return width;
    case SiteKind::attn_out:
    case SiteKind::queries:
      return query_width();
    case SiteKind::keys:
    case SiteKind::values:
      return kv_width();
    case SiteKind::mlp_out:
      return mlp_width;
  }
  fail("unknown site {}", static_cast<int>(kind));
}

Index ModelConfig::first_layers(Index count) const {
  return count == 0 ? layers : std::min(count, layers);
}

bool ModelConfig::has_bias(Linear linear) const {
  switch (input_site(linear)) {
    case SiteKind::attn_in:
      return attention_bias;
    case SiteKind::attn_out:
      return output_bias;
    default:
      return mlp_bias;
  }
}

ModelConfig read_model_config(const fs::path& config_json) {
  const std::string text = read_text(config_json);
  return with_context(config_json.string(), [&] { return parse_config(text); });
}

template <class S>
Model<S> load_model(const fs::path& directory) {
  const double start = now_seconds();
  Model<S> model;
  model.config = read_model_config(directory / "config.json");
  const ModelConfig& config = model.config;
  TensorSource source(directory);
  model.embedding = source.matrix<S>("model.embed_tokens.weight", config.vocabulary, config.width);
  for (Index l = 0; l < config.layers; ++l)
    model.layers.push_back(load_layer<S>(source, config, l));
  model.final_norm = source.vector<S>("model.norm.weight", config.width);
  if (!config.tied_embeddings) {
    model.head = source.matrix<S>("lm_head.weight", config.vocabulary, config.width);
  }
  source.check_all_used(config.tied_embeddings);
  logger().info("{}: {} with {} layers of width {} loaded in {:.1f} s", directory.string(),
                config.model_type, config.layers, config.width, now_seconds() - start);
  return model;
}

std::string model_digest(const fs::path& directory) {
  const std::uint64_t config = hash_text(read_text(directory / "config.json"));
  const std::string weights = Safetensors(directory).digest();
  return fmt::format("{:016x}", hash_bytes(weights.data(), weights.size(), config));
}

template Model<float> load_model(const fs::path&);
template Model<double> load_model(const fs::path&);

}  // namespace ruq
