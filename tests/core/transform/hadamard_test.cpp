#include "ruquant/transform/hadamard.hpp"

#include <doctest/doctest.h>

#include <set>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

constexpr std::array<Index, 11> kBases = {12, 20, 28, 36, 40, 52, 60, 108, 140, 156, 172};

TEST_CASE("every base matrix holds signs alone and has orthogonal rows") {
  for (const Index k : kBases) {
    CAPTURE(k);
    const Matrix<double> h = hadamard_base(k);
    REQUIRE(h.rows() == k);
    REQUIRE(h.cols() == k);
    CHECK((h.array().abs() == 1).all());
    CHECK(h * h.transpose() == (Matrix<double>::Identity(k, k) * double(k)));
  }
  CHECK(hadamard_base(1) == Matrix<double>::Ones(1, 1));
}

TEST_CASE("the orders that exist are those of the list times powers of two") {
  std::set<Index> expected;
  for (Index power = 1; power <= 1024; power *= 2) {
    expected.insert(power);
    for (const Index k : kBases) expected.insert(k * power);
  }
  for (Index n = 0; n <= 1024; ++n) {
    CAPTURE(n);
    CHECK(hadamard_exists(n) == expected.contains(n));
  }
  for (const Index n : {576, 1536, 5120, 6656, 8192, 11008, 13824, 14336, 17920}) {
    CHECK(hadamard_exists(n));
  }
}

TEST_CASE("an order splits into the base that QuaRot's search finds") {
  const auto split = [](Index n) {
    const HadamardOrder order = hadamard_order(n);
    return std::pair(order.base, order.power_of_two);
  };
  CHECK(split(576) == std::pair<Index, Index>(36, 16));
  CHECK(split(1536) == std::pair<Index, Index>(12, 128));
  CHECK(split(11008) == std::pair<Index, Index>(172, 64));
  CHECK(split(5120) == std::pair<Index, Index>(40, 128));
  CHECK(split(64) == std::pair<Index, Index>(1, 64));
  CHECK(split(1) == std::pair<Index, Index>(1, 1));
  check_error([] { hadamard_order(46); }, {"46"});
  check_error([] { hadamard_base(44); }, {"44"});
}

TEST_CASE("a Hadamard matrix spreads one spike evenly and in place") {
  for (const Index n : {1, 2, 8, 12, 28, 96, 172, 576}) {
    CAPTURE(n);
    Matrix<double> x = Matrix<double>::Zero(2, n);
    x(0, n / 2) = 3;
    hadamard_in_place<double>(x, n, false);
    const double expected = 3 / std::sqrt(double(n));
    CHECK((x.row(0).array().abs() - expected).abs().maxCoeff() < 1e-14);
    CHECK(x.row(1).isZero(0));
  }
}

TEST_CASE("the transposed form undoes the other") {
  for (const Index n : {4, 12, 20, 40, 52, 60, 344}) {
    CAPTURE(n);
    const Matrix<double> x = gaussian(3, 2 * n, "hadamard");
    Matrix<double> y = x;
    hadamard_in_place<double>(y, n, false);
    CHECK(relative_error(y, x) > 0.1);
    hadamard_in_place<double>(y, n, true);
    CHECK(relative_error(y, x) < 1e-13);
  }
}

TEST_CASE("the largest power of two of a head width") {
  CHECK(largest_power_of_two(64, 128) == 64);
  CHECK(largest_power_of_two(128, 64) == 64);
  CHECK(largest_power_of_two(96, 128) == 32);
  CHECK(largest_power_of_two(22, 22) == 2);
  CHECK(largest_power_of_two(5, 128) == 1);
  CHECK(largest_power_of_two(64, 1) == 1);
  CHECK(largest_power_of_two(64, 48) == 32);
}

}  // namespace
}  // namespace ruq::test
