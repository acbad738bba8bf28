// The laws of the architecture page, each as a helper that every step, grid and method runs
// through.
//
//   1  apply(I) == to_matrix(), apply_transpose multiplies by its transpose
//   2  apply(X)·apply_dual(W)ᵀ == X·Wᵀ; a whole model computes the same logits under a plan that
//      rounds nothing
//   3  orthogonal steps keep row norms; a.then(b) is the product; save and load keep every bit
//   4  rounding is idempotent, lands on a code, errs at most half a step inside the range;
//      decode(encode(X)) == round(X)
//   5  a plan at 16 bits rounds nothing
//   6  the same seed gives the same plan, whatever the number of threads
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "ruquant/method/method.hpp"
#include "ruquant/model/fuse.hpp"
#include "ruquant/quant/plan.hpp"
#include "ruquant/quant/quantizer.hpp"
#include "support/method_claims.hpp"
#include "support/tiny_model.hpp"

namespace ruq::test {

// --- matrices
// -------------------------------------------------------------------------------------

/// max|a − b| / max|b|, in double; the shapes must agree.
template <class A, class B>
double relative_error(const A& a, const B& b) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.cols() == b.cols());
  const double scale = b.template cast<double>().cwiseAbs().maxCoeff();
  return (a.template cast<double>() - b.template cast<double>()).cwiseAbs().maxCoeff() /
         (scale > 0 ? scale : 1);
}

/// ‖a − b‖ / ‖b‖ in double.
template <class A, class B>
double relative_distance(const A& a, const B& b) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.cols() == b.cols());
  return (a.template cast<double>() - b.template cast<double>()).norm() /
         b.template cast<double>().norm();
}

/// Gaussian [rows, cols] of a named stream; `spikes` channels are twenty times as large.
Matrix<double> gaussian(Index rows, Index cols, const std::string& name, Index spikes = 0);

/// max|M·Mᵀ − I|.
double orthogonality_error(const Matrix<double>& m);

// --- transforms: laws 1, 2, 3
// ---------------------------------------------------------------------

/// The matrix of a transform, multiplied up from the definition of each step with plain loops.
Matrix<double> dense_matrix(const Transform<double>& transform, Index width);

/// Runs laws 1 to 3 in double (to 1e-12 of the scale) and float (1e-5).
void check_transform_laws(const Transform<double>& transform, Index width);

// --- grids: law 4
// ---------------------------------------------------------------------------------

/// Law 4 for the grid that `spec` fits to `x`, in double and float.
void check_grid_laws(const Matrix<double>& x, const QuantSpec& spec);

// --- plans
// ----------------------------------------------------------------------------------------

/// Equality to the last bit.
bool same_transform(const Transform<double>& a, const Transform<double>& b);
bool same_plan(const Plan& a, const Plan& b);

// --- methods: laws 2, 3, 5, 6, 7
// ------------------------------------------------------------------

/// A method with options that suit the tiny models (blocks of 8, few steps), then `settings`.
std::unique_ptr<Method> small_method(
    const std::string& name, const std::vector<std::pair<std::string, std::string>>& settings = {});

/// Quantizers at these widths, all asymmetric and ungrouped.
QuantSettings quant_settings(const std::string& widths = "W4A4-Q4K4V4");

/// Calibration of tiny models: 4 windows of 16 tokens.
CalibrationOptions tiny_calibration();

/// A tiny model with tokens and a calibration session on it, in one scalar.
template <class S>
struct TinyBench {
  explicit TinyBench(const ModelConfig& config);
  Plan plan(const Method& method, const QuantSettings& quant, std::uint64_t seed = 1);
  /// Logits of the test tokens [32, vocabulary], two windows of 16: of the model, or under a plan.
  Matrix<S> logits() const;
  Matrix<S> logits(const Plan& plan) const;

  Model<S> model;
  std::vector<std::int32_t> calibration;
  std::vector<std::int32_t> test;
  ModelSession<S> session;
};

/// Laws 2 and 5: under the plan without rounding the logits are the float model's, to 1e-10 in
/// double and 1e-4 in float.
void check_outputs_kept(const Plan& plan, const ModelConfig& config);
/// The half of it that suits a plan drawn up on the float model, whose gains and weights differ
/// from those of the double model by rounding.
void check_outputs_kept_in_float(const Plan& plan, const ModelConfig& config);

/// What every plan of this method must look like: transforms where they are claimed and nowhere
/// else, fallbacks as listed.
void check_claims(const Plan& plan, const ModelConfig& config, const MethodClaims& claims);

/// Every law of a method with its default options (and those of small_method), on every shape of
/// tiny_shapes().
void check_method_laws(const std::string& name);
/// The same under other settings, with what is claimed then.
void check_method_laws(const std::string& name, const MethodClaims& claims,
                       const std::vector<std::pair<std::string, std::string>>& settings = {});

}  // namespace ruq::test
