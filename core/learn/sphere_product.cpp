#include "ruquant/learn/sphere_product.hpp"

#include "ruquant/base/matrix.hpp"

namespace ruq {
namespace {

// Calls body(sphere, ambient offset, tangent offset) for every part.
template <class Body>
void for_parts(const std::vector<SphereManifold>& spheres, const Body& body) {
  int ambient = 0;
  int tangent = 0;
  for (const SphereManifold& sphere : spheres) {
    body(sphere, ambient, tangent);
    ambient += sphere.AmbientSize();
    tangent += sphere.TangentSize();
  }
}

}  // namespace

SphereProduct::SphereProduct(const std::vector<int>& dimensions) {
  for (const int dimension : dimensions) {
    spheres_.emplace_back(dimension);
    ambient_ += dimension;
  }
}

bool SphereProduct::Plus(const double* x, const double* delta, double* x_plus_delta) const {
  for_parts(spheres_, [&](const SphereManifold& sphere, int ambient, int tangent) {
    sphere.Plus(x + ambient, delta + tangent, x_plus_delta + ambient);
  });
  return true;
}

bool SphereProduct::Minus(const double* y, const double* x, double* y_minus_x) const {
  for_parts(spheres_, [&](const SphereManifold& sphere, int ambient, int tangent) {
    sphere.Minus(y + ambient, x + ambient, y_minus_x + tangent);
  });
  return true;
}

bool SphereProduct::PlusJacobian(const double* x, double* jacobian) const {
  Eigen::Map<Matrix<double>> dense(jacobian, AmbientSize(), TangentSize());
  dense.setZero();
  for_parts(spheres_, [&](const SphereManifold& sphere, int ambient, int tangent) {
    Matrix<double> part(sphere.AmbientSize(), sphere.TangentSize());
    sphere.PlusJacobian(x + ambient, part.data());
    dense.block(ambient, tangent, part.rows(), part.cols()) = part;
  });
  return true;
}

bool SphereProduct::MinusJacobian(const double* x, double* jacobian) const {
  Eigen::Map<Matrix<double>> dense(jacobian, TangentSize(), AmbientSize());
  dense.setZero();
  for_parts(spheres_, [&](const SphereManifold& sphere, int ambient, int tangent) {
    Matrix<double> part(sphere.TangentSize(), sphere.AmbientSize());
    sphere.MinusJacobian(x + ambient, part.data());
    dense.block(tangent, ambient, part.rows(), part.cols()) = part;
  });
  return true;
}

bool SphereProduct::RightMultiplyByPlusJacobian(const double* x, int num_rows,
                                                const double* ambient, double* tangent) const {
  for (int r = 0; r < num_rows; ++r) {
    const double* from = ambient + std::ptrdiff_t{r} * AmbientSize();
    double* to = tangent + std::ptrdiff_t{r} * TangentSize();
    for_parts(spheres_, [&](const SphereManifold& sphere, int at, int tangent_at) {
      sphere.RightMultiplyByPlusJacobian(x + at, 1, from + at, to + tangent_at);
    });
  }
  return true;
}

}  // namespace ruq
