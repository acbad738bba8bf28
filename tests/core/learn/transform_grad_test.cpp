#include "ruquant/learn/transform_grad.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>

#include "ruquant/base/rng.hpp"
#include "support/differences.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

constexpr Index kWidth = 15;

SquareMap<double> free_map(Index n, const std::string& name) {
  const Matrix<double> map = gaussian(n, n, name) + 3 * Matrix<double>::Identity(n, n);
  return {map, map.inverse().transpose()};
}

// The parameters of a transform with a step of every kind; `build` sees their values anew.
struct Parameters {
  Vector<double> scale = 1.5 + 0.3 * gaussian(kWidth, 1, "scale").col(0).array();
  Matrix<double> left = free_map(3, "left").map;
  Matrix<double> right = free_map(5, "right").map;
  Matrix<double> wide = free_map(4, "wide").map;
  Matrix<double> narrow = free_map(3, "narrow").map;
  Vector<double> direction = gaussian(kWidth, 1, "direction").col(0).normalized();

  static SquareMap<double> with_dual(const Matrix<double>& map) {
    return {map, map.inverse().transpose()};
  }
  Transform<double> build() const {
    Transform<double> t(kWidth);
    t.append(Scale<double>{scale});
    t.append(Kronecker<double>{with_dual(left), with_dual(right), 3, 5});
    t.append(Permutation{Stream(1, "permutation").permutation(kWidth)});
    t.append(BlockDiagonal<double>{{with_dual(wide), with_dual(narrow)}, {0, 1, 0, 0}});
    t.append(Kronecker<double>{{}, with_dual(right), 3, 5});
    t.append(Reflection<double>{direction});
    return t;
  }
};

TEST_CASE("activations and weights give one gradient of the parameters of a transform") {
  Parameters p;
  Matrix<double> x = gaussian(4, kWidth, "x");
  Matrix<double> w = gaussian(6, kWidth, "w");
  const Matrix<double> up_x = gaussian(4, kWidth, "upstream of x");
  const Matrix<double> up_w = gaussian(6, kWidth, "upstream of w");
  const auto loss = [&] {
    const Transform<double> t = p.build();
    Matrix<double> moved = x;
    Matrix<double> dual = w;
    t.apply(moved);
    // A dual that is computed from the map by inversion: I − 2vvᵀ is its own only on the sphere.
    Transform<double> before(kWidth);
    for (std::size_t i = 0; i + 1 < t.steps().size(); ++i) before.append(t.steps()[i]);
    before.apply_dual(dual);
    dual -= 2 * (dual * p.direction) * p.direction.transpose();
    return moved.cwiseProduct(up_x).sum() + dual.cwiseProduct(up_w).sum();
  };
  const Transform<double> t = p.build();
  TransformGradient sum = zero_gradient(t);
  Matrix<double> dx = up_x;
  Matrix<double> dw = up_w;
  transform_backward(t, x, dx, sum);
  dual_backward(t, w, dw, sum);

  check_gradient(loss, x, dx, 1e-7);
  check_gradient(loss, w, dw, 1e-7);
  check_gradient(loss, p.scale, sum[0].vector, 1e-7);
  check_gradient(loss, p.left, sum[1].maps[0], 1e-7);
  CHECK(sum[2].vector.size() == 0);
  check_gradient(loss, p.wide, sum[3].maps[0], 1e-7);
  check_gradient(loss, p.narrow, sum[3].maps[1], 1e-7);
  CHECK(sum[4].maps[0].size() == 0);
  const Matrix<double> both = sum[1].maps[1] + sum[4].maps[1];  // one map used by two steps
  check_gradient(loss, p.right, both, 1e-7);
  check_gradient(loss, p.direction, sum[5].vector, 1e-7);
}

TEST_CASE("a map without a dual is used as it is on both sides") {
  Matrix<double> map = gaussian(5, 5, "map");
  const auto build = [&] {
    Transform<double> t(kWidth);
    t.append(BlockDiagonal<double>{{{map, {}}}, {0, 0, 0}});
    t.append(HadamardStep{1});
    return t;
  };
  const Matrix<double> w = gaussian(6, kWidth, "w");
  const Matrix<double> upstream = gaussian(6, kWidth, "upstream");
  const auto loss = [&] {
    Matrix<double> moved = w;
    build().apply_dual(moved);
    return moved.cwiseProduct(upstream).sum();
  };
  TransformGradient sum = zero_gradient(build());
  Matrix<double> gradient = upstream;
  dual_backward(build(), w, gradient, sum);
  check_gradient(loss, map, sum[0].maps[0], 1e-7);
}

TEST_CASE("float agrees with double") {
  const Transform<double> t = Parameters().build();
  const Matrix<double> x = gaussian(4, kWidth, "x");
  Matrix<double> wide = gaussian(4, kWidth, "upstream");
  Matrix<float> narrow = wide.cast<float>();
  TransformGradient in_double = zero_gradient(t);
  TransformGradient in_float = zero_gradient(t);
  transform_backward<double>(t, x, wide, in_double);
  transform_backward<float>(t.cast<float>(), x.cast<float>(), narrow, in_float);
  CHECK(relative_error(narrow, wide) < 1e-5);
  CHECK(relative_error(in_float[1].maps[0], in_double[1].maps[0]) < 1e-5);
  CHECK(relative_error(in_float[5].vector, in_double[5].vector) < 1e-5);
}

}  // namespace
}  // namespace ruq::test
