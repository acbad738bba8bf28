#include "ruquant/learn/learned_rounding.hpp"

#include <optional>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/learn/adamw.hpp"
#include "ruquant/learn/block_error.hpp"
#include "ruquant/quant/clamp_rows.hpp"

namespace ruq {
namespace {

template <class S>
Eigen::Map<Vector<double>> flat(Matrix<S>& matrix) {
  return {matrix.data(), matrix.size()};
}

// The learnable form of all weights of one block. Parameters are kept in double: steps are small
// beside them.
class Weights {
 public:
  template <class S>
  Weights(const LayerWeights<S>& weights, const LayerPlan& plan, const QuantSettings& quant)
      : learn_(quant.rounding_options.learning),
        levels_learn_(quant.rounding == "uniquanf"),
        options_(levels_learn_ ? quant.rounding_options.uniquanf : flexround_options()),
        optimizer_({.learning_rate = learn_.learning_rate}) {
    for (const Linear linear : kLinears) {
      Matrix<double>& weight = weight_[linear];
      weight = weights[linear].weight.template cast<double>();
      std::optional<RowClips<double>> ends = plan.weight_clips[linear];
      if (ends) ends = grid_clips(weight, *ends, quant.weight);
      const RowClips<double>* clips = ends ? &*ends : nullptr;
      parameters_[linear] = levels_learn_ ? unified_start(weight, quant.weight, options_, clips)
                                          : uniform_start(weight, quant.weight, clips);
    }
    map(0);
  }

  void map(Index step) {
    parallel_for(static_cast<Index>(kLinears.size()), [&](Index i) {
      const auto l = static_cast<std::size_t>(i);
      map_codes(weight_[l], parameters_[l], options_, step, codes_[l]);
    });
  }

  template <class S>
  PerLinear<Matrix<S>> values() const {
    PerLinear<Matrix<S>> all;
    for (const Linear linear : kLinears) {
      all[linear] = uniquanf_values(parameters_[linear], codes_[linear]).template cast<S>();
    }
    return all;
  }

  /// One Adam step against ∂L/∂ of the values; `share` of the learning rates.
  template <class S>
  void step(const PerLinear<Matrix<S>>& upstream, double share) {
    for (const Linear linear : kLinears) {
      auto& p = parameters_[linear];
      auto gradients = uniquanf_gradients<double>(weight_[linear], p, codes_[linear],
                                                  upstream[linear].template cast<double>(),
                                                  options_.gradient_filter);
      const std::size_t slot = 4 * static_cast<std::size_t>(linear);
      const double rate = share * learn_.learning_rate;
      optimizer_.step(slot, p.d1, gradients.d1, rate);
      optimizer_.step(slot + 1, flat(p.d2), flat(gradients.d2), rate);
      optimizer_.step(slot + 2, p.d3, gradients.d3, rate);
      if (!levels_learn_) continue;
      optimizer_.step(slot + 3, flat(p.alpha), flat(gradients.alpha),
                      share * learn_.level_learning_rate);
    }
  }

  /// The deployed form of one weight, and how far it is from the learned one.
  template <class S>
  RoundedLinear deploy(Linear linear, const QuantSpec& spec, Matrix<S>& weight) const {
    const auto& p = parameters_[linear];
    const Matrix<double> learned = uniquanf_values(p, codes_[linear]);
    const Matrix<double> deployed = to_binary_code(p, codes_[linear]).decode(weight.cols());
    weight = deployed.cast<S>();
    RoundedLinear rounded;
    rounded.linear = linear;
    rounded.size = weight.size();
    rounded.bits = levels_learn_ ? stored_bits(spec, weight.cols(), spec.bits + 1)
                                 : uniform_bits(spec, weight.cols());
    rounded.details["unification_error"] =
        (deployed - learned).cwiseAbs().maxCoeff() / learned.cwiseAbs().maxCoeff();
    return rounded;
  }

