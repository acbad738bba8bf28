// SpinQuant's optimizer on the Stiefel manifold, "Cayley SGD" (arXiv 2405.16406; SGDG of its code;
// specification §2.3). The parameter X [r,n], r ≤ n, has orthonormal rows up to rounding; G is the
// gradient of the loss by X. One step:
//
//   X ← rows of X divided by (their norm + 1e-8); now and then the Q of a QR decomposition instead
//   V = μV − Gᵀ;  Ŵ = VX − ½Xᵀ(X(VX));  W = Ŵ − Ŵᵀ
//   α = min(1 / (‖W‖₁ + 1e-8), learning rate), ‖·‖₁ the largest absolute column sum
//   Y = Xᵀ + αV, then five times Y ← Xᵀ + (α/2)·W·(Xᵀ + Y);  X ← Yᵀ
//
// The five rounds approach the Cayley transform (I − αW/2)⁻¹(I + αW/2)Xᵀ, which is orthogonal; they
// contract by α‖W‖/2 ≤ ½, so a step leaves the manifold by up to a few times (α‖W‖/2)⁶.
#pragma once

#include "ruquant/base/matrix.hpp"
#include "ruquant/base/rng.hpp"

namespace ruq {

struct CayleyOptions {
  double learning_rate = 1.5;
  double momentum = 0;  ///< μ
  /// The published code writes the new momentum V = W·Xᵀ to a temporary, so there V = −Gᵀ at every
  /// step whatever μ is. True keeps it, as was meant.
  bool keep_momentum = false;
};

/// Rows of x [r,n] replaced by orthonormal ones: xᵀ = Q·R with a positive diagonal of R, x ← Qᵀ.
void orthonormalize_rows(Matrix<double>& x);

class CayleySgd {
 public:
  explicit CayleySgd(const CayleyOptions& options) : options_(options) {}

  /// One step on x [r,n] with gradient [r,n]; returns the step length α. `reorthogonalize` takes
  /// the rows from a QR decomposition (of xᵀ, positive diagonal) first. Error unless r ≤ n, if the
  /// shapes differ, or if the gradient is not finite.
  double step(Matrix<double>& x, const Matrix<double>& gradient, bool reorthogonalize);
  /// The same, re-orthogonalizing with probability 1/101 as the published code does; one draw a
  /// step.
  double step(Matrix<double>& x, const Matrix<double>& gradient, Draws& draws);

  void set_learning_rate(double rate) { options_.learning_rate = rate; }

 private:
  CayleyOptions options_;
  Matrix<double> velocity_;  ///< V of the last step [n,r], when momentum is kept
};

/// The orthogonal matrix nearest to a square one that is nearly orthogonal already, by
/// X ← X·(3I − XᵀX)/2 until it stands still. Error if x is so far off that this does not converge.
Matrix<double> nearest_orthogonal(Matrix<double> x);

}  // namespace ruq
