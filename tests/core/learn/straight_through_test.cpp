#include "ruquant/learn/straight_through.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "support/differences.hpp"
#include "support/frozen_rounding.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

constexpr Index kWidth = 12;
constexpr Index kTinyRow = 4;

// Rows of every sign, one far from zero, one so small that its step is at the floor.
Matrix<double> rows() {
  Matrix<double> x = gaussian(6, kWidth, "rows");
  x.row(1) = x.row(1).cwiseAbs().array() + 0.2;
  x.row(2) = -x.row(2).cwiseAbs().array() - 0.2;
  x.row(3).array() += 30;
  x.row(kTinyRow) *= 1e-7;
  x(5, 3) = 25;
  return x;
}

std::vector<QuantSpec> specs() {
  std::vector<QuantSpec> all;
  for (const GridRule rule :
       {GridRule::omniquant, GridRule::quarot_activation, GridRule::quarot_weight}) {
    for (const bool symmetric : {false, true}) {
      for (const Index group : {0, 4}) {
        for (const double ratio : {1.0, 0.7}) {
          all.push_back({.bits = 3,
                         .symmetric = symmetric,
                         .rule = rule,
                         .group_size = group,
                         .clip_ratio = ratio});
        }
      }
      if (rule == GridRule::quarot_weight) {
        all.push_back({.bits = 3, .symmetric = symmetric, .rule = rule, .search = true});
      }
    }
  }
  return all;
}

std::string describe(const QuantSpec& spec) {
  return to_string(spec.rule) + (spec.symmetric ? " symmetric" : "") + " groups of " +
         std::to_string(spec.group_size) + " ratio " + std::to_string(spec.clip_ratio) +
         (spec.search ? " search" : "");
}

TEST_CASE("rounding passes the gradient that the straight-through rules say") {
  double clipped = 0;
  for (const QuantSpec& spec : specs()) {
    INFO(describe(spec));
    Matrix<double> x = rows();
    const Matrix<double> upstream = gaussian(x.rows(), x.cols(), "upstream");
    const FrozenRounding frozen(x, spec, nullptr);
    clipped += frozen.clipped_share();
    Matrix<double> rounded = x;
    round_rows(rounded, spec);
    CHECK(relative_error(frozen(x, nullptr), rounded) < 1e-14);
    Matrix<double> fake = x;
    fake_quantize(fake, spec);
    CHECK(fake == rounded);

    Matrix<double> gradient = upstream;
    round_rows_backward(x, spec, gradient);
    for (Index r = 0; r < x.rows(); ++r) {  // each at its own scale
      Matrix<double> row = x.row(r);
      const auto loss = [&] {
        x.row(r) = row;
        return frozen(x, nullptr).row(r).dot(upstream.row(r));
      };
      INFO("row " << r);
      check_gradient(loss, row, Matrix<double>(gradient.row(r)), 1e-6, r == kTinyRow ? 1e-13 : 0);
      loss();
    }
  }
  CHECK(clipped > 1);  // shares of all specs together
}

TEST_CASE("learned clip factors get the gradient of their range") {
  for (const QuantSpec& spec : specs()) {
    if (spec.clip_ratio != 1 || spec.search) continue;
    INFO(describe(spec));
    Matrix<double> x = rows();
    x.row(kTinyRow) *= 1e7;  // a step at the floor has no slope: tested below
    const Matrix<double> upstream = gaussian(x.rows(), x.cols(), "upstream");
    RowClips<double> clips{0.8 + 0.05 * gaussian(x.rows(), 1, "low").col(0).array(),
                           0.7 + 0.05 * gaussian(x.rows(), 1, "high").col(0).array()};
    const FrozenRounding frozen(x, spec, &clips);
    CHECK(frozen.clipped_share() > 0);
    Matrix<double> gradient = upstream;
    RowClips<double> slope{Vector<double>::Zero(x.rows()), Vector<double>::Zero(x.rows())};
    round_rows_backward(x, spec, gradient, &clips, &slope);
    const auto loss = [&] { return frozen(x, &clips).cwiseProduct(upstream).sum(); };
    check_gradient(loss, x, gradient, 1e-6);
    check_gradient(loss, clips.low, slope.low, 1e-6);
    check_gradient(loss, clips.high, slope.high, 1e-6);
  }
}

TEST_CASE("a step at its floor does not move, and constant rows share their gradient") {
  const Matrix<double> upstream = gaussian(1, 4, "upstream");
  Matrix<double> gradient = upstream;
  Matrix<double> x = Matrix<double>::Constant(1, 4, 2.0);
  // omniquant: a constant row has the least step, so every entry is inside and keeps its gradient.
  RowClips<double> clips{Vector<double>::Ones(1), Vector<double>::Ones(1)};
  RowClips<double> slope{Vector<double>::Zero(1), Vector<double>::Zero(1)};
  round_rows_backward(x, {.bits = 4}, gradient, &clips, &slope);
  CHECK(slope.low(0) == 0);
  CHECK(slope.high(0) == 0);
  // quarot: Δ = max/Q and x̃ = Q·Δ = x: the whole gradient through Δ, in equal parts.
  gradient = upstream;
  round_rows_backward(x, {.bits = 4, .rule = GridRule::quarot_activation}, gradient);
  CHECK(relative_error(gradient, upstream) < 1e-12);
  x.setConstant(-2.0);
  gradient = upstream;
  round_rows_backward(x, {.bits = 4, .rule = GridRule::quarot_activation}, gradient);
  CHECK(relative_error(gradient, upstream) < 1e-12);
  // Symmetric with two equal greatest entries, clipped: x̃ = top·ρ·max at both.
  x << 1, 1, 0.01, -0.02;
  gradient << 1, 3, 0, 0;
  round_rows_backward(
      x, {.bits = 4, .symmetric = true, .rule = GridRule::quarot_weight, .clip_ratio = 0.5},
      gradient);
  CHECK(gradient(0, 0) == doctest::Approx(gradient(0, 1)));
  CHECK(gradient(0, 0) > 0);
}

TEST_CASE("16 bits pass everything") {
  const Matrix<double> upstream = gaussian(6, kWidth, "upstream");
  Matrix<double> gradient = upstream;
  round_rows_backward(rows(), {.bits = 16}, gradient);
  CHECK(gradient == upstream);
}

}  // namespace
}  // namespace ruq::test
