#include "ruquant/learn/block_error.hpp"

#include <doctest/doctest.h>

#include "support/learned_block.hpp"

namespace ruq::test {
namespace {

constexpr Index kLength = 8;
constexpr Index kWindows = 3;

struct Bench {
  explicit Bench(const std::string& widths)
      : config(tiny_config("grouped")), quant(quant_settings(widths)) {
    Model<double> model = tiny_model(config);
    calm(model);
    layer = model.layers[0];
    samples = drawn_samples(config, layer, kLength, kWindows, "stream");
  }
  BlockGrad<double> block() const {
    BlockGrad<double> made(config, layer, {}, quant);
    made.install({});
    return made;
  }
  double entries(Index windows) const {
    return static_cast<double>(windows * kLength * config.width);
  }

  ModelConfig config;
  QuantSettings quant;
  LayerWeights<double> layer;
  BlockSamples<double> samples;
};

TEST_CASE("the error is the executor's, on either stream and on some of the windows") {
  const Bench bench("W4A4-Q4K4V4");
  const BlockGrad<double> block = bench.block();
  const Plan plan = Plan::identity("test", 1, bench.quant);
  for (const bool float_stream : {false, true}) {
    const double all =
        executed_error(plan, bench.config, 0, bench.layer, bench.samples, float_stream);
    CHECK(block_output_error(block, bench.samples, float_stream, 0, kWindows) ==
          doctest::Approx(all).epsilon(1e-10));
    double sum = 0;
    for (Index w = 0; w < kWindows; ++w) {
      const double own = block_output_error(block, bench.samples, float_stream, w, w + 1);
      CHECK(own * bench.entries(1) ==
            doctest::Approx(squared_error(block, window_input(bench.samples, float_stream, w),
                                          bench.samples, w))
                .epsilon(1e-12));
      sum += own;
    }
    CHECK(sum / kWindows == doctest::Approx(all).epsilon(1e-10));
  }
}

TEST_CASE("its gradient by the weights is that of finite differences") {
  const Bench bench("W16A16-Q16K16V16");
  BlockGrad<double> block = bench.block();
  const double sum = add_squared_error(block, window_input(bench.samples, false, 1, 2),
                                       bench.samples, 1, bench.entries(2));
  CHECK(sum / bench.entries(2) ==
        doctest::Approx(block_output_error(block, bench.samples, false, 1, 3)).epsilon(1e-12));
  const PerLinear<Matrix<double>> gradients = block.take_weight_gradients();
  for (const Linear linear : kLinears) {
    const Matrix<double>& weight = bench.layer[linear].weight;
    const Matrix<double> direction = gaussian(weight.rows(), weight.cols(), to_string(linear));
    const auto error_at = [&](double t) {
      PerLinear<Matrix<double>> moved;
      for (const Linear l : kLinears) moved[l] = bench.layer[l].weight;
      moved[linear] += t * direction;
      block.set_weights(std::move(moved));
      return block_output_error(block, bench.samples, false, 1, 3);
    };
    constexpr double kStep = 1e-5;
    const double slope = (error_at(kStep) - error_at(-kStep)) / (2 * kStep);
    INFO(to_string(linear));
    CHECK(gradients[linear].cwiseProduct(direction).sum() == doctest::Approx(slope).epsilon(1e-6));
  }
}

TEST_CASE("windows one by one add up, and a relative gradient is that over the error") {
  const Bench bench("W4A4-Q4K4V4");
  BlockGrad<double> block = bench.block();
  const double sum = add_squared_error(block, window_input(bench.samples, true, 0, kWindows),
                                       bench.samples, 0, bench.entries(kWindows));
  const PerLinear<Matrix<double>> together = block.take_weight_gradients();
  for (Index w = 0; w < kWindows; ++w) {
    add_squared_error(block, window_input(bench.samples, true, w), bench.samples, w,
                      bench.entries(kWindows));
  }
  const PerLinear<Matrix<double>> one_by_one = block.take_weight_gradients();
  add_squared_error(block, window_input(bench.samples, true, 0, kWindows), bench.samples, 0,
                    bench.entries(kWindows), true);
  const PerLinear<Matrix<double>> relative = block.take_weight_gradients();
  for (const Linear linear : kLinears) {
    INFO(to_string(linear));
    CHECK(relative_error(one_by_one[linear], together[linear]) < 1e-12);
    const Matrix<double> unscaled = relative[linear] * (sum / bench.entries(kWindows));
    CHECK(relative_error(unscaled, together[linear]) < 1e-12);
  }
}

}  // namespace
}  // namespace ruq::test
