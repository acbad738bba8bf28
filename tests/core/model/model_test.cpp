#include "ruquant/model/model.hpp"

#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "ruquant/io/safetensors.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

using namespace ruq;
using Json = nlohmann::json;
using ruq::test::check_error;
using ruq::test::TemporaryFolder;
using ruq::test::write_bytes;

namespace {

/// Two layers, width 12, heads 3 of width 4 over one key-value head, MLP 20, vocabulary 11.
Json small_config(const std::string& type = "llama") {
  return {{"model_type", type},     {"hidden_size", 12},        {"intermediate_size", 20},
          {"num_hidden_layers", 2}, {"num_attention_heads", 3}, {"num_key_value_heads", 1},
          {"head_dim", 4},          {"vocab_size", 11},         {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-6},   {"hidden_act", "silu"}};
}

Json with(Json config, const Json& changes) {
  config.update(changes);
  return config;
}

Json without(Json config, const std::string& key) {
  config.erase(key);
  return config;
}

ModelConfig parse(const Json& config) {
  const TemporaryFolder folder;
  write_bytes(folder / "config.json", config.dump());
  return read_model_config(folder / "config.json");
}

/// The config is refused with these words and the name of the file.
void check_refused(const Json& config, std::initializer_list<std::string> words) {
  check_error([&] { parse(config); }, {"config.json"});
  check_error([&] { parse(config); }, words);
}

/// Tensors of a directory, each filled with its own numbers.
struct Weights {
  std::map<std::string, Matrix<float>> matrices;
  std::map<std::string, Vector<float>> vectors;

  void add(const std::string& name, Index rows, Index cols) {
    const float start = static_cast<float>(matrices.size()) + 0.25F;
    matrices[name] = Matrix<float>::Constant(rows, cols, start);
    matrices[name](0, cols - 1) = -start;
  }
  void add(const std::string& name, Index size) {
    vectors[name] = Vector<float>::Constant(size, static_cast<float>(vectors.size()) + 0.5F);
  }
};

/// Names and shapes as in Hugging Face's Llama, written out for small_config().
Weights llama_weights() {
  Weights weights;
  weights.add("model.embed_tokens.weight", 11, 12);
  weights.add("lm_head.weight", 11, 12);
  weights.add("model.norm.weight", 12);
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    weights.add(layer + "input_layernorm.weight", 12);
    weights.add(layer + "post_attention_layernorm.weight", 12);
    weights.add(layer + "self_attn.q_proj.weight", 12, 12);
    weights.add(layer + "self_attn.k_proj.weight", 4, 12);
    weights.add(layer + "self_attn.v_proj.weight", 4, 12);
    weights.add(layer + "self_attn.o_proj.weight", 12, 12);
    weights.add(layer + "mlp.gate_proj.weight", 20, 12);
    weights.add(layer + "mlp.up_proj.weight", 20, 12);
    weights.add(layer + "mlp.down_proj.weight", 12, 20);
  }
  return weights;
}

void write_model(const TemporaryFolder& folder, const Json& config, const Weights& weights) {
  write_bytes(folder / "config.json", config.dump());
  write_safetensors(folder / "model.safetensors", weights.matrices, weights.vectors);
}

void check_load_error(const Json& config, const Weights& weights,
                      std::initializer_list<std::string> words) {
  const TemporaryFolder folder;
  write_model(folder, config, weights);
  check_error([&] { load_model<float>(folder.path()); }, {folder.path().string()});
  check_error([&] { load_model<float>(folder.path()); }, words);
}

}  // namespace

TEST_CASE("config: the numbers of a Llama, and what may be left out") {
  const ModelConfig config = parse(small_config());
  CHECK(config.model_type == "llama");
  CHECK(config.layers == 2);
  CHECK(config.width == 12);
  CHECK(config.mlp_width == 20);
  CHECK(config.heads == 3);
  CHECK(config.kv_heads == 1);
  CHECK(config.head_width == 4);
  CHECK(config.vocabulary == 11);
  CHECK(config.context == 64);
  CHECK(config.norm_epsilon == 1e-6);
  CHECK(config.rope_base == 10000);
  CHECK(config.rope_scaling.kind == RopeScaling::Kind::none);
  CHECK_FALSE(config.tied_embeddings);
  CHECK_FALSE(config.attention_bias);
  CHECK_FALSE(config.mlp_bias);
  CHECK_FALSE(config.qk_norm);
  CHECK(parse(without(small_config(), "head_dim")).head_width == 4);
  CHECK(parse(with(small_config(), {{"head_dim", nullptr}})).head_width == 4);
  CHECK(parse(with(small_config(), {{"head_dim", 6}})).query_width() == 18);
  CHECK(parse(without(small_config(), "num_key_value_heads")).kv_heads == 3);
  CHECK(parse(with(small_config(), {{"tie_word_embeddings", true}})).tied_embeddings);
}

