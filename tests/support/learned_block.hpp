// The error of a planned block through the executor's own parts, knowing nothing of how it was
// learned, and sequences to learn from.
#pragma once

#include <string>

#include "ruquant/model/calibration.hpp"
#include "ruquant/model/fuse.hpp"
#include "support/laws.hpp"

namespace ruq::test {

/// Mean squared error of a block under its plan: folded, installed and run with the runtime hook.
template <class S>
double executed_error(const Plan& plan, const ModelConfig& config, Index layer,
                      LayerWeights<S> weights, const BlockSamples<S>& samples, bool float_stream) {
  fold_layer(plan, config, layer, weights);
  for (const SiteKind kind : kLinearSites) install_site(plan, {layer, kind}, weights);
  Matrix<S> y = float_stream ? samples.float_input : samples.quantized_input;
  block_forward(config, weights, layer, samples.length, runtime_hook<S>(plan, config), y);
  return (y - samples.target).template cast<double>().squaredNorm() / static_cast<double>(y.size());
}

/// Scores of tiny models are so large that one code decides what a token attends to. Here they are
/// about one.
template <class S>
void calm(Model<S>& model) {
  for (LayerWeights<S>& layer : model.layers) {
    layer[Linear::q_proj].weight *= S(0.1);
    layer[Linear::k_proj].weight *= S(0.1);
    layer.q_norm.setConstant(S(0.7));
    layer.k_norm.setConstant(S(0.7));
  }
}

/// Sequences named `name`, the quantized stream a little off the float one, and what the block
/// makes of them.
inline BlockSamples<double> drawn_samples(const ModelConfig& config,
                                          const LayerWeights<double>& layer, Index length,
                                          Index windows, const std::string& name) {
  BlockSamples<double> s;
  s.length = length;
  s.float_input = gaussian(windows * length, config.width, name, 2);
  s.quantized_input = s.float_input + 0.02 * gaussian(windows * length, config.width, "noise");
  s.target = s.float_input;
  block_forward<double>(config, layer, 0, length, {}, s.target);
  return s;
}

/// Whatever the method learned block after block, it says so, and its errors are those of the
/// executor.
inline void check_learned_blocks(const Method& method, const QuantSettings& quant,
                                 const LearningWindows& windows, const ModelConfig& config,
                                 bool float_stream) {
  TinyBench<double> bench(config);
  const Plan plan = bench.plan(method, quant);
  REQUIRE(std::ssize(plan.learning) == config.layers);
  Plan walked = plan;
  bench.session.walk_blocks(windows, walked, [&](const BlockView<double>& block, Plan& now) {
    const LearningRecord& record = plan.learning[static_cast<std::size_t>(block.layer)];
    CAPTURE(record.where);
    CHECK(record.where == "layers." + std::to_string(block.layer));
    const auto error = [&](const BlockSamples<double>& samples) {
      return executed_error(now, config, block.layer, block.weights, samples, float_stream);
    };
    CHECK(record.final_loss == doctest::Approx(error(block.train)).epsilon(1e-9));
    CHECK(record.held_out_final.value() == doctest::Approx(error(block.held_out)).epsilon(1e-9));
    CHECK(std::ssize(record.losses) == record.steps);
  });
}

}  // namespace ruq::test
