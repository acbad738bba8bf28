#include "ruquant/learn/sphere_product.hpp"

#include <doctest/doctest.h>

#include "support/laws.hpp"

namespace ruq::test {
namespace {

const std::vector<int> kDimensions = {2, 5, 3};

Vector<double> point(const std::string& name) {
  Vector<double> x = gaussian(10, 1, name).col(0);
  x.head(2).normalize();
  x.segment(2, 5).normalize();
  x.tail(3).normalize();
  return x;
}

TEST_CASE("a product of spheres: plus and minus are inverse and stay on every sphere") {
  const SphereProduct product(kDimensions);
  REQUIRE(product.AmbientSize() == 10);
  REQUIRE(product.TangentSize() == 7);
  const Vector<double> x = point("x");
  const Vector<double> delta = 0.4 * gaussian(7, 1, "delta").col(0);
  Vector<double> y(10);
  product.Plus(x.data(), delta.data(), y.data());
  CHECK(std::abs(y.head(2).norm() - 1) < 1e-14);
  CHECK(std::abs(y.segment(2, 5).norm() - 1) < 1e-14);
  CHECK(std::abs(y.tail(3).norm() - 1) < 1e-14);
  Vector<double> back(7);
  product.Minus(y.data(), x.data(), back.data());
  CHECK(relative_error(back, delta) < 1e-12);
}

TEST_CASE("a product of spheres: Jacobians are those of plus and minus, and products agree") {
  const SphereProduct product(kDimensions);
  const Vector<double> x = point("x");
  Matrix<double> plus(10, 7);
  Matrix<double> minus(7, 10);
  product.PlusJacobian(x.data(), plus.data());
  product.MinusJacobian(x.data(), minus.data());
  CHECK(relative_error(Matrix<double>(plus.transpose()), minus) < 1e-14);

  const double step = 1e-6;
  for (Index j = 0; j < 7; ++j) {
    Vector<double> above(10);
    Vector<double> below(10);
    const Vector<double> forward = step * Vector<double>::Unit(7, j);
    const Vector<double> backward = -forward;
    product.Plus(x.data(), forward.data(), above.data());
    product.Plus(x.data(), backward.data(), below.data());
    CHECK(((above - below) / (2 * step) - plus.col(j)).norm() < 1e-9);
  }
  const Matrix<double> ambient = gaussian(3, 10, "ambient");
  Matrix<double> tangent(3, 7);
  product.RightMultiplyByPlusJacobian(x.data(), 3, ambient.data(), tangent.data());
  CHECK(relative_error(tangent, Matrix<double>(ambient * plus)) < 1e-13);
}

}  // namespace
}  // namespace ruq::test