TEST_CASE("config: older and newer style say the same") {
  const Json scaling = {{"factor", 8.0},
                        {"low_freq_factor", 1.5},
                        {"high_freq_factor", 4.5},
                        {"original_max_position_embeddings", 32}};
  const Json older =
      with(small_config(), {{"rope_theta", 5e5},
                            {"torch_dtype", "float16"},
                            {"rope_scaling", with(scaling, {{"rope_type", "llama3"}})}});
  const Json newer =
      with(small_config(),
           {{"dtype", "float16"},
            {"rope_parameters", with(scaling, {{"rope_type", "llama3"}, {"rope_theta", 5e5}})}});
  for (const Json& style : {older, newer}) {
    const ModelConfig config = parse(style);
    CHECK(config.rope_base == 5e5);
    CHECK(config.rope_scaling.kind == RopeScaling::Kind::llama3);
    CHECK(config.rope_scaling.factor == 8);
    CHECK(config.rope_scaling.low_freq_factor == 1.5);
    CHECK(config.rope_scaling.high_freq_factor == 4.5);
    CHECK(config.rope_scaling.original_context == 32);
  }
  const ModelConfig linear =
      parse(with(small_config(), {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}));
  CHECK(linear.rope_scaling.kind == RopeScaling::Kind::linear);
  CHECK(linear.rope_scaling.factor == 2);
  const ModelConfig plain = parse(with(small_config(), {{"rope_scaling", nullptr}}));
  CHECK(plain.rope_scaling.kind == RopeScaling::Kind::none);
  const Json defaults = {{"rope_type", "default"}, {"rope_theta", 1e6}};
  CHECK(parse(with(small_config(), {{"rope_parameters", defaults}})).rope_base == 1e6);
}

TEST_CASE("config: what each family has of its own") {
  const ModelConfig biased =
      parse(with(small_config(), {{"attention_bias", true}, {"mlp_bias", true}}));
  for (const Linear linear : kLinears) CHECK(biased.has_bias(linear));
  const ModelConfig qwen2 = parse(small_config("qwen2"));
  CHECK(qwen2.has_bias(Linear::v_proj));
  CHECK_FALSE(qwen2.has_bias(Linear::o_proj));
  CHECK_FALSE(qwen2.has_bias(Linear::up_proj));
  CHECK_FALSE(qwen2.qk_norm);
  const ModelConfig qwen3 = parse(small_config("qwen3"));
  CHECK(qwen3.qk_norm);
  CHECK_FALSE(qwen3.has_bias(Linear::q_proj));
  CHECK(parse(with(small_config("qwen3"), {{"attention_bias", true}})).has_bias(Linear::o_proj));
  CHECK_FALSE(parse(small_config("mistral")).has_bias(Linear::q_proj));
}

TEST_CASE("config: widths of sites and linears") {
  const ModelConfig config = parse(with(small_config(), {{"head_dim", 6}}));
  CHECK(config.site_width(SiteKind::attn_in) == 12);
  CHECK(config.site_width(SiteKind::attn_out) == 18);
  CHECK(config.site_width(SiteKind::mlp_in) == 12);
  CHECK(config.site_width(SiteKind::mlp_out) == 20);
  CHECK(config.site_width(SiteKind::queries) == 18);
  CHECK(config.site_width(SiteKind::keys) == 6);
  CHECK(config.site_width(SiteKind::values) == 6);
  CHECK(config.in_width(Linear::o_proj) == 18);
  CHECK(config.out_width(Linear::o_proj) == 12);
  CHECK(config.out_width(Linear::q_proj) == 18);
  CHECK(config.out_width(Linear::v_proj) == 6);
  CHECK(config.out_width(Linear::gate_proj) == 20);
  CHECK(config.in_width(Linear::down_proj) == 20);
}

