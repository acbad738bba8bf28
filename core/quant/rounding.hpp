// Weight rounding: a registry of its own. A rounding takes the weight of one linear in the basis in
// which it is stored and gives it back as it will act, so it composes with every rotation. Some
// need the Hessian of the layer's inputs in that same basis, factored: linears with the same inputs
// share it.
//
//   rtn            round to nearest; with QuantSpec::search on the range-searched grid
//   gptq           column sweep with error feedback (gptq.hpp)
//   septq          the same with a share of the weights kept in floating point (septq.hpp)
//   centroid       the bins of rtn, each with the mean of its values (row_levels.hpp)
//   bcq            plain alternating binary coding (binary_coding.hpp)
//   lloyd_max      the best 2^k levels of each row or group (row_levels.hpp)
//   uniquanf_init  UniQuanF's unified start, before any learning (uniquanf.hpp)
//   uniquanf, flexround
//                  learned block by block; only the executor can run them, with a learner
//
// Factors of the ends of rows that a method learned (`clips`) narrow the grid of every rounding
// that has one. bcq and lloyd_max have levels and no ends: there they act only under rules that
// clamp the row first (clamp_rows.hpp).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ruquant/base/fields.hpp"
#include "ruquant/base/matrix.hpp"
#include "ruquant/quant/binary_coding.hpp"
#include "ruquant/quant/gptq.hpp"
#include "ruquant/quant/hessian.hpp"
#include "ruquant/quant/quantizer.hpp"
#include "ruquant/quant/septq.hpp"
#include "ruquant/quant/uniquanf.hpp"

namespace ruq {

/// Of the roundings that learn from samples of a block (learn/learned_rounding.hpp). The published
/// schedule is 20 epochs over 128 windows of 2048 tokens.
struct BlockLearningOptions {
  Index epochs = 2;                   ///< passes over the training windows
  double learning_rate = 5e-3;        ///< of the transform: d1, d2, d3
  double level_learning_rate = 5e-4;  ///< of the levels: alpha
  double mixing = 0.5;                ///< share of input entries taken from the float stream
  Index blocks = 0;    ///< blocks that are learned; the rest keep their start; 0: all
  Index held_out = 2;  ///< calibration windows kept out of learning
  friend bool operator==(const BlockLearningOptions&, const BlockLearningOptions&) = default;
};

struct RoundingOptions {
  /// What Hessians are taken of: inputs as they are ("float", as QuaRot's code) or rounded
  /// ("quantized").
  std::string hessian_inputs = "float";
  GptqOptions gptq;  ///< also the sweep of septq
  SeptqOptions septq;
  BinaryCodingOptions bcq;
  UniquanfOptions uniquanf;
  BlockLearningOptions learning;
  friend bool operator==(const RoundingOptions&, const RoundingOptions&) = default;
};

/// Fields "<prefix>gptq.damping" and so on. Call it as ruq::bind: with a std::string for a prefix
/// an unqualified call finds std::bind instead, which does nothing.
void bind(Fields& fields, RoundingOptions& options, const std::string& prefix = "");

template <class S>
struct RoundingInputs {
  const Matrix<S>& weight;  ///< [out, in]
  const QuantSpec& spec;
  const HessianFactor* hessian = nullptr;  ///< of the inputs (hessian.hpp), where it is needed
  const RoundingOptions& options;
  const RowClips<S>* clips =
      nullptr;  ///< learned factors of the ends of every row (clamp_rows.hpp)
};

/// What storing a weight takes, in bits per weight: codes; steps, zero points, factors or levels
/// (16 bits each); values kept in floating point (16 bits) and where they stand (32 bits: row and
/// column).
struct StoredBits {
  double codes = 0, grid = 0, kept = 0, positions = 0;
  double total() const { return codes + grid + kept + positions; }
};

/// Codes of spec.bits, and that many parameters for every group of a row of `cols` weights.
StoredBits stored_bits(const QuantSpec& spec, Index cols, Index parameters);
/// Of a uniform grid: a step for every group, and a zero point if it is not the same for all.
StoredBits uniform_bits(const QuantSpec& spec, Index cols);

template <class S>
struct RoundedWeight {
  Matrix<S> weight;  ///< [out, in], dequantized
  StoredBits bits;
  /// "loss": Σ½e² of a sweep; "kept_share": of weights kept in floating point; "mask_entropy_bits":
  /// what positions cost at least, in bits per weight.
  std::map<std::string, double> details;

  double effective_bits() const { return bits.total(); }
};

/// What a rounding must be given: the weight alone, the Hessian of its inputs too, or samples of
/// the whole block, which it learns from (learn/learned_rounding.hpp).
enum class RoundingNeeds { weight, hessian, block };

std::vector<std::string> rounding_names();
/// Error with the nearest name if unknown.
RoundingNeeds rounding_needs(const std::string& name);
int rounding_version(const std::string& name);  ///< raised when a fix changes its numbers

/// Rounds by the named method; the weight itself at 16 bits and above. Error if the method is
/// unknown, needs a Hessian that is not there, or does not take these bits or groups.
template <class S>
RoundedWeight<S> round_weight(const std::string& name, const RoundingInputs<S>& inputs);

/// The same without a Hessian and with the default options; the weight alone comes back.
template <class S>
Matrix<S> round_weight(const std::string& name, const Matrix<S>& weight, const QuantSpec& spec);

}  // namespace ruq
