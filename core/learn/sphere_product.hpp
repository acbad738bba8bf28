// A product of unit spheres as a Ceres manifold: points are unit vectors laid one after another.
// Every operation is that of SphereManifold on each part, so products with Jacobians cost O(d);
// ceres::ProductManifold would form the dense [d, d − k] matrix.
#pragma once

#include <ceres/manifold.h>

#include <vector>

#include "ruquant/learn/sphere.hpp"

namespace ruq {

class SphereProduct final : public ceres::Manifold {
 public:
  /// Dimensions of the parts, each at least 2.
  explicit SphereProduct(const std::vector<int>& dimensions);

  int AmbientSize() const override { return ambient_; }
  int TangentSize() const override { return ambient_ - static_cast<int>(spheres_.size()); }
  bool Plus(const double* x, const double* delta, double* x_plus_delta) const override;
  bool Minus(const double* y, const double* x, double* y_minus_x) const override;
  bool PlusJacobian(const double* x, double* jacobian) const override;
  bool MinusJacobian(const double* x, double* jacobian) const override;
  bool RightMultiplyByPlusJacobian(const double* x, int num_rows, const double* ambient,
                                   double* tangent) const override;

 private:
  std::vector<SphereManifold> spheres_;
  int ambient_ = 0;
};

}  // namespace ruq
