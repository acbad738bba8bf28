#include "ruquant/learn/weight_rounding.hpp"

#include <doctest/doctest.h>

#include "ruquant/learn/straight_through.hpp"
#include "ruquant/quant/clamp_rows.hpp"
#include "support/differences.hpp"
#include "support/frozen_rounding.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

RowClips<double> some_clips(Index rows) {
  return {0.8 + 0.05 * gaussian(rows, 1, "low").col(0).array(),
          0.7 + 0.05 * gaussian(rows, 1, "high").col(0).array()};
}

RowClips<double> zeros(Index rows) {
  return {Vector<double>::Zero(rows), Vector<double>::Zero(rows)};
}

TEST_CASE("a clamped entry passes its gradient to the bound, and from there to the row's end") {
  Matrix<double> w = gaussian(5, 12, "w");
  const Matrix<double> upstream = gaussian(5, 12, "upstream");
  RowClips<double> clips = some_clips(5);
  Matrix<double> gradient = upstream;
  RowClips<double> slope = zeros(5);
  clamp_rows_backward(w, clips, gradient, slope);
  const auto loss = [&] {
    Matrix<double> clamped = w;
    clamp_rows(clamped, clips);
    return clamped.cwiseProduct(upstream).sum();
  };
  check_gradient(loss, w, gradient, 1e-7);
  check_gradient(loss, clips.low, slope.low, 1e-7);
  check_gradient(loss, clips.high, slope.high, 1e-7);
}

TEST_CASE("under quarot_weight rows are clamped and rounded over what is left of their range") {
  for (const bool symmetric : {true, false}) {
    const QuantSpec spec{
        .bits = 3, .symmetric = symmetric, .rule = GridRule::quarot_weight, .clip_ratio = 0.9};
    QuantSpec whole = spec;
    whole.clip_ratio = 1;  // factors take the place of the ratio
    Matrix<double> w = gaussian(5, 12, "w");
    const Matrix<double> upstream = gaussian(5, 12, "upstream");
    RowClips<double> clips = some_clips(5);
    Matrix<double> clamped = w;
    clamp_rows(clamped, clips);
    const FrozenRounding frozen(clamped, whole, nullptr);
    const auto rounded = [&] {
      Matrix<double> now = w;
      clamp_rows(now, clips);
      return frozen(now, nullptr);
    };
    Matrix<double> result = w;
    round_weight_rows(result, spec, &clips);
    CHECK(relative_error(result, rounded()) < 1e-14);

    Matrix<double> gradient = upstream;
    RowClips<double> slope = zeros(5);
    round_weight_rows_backward(w, spec, gradient, &clips, &slope);
    const auto loss = [&] { return rounded().cwiseProduct(upstream).sum(); };
    check_gradient(loss, w, gradient, 1e-6);
    check_gradient(loss, clips.low, slope.low, 1e-6);
    check_gradient(loss, clips.high, slope.high, 1e-6);
  }
}

TEST_CASE("without factors, and under omniquant, it is round_rows; at 16 bits nothing") {
  const Matrix<double> w = gaussian(5, 12, "w");
  const RowClips<double> clips = some_clips(5);
  const auto same = [&](const QuantSpec& spec, const RowClips<double>* factors) {
    Matrix<double> a = w;
    Matrix<double> b = w;
    round_weight_rows(a, spec, factors);
    round_rows(b, spec, factors);
    CHECK(a == b);
    Matrix<double> g = gaussian(5, 12, "upstream");
    Matrix<double> h = g;
    RowClips<double> slope_a = zeros(5);
    RowClips<double> slope_b = zeros(5);
    round_weight_rows_backward(w, spec, g, factors, &slope_a);
    round_rows_backward(w, spec, h, factors, &slope_b);
    CHECK(g == h);
    CHECK(slope_a == slope_b);
  };
  same({.bits = 3, .symmetric = true, .rule = GridRule::quarot_weight}, nullptr);
  same({.bits = 3}, &clips);
  same({.bits = 16, .rule = GridRule::quarot_weight}, &clips);
}

}  // namespace
}  // namespace ruq::test
