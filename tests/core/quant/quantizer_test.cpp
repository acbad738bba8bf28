#include "ruquant/quant/quantizer.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

constexpr std::array kRules = {GridRule::omniquant, GridRule::quarot_activation,
                               GridRule::quarot_weight};

// The rows that break quantizers: mixed sign, one-sided, constant, zero, tiny, one spike, far away.
Matrix<double> awkward_rows() {
  Matrix<double> x = gaussian(12, 16, "rows");
  x.row(1) = x.row(1).cwiseAbs().array() + 0.5;
  x.row(2) = -x.row(2).cwiseAbs();
  x.row(3).setConstant(2.5);
  x.row(4).setConstant(-0.3);
  x.row(5).setZero();
  x.row(6) *= 1e-7;
  x.row(7) *= 1e5;
  x.row(8).setZero();
  x(8, 3) = 6;
  x.row(9) = 1e-3 * x.row(9).array() + 40;
  x.row(10) *= 1e-4;
  return x;
}

Matrix<double> row_of(std::initializer_list<double> values) {
  Matrix<double> x(1, std::ssize(values));
  std::copy(values.begin(), values.end(), x.data());
  return x;
}

Matrix<double> rounded(Matrix<double> x, const QuantSpec& spec) {
  fake_quantize(x, spec);
  return x;
}

TEST_CASE("every grid obeys the laws on ordinary and awkward rows") {
  const Matrix<double> x = awkward_rows();
  for (const GridRule rule : kRules) {
    for (const Index bits : {2, 3, 4, 6, 8}) {
      for (const bool symmetric : {false, true}) {
        for (const Index group : {0, 4, 16}) {
          for (const double ratio : {1.0, 0.9, 0.6}) {
            check_grid_laws(x, {.bits = bits,
                                .symmetric = symmetric,
                                .rule = rule,
                                .group_size = group,
                                .clip_ratio = ratio});
          }
        }
      }
    }
  }
}

TEST_CASE("a searched range obeys the laws and errs no more than the whole range") {
  const Matrix<double> x = awkward_rows();
  for (const bool symmetric : {false, true}) {
    const QuantSpec whole = {.bits = 3, .symmetric = symmetric, .rule = GridRule::quarot_weight};
    QuantSpec searched = whole;
    searched.search = true;
    check_grid_laws(x, searched);
    const auto error = [&](const QuantSpec& spec) {
      return (rounded(x, spec) - x).cwiseAbs().array().pow(2.4).rowwise().sum().eval();
    };
    CHECK((error(searched) <= error(whole) * (1 + 1e-12)).all());
    CHECK((error(searched) < 0.95 * error(whole)).any());
  }
}

TEST_CASE("omniquant: step, zero point and codes of a worked row") {
  const Matrix<double> x = row_of({-1, -0.4, 0, 0.45, 2});
  const Grid<double> grid = fit_grid(x, {.bits = 2});
  CHECK(grid.scale(0, 0) == doctest::Approx(1));
  CHECK(grid.zero(0, 0) == 1);
  CHECK(encode(x, grid) == (Codes(1, 5) << 0, 1, 1, 1, 3).finished());
  CHECK(rounded(x, {.bits = 2}) == row_of({-1, 0, 0, 0, 2}));
}

TEST_CASE("omniquant: zero is not forced into the range and zero points lie where they fall") {
  const Matrix<double> positive = row_of({10, 11, 12, 13});
  const Grid<double> grid = fit_grid(positive, {.bits = 2});
  CHECK(grid.zero(0, 0) == -10);
  CHECK(rounded(positive, {.bits = 2}) == positive);
  CHECK(fit_grid(row_of({-13, -10}), {.bits = 2}).zero(0, 0) == 13);
}

TEST_CASE("omniquant: the step stays between 1e-5 and 1e4, the zero point within 1e4") {
  CHECK(fit_grid(row_of({0, 1e-9}), {.bits = 4}).scale(0, 0) == 1e-5);
  CHECK(fit_grid(row_of({0, 1e9}), {.bits = 4}).scale(0, 0) == 1e4);
  CHECK(fit_grid(row_of({5, 5}), {.bits = 4}).zero(0, 0) == -1e4);
  CHECK(rounded(row_of({0, 0, 0}), {.bits = 4}).isZero(0));
}

TEST_CASE("omniquant: a clip ratio scales both ends, and so widens a one-sided range") {
  const QuantSpec clipped = {.bits = 4, .clip_ratio = 0.5};
  CHECK(fit_grid(row_of({-3, 7}), clipped).scale(0, 0) == doctest::Approx(5.0 / 15));
  // [8, 10] becomes [4, 5]: the values are beyond the range and land on its top.
  const Matrix<double> out = rounded(row_of({8, 10}), clipped);
  CHECK(out(0, 0) == doctest::Approx(5).epsilon(0.01));
  CHECK(out(0, 1) == out(0, 0));
}

TEST_CASE("omniquant: symmetric grids centre on 2^{b-1} - 1") {
  const Grid<double> grid = fit_grid(row_of({-6, 3}), {.bits = 3, .symmetric = true});
  CHECK(grid.scale(0, 0) == doctest::Approx(2));
  CHECK(grid.zero(0, 0) == 3);
  CHECK(grid.code_min == 0);
  CHECK(grid.code_max == 7);
}

