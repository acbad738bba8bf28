// The unit sphere as a Ceres manifold whose operations on vectors cost O(d).
//
// Tangent vectors at x have d − 1 coordinates. The frame is that of the Householder reflection H_x
// which takes e_d to x: its first d − 1 columns span the tangent space. With δ a tangent vector,
//
//   x ⊞ δ = H_x·[ sin(‖δ‖)·δ/‖δ‖ ; cos‖δ‖ ]      (the exponential map),
//   y ⊟ x = its inverse, for y ≠ −x,
//
// and a product with ∂(x ⊞ δ)/∂δ at δ = 0 is one reflection. Ceres's own SphereManifold forms that
// [d, d − 1] matrix. Only products are needed by ceres::GradientProblem; the dense forms exist
// because the interface asks for them.
#pragma once

#include <ceres/manifold.h>

#include "ruquant/base/matrix.hpp"

namespace ruq {

class SphereManifold final : public ceres::Manifold {
 public:
  /// Points of `dimension` coordinates, at least 2.
  explicit SphereManifold(int dimension);

  int AmbientSize() const override { return dimension_; }
  int TangentSize() const override { return dimension_ - 1; }
  bool Plus(const double* x, const double* delta, double* x_plus_delta) const override;
  bool Minus(const double* y, const double* x, double* y_minus_x) const override;
  /// [d, d − 1], row-major.
  bool PlusJacobian(const double* x, double* jacobian) const override;
  /// [d − 1, d], row-major: ∂(y ⊟ x)/∂y at y = x, the transpose of PlusJacobian.
  bool MinusJacobian(const double* x, double* jacobian) const override;
  /// Rows of `ambient` [num_rows, d] times PlusJacobian(x); O(num_rows·d).
  bool RightMultiplyByPlusJacobian(const double* x, int num_rows, const double* ambient,
                                   double* tangent) const override;
  /// MinusJacobian(x) times a vector of d coordinates, without the matrix; O(d).
  void multiply_by_minus_jacobian(const double* x, const double* ambient, double* tangent) const;

 private:
  int dimension_;
};

}  // namespace ruq
