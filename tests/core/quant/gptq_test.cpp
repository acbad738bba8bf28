#include "ruquant/quant/gptq.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>

#include "support/errors.hpp"
#include "support/sweep_case.hpp"

namespace ruq::test {
namespace {

constexpr double kDamping = 0.01;

Matrix<double> damped(const Matrix<double>& hessian) {
  Matrix<double> h = hessian;
  h.diagonal().array() += kDamping * hessian.diagonal().mean();
  return h;
}

/// The sweep by its definition: after each column the remaining ones move to the minimum of the
/// quadratic form, found with an explicit inverse of the Hessian of what remains.
Matrix<double> naive_sweep(const Matrix<double>& weight, const Matrix<double>& h,
                           const Grid<double>& grid) {
  Matrix<double> w = weight;
  for (Index j = 0; j < w.cols(); ++j) {
    const Index rest = w.cols() - j;
    const Matrix<double> inverse = h.bottomRightCorner(rest, rest).inverse();
    for (Index r = 0; r < w.rows(); ++r) {
      const double code = std::clamp(std::rint(w(r, j) / grid.scale(r, 0)) + grid.zero(r, 0),
                                     double(grid.code_min), double(grid.code_max));
      const double error = w(r, j) - (code - grid.zero(r, 0)) * grid.scale(r, 0);
      w.row(r).tail(rest) -= error / inverse(0, 0) * inverse.row(0);
    }
  }
  return w;
}

Matrix<double> nearest(const Matrix<double>& weight, const QuantSpec& spec) {
  Matrix<double> rounded = weight;
  round_to_grid(rounded, fit_grid(weight, spec));
  return rounded;
}

TEST_CASE("GPTQ is the sweep of its definition, whatever the block") {
  const auto [weight, hessian] = sweep_case(7, 21, "definition");
  const QuantSpec spec{.bits = 3};
  const HessianFactor factor = factor_hessian(hessian, kDamping);
  const Matrix<double> expected = naive_sweep(weight, damped(hessian), fit_grid(weight, spec));
  for (const Index block : {1, 4, 21, 128}) {
    const auto result = gptq(weight, spec, factor, {.block_columns = block});
    CHECK(relative_error(result.weight, expected) < 1e-9);
  }
}

TEST_CASE("the losses of the sweep add up to the loss of the layer") {
  const auto [weight, hessian] = sweep_case(60, 40, "loss");
  for (const bool act_order : {false, true}) {
    const auto result = gptq(weight, {.bits = 2}, factor_hessian(hessian, kDamping, act_order),
                             {.block_columns = 16});
    const double loss = output_loss<double>(weight - result.weight, damped(hessian)) / 2;
    CHECK(result.losses.sum() == doctest::Approx(loss).epsilon(1e-9));
  }
}

TEST_CASE("under an identity Hessian GPTQ rounds to nearest") {
  const Matrix<double> weight = gaussian(9, 24, "weight", 1);
  const HessianFactor factor = factor_hessian(Matrix<double>::Identity(24, 24), kDamping);
  for (const Index group : {0, 8}) {
    for (const bool is_static : {false, true}) {
      const QuantSpec spec{.bits = 4, .group_size = group, .clip_ratio = 0.9};
      const auto result =
          gptq(weight, spec, factor, {.block_columns = 5, .static_groups = is_static});
      CHECK(result.weight == nearest(weight, spec));
    }
  }
}

TEST_CASE("on average GPTQ loses less than rounding to nearest") {
  double swept = 0, direct = 0;
  Index better = 0;
  for (int seed = 0; seed < 20; ++seed) {
    const auto [weight, hessian] = sweep_case(12, 32, "mean" + std::to_string(seed));
    const QuantSpec spec{.bits = 3};
    const auto result = gptq(weight, spec, factor_hessian(hessian, kDamping), {});
    const double loss = output_loss<double>(weight - result.weight, hessian);
    const double nearest_loss = output_loss<double>(weight - nearest(weight, spec), hessian);
    swept += loss;
    direct += nearest_loss;
    better += loss < nearest_loss ? 1 : 0;
  }
  CHECK(swept < 0.6 * direct);
  CHECK(better >= 18);
}

TEST_CASE("rows are swept each on its own") {
  const auto [weight, hessian] = sweep_case(70, 33, "rows");
  const HessianFactor factor = factor_hessian(hessian, kDamping);
  const QuantSpec spec{.bits = 3};
  const auto result = gptq(weight, spec, factor, {.block_columns = 8});
  const auto reversed =
      gptq<double>(weight.colwise().reverse(), spec, factor, {.block_columns = 8});
  CHECK(relative_error(reversed.weight, Matrix<double>(result.weight.colwise().reverse())) < 1e-12);

  const int before = threads();
  set_threads(before == 1 ? 3 : 1);
  CHECK(gptq(weight, spec, factor, {.block_columns = 8}).weight == result.weight);
  set_threads(before);
}

TEST_CASE("act-order sweeps the sorted layer") {
  const auto [weight, hessian] = sweep_case(6, 24, "order");
  const HessianFactor factor = factor_hessian(hessian, kDamping, true);
  const Matrix<double> sorted_weight = weight(Eigen::all, factor.order);
  const HessianFactor sorted_factor = factor_hessian(hessian(factor.order, factor.order), kDamping);
  const QuantSpec spec{.bits = 3};
  const auto result = gptq(weight, spec, factor, {});
  const auto sorted = gptq(sorted_weight, spec, sorted_factor, {});
  CHECK(relative_error(Matrix<double>(result.weight(Eigen::all, factor.order)), sorted.weight) <
        1e-12);
}

TEST_CASE("static groups keep the grids of the given weight") {
  const auto [weight, hessian] = sweep_case(5, 24, "static");
  const QuantSpec spec{.bits = 3, .group_size = 8};
  for (const bool act_order : {false, true}) {
    const auto result = gptq(weight, spec, factor_hessian(hessian, kDamping, act_order),
                             {.block_columns = 6, .static_groups = true});
    const Grid<double> grid = fit_grid(weight, spec);
    CHECK(result.grid.scale == grid.scale);
    CHECK(relative_error(decode(encode(result.weight, grid), grid), result.weight) < 1e-14);
  }
  const auto moving = gptq(weight, spec, factor_hessian(hessian, kDamping), {.block_columns = 6});
  CHECK(moving.grid.scale.leftCols(1) == fit_grid(weight, spec).scale.leftCols(1));
  CHECK(moving.grid.scale.rightCols(1) != fit_grid(weight, spec).scale.rightCols(1));
}

TEST_CASE("a dead channel ends at zero and moves no other") {
  auto [weight, hessian] = sweep_case(5, 12, "dead");
  weight.col(3).setConstant(0.1);  // inside the range of every row
  hessian.row(3).setZero();
  hessian.col(3).setZero();
  const QuantSpec spec{.bits = 4, .rule = GridRule::quarot_weight};
  const auto result = gptq(weight, spec, factor_hessian(hessian, kDamping), {});
  CHECK(result.weight.col(3).isZero(0));
  CHECK(result.grid.scale == fit_grid(weight, spec).scale);
  Matrix<double> other = weight;
  other.col(3).setConstant(-0.2);
  CHECK(gptq(other, spec, factor_hessian(hessian, kDamping), {}).weight.rightCols(8) ==
        result.weight.rightCols(8));
  // The grid is that of the weight as given, whatever the channel is worth.
  other.col(3).setConstant(50);
  CHECK(gptq(other, spec, factor_hessian(hessian, kDamping), {}).grid.scale ==
        fit_grid(other, spec).scale);
}

TEST_CASE("float follows double where no decision is close") {
  const auto [weight, hessian] = sweep_case(8, 16, "float");
  const HessianFactor factor = factor_hessian(hessian, kDamping);
  const QuantSpec spec{.bits = 4};
  const Matrix<double> wide = gptq(weight, spec, factor, {}).weight;
  const Matrix<float> narrow = gptq<float>(weight.cast<float>(), spec, factor, {}).weight;
  CHECK(relative_error(narrow, wide) < 1e-5);
}

TEST_CASE("a Hessian of another width is refused") {
  const HessianFactor factor = factor_hessian(Matrix<double>::Identity(4, 4), kDamping);
  check_error([&] { gptq<double>(Matrix<double>::Ones(2, 5), {.bits = 4}, factor, {}); },
              {"Hessian has 4 channels", "weight 5"});
}

}  // namespace
}  // namespace ruq::test
