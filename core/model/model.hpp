// A decoder-only language model of the Llama family: its shape and its weights.
//
// Supported `model_type`: llama, mistral, qwen2, qwen3 (SmolLM and SmolLM2 are llama). What else a
// config.json asks for (sliding windows that would bite, other activations, other RoPE kinds,
// mixture of experts, ...) is refused by name.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"
#include "ruquant/quant/site.hpp"

namespace ruq {

/// RoPE frequency scaling. `linear`: positions divided by factor. `llama3`: wavelength-dependent
/// (Llama 3.1: low_freq_factor, high_freq_factor, original context).
struct RopeScaling {
  enum class Kind { none, linear, llama3 } kind = Kind::none;
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  Index original_context = 8192;
};

struct ModelConfig {
  std::string model_type;
  Index layers = 0;
  Index width = 0;      ///< h, the residual stream
  Index mlp_width = 0;  ///< f
  Index heads = 0;      ///< query heads
  Index kv_heads = 0;
  Index head_width = 0;  ///< e; heads·head_width need not equal width
  Index vocabulary = 0;
  Index context = 0;  ///< max_position_embeddings
  double norm_epsilon = 1e-5;
  double rope_base = 10000;
  RopeScaling rope_scaling;
  bool tied_embeddings = false;
  bool attention_bias = false;  ///< q, k, v
  bool output_bias = false;     ///< o
  bool mlp_bias = false;
  bool qk_norm = false;  ///< RMSNorm over each head of q and k, before RoPE

  Index query_width() const { return heads * head_width; }
  Index kv_width() const { return kv_heads * head_width; }
  Index in_width(Linear linear) const;
  Index out_width(Linear linear) const;
  /// Width of the tensor at a site: width, query_width (attn_out, queries), kv_width, mlp_width.
  Index site_width(SiteKind kind) const;
  bool has_bias(Linear linear) const;
  /// How many layers "the first `count`" are; 0 means all, as in every option that counts layers.
  Index first_layers(Index count) const;
};

/// Reads config.json, older and newer style (`rope_theta`/`rope_scaling`/`torch_dtype` or
/// `rope_parameters`/`dtype`). Error names the file and key, what was found and expected.
ModelConfig read_model_config(const std::filesystem::path& config_json);

template <class S>
struct LinearWeights {
  Matrix<S> weight;  ///< [out, in]
  Vector<S> bias;    ///< [out], or empty
};

template <class S>
struct LayerWeights {
  Vector<S> attn_norm;  ///< input_layernorm gain [h]
  Vector<S> mlp_norm;   ///< post_attention_layernorm gain [h]
  Vector<S> q_norm;     ///< [e] or empty
  Vector<S> k_norm;     ///< [e] or empty
  PerLinear<LinearWeights<S>> linears;

  LinearWeights<S>& operator[](Linear linear) { return linears[linear]; }
  const LinearWeights<S>& operator[](Linear linear) const { return linears[linear]; }
};

template <class S>
struct Model {
  ModelConfig config;
  Matrix<S> embedding;  ///< [vocabulary, h]
  std::vector<LayerWeights<S>> layers;
  Vector<S> final_norm;  ///< [h]
  Matrix<S> head;        ///< lm_head [vocabulary, h]; empty when tied

  const Matrix<S>& head_weight() const { return head.size() > 0 ? head : embedding; }
};

/// Loads a Hugging Face directory (config.json and safetensors). Progress through the logger.
template <class S>
Model<S> load_model(const std::filesystem::path& directory);

/// Digest of config.json and all weights; part of the trial id and of every result.
std::string model_digest(const std::filesystem::path& directory);

}  // namespace ruq
