#include "ruquant/quant/septq.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "support/errors.hpp"
#include "support/sweep_case.hpp"

namespace ruq::test {
namespace {

const QuantSpec kPaperGrid{.bits = 2, .rule = GridRule::quarot_weight, .search = true};
const GptqOptions kSweep{.block_columns = 16};

SeptqResult<double> run(const SweepCase& layer, const SeptqOptions& options,
                        bool act_order = false) {
  return septq(layer.weight, kPaperGrid, factor_hessian(layer.hessian, kSweep.damping, act_order),
               kSweep, options);
}

TEST_CASE("an empty mask is GPTQ to the last bit, a full one keeps the weight") {
  const SweepCase layer = sweep_case(10, 40, "ends");
  for (const char* scope : {"global", "row"}) {
    const auto none = run(layer, {.kept_percent = 0, .mask_scope = scope});
    CHECK(none.kept == 0);
    CHECK(none.sweep.weight ==
          gptq(layer.weight, kPaperGrid, factor_hessian(layer.hessian, kSweep.damping), kSweep)
              .weight);
    const auto all = run(layer, {.kept_percent = 100, .mask_scope = scope});
    CHECK(all.kept == layer.weight.size());
    CHECK(all.sweep.weight == layer.weight);
    CHECK(all.sweep.losses.isZero(0));
  }
}

TEST_CASE("the share decides how many weights are kept, and the largest are") {
  const SweepCase layer = sweep_case(10, 37, "share");
  const HessianFactor factor = factor_hessian(layer.hessian, kSweep.damping);
  const Matrix<double> importance =
      rounding_importance(layer.weight, fit_grid(layer.weight, kPaperGrid), factor);
  for (const double percent : {0.1, 1.0, 7.3, 50.0, 99.9}) {
    const KeepMask mask = keep_mask(importance, {.kept_percent = percent});
    CHECK(mask.cast<Index>().sum() == static_cast<Index>(percent * 370 / 100) + 1);
    const double least_kept =
        (mask.array() != 0).select(importance, importance.maxCoeff()).minCoeff();
    const double most_left = (mask.array() == 0).select(importance, 0.0).maxCoeff();
    CHECK(least_kept > most_left);

    const KeepMask by_row = keep_mask(importance, {.kept_percent = percent, .mask_scope = "row"});
    for (Index r = 0; r < by_row.rows(); ++r) {
      CHECK(by_row.row(r).cast<Index>().sum() == static_cast<Index>(percent * 37 / 100) + 1);
      CHECK(Matrix<std::uint8_t>(by_row.row(r)) ==
            keep_mask<double>(importance.row(r), {.kept_percent = percent}));
    }
  }
}

TEST_CASE("importance is the loss of rounding one weight with the columns before it done") {
  const SweepCase layer = sweep_case(4, 12, "importance");
  for (const bool act_order : {false, true}) {
    const HessianFactor factor = factor_hessian(layer.hessian, kSweep.damping, act_order);
    const Matrix<double> importance =
        rounding_importance(layer.weight, fit_grid(layer.weight, kPaperGrid), factor);
    Matrix<double> rounded = layer.weight;
    round_to_grid(rounded, fit_grid(layer.weight, kPaperGrid));
    // The first column swept has nothing before it: half its importance is its loss there.
    const auto swept = gptq(layer.weight, kPaperGrid, factor, kSweep).losses.col(0).eval();
    CHECK(relative_error(Matrix<double>(importance.col(factor.order[0]) / 2),
                         Matrix<double>(swept)) < 1e-12);
    for (std::size_t j = 0; j < 12; ++j) {
      const auto at = static_cast<Index>(j);
      const Matrix<double> expected =
          ((rounded - layer.weight).col(factor.order[j]) / factor.upper(at, at)).cwiseAbs2();
      CHECK(relative_error(Matrix<double>(importance.col(factor.order[j])), expected) < 1e-12);
    }
  }
}

TEST_CASE("on average a kept share loses less than none, and more of it less still") {
  double loss[3] = {};
  const double share[3] = {0, 1, 10};
  for (int seed = 0; seed < 20; ++seed) {
    const SweepCase layer = sweep_case(12, 32, "mean" + std::to_string(seed));
    for (int i = 0; i < 3; ++i) {
      const auto result = run(layer, {.kept_percent = share[i]});
      loss[i] += output_loss<double>(layer.weight - result.sweep.weight, layer.hessian);
    }
  }
  CHECK(loss[1] < loss[0]);
  CHECK(loss[2] < 0.8 * loss[0]);
}

TEST_CASE("permuted rows give permuted rows") {
  SweepCase layer = sweep_case(70, 24, "rows");
  for (const char* scope : {"global", "row"}) {
    const auto result = run(layer, {.kept_percent = 5, .mask_scope = scope}, true);
    SweepCase turned = layer;
    turned.weight = layer.weight.colwise().reverse().eval();
    const auto reversed = run(turned, {.kept_percent = 5, .mask_scope = scope}, true);
    CHECK(Matrix<std::uint8_t>(reversed.mask.colwise().reverse()) == result.mask);
    CHECK(relative_error(Matrix<double>(reversed.sweep.weight.colwise().reverse()),
                         result.sweep.weight) < 1e-12);
  }
}

TEST_CASE("dead channels are neither kept nor fitted") {
  SweepCase layer = sweep_case(6, 20, "dead");
  layer.hessian.row(7).setZero();
  layer.hessian.col(7).setZero();
  layer.weight.col(7) *= 50;
  const auto result = run(layer, {.kept_percent = 20});
  CHECK(result.mask.col(7).cast<Index>().sum() == 0);
  CHECK(result.sweep.weight.col(7).isZero(0));
  Matrix<double> alive = layer.weight;
  alive.col(7).setZero();
  CHECK(result.sweep.grid.scale == fit_grid(alive, kPaperGrid).scale);
}

TEST_CASE("an unknown scope is refused") {
  check_error([] { keep_mask<double>(Matrix<double>::Ones(2, 2), {.mask_scope = "column"}); },
              {"mask_scope", "'column'", "global or row"});
}

}  // namespace
}  // namespace ruq::test
