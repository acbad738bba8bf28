#include "ruquant/learn/sphere.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "ruquant/base/rng.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

// Points of a sphere that make frames stumble: anywhere, the poles ±e_d, other axes, near the
// poles.
std::vector<Vector<double>> points(Index d) {
  std::vector<Vector<double>> all;
  Stream stream(1, "sphere");
  for (int i = 0; i < 4; ++i) all.push_back(stream.normal(d, 1).col(0).normalized());
  for (const double sign : {1.0, -1.0}) {
    all.push_back(sign * Vector<double>::Unit(d, d - 1));
    all.push_back(sign * Vector<double>::Unit(d, 0));
    Vector<double> near = sign * Vector<double>::Unit(d, d - 1);
    near(0) = 1e-9;
    all.push_back(near.normalized());
  }
  return all;
}

template <class Body>
void for_all_points(const Body& body) {
  for (const Index d : {2, 3, 10}) {
    const SphereManifold sphere(static_cast<int>(d));
    for (const Vector<double>& x : points(d)) {
      CAPTURE(d);
      CAPTURE(x.transpose());
      body(sphere, x);
    }
  }
}

Vector<double> plus(const SphereManifold& sphere, const Vector<double>& x,
                    const Vector<double>& delta) {
  Vector<double> y(x.size());
  REQUIRE(sphere.Plus(x.data(), delta.data(), y.data()));
  return y;
}

Vector<double> minus(const SphereManifold& sphere, const Vector<double>& y,
                     const Vector<double>& x) {
  Vector<double> delta(x.size() - 1);
  REQUIRE(sphere.Minus(y.data(), x.data(), delta.data()));
  return delta;
}

Vector<double> tangent(Index d, double length) {
  return length * Stream(2, "tangent").normal(d - 1, 1).col(0).normalized();
}

Matrix<double> plus_jacobian(const SphereManifold& sphere, const Vector<double>& x) {
  Matrix<double> jacobian(x.size(), x.size() - 1);
  REQUIRE(sphere.PlusJacobian(x.data(), jacobian.data()));
  return jacobian;
}

TEST_CASE("Plus stays on the sphere and goes as far as the step is long") {
  for_all_points([](const SphereManifold& sphere, const Vector<double>& x) {
    CHECK((plus(sphere, x, Vector<double>::Zero(x.size() - 1)) - x).norm() < 1e-15 * 4);
    for (const double length : {1e-12, 1e-4, 0.5, 1.5, 3.0, 7.0}) {
      const Vector<double> y = plus(sphere, x, tangent(x.size(), length));
      CHECK(std::abs(y.norm() - 1) < 1e-15 * 4);
      CHECK(y.dot(x) == doctest::Approx(std::cos(length)).epsilon(1e-12));
    }
  });
}

TEST_CASE("Minus inverts Plus, and Plus inverts Minus") {
  for_all_points([](const SphereManifold& sphere, const Vector<double>& x) {
    for (const double length : {1e-9, 1e-3, 0.5, 1.5, 3.0}) {
      const Vector<double> delta = tangent(x.size(), length);
      CHECK((minus(sphere, plus(sphere, x, delta), x) - delta).norm() < 1e-13 * 4);
    }
    for (const Vector<double>& y : points(x.size())) {
      if ((x + y).norm() < 1e-6) continue;
      CHECK((plus(sphere, x, minus(sphere, y, x)) - y).norm() < 1e-13);
    }
    CHECK(minus(sphere, x, x).norm() < 1e-15);
  });
}

TEST_CASE("the Jacobian of Plus equals finite differences and spans the tangent space") {
  for_all_points([](const SphereManifold& sphere, const Vector<double>& x) {
    const Index n = x.size() - 1;
    const Matrix<double> jacobian = plus_jacobian(sphere, x);
    const double h = 1e-5;
    for (Index j = 0; j < n; ++j) {
      const Vector<double> step = h * Vector<double>::Unit(n, j);
      const Vector<double> slope = (plus(sphere, x, step) - plus(sphere, x, -step)) / (2 * h);
      CHECK((jacobian.col(j) - slope).norm() < 1e-9);
    }
    CHECK((jacobian.transpose() * jacobian - Matrix<double>::Identity(n, n)).norm() < 1e-14);
    CHECK((x.transpose() * jacobian).norm() < 1e-14);
  });
}

TEST_CASE("the Jacobian of Minus is the transpose, and equals finite differences on the sphere") {
  for_all_points([](const SphereManifold& sphere, const Vector<double>& x) {
    const Index n = x.size() - 1;
    Matrix<double> jacobian(n, x.size());
    REQUIRE(sphere.MinusJacobian(x.data(), jacobian.data()));
    const Matrix<double> basis = plus_jacobian(sphere, x);
    CHECK((jacobian - basis.transpose()).norm() < 1e-14);
    const double h = 1e-5;
    for (Index j = 0; j < n; ++j) {
      const Vector<double> ahead = (x + h * basis.col(j)).normalized();
      const Vector<double> behind = (x - h * basis.col(j)).normalized();
      const Vector<double> slope = (minus(sphere, ahead, x) - minus(sphere, behind, x)) / (2 * h);
      CHECK((jacobian * basis.col(j) - slope).norm() < 1e-9);
    }
  });
}

TEST_CASE("products without the matrix equal products with it") {
  for_all_points([](const SphereManifold& sphere, const Vector<double>& x) {
    const Index d = x.size();
    const Matrix<double> ambient = gaussian(5, d, "ambient");
    Matrix<double> product(5, d - 1);
    REQUIRE(sphere.RightMultiplyByPlusJacobian(x.data(), 5, ambient.data(), product.data()));
    CHECK((product - ambient * plus_jacobian(sphere, x)).cwiseAbs().maxCoeff() < 1e-13);

    Vector<double> single(d - 1);
    sphere.multiply_by_minus_jacobian(x.data(), ambient.row(2).data(), single.data());
    Matrix<double> dense(d - 1, d);
    REQUIRE(sphere.MinusJacobian(x.data(), dense.data()));
    CHECK((single - dense * ambient.row(2).transpose()).cwiseAbs().maxCoeff() < 1e-13);
  });
}

TEST_CASE("sizes, and a sphere of one coordinate is refused") {
  const SphereManifold sphere(7);
  CHECK(sphere.AmbientSize() == 7);
  CHECK(sphere.TangentSize() == 6);
  check_error([] { SphereManifold(1); }, {"sphere", "1", "at least 2"});
}

}  // namespace
}  // namespace ruq::test
