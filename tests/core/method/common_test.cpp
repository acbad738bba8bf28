#include "ruquant/method/common.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>
#include <cmath>

#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("smoothing scales follow the formula, with its floors") {
  const Matrix<double> weight = (Matrix<double>(2, 4) << 0.5, -2, 1, 0, -0.25, 1, 8, 0).finished();
  const Vector<double> scale = smoothing_scale(Vector<double>{{4, 3, 0, 2}}, weight, 0.6);
  CHECK(scale(0) == doctest::Approx(std::pow(4, 0.6) / std::pow(0.5, 0.4)));
  CHECK(scale(1) == doctest::Approx(std::pow(3, 0.6) / std::pow(2, 0.4)));
  CHECK(scale(2) == 0.01);  // a dead activation counts 1e-5, and the scale is floored
  CHECK(scale(3) == doctest::Approx(std::pow(2, 0.6) / std::pow(1e-5, 0.4)));
}

TEST_CASE("Haar matrices are orthogonal, of either determinant, and without a preferred sign") {
  Stream draws(1, "haar");
  int negative = 0;
  double trace = 0;
  for (int i = 0; i < 200; ++i) {
    const Matrix<double> q = haar_orthogonal(5, draws);
    REQUIRE(orthogonality_error(q) < 1e-13);
    if (q.determinant() < 0) ++negative;
    trace += q.trace();
  }
  CHECK(negative > 60);
  CHECK(negative < 140);
  // The trace has mean 0 and variance 1; without the sign fix its mean is far from 0.
  CHECK(std::abs(trace / 200) < 5 / std::sqrt(200.0));
}

TEST_CASE("a randomized Hadamard is signs and Hadamard, or a noted Haar matrix") {
  Plan plan;
  Stream draws(1, "randomized");
  const Transform<double> some = randomized_hadamard(12, draws, "here", plan);
  CHECK(some.describe() == "signs, hadamard(12)");
  CHECK(plan.fallbacks.empty());
  const Transform<double> other = randomized_hadamard(14, draws, "there", plan);
  CHECK(other.describe() == "blocks(1x14)");
  REQUIRE(plan.fallbacks.size() == 1);
  CHECK(plan.fallbacks[0].rfind("there: no Hadamard matrix of order 14", 0) == 0);
  check_transform_laws(some, 12);
  check_transform_laws(other, 14);
}

TEST_CASE(
    "queries and keys rotate by the largest power of two within the limit, or say they do not") {
  const auto order_for = [](const char* shape, Index limit) {
    Plan plan = Plan::identity("x", 2, QuantSettings{});
    rotate_queries_and_keys(tiny_config(shape), limit, plan);
    if (plan.layers[1].query_key.is_identity()) {
      CHECK(plan.fallbacks.size() == 1);
      return Index{0};
    }
    CHECK(plan.fallbacks.empty());
    return std::get<HadamardStep>(plan.layers[1].query_key.steps()[0]).order;
  };
  CHECK(order_for("normed heads", 128) == 16);
  CHECK(order_for("normed heads", 9) == 8);
  CHECK(order_for("biases", 128) == 4);
  CHECK(order_for("odd factors", 1) == 0);
}

}  // namespace
}  // namespace ruq::test
