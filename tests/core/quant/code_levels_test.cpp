#include "ruquant/quant/code_levels.hpp"

#include <doctest/doctest.h>

#include "ruquant/base/rng.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

// Rows of one-sided, skewed values: bins whose mean lies below their middle.
Matrix<double> skewed_rows(Index rows, Index cols, const char* name) {
  return (-Stream(5, name).uniform(rows * cols).array().max(1e-9).log())
      .matrix()
      .reshaped<Eigen::RowMajor>(rows, cols);
}

double squared_error(const Matrix<double>& x, const QuantSpec& spec, const CodeLevels& levels,
                     const std::optional<ClipPair>& clips = {}) {
  Matrix<double> rounded = x;
  fake_quantize(rounded, spec, clips, levels);
  return (rounded - x).squaredNorm();
}

LevelFit fit(const Matrix<double>& x, const QuantSpec& spec,
             const std::optional<ClipPair>& clips = {}) {
  LevelFit sums(spec, clips);
  sums.add(x);
  return sums;
}

std::vector<QuantSpec> specs() {
  return {{.bits = 4},
          {.bits = 3, .clip_ratio = 0.8},
          {.bits = 4, .group_size = 16},
          {.bits = 4, .symmetric = true, .rule = GridRule::quarot_activation},
          {.bits = 6, .rule = GridRule::quarot_activation}};
}

TEST_CASE("levels at the codes are the uniform grid") {
  const Matrix<double> x = gaussian(20, 64, "x", 2);
  const QuantSpec spec{.bits = 4};
  CodeLevels uniform{Vector<double>(15), Vector<double>(16)};
  for (Index i = 0; i < 16; ++i) {
    uniform.levels(i) = static_cast<double>(i);
    if (i > 0) uniform.thresholds(i - 1) = static_cast<double>(i) - 0.5;
  }
  Matrix<double> by_levels = x, by_codes = x;
  fake_quantize(by_levels, spec, {}, uniform);
  fake_quantize(by_codes, spec);
  CHECK(by_levels == by_codes);
}

TEST_CASE("centroids are the means of their bins, and no levels on these thresholds are better") {
  for (const QuantSpec& spec : specs()) {
    CAPTURE(spec.bits);
    const Matrix<double> x = skewed_rows(40, 64, "x");
    const CodeLevels centroids = fit(x, spec).centroids();
    const double best = squared_error(x, spec, centroids);
    CHECK(best < squared_error(x, spec, {}));
    for (Index i = 0; i < centroids.levels.size(); ++i) {
      for (const double shift : {-0.01, 0.01}) {
        CodeLevels moved = centroids;
        moved.levels(i) += shift;
        CHECK(squared_error(x, spec, moved) >= best);
      }
    }
  }
}

TEST_CASE("Lloyd-Max levels are better still, and the nearest ones") {
  for (const QuantSpec& spec : specs()) {
    CAPTURE(spec.bits);
    const Matrix<double> x = skewed_rows(40, 64, "x");
    const LevelFit sums = fit(x, spec);
    const CodeLevels best = sums.lloyd_max();
    CHECK(squared_error(x, spec, best) < squared_error(x, spec, sums.centroids()));
    for (Index i = 0; i + 1 < best.levels.size(); ++i) {
      if (!std::isfinite(best.thresholds(i))) continue;
      CHECK(best.thresholds(i) == doctest::Approx((best.levels(i) + best.levels(i + 1)) / 2));
    }
  }
}

TEST_CASE("values that fill their bins evenly leave nothing to shift") {
  // Two values a bin, as far below its middle as above, and the ends of the range.
  Matrix<double> x(3, 62);
  for (Index r = 0; r < 3; ++r) {
    x(r, 0) = 0;
    x(r, 61) = 31;
    for (Index j = 1; j < 61; ++j) {
      x(r, j) = static_cast<double>((j + 1) / 2) + (j % 2 == 1 ? -0.3 : 0.3);
    }
    x.row(r) *= static_cast<double>(r + 1);
  }
  const CodeLevels centroids = fit(x, {.bits = 5}).centroids();
  for (Index i = 0; i < 32; ++i) {
    CHECK(centroids.levels(i) == doctest::Approx(static_cast<double>(i)).epsilon(1e-12));
  }
}

TEST_CASE("an empty bin keeps its code, and few values need few levels") {
  Matrix<double> x(1, 8);
  x << 0, 0, 0, 0, 1, 1, 1, 1;
  const LevelFit sums = fit(x, {.bits = 3});
  const CodeLevels centroids = sums.centroids();
  for (Index i = 0; i < 8; ++i) CHECK(centroids.levels(i) == static_cast<double>(i));
  CHECK(squared_error(x, {.bits = 3}, sums.lloyd_max()) < 1e-24);
}

TEST_CASE("clip factors take the place of the ratio") {
  const Matrix<double> x = skewed_rows(30, 64, "x");
  const ClipPair clips{0.5, 0.6};
  Matrix<double> by_pair = x, by_ratio = x;
  fake_quantize(by_pair, {.bits = 4}, ClipPair{0.7, 0.7});
  fake_quantize(by_ratio, {.bits = 4, .clip_ratio = 0.7});
  CHECK(by_pair == by_ratio);
  const CodeLevels centroids = fit(x, {.bits = 4}, clips).centroids();
  CHECK(squared_error(x, {.bits = 4}, centroids, clips) < squared_error(x, {.bits = 4}, {}, clips));
}

TEST_CASE("rows may come in parts") {
  const Matrix<double> x = skewed_rows(30, 64, "x");
  LevelFit parts({.bits = 4});
  parts.add(Matrix<double>(x.topRows(11)));
  parts.add(Matrix<double>(x.bottomRows(19)));
  CHECK(relative_error(parts.lloyd_max().levels, fit(x, {.bits = 4}).lloyd_max().levels) < 1e-12);
}

TEST_CASE("nothing to fit to is an error") {
  check_error([] { LevelFit({.bits = 4}).lloyd_max(); }, {"found no rows"});
}

}  // namespace
}  // namespace ruq::test