TEST_CASE("config: missing and wrong keys are refused by name") {
  for (const std::string key :
       {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps"}) {
    check_refused(without(small_config(), key), {key, "missing"});
    check_refused(with(small_config(), {{key, Json::array()}}), {key, "[]", "expected"});
  }
  check_refused(with(small_config(), {{"hidden_size", 12.5}}), {"hidden_size", "12.5", "integer"});
  check_refused(with(small_config(), {{"hidden_size", -12}}), {"hidden_size", "-12"});
  check_refused(with(small_config(), {{"vocab_size", std::uint64_t{1} << 40}}), {"vocab_size"});
  check_refused(with(small_config(), {{"tie_word_embeddings", "yes"}}),
                {"tie_word_embeddings", "\"yes\"", "true or false"});
  check_refused(with(small_config(), {{"num_key_value_heads", 2}}), {"num_key_value_heads", "2"});
  check_refused(with(small_config(), {{"head_dim", 5}}), {"head_dim", "even"});
  check_refused(with(without(small_config(), "head_dim"), {{"hidden_size", 13}}),
                {"hidden_size", "13", "head_dim"});
  check_refused(without(small_config("qwen3"), "head_dim"), {"head_dim", "missing"});
  check_refused(without(small_config("mistral"), "num_key_value_heads"),
                {"num_key_value_heads", "missing"});
  const TemporaryFolder folder;
  check_error([&] { read_model_config(folder / "config.json"); }, {"config.json", "no such file"});
  write_bytes(folder / "config.json", "{\"model_type\": ");
  check_error([&] { read_model_config(folder / "config.json"); }, {"config.json", "JSON"});
}

TEST_CASE("config: what is not supported is refused by name") {
  check_refused(small_config("qwen22"), {"model_type", "'qwen22'", "did you mean 'qwen2'"});
  check_refused(small_config("something_else_altogether"), {"model_type", "llama, mistral"});
  check_refused(small_config("qwen3_moe"), {"qwen3_moe", "mixture of experts"});
  check_refused(small_config("mixtral"), {"mixtral", "mixture of experts"});
  check_refused(with(small_config(), {{"num_local_experts", 8}}), {"mixture of experts"});
  check_refused(with(small_config(), {{"hidden_act", "gelu"}}), {"hidden_act", "gelu", "silu"});
  check_refused(with(small_config(), {{"quantization_config", {{"quant_method", "gptq"}}}}),
                {"quantization_config", "gptq"});
  check_refused(with(small_config("qwen2"), {{"use_sliding_window", true}}),
                {"use_sliding_window", "true"});
  check_refused(with(small_config("mistral"), {{"sliding_window", 63}}),
                {"sliding_window", "63", "64"});
  CHECK(parse(with(small_config("mistral"), {{"sliding_window", 64}})).context == 64);
  CHECK(parse(with(small_config("qwen2"), {{"sliding_window", 8}, {"use_sliding_window", false}}))
            .context == 64);
  check_refused(
      with(small_config("qwen3"), {{"layer_types", {"full_attention", "sliding_attention"}}}),
      {"layer_types", "sliding_attention"});
  check_refused(with(small_config(), {{"partial_rotary_factor", 0.5}}),
                {"partial_rotary_factor", "0.5"});
}

TEST_CASE("config: other kinds of RoPE are refused by name") {
  for (const std::string type : {"yarn", "dynamic", "longrope", "mrope"}) {
    check_refused(with(small_config(), {{"rope_scaling", {{"type", type}, {"factor", 2}}}}),
                  {"rope_scaling.type", type, "llama3"});
    const Json newer = {{"rope_type", type}, {"rope_theta", 1e4}};
    check_refused(with(small_config(), {{"rope_parameters", newer}}),
                  {"rope_parameters.rope_type", type});
  }
  check_refused(with(small_config(), {{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}}}}),
                {"rope_scaling.low_freq_factor", "missing"});
  check_refused(with(small_config(), {{"rope_scaling", {{"rope_type", "linear"}}}}),
                {"rope_scaling.factor", "missing"});
  check_refused(with(small_config(), {{"rope_scaling", "linear"}}), {"rope_scaling", "an object"});
  check_refused(with(small_config(), {{"rope_parameters", {{"rope_type", "default"}}}}),
                {"rope_theta", "missing"});
  const Json newer = {{"rope_type", "default"}, {"rope_theta", 1e4}};
  check_refused(with(small_config(), {{"rope_parameters", newer}, {"rope_theta", 5e4}}),
                {"rope_theta", "50000", "10000"});
}

TEST_CASE("loading: every tensor lands in its place") {
  const TemporaryFolder folder;
  const Weights weights = llama_weights();
  write_model(folder, small_config(), weights);
  const auto model = load_model<double>(folder.path());
  const auto expect = [&](const std::string& name) -> Matrix<double> {
    return weights.matrices.at(name).cast<double>();
  };
  CHECK(model.embedding == expect("model.embed_tokens.weight"));
  CHECK(model.head == expect("lm_head.weight"));
  CHECK(&model.head_weight() == &model.head);
  CHECK(model.final_norm == weights.vectors.at("model.norm.weight").cast<double>());
  REQUIRE(model.layers.size() == 2);
  const LayerWeights<double>& layer = model.layers[1];
  CHECK(layer.attn_norm ==
        weights.vectors.at("model.layers.1.input_layernorm.weight").cast<double>());
  CHECK(layer.mlp_norm ==
        weights.vectors.at("model.layers.1.post_attention_layernorm.weight").cast<double>());
  const std::map<Linear, std::string> names = {
      {Linear::q_proj, "self_attn.q_proj"}, {Linear::k_proj, "self_attn.k_proj"},
      {Linear::v_proj, "self_attn.v_proj"}, {Linear::o_proj, "self_attn.o_proj"},
      {Linear::gate_proj, "mlp.gate_proj"}, {Linear::up_proj, "mlp.up_proj"},
      {Linear::down_proj, "mlp.down_proj"}};
  for (const auto& [linear, name] : names) {
    CHECK(layer[linear].weight == expect("model.layers.1." + name + ".weight"));
    CHECK(layer[linear].bias.size() == 0);
  }
  CHECK(layer.q_norm.size() == 0);
}

