#include "support/tiny_model.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "ruquant/base/rng.hpp"

namespace ruq::test {
namespace {

ModelConfig base_config() {
  ModelConfig config;
  config.model_type = "llama";
  config.layers = 2;
  config.vocabulary = 50;
  config.context = 64;
  return config;
}

Matrix<double> gaussian_weight(Index out, Index in, Stream& stream) {
  return stream.normal(out, in) / std::sqrt(static_cast<double>(in));
}

// Gains around one with two large ones, as trained norms have.
Vector<double> norm_gain(Index width, Stream& stream) {
  Vector<double> gain = 1 + 0.2 * stream.normal(width, 1).array();
  gain(1 % width) *= 8;
  gain((width - 2) % width) *= -5;
  return gain;
}

template <class S>
LinearWeights<S> cast_linear(const LinearWeights<double>& from) {
  return {from.weight.cast<S>(), from.bias.cast<S>()};
}

LayerWeights<double> tiny_layer(const ModelConfig& config, Stream& stream) {
  LayerWeights<double> layer;
  layer.attn_norm = norm_gain(config.width, stream);
  layer.mlp_norm = norm_gain(config.width, stream);
  if (config.qk_norm) {
    layer.q_norm = norm_gain(config.head_width, stream);
    layer.k_norm = norm_gain(config.head_width, stream);
  }
  for (const Linear linear : kLinears) {
    LinearWeights<double>& weights = layer[linear];
    weights.weight = gaussian_weight(config.out_width(linear), config.in_width(linear), stream);
    if (config.has_bias(linear)) weights.bias = 0.3 * stream.normal(config.out_width(linear), 1);
  }
  layer[Linear::up_proj].weight.row(3) *= 12;
  layer[Linear::up_proj].weight.row(config.mlp_width - 4) *= 6;
  layer[Linear::v_proj].weight.row(1) *= 9;
  return layer;
}

}  // namespace

std::vector<TinyShape> tiny_shapes() {
  const auto shape = [](const char* name, const auto& change) {
    TinyShape result{name, base_config()};
    change(result.config);
    return result;
  };
  const auto dimensions = [](ModelConfig& c, Index width, Index mlp_width, Index heads,
                             Index kv_heads, Index head_width) {
    c.width = width, c.mlp_width = mlp_width, c.heads = heads;
    c.kv_heads = kv_heads, c.head_width = head_width;
  };
  return {shape("multi-head", [&](ModelConfig& c) { dimensions(c, 32, 48, 4, 4, 8); }),
          shape("grouped", [&](ModelConfig& c) { dimensions(c, 36, 96, 9, 3, 4); }),
          shape("biases",
                [&](ModelConfig& c) {
                  dimensions(c, 24, 40, 2, 1, 12);
                  c.model_type = "qwen2";
                  c.attention_bias = c.output_bias = c.mlp_bias = true;
                }),
          shape("normed heads",
                [&](ModelConfig& c) {
                  dimensions(c, 40, 80, 4, 2, 16);
                  c.model_type = "qwen3";
                  c.qk_norm = c.tied_embeddings = true;
                }),
          shape("odd factors", [&](ModelConfig& c) { dimensions(c, 46, 44, 3, 1, 22); })};
}

TinyShape odd_widths_shape() {
  TinyShape shape{"odd widths", base_config()};
  ModelConfig& c = shape.config;
  c.width = 45, c.mlp_width = 35, c.heads = 3, c.kv_heads = 1, c.head_width = 10;
  c.attention_bias = c.output_bias = c.mlp_bias = c.qk_norm = true;
  return shape;
}

std::vector<TinyShape> shapes_with_odd_widths() {
  std::vector<TinyShape> shapes = tiny_shapes();
  shapes.push_back(odd_widths_shape());
  return shapes;
}

TinyShape full_width_shape() {
  TinyShape shape{"full width", base_config()};
  ModelConfig& c = shape.config;
  c.layers = 1;
  c.width = 576, c.mlp_width = 1536, c.heads = 9, c.kv_heads = 3, c.head_width = 64;
  c.tied_embeddings = true;
  return shape;
}

ModelConfig tiny_config(const std::string& name) {
  for (const TinyShape& shape : shapes_with_odd_widths()) {
    if (shape.name == name) return shape.config;
  }
  FAIL("no tiny shape " << name);
  return {};
}

Model<double> tiny_model(const ModelConfig& config, std::uint64_t seed) {
  Stream stream(seed, "tiny model");
  Model<double> model;
  model.config = config;
  model.embedding = stream.normal(config.vocabulary, config.width);
  model.embedding.col(2) *= 10;
  model.embedding.col(config.width - 1) *= 5;
  for (Index l = 0; l < config.layers; ++l) model.layers.push_back(tiny_layer(config, stream));
  model.final_norm = norm_gain(config.width, stream);
  if (!config.tied_embeddings) {
    model.head = gaussian_weight(config.vocabulary, config.width, stream);
  }
  return model;
}

Model<float> as_float(const Model<double>& model) {
  Model<float> result;
  result.config = model.config;
  result.embedding = model.embedding.cast<float>();
  result.final_norm = model.final_norm.cast<float>();
  result.head = model.head.cast<float>();
  for (const LayerWeights<double>& from : model.layers) {
    LayerWeights<float> layer;
    layer.attn_norm = from.attn_norm.cast<float>();
    layer.mlp_norm = from.mlp_norm.cast<float>();
    layer.q_norm = from.q_norm.cast<float>();
    layer.k_norm = from.k_norm.cast<float>();
    for (const Linear linear : kLinears) layer[linear] = cast_linear<float>(from[linear]);
    result.layers.push_back(std::move(layer));
  }
  return result;
}

std::vector<std::int32_t> tiny_tokens(Index count, const ModelConfig& config, std::uint64_t seed) {
  Stream stream(seed, "tiny tokens");
  std::vector<std::int32_t> ids;
  for (const double u : stream.uniform(count)) {
    ids.push_back(static_cast<std::int32_t>(u * static_cast<double>(config.vocabulary)));
  }
  return ids;
}

}  // namespace ruq::test