TEST_CASE("learned clips replace the ratio row by row") {
  const Matrix<double> x = (Matrix<double>(2, 2) << -2, 6, -2, 6).finished();
  const RowClips<double> clips = {Vector<double>{{0.5, 1}}, Vector<double>{{1, 0.5}}};
  const Grid<double> grid = fit_grid(x, {.bits = 4, .clip_ratio = 0.1}, &clips);
  CHECK(grid.scale(0, 0) == doctest::Approx(7.0 / 15));
  CHECK(grid.scale(1, 0) == doctest::Approx(5.0 / 15));
}

TEST_CASE("clip factors that would make the ends of a range cross leave it where they meet") {
  const Matrix<double> x = row_of({4, 4.5, 4.75, 5});
  const RowClips<double> clips = {Vector<double>{{1.0}}, Vector<double>{{0.5}}};  // 4 and 2.5
  for (const GridRule rule : {GridRule::omniquant, GridRule::quarot_activation}) {
    Matrix<double> rounded = x;
    round_to_grid(rounded, fit_grid(x, {.bits = 4, .rule = rule, .group_size = 4}, &clips));
    CHECK(rounded.allFinite());
    CHECK((rounded.array() <= 3.25 + 1e-3).all());
  }
}

TEST_CASE("quarot: the range of a whole row holds zero, that of an activation group does not") {
  const Matrix<double> x = row_of({4, 5, 6, 7});
  const QuantSpec whole = {.bits = 2, .rule = GridRule::quarot_activation};
  CHECK(fit_grid(x, whole).scale(0, 0) == doctest::Approx(7.0 / 3));
  CHECK(fit_grid(x, whole).zero(0, 0) == 0);
  QuantSpec grouped = whole;
  grouped.group_size = 4;
  CHECK(fit_grid(x, grouped).scale(0, 0) == doctest::Approx(1));
  CHECK(fit_grid(x, grouped).zero(0, 0) == -4);
  grouped.rule = GridRule::quarot_weight;
  CHECK(fit_grid(x, grouped).scale(0, 0) == doctest::Approx(7.0 / 3));
}

TEST_CASE("quarot: symmetric grids have signed codes and no zero point") {
  const QuantSpec spec = {.bits = 4, .symmetric = true, .rule = GridRule::quarot_activation};
  const Matrix<double> x = row_of({-7, 1, 3.4, 0});
  const Grid<double> grid = fit_grid(x, spec);
  CHECK(grid.scale(0, 0) == doctest::Approx(1));
  CHECK(grid.zero(0, 0) == 0);
  CHECK(encode(x, grid) == (Codes(1, 4) << -7, 1, 3, 0).finished());
  CHECK(grid.code_min == -8);
  CHECK(grid.code_max == 7);
  CHECK(fit_grid(row_of({0, 0}), spec).scale(0, 0) == 1);
}

TEST_CASE("rint rounds halves to even before the zero point is added") {
  // Δ = 1, z = 1: x/Δ = 0.5 and 1.5 round to 0 and 2, where rint(x/Δ + z) would give 1 and 3.
  const Matrix<double> x = row_of({-1, 0.5, 1.5, 2});
  CHECK(rounded(x, {.bits = 2}) == row_of({-1, 0, 2, 2}));
}

TEST_CASE("groups are quantized as rows of their own") {
  const Matrix<double> x = gaussian(5, 12, "groups", 1);
  const Matrix<double> as_rows = x.reshaped<Eigen::RowMajor>(15, 4);
  const Matrix<double> expected = rounded(as_rows, {.bits = 3}).reshaped<Eigen::RowMajor>(5, 12);
  CHECK(rounded(x, {.bits = 3, .group_size = 4}) == expected);
  CHECK(rounded(x, {.bits = 3}) != expected);
  const Grid<double> grid = fit_grid(x, {.bits = 3, .group_size = 4});
  CHECK(grid.scale.cols() == 3);
  CHECK(grid.zero.rows() == 5);
}

TEST_CASE("a group size that does not divide the row is refused") {
  const Matrix<double> x = gaussian(2, 10, "groups");
  check_error([&] { fit_grid(x, {.bits = 4, .group_size = 4}); }, {"group_size", "4", "10"});
  check_error([&] { rounded(x, {.bits = 4, .group_size = 3}); }, {"group_size", "3", "10"});
  CHECK(group_width({.group_size = 5}, 10) == 5);
  CHECK(group_width({}, 10) == 10);
}

TEST_CASE("16 bits leave values alone and have no grid") {
  const Matrix<double> x = awkward_rows();
  CHECK(rounded(x, {.bits = 16}) == x);
  CHECK_FALSE(QuantSpec{.bits = 16}.rounds());
  CHECK(QuantSpec{.bits = 8}.rounds());
  check_error([&] { fit_grid(x, {.bits = 16}); }, {"no grid at 16 bits"});
}

TEST_CASE("more bits err less, and every bit halves the step") {
  const Matrix<double> x = gaussian(20, 64, "bits");
  double last = 1e9;
  for (const Index bits : {2, 3, 4, 5, 6, 7, 8}) {
    const double error = (rounded(x, {.bits = bits}) - x).norm();
    CHECK(error < 0.6 * last);
    last = error;
  }
}

TEST_CASE("rule names round trip and misspelt ones are suggested") {
  for (const GridRule rule : kRules) CHECK(grid_rule(to_string(rule)) == rule);
  CHECK(to_string(GridRule::quarot_weight) == "quarot_weight");
  check_error([] { grid_rule("omniquand"); }, {"omniquand", "did you mean 'omniquant'"});
}

}  // namespace
}  // namespace ruq::test