TEST_CASE("loading: tied heads, biases and norms of queries and keys") {
  const TemporaryFolder folder;
  Weights weights = llama_weights();
  weights.matrices.erase("lm_head.weight");
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    weights.add(layer + "self_attn.q_norm.weight", 4);
    weights.add(layer + "self_attn.k_norm.weight", 4);
    weights.add(layer + "self_attn.q_proj.bias", 12);
    weights.add(layer + "self_attn.k_proj.bias", 4);
    weights.add(layer + "self_attn.v_proj.bias", 4);
    weights.add(layer + "self_attn.o_proj.bias", 12);
  }
  const Json config =
      with(small_config("qwen3"), {{"attention_bias", true}, {"tie_word_embeddings", true}});
  write_model(folder, config, weights);
  const auto model = load_model<float>(folder.path());
  CHECK(model.head.size() == 0);
  CHECK(&model.head_weight() == &model.embedding);
  const LayerWeights<float>& layer = model.layers[1];
  CHECK(layer.q_norm == weights.vectors.at("model.layers.1.self_attn.q_norm.weight"));
  CHECK(layer.k_norm == weights.vectors.at("model.layers.1.self_attn.k_norm.weight"));
  CHECK(layer[Linear::k_proj].bias == weights.vectors.at("model.layers.1.self_attn.k_proj.bias"));
  CHECK(layer[Linear::o_proj].bias == weights.vectors.at("model.layers.1.self_attn.o_proj.bias"));
  CHECK(layer[Linear::up_proj].bias.size() == 0);
}

TEST_CASE("loading: what is missing, too much, misshapen or not finite is named") {
  Weights weights = llama_weights();
  weights.matrices.erase("model.layers.1.mlp.up_proj.weight");
  check_load_error(small_config(), weights, {"'model.layers.1.mlp.up_proj.weight'"});
  weights = llama_weights();
  weights.matrices.erase("lm_head.weight");
  check_load_error(small_config(), weights, {"'lm_head.weight'"});
  weights = llama_weights();
  weights.add("model.layers.0.self_attn.k_proj.weight", 12, 12);
  check_load_error(small_config(), weights,
                   {"'model.layers.0.self_attn.k_proj.weight'", "[12, 12]", "[4, 12]"});
  weights = llama_weights();
  weights.add("model.layers.0.self_attn.q_proj.bias", 12);
  check_load_error(small_config(), weights,
                   {"1 such", "'model.layers.0.self_attn.q_proj.bias'", "config.json"});
  check_load_error(with(small_config(), {{"num_hidden_layers", 1}}), llama_weights(),
                   {"9 such", "'model.layers.1."});
  weights = llama_weights();
  weights.matrices["model.layers.1.mlp.down_proj.weight"](3, 2) =
      std::numeric_limits<float>::quiet_NaN();
  check_load_error(small_config(), weights,
                   {"'model.layers.1.mlp.down_proj.weight'", "nan", "[3, 2]"});
  const TemporaryFolder folder;
  write_bytes(folder / "config.json", small_config().dump());
  check_error([&] { load_model<float>(folder.path()); },
              {folder.path().string(), "model.safetensors"});
}

TEST_CASE("loading: copies that a tied or older file may carry are left alone") {
  const TemporaryFolder folder;
  Weights weights = llama_weights();
  weights.add("model.layers.0.self_attn.rotary_emb.inv_freq", 2);
  write_model(folder, with(small_config(), {{"tie_word_embeddings", true}}), weights);
  CHECK(load_model<float>(folder.path()).head.size() == 0);
}

TEST_CASE("the digest of a model follows its config and its weights") {
  const TemporaryFolder folder;
  Weights weights = llama_weights();
  write_model(folder, small_config(), weights);
  const std::string first = model_digest(folder.path());
  CHECK(first.size() == 16);
  CHECK(model_digest(folder.path()) == first);
  write_model(folder, with(small_config(), {{"rms_norm_eps", 1e-5}}), weights);
  CHECK(model_digest(folder.path()) != first);
  weights.matrices["lm_head.weight"](3, 3) += 1;
  write_model(folder, small_config(), weights);
  CHECK(model_digest(folder.path()) != first);
}
