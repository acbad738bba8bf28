#include "ruquant/theory/quadrature.hpp"

#include <doctest/doctest.h>

#include <cmath>

namespace ruq::test {
namespace {

TEST_CASE("sixteen nodes integrate polynomials up to degree 31 and no further") {
  const GaussLegendre& rule = gauss_legendre();
  const auto moment = [&](int degree) {
    double sum = 0;
    for (int i = 0; i < GaussLegendre::kNodes; ++i) {
      sum += rule.weight[i] * std::pow(rule.node[i], degree);
    }
    return sum;
  };
  for (int degree = 0; degree <= 31; ++degree) {
    CAPTURE(degree);
    CHECK(std::abs(moment(degree) - (degree % 2 == 0 ? 2.0 / (degree + 1) : 0)) < 1e-15);
  }
  CHECK(std::abs(moment(32) - 2.0 / 33) > 1e-12);
  for (int i = 1; i < GaussLegendre::kNodes; ++i) CHECK(rule.node[i - 1] < rule.node[i]);
}

TEST_CASE("panels add up to the interval") {
  const double exact = std::exp(3.0) - std::exp(-1.0);
  for (const int panels : {1, 3, 8}) {
    const double found = integrate([](double x) { return std::exp(x); }, -1, 3, panels);
    CHECK(std::abs(found - exact) < 1e-14 * exact);
  }
}

TEST_CASE("a falling root is found to the last bit") {
  CHECK(std::abs(falling_root([](double x) { return 2 - x * x; }, 0, 9) - std::sqrt(2.0)) < 1e-15);
  CHECK(falling_root([](double x) { return -x; }, -1, 1) == 0);
}

}  // namespace
}  // namespace ruq::test
