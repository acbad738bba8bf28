#include "ruquant/theory/clipping.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "ruquant/base/rng.hpp"
#include "support/errors.hpp"

namespace ruq::test {
namespace {

TEST_CASE("ACIQ clip points are the recomputed roots") {
  const std::vector<double> gauss = {1.2399, 1.7106, 2.1516, 2.5591,
                                     2.9362, 3.2869, 3.6151, 3.9240};
  const std::vector<double> laplace = {1.8628, 2.8307, 3.8972, 5.0286,
                                       6.2048, 7.4131, 8.6456, 9.8968};
  const double beta = 0.3;
  for (Index b = 1; b <= 8; ++b) {
    CAPTURE(b);
    const auto i = static_cast<std::size_t>(b - 1);
    CHECK(std::abs(aciq_clip(Density::gaussian(2), b) / 2 - gauss[i]) < 1e-3);
    const double root = aciq_clip(Density::laplace(beta * std::numbers::sqrt2), b) / beta;
    CHECK(std::abs(root - laplace[i]) < 1e-3);
    CHECK(root == doctest::Approx(3 * std::pow(4.0, b) * std::exp(-root)).epsilon(1e-12));
  }
}

TEST_CASE("ACIQ's error has the published closed forms, and its clip point is their minimum") {
  for (const double alpha : {0.5, 2.0, 4.5}) {
    const double s = 1.3;
    const double uniform = alpha * alpha / (3 * 256);
    const double gauss =
        (alpha * alpha + s * s) * std::erfc(alpha / (s * std::numbers::sqrt2)) -
        std::sqrt(2 / std::numbers::pi) * alpha * s * std::exp(-alpha * alpha / (2 * s * s)) +
        uniform;
    CHECK(aciq_error(Density::gaussian(s), 4, alpha) == doctest::Approx(gauss).epsilon(1e-12));
    const double beta = 0.8;
    const double laplace = 2 * beta * beta * std::exp(-alpha / beta) + uniform;
    CHECK(aciq_error(Density::laplace(beta * std::numbers::sqrt2), 4, alpha) ==
          doctest::Approx(laplace).epsilon(1e-12));
  }
  Stream stream(4, "aciq");
  const Vector<double> draws = stream.normal(2000, 1).col(0);
  for (const Density& density :
       {Density::gaussian(), Density::student_t(3), Density::exponential(2),
        Density::uniform(-1, 3), Density::empirical({draws.begin(), draws.end()})}) {
    const double clip = aciq_clip(density, 3);
    const double least = aciq_error(density, 3, clip);
    for (double factor = 0.1; factor < 10; factor *= 1.01) {
      CHECK(aciq_error(density, 3, factor * clip) >= least * (1 - 1e-13));
    }
  }
}

TEST_CASE("OCTAV ends in the fixed point, near the least modelled error") {
  Stream stream(5, "octav");
  for (const double power : {1.0, 3.0}) {
    const Vector<double> x = stream.normal(20000, 1).col(0).array().pow(power);
    const std::vector<double> data(x.begin(), x.end());
    for (const Index bits : {2, 4, 8}) {
      CAPTURE(power);
      CAPTURE(bits);
      const double s = octav_clip(data, bits);
      double over = 0, mass = 0;
      for (const double value : data) {
        const bool clipped = std::abs(value) > s;
        over += clipped ? std::abs(value) : 0;
        mass += clipped ? 1 : std::pow(4.0, -bits) / 3;
      }
      CHECK(s == doctest::Approx(over / mass).epsilon(1e-12));
      // The iteration leaves out that P(|x| ≤ s) moves with s: a loss of 0.3% at 2 bits.
      for (double factor = 0.2; factor < 4; factor *= 1.02) {
        CHECK(octav_error(data, bits, factor * s) >= octav_error(data, bits, s) * 0.995);
      }
    }
  }
  // On many Gaussian values it is the fixed point of the expectations.
  const Vector<double> x = stream.normal(400000, 1).col(0);
  const double s = octav_clip({x.data(), static_cast<std::size_t>(x.size())}, 4);
  const Moments tail = Density::gaussian().moments(s, kInfinity);
  const double next = 2 * tail.m1 / ((1 - 2 * tail.m0) / 768 + 2 * tail.m0);
  CHECK(std::abs(next / s - 1) < 0.02);
}

TEST_CASE("OCTAV on data with little in it") {
  CHECK(octav_clip(std::vector<double>{0, 0, 0}, 4) == 0);
  CHECK(octav_clip(std::vector<double>{2, -2}, 4) == 2);
  CHECK(octav_clip(std::vector<double>{-5}, 4) == 5);
  for (const auto& data : {std::vector<double>{1, 2}, {1, 1, 9}, {0, 3, -4, 100}}) {
    const double s = octav_clip(data, 2);
    CHECK(s > 0);
    CHECK(s <= 100);
  }
}

// 10·log10 of unit power over the error.
double db(double error) { return -10 * std::log10(error); }

// The table was drawn too. Sets of 1.5 million values differ by 0.012 dB (one standard deviation),
// so 0.04 is three of those and its rounding; ratios are told apart by a hundredth or two.
constexpr double kDrawn = 0.04;

TEST_CASE("one ratio for all Gaussian vectors: the Monte Carlo table") {
  Stream stream(6, "shrink");
  const Matrix<double> rows = stream.normal(12000, 128);
  const Matrix<double> few = rows.topRows(3000);
  const auto check = [&](ShrinkSearch search, double plain, double ratio, double shrunk) {
    search.smallest = 0.7;
    CAPTURE(search.bits);
    CAPTURE(search.symmetric);
    CHECK(std::abs(db(shrink_error(rows, search, 1)) - plain) < kDrawn);
    CHECK(std::abs(db(shrink_error(rows, search, ratio)) - shrunk) < kDrawn);
    const Shrink best = best_shrink(few, search);
    CHECK(std::abs(best.ratio - ratio) < 0.025);
    CHECK(best.error == shrink_error(few, search, best.ratio));
    CHECK(best.error <= shrink_error(few, search, ratio));
  };
  check({.bits = 4}, 19.94, 0.93, 20.28);
  check({.bits = 3}, 13.34, 0.80, 14.44);
  check({.bits = 4, .symmetric = true}, 18.59, 0.83, 19.64);
  const Shrink alone = best_shrink_per_row(few, {.bits = 4, .smallest = 0.7});
  CHECK(std::abs(db(alone.error) - 20.43) < 2 * kDrawn);  // a quarter of the rows

  const Matrix<double> wide = stream.normal(370, 4096);
  // Unclipped, the error of a row is its squared range, which varies by 12%: 0.027 dB over 370
  // rows.
  CHECK(std::abs(db(shrink_error(wide, {.bits = 4}, 1)) - 17.09) < 3 * 0.027);
  CHECK(std::abs(db(shrink_error(wide, {.bits = 4}, 0.71)) - 19.21) < kDrawn);
  CHECK(std::abs(db(shrink_error(wide, {.bits = 4, .symmetric = true}, 0.63)) - 19.12) < kDrawn);
  const Shrink best = best_shrink(wide.topRows(60), {.bits = 4, .grid = 50, .smallest = 0.6});
  CHECK(std::abs(best.ratio - 0.71) < 0.035);
}

TEST_CASE("shrunk ranges against the definition, and a higher power keeps more of the range") {
  Matrix<double> row(1, 5);
  row << -1, 0.1, 0.4, 2, 0;
  // b = 2, ratio 1: step 1, zero point 1, levels −1 0 1 2.
  CHECK(shrink_error(row, {.bits = 2}, 1) == doctest::Approx((0.01 + 0.16) / 5));
  CHECK(shrink_error(row, {.bits = 2, .power = 2.4}, 1) ==
        doctest::Approx((std::pow(0.1, 2.4) + std::pow(0.4, 2.4)) / 5));
  // Symmetric: step 2, levels −4 −2 0 2; a half rounds to even, −½ to zero.
  CHECK(shrink_error(row, {.bits = 2, .symmetric = true}, 1) ==
        doctest::Approx((1 + 0.01 + 0.16) / 5));
  // Symmetric at ratio ½: step 1, levels −2 −1 0 1.
  CHECK(shrink_error(row, {.bits = 2, .symmetric = true}, 0.5) ==
        doctest::Approx((0.01 + 0.16 + 1) / 5));
  CHECK(shrink_error(-row, {.bits = 2, .symmetric = true}, 0.5) ==
        doctest::Approx((0.01 + 0.16) / 5));
  // Ratio ½: step ½, zero point 1, levels −½ ... 1.
  CHECK(shrink_error(row, {.bits = 2}, 0.5) == doctest::Approx((0.25 + 0.01 + 0.01 + 1) / 5));
  CHECK(shrink_error(Matrix<double>::Constant(2, 3, 4.0), {.bits = 4}, 1) == 0);

  Stream stream(7, "power");
  const Matrix<double> rows = stream.normal(300, 512);
  const Shrink square = best_shrink(rows, {.bits = 4});
  const Shrink higher = best_shrink(rows, {.bits = 4, .power = 2.4});
  CHECK(higher.ratio > square.ratio);
  CHECK(best_shrink_per_row(rows, {.bits = 4}).error <= square.error);
}

TEST_CASE("ranges of a few normal values in closed form") {
  const double pi = std::numbers::pi;
  const RangeMoments one = gaussian_range(1);
  CHECK(one.max_abs == doctest::Approx(std::sqrt(2 / pi)).epsilon(1e-13));
  CHECK(one.max_abs_squared == doctest::Approx(1).epsilon(1e-13));
  CHECK(std::abs(one.range) < 1e-14);
  CHECK(one.range_squared == 0);
  const RangeMoments two = gaussian_range(2);
  CHECK(two.range == doctest::Approx(2 / std::sqrt(pi)).epsilon(1e-13));
  CHECK(two.range_squared == doctest::Approx(2).epsilon(1e-12));
  CHECK(two.max_abs == doctest::Approx(2 / std::sqrt(pi)).epsilon(1e-13));
  CHECK(two.max_abs_squared == doctest::Approx(1 + 2 / pi).epsilon(1e-13));
  CHECK(gaussian_range(3).range == doctest::Approx(3 / std::sqrt(pi)).epsilon(1e-13));
}

TEST_CASE("ranges of long normal vectors") {
  struct Row {
    Index n;
    double max_abs, rms, range, range_squared;
  };
  for (const Row& row : std::vector<Row>{{32, 2.347, 2.390, 4.139, 17.61},
                                         {128, 2.828, 2.855, 5.189, 27.28},
                                         {1024, 3.442, 3.458, 6.497, 42.45},
                                         {4096, 3.802, 3.815, 7.252, 52.80},
                                         {14336, 4.103, 4.113, 7.879, 62.25}}) {
    CAPTURE(row.n);
    const RangeMoments found = gaussian_range(row.n);
    CHECK(std::abs(found.max_abs - row.max_abs) < 6e-4);
    CHECK(std::abs(std::sqrt(found.max_abs_squared) - row.rms) < 6e-4);
    CHECK(std::abs(found.range - row.range) < 6e-4);
    CHECK(std::abs(found.range_squared - row.range_squared) < 6e-3);
  }
  CHECK(std::abs(min_max_sqnr_db(128, 4, false) - 19.96) < 6e-3);
  CHECK(std::abs(min_max_sqnr_db(128, 4, true) - 18.58) < 6e-3);
  CHECK(std::abs(min_max_sqnr_db(4096, 6, false) - 29.55) < 6e-3);
  CHECK(std::abs(min_max_sqnr_db(4096, 8, true) - 41.24) < 6e-3);
}

TEST_CASE("expected ranges agree with drawn ones to three standard errors") {
  const Index n = 64;
  const Index draws = 4000;
  Stream stream(9, "ranges");
  const Matrix<double> rows = stream.normal(draws, n);
  const Vector<double> largest = rows.cwiseAbs().rowwise().maxCoeff();
  const Vector<double> range = rows.rowwise().maxCoeff() - rows.rowwise().minCoeff();
  const auto check = [&](const Vector<double>& sample, double expected) {
    const double mean = sample.mean();
    const double deviation = std::sqrt((sample.array() - mean).square().mean());
    CHECK(std::abs(mean - expected) < 3 * deviation / std::sqrt(double(draws)));
  };
  const RangeMoments expected = gaussian_range(n);
  check(largest, expected.max_abs);
  check(largest.array().square(), expected.max_abs_squared);
  check(range, expected.range);
  check(range.array().square(), expected.range_squared);
}

TEST_CASE("wrong requests are refused") {
  const Matrix<double> rows = Matrix<double>::Ones(1, 2);
  check_error([] { aciq_clip(Density::gaussian(), 0); }, {"1 to 16", "0"});
  check_error([] { aciq_clip(Density::empirical({0}), 4); }, {"point at zero"});
  check_error([] { octav_clip(std::vector<double>{}, 4); }, {"needs data"});
  check_error([] { octav_clip(std::vector<double>{NAN}, 4); }, {"finite"});
  check_error([&] { shrink_error(rows, {.bits = 1}, 1); }, {"2 to 16", "1"});
  check_error([&] { shrink_error(rows, {.bits = 4}, 0); }, {"above zero"});
  check_error([&] { best_shrink(rows, {.power = 0}); }, {"power"});
  check_error([] { best_shrink(Matrix<double>(0, 3), {}); }, {"needs data"});
  check_error([&] { shrink_error(rows * NAN, {.bits = 4}, 1); }, {"finite"});
  check_error([] { gaussian_range(0); }, {"at least one"});
}

}  // namespace
}  // namespace ruq::test