 private:
  BlockLearningOptions learn_;
  bool levels_learn_;
  UniquanfOptions options_;
  AdamW optimizer_;
  PerLinear<Matrix<double>> weight_;
  PerLinear<UniquanfParameters<double>> parameters_;
  PerLinear<Codes> codes_;
};

template <class S>
BlockGrad<S> block_of(const BlockTask<S>& task) {
  const LayerPlan& plan = task.plan.layers[static_cast<std::size_t>(task.layer)];
  PerSite<Transform<double>> online;
  BlockParameters parameters;
  parameters.query_key = plan.query_key;
  for (const SiteKind kind : kLinearSites) {
    if (!plan[kind].levels.empty()) {
      fail(
          "weight rounding '{}' learns with activations on the uniform grid; found levels of "
          "their own (quant.activation_levels)",
          task.plan.quant.rounding);
    }
    online[kind] = plan[kind].online;
    parameters.activation_clips[kind] = plan[kind].clips;
  }
  BlockGrad<S> block(task.config, task.weights, online, task.plan.quant, task.layer);
  block.install(std::move(parameters));
  return block;
}

// Every entry from one stream or the other.
template <class S>
Matrix<S> mixed_input(const BlockSamples<S>& samples, Index window, double mixing, Draws& draws) {
  Matrix<S> input = window_input(samples, false, window);
  if (mixing == 0) return input;
  const Vector<double> coins = draws.uniform(input.size());
  const S* const other = samples.float_input.data() + window * input.size();
  for (Index i = 0; i < input.size(); ++i) {
    if (coins(i) < mixing) input.data()[i] = other[i];
  }
  return input;
}

// Moves the weights of the block by all steps of the schedule.
template <class S>
LearningRecord learn(const BlockTask<S>& task, Weights& weights) {
  const BlockLearningOptions& options = task.plan.quant.rounding_options.learning;
  const BlockSamples<S>& samples = task.samples;
  const Index train = samples.windows() - options.held_out;
  if (train < 1) {
    fail("quant.learning.held_out: found {}, expected fewer than the {} calibration windows",
         options.held_out, samples.windows());
  }
  BlockGrad<S> block = block_of(task);
  block.set_weights(weights.template values<S>());
  LearningRecord record{.where = fmt::format("layers.{}", task.layer),
                        .optimizer = "adam",
                        .objective = "block output"};
  const auto loss_over = [&](Index first, Index last) {
    return block_output_error(block, samples, false, first, last);
  };
  record.initial_loss = loss_over(0, train);
  if (options.held_out > 0) record.held_out_initial = loss_over(train, samples.windows());
  Stream stream = task.draws.child("mixing");
  const Index steps = options.epochs * train;
  const LearningRate rate{LearningRate::Shape::cosine, 1, 0, steps};
  const auto entries = static_cast<double>(samples.length * samples.target.cols());
  StepLog log(fmt::format("rounding of {}", record.where), steps);
  for (Index step = 0; step < steps; ++step) {
    const Index window = step % train;
    record.losses.push_back(add_squared_error(block,
                                              mixed_input(samples, window, options.mixing, stream),
                                              samples, window, entries) /
                            entries);
    weights.step(block.take_weight_gradients(), rate.at(step));
    weights.map(step + 1);
    block.set_weights(weights.template values<S>());
    log.after(step + 1);
  }
  record.final_loss = loss_over(0, train);
  if (options.held_out > 0) record.held_out_final = loss_over(train, samples.windows());
  record.steps = record.evaluations = steps;
  record.tokens = steps * samples.length;
  record.termination = fmt::format("Took all {} steps.", steps);
  return record;
}

}  // namespace

UniquanfOptions flexround_options() {
  return {.mapping = "direct", .mapping_period = 1, .gradient_filter = true};
}

template <class S>
void learned_rounding(const BlockTask<S>& task) {
  const double start = now_seconds();
  const double cpu_start = work_seconds();
  const QuantSettings& quant = task.plan.quant;
  Weights weights(task.weights, task.plan.layers[static_cast<std::size_t>(task.layer)], quant);
  if (task.learns) task.learning.push_back(learn(task, weights));
  const auto share = 1 / static_cast<double>(kLinears.size());  // of what they learned together
  const double seconds = share * (now_seconds() - start);
  const double processor_seconds = share * (work_seconds() - cpu_start);
  for (const Linear linear : kLinears) {
    RoundedLinear rounded = weights.deploy(linear, quant.weight, task.weights[linear].weight);
    rounded.layer = task.layer;
    rounded.seconds = seconds;
    rounded.cpu_seconds = processor_seconds;
    task.rounded.push_back(std::move(rounded));
  }
}

template void learned_rounding(const BlockTask<float>&);
template void learned_rounding(const BlockTask<double>&);

}  // namespace ruq
