// Seeded random decoders small enough for a unit test, with the outlier channels that make
// quantization hard, and the matrix of shapes over which the laws of methods run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ruquant/model/model.hpp"

namespace ruq::test {

/// A shape and what is special about it.
struct TinyShape {
  std::string name;
  ModelConfig config;
};

/// Multi-head; grouped heads whose number has no Hadamard matrix (the default model's 9 over 3 at
/// width 36); biases on every linear; q/k norms with heads·e ≠ width and tied embeddings; widths
/// 46 = 2·23, 44 = 4·11 and heads of 22 = 2·11, none of which has a Hadamard matrix.
std::vector<TinyShape> tiny_shapes();

/// One layer of the default model's widths, 576 and 1536 with 9 heads of 64 over 3, and the small
/// vocabulary of the others: for what must hold at full width but need not be checked often.
TinyShape full_width_shape();

/// Odd widths, 45 and 35, with three query heads of 10 over one of keys and values, biases and
/// normed heads: no Hadamard matrix, no halves and no factor of two anywhere but in a head.
TinyShape odd_widths_shape();

/// tiny_shapes() and odd_widths_shape(), for what takes any width.
std::vector<TinyShape> shapes_with_odd_widths();

/// The shape of shapes_with_odd_widths() with this name.
ModelConfig tiny_config(const std::string& name);

/// Gaussian weights of about unit gain. Every norm has gains around one, two of them large; two
/// embedding columns, two up_proj rows and one v_proj row are outliers.
Model<double> tiny_model(const ModelConfig& config, std::uint64_t seed = 1);

/// The same weights rounded to float.
Model<float> as_float(const Model<double>& model);

/// Uniformly drawn token ids.
std::vector<std::int32_t> tiny_tokens(Index count, const ModelConfig& config,
                                      std::uint64_t seed = 1);

}  // namespace ruq::test
