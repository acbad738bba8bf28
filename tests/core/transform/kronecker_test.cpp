#include "ruquant/transform/kronecker.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>
#include <cmath>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

Matrix<double> orthogonal(Index n, const std::string& name) {
  return cayley_map(3 * gaussian(n, n, name));
}

// left ⊗ right by the definition.
Matrix<double> dense_product(const Matrix<double>& left, const Matrix<double>& right) {
  const Index n = right.rows();
  Matrix<double> all(left.rows() * n, left.cols() * n);
  for (Index i = 0; i < left.rows(); ++i) {
    for (Index j = 0; j < left.cols(); ++j) all.block(i * n, j * n, n, n) = left(i, j) * right;
  }
  return all;
}

TEST_CASE("FlatQuant's sizes are the first a ≥ √n with a² − n a square, where there is one") {
  for (Index n = 1; n <= 3000; ++n) {
    CAPTURE(n);
    const KroneckerSizes sizes = flatquant_sizes(n);
    REQUIRE(sizes.left * sizes.right == n);
    REQUIRE(has_flatquant_sizes(n) == (n % 4 != 2));
    if (!has_flatquant_sizes(n)) {
      REQUIRE(sizes == balanced_sizes(n));
      continue;
    }
    const Index a = (sizes.left + sizes.right) / 2;
    const Index b = (sizes.right - sizes.left) / 2;
    REQUIRE(a * a - b * b == n);
    for (Index smaller = 1; smaller < a; ++smaller) {
      const Index rest = smaller * smaller - n;
      const auto root =
          static_cast<Index>(std::lround(std::sqrt(double(std::max(rest, Index{0})))));
      REQUIRE((rest < 0 || root * root != rest));
    }
  }
}

TEST_CASE("balanced sizes have no factor between them") {
  for (Index n = 1; n <= 3000; ++n) {
    const KroneckerSizes sizes = balanced_sizes(n);
    REQUIRE(sizes.left * sizes.right == n);
    REQUIRE(sizes.left <= sizes.right);
    for (Index d = sizes.left + 1; d < sizes.right; ++d) REQUIRE(n % d != 0);
  }
  CHECK(balanced_sizes(46) == KroneckerSizes{2, 23});
  CHECK(flatquant_sizes(12) == KroneckerSizes{2, 6});
  CHECK(balanced_sizes(12) == KroneckerSizes{3, 4});
  for (const Index n : {Index{0}, Index{-2}, Index{-3}}) {
    check_error([&] { flatquant_sizes(n); }, {"at least 1", std::to_string(n)});
  }
}

TEST_CASE("a Kronecker step of these sizes is the dense product, and obeys the laws") {
  for (const Index n : {1, 2, 5, 12, 20, 46, 96, 172, 344}) {
    CAPTURE(n);
    const KroneckerSizes sizes = flatquant_sizes(n);
    const SquareMap<double> left = invertible_map(orthogonal(sizes.left, "left") * 1.5);
    const SquareMap<double> right = {orthogonal(sizes.right, "right"), {}};
    Transform<double> transform;
    transform.append(kronecker_step(left, right));
    check_transform_laws(transform, n);
    CHECK(relative_error(transform.to_matrix(n), dense_product(left.map, right.map)) < 1e-13);
    CHECK_FALSE(transform.is_orthogonal());
  }
}

TEST_CASE("a general map carries its dual; a singular one is refused") {
  const Matrix<double> map = gaussian(7, 7, "general");
  const SquareMap<double> pair = invertible_map(map);
  CHECK(pair.map == map);
  CHECK(relative_error((map * pair.dual.transpose()).eval(), Matrix<double>::Identity(7, 7)) <
        1e-12);
  Matrix<double> singular = map;
  singular.row(3) = singular.row(5);
  check_error([&] { invertible_map(singular); }, {"width 7", "singular"});
  check_error([&] { invertible_map(gaussian(2, 3, "oblong")); }, {"2x3"});
}

TEST_CASE("the Cayley map is a rotation for every raw matrix, of its lower part alone") {
  for (const Index n : {1, 2, 3, 5, 12, 28, 96}) {
    CAPTURE(n);
    const Matrix<double> raw = 4 * gaussian(n, n, "raw");
    const Matrix<double> q = cayley_map(raw);
    CHECK(orthogonality_error(q) < 1e-12);
    CHECK(Eigen::MatrixXd(q).determinant() == doctest::Approx(1));
    CHECK(cayley_map(raw.triangularView<Eigen::StrictlyLower>()) == q);
    CHECK(relative_error(cayley_map(-raw), q.transpose().eval()) < 1e-12);
  }
}

TEST_CASE("the Cayley map of one pair turns by twice the arc tangent of half the entry") {
  Matrix<double> raw = Matrix<double>::Zero(2, 2);
  raw(1, 0) = 0.7;
  const double angle = 2 * std::atan(0.35);
  const Matrix<double> q = cayley_map(raw);
  CHECK(q(0, 0) == doctest::Approx(std::cos(angle)).epsilon(1e-14));
  CHECK(q(1, 0) == doctest::Approx(std::sin(angle)).epsilon(1e-14));
}

TEST_CASE("the gradient through the Cayley map equals finite differences") {
  const Matrix<double> raw = gaussian(6, 6, "raw");
  const Matrix<double> upstream = gaussian(6, 6, "upstream");
  const Matrix<double> gradient = cayley_map_gradient(raw, upstream);
  const double h = 1e-6;
  for (Index i = 0; i < 6; ++i) {
    for (Index j = 0; j < 6; ++j) {
      Matrix<double> ahead = raw;
      Matrix<double> behind = raw;
      ahead(i, j) += h;
      behind(i, j) -= h;
      const double slope =
          (cayley_map(ahead) - cayley_map(behind)).cwiseProduct(upstream).sum() / (2 * h);
      CHECK(std::abs(gradient(i, j) - slope) < 1e-8);
    }
  }
}

TEST_CASE("the SVD form knows its inverse") {
  const Matrix<double> u = orthogonal(9, "u");
  const Matrix<double> v = orthogonal(9, "v");
  const Vector<double> sigma = gaussian(9, 1, "sigma").col(0).array().abs() + 0.2;
  const SquareMap<double> map = svd_map(u, sigma, v);
  CHECK(relative_error(map.dual, Matrix<double>(map.map.inverse().transpose())) < 1e-12);
  const SquareMap<double> ones = svd_map(u, Vector<double>::Ones(9), v);
  CHECK(relative_error(ones.map, ones.dual) < 1e-15);
  CHECK(orthogonality_error(ones.map) < 1e-12);
  Vector<double> zero = sigma;
  zero(4) = 0;
  check_error([&] { svd_map(u, zero, v); }, {"zero"});
}

TEST_CASE("the first scale balances weights and activations, and has a floor") {
  const Vector<double> w{{4, 9, 1e-9}};
  const Vector<double> x{{16, 1, 1e3}};
  const Vector<double> half = flatquant_init_scale(w, x, 0.5);
  CHECK(half(0) == doctest::Approx(0.5));
  CHECK(half(1) == doctest::Approx(3));
  CHECK(half(2) == 1e-5);
  CHECK(flatquant_init_scale(w, x, 0)(1) == 9);
  CHECK(flatquant_init_scale(w, x, 1)(0) == doctest::Approx(1.0 / 16));
}

}  // namespace
}  // namespace ruq::test
