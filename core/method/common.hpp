// What several methods share: smoothing, the rotation of queries and keys, and the base class that
// instantiates a method for float and double.
#pragma once

#include <optional>
#include <string>

#include "ruquant/method/method.hpp"

namespace ruq {

/// SmoothQuant's per-channel scales (arXiv 2211.10438; specification §1.5): with a_j the largest
/// |activation| and w_j the largest |weight| of channel j, s_j = a_j^α / w_j^{1−α}, floored at
/// 0.01, x_j ← x_j / s_j. As RUQuant's and DuQuant's codes have it, every site is smoothed, and
/// only the weight of q_proj (attn_in) and up_proj (mlp_in) counts.
struct SmoothingOptions {
  std::optional<double> alpha;
  /// attn_out under grouped-query attention: `online` divides at run time, as the RUQuant and
  /// DuQuant codes do; `shared` takes one scale for all query heads of a group and folds it into
  /// v_proj.
  std::string grouped = "online";
  /// As SmoothQuant's own code has it: behind the norms alone, w_j over all linears there, s_j
  /// floored at 1e-5.
  bool behind_norms = false;
};
void bind(Fields& fields, SmoothingOptions& options, const std::string& prefix = "");

/// s of one site: [width], before it is shared over a group of heads.
template <class S>
Vector<double> smoothing_scale(const Vector<double>& activation_maxima, const Matrix<S>& weight,
                               double alpha, double floor = 0.01);

/// Sets the folded (or online) scales of every site of the session. Nothing without alpha.
template <class S>
void smooth(CalibrationSession<S>& session, const SmoothingOptions& options, Plan& plan);

/// Every head of queries and keys gets the Hadamard rotation of the largest power of two that
/// divides the head width and is at most `limit`.
void rotate_queries_and_keys(const ModelConfig& config, Index limit, Plan& plan);

/// The same as an option of methods that are published without it: "none" or "hadamard". The
/// official RUQuant and DuQuant codes rotate queries and keys in every run, their own baselines
/// included.
struct QueryKeyOptions {
  std::string rotation = "none";
};
void bind(Fields& fields, QueryKeyOptions& options);
void rotate_queries_and_keys(const ModelConfig& config, const QueryKeyOptions& options, Plan& plan);

/// Method::revision of what learns: on the published schedules held-out windows shared tokens with
/// those learned from.
inline int held_out_revision(const std::string& schedule) { return schedule == "paper" ? 2 : 0; }

/// A Haar-distributed orthogonal matrix: QR of a Gaussian, signs fixed.
Matrix<double> haar_orthogonal(Index n, Draws& draws);

/// Randomized Hadamard rotation D·Ĥ of a width, D random signs. Where no Hadamard matrix exists a
/// Haar orthogonal matrix takes its place and the plan says so.
Transform<double> randomized_hadamard(Index width, Stream& stream, const std::string& where,
                                      Plan& plan);

/// 1/γ of the norm behind attn_in or mlp_in, so that the gain moves into the weights. A zero gain
/// stays; fuse.cpp empties its weight column.
template <class S>
Vector<double> fused_gain(CalibrationSession<S>& session, const Site& site);

/// All weight rows that a site feeds [out, width], in the basis that the plan has reached.
template <class S>
Matrix<double> stacked_weights(CalibrationSession<S>& session, const Plan& plan, const Site& site);

/// Error if any quantizer of `quant` does not fit the model's shapes.
void check_quantizers(const ModelConfig& config, const QuantSettings& quant);

/// Error if neither weights nor activations are rounded, so that what `key` asks for by `found` has
/// no error to learn from.
void check_rounds(const std::string& key, const std::string& found, const QuantSettings& quant);

/// Forwards both instantiations to Derived::draw_up<S>(session, quant, stream).
template <class Derived>
class MethodBase : public Method {
 public:
  void check(const ModelConfig& config, const QuantSettings& quant) const override {
    check_quantizers(config, quant);
  }
  Plan plan(CalibrationSession<float>& session, const QuantSettings& quant,
            const Stream& stream) const final {
    return static_cast<const Derived*>(this)->template draw_up<float>(session, quant, stream);
  }
  Plan plan(CalibrationSession<double>& session, const QuantSettings& quant,
            const Stream& stream) const final {
    return static_cast<const Derived*>(this)->template draw_up<double>(session, quant, stream);
  }
};

}  // namespace ruq
