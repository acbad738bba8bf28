// Second-order statistics of the inputs of a linear layer, and the factor that the rounding sweeps
// work with.
//
//   H = (2/n) Σ xᵀx over all rows x (tokens), n the number of samples (calibration sequences)
//
// The factor 2/n cancels in every decision of GPTQ and SEPTQ; it is kept so that losses read as in
// their codes. H is [in, in] in double, in the basis in which the weight is rounded: where a plan
// rotates the inputs of a layer, x is the rotated row.
#pragma once

#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

class HessianAccumulator {
 public:
  explicit HessianAccumulator(Index width);

  /// Adds x [tokens, width], which holds this many samples. Products run in S over short runs of
  /// tokens and are summed in double.
  template <class S>
  void add(const Matrix<S>& x, Index samples = 1);

  Index width() const { return sum_.rows(); }
  Index samples() const { return samples_; }
  /// H [width, width]. Error if nothing was added.
  Matrix<double> hessian() const;

 private:
  Matrix<double> sum_;  ///< Σ xᵀx, on and below the diagonal
  Index samples_ = 0;
};

/// What a sweep over columns needs of H, all in sweep order.
struct HessianFactor {
  std::vector<Index> order;  ///< order[j]: the channel that is swept j-th
  std::vector<Index> dead;   ///< channels whose inputs were all zero
  Matrix<double> upper;      ///< U, upper triangular, UᵀU = (H + λI)⁻¹
};

/// Puts 1 on the diagonal of dead channels, sorts by falling diagonal if `act_order`, and damps by
/// λ = damping · mean(diag H). Works in the memory of H if it is moved in. Error if H is not
/// square, or not positive definite after damping.
HessianFactor factor_hessian(Matrix<double> hessian, double damping, bool act_order = false);

/// tr(Δ H Δᵀ), the squared output error that a change Δ [out, in] of the weight makes, times 2/n.
template <class S>
double output_loss(const Matrix<S>& change, const Matrix<double>& hessian);

}  // namespace ruq
