#include "ruquant/learn/block_fit.hpp"

#include <algorithm>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/learn/adamw.hpp"

namespace ruq {
namespace {

// One optimizer a group, since each has a decay of its own.
class Optimizers {
 public:
  Optimizers(const std::vector<FitGroup>& groups, const BlockFitOptions& options, Index steps) {
    for (const FitGroup& group : groups) {
      optimizers_.push_back(AdamW({.weight_decay = group.weight_decay}));
      rates_.push_back(
          {options.final_rate ? LearningRate::Shape::cosine : LearningRate::Shape::constant,
           group.learning_rate, options.final_rate.value_or(0), steps});
    }
  }
  void step(Index step, const std::vector<Vector<double>>& gradients,
            std::vector<FitGroup>& groups) {
    RUQ_CHECK(gradients.size() == groups.size(), "{} gradients for {} groups", gradients.size(),
              groups.size());
    for (std::size_t i = 0; i < groups.size(); ++i) {
      with_context(groups[i].name, [&] {
        optimizers_[i].step(0, groups[i].value, gradients[i], rates_[i].at(step));
        groups[i].value = groups[i].value.cwiseMax(groups[i].lowest).eval();
      });
    }
  }

 private:
  std::vector<AdamW> optimizers_;
  std::vector<LearningRate> rates_;
};

template <class S>
void check_samples(const BlockSamples<S>& train, const BlockFitOptions& options) {
  if (train.windows() < 1) fail("learning a block: found no windows, expected at least one");
  if (options.batch < 1 || options.epochs < 0) {
    fail("learning a block: found {} epochs of batches of {}, expected whole numbers from 0 and 1",
         options.epochs, options.batch);
  }
}

}  // namespace

void bind(Fields& fields, LearningWindows& windows) {
  fields.add("learning_windows", windows.train, {.min = 1, .max = 4096},
             "sequences that are learned from");
  fields.add("held_out_windows", windows.held_out, {.min = 0, .max = 4096},
             "sequences on which what was learned is judged");
  fields.add("learning_tokens", windows.tokens, {.min = 1, .max = 65536}, "tokens of one sequence");
  fields.add("learning_blocks", windows.blocks, {.min = 0},
             "blocks that are learned, from the first on, to try a long schedule; 0: all");
}

void bind(Fields& fields, LearningSchedule& schedule, const LearningSchedule& brief,
          const LearningSchedule& paper, const std::function<void(bool)>& also) {
  fields.add_preset("schedule", schedule.preset, {"short", "paper"},
                    "how much is learned from: a few windows, or as published",
                    [&schedule, brief, paper, also](const std::string& name) {
                      schedule = name == "paper" ? paper : brief;
                      schedule.preset = name;
                      if (also) also(name == "paper");
                    });
  fields.add("epochs", schedule.epochs, {.min = 0, .max = 1000}, "passes over the windows");
  bind(fields, schedule.windows);
  fields.add("learning_batch", schedule.batch, {.min = 1, .max = 4096}, "sequences of one step");
}

template <class S>
LearningRecord fit_block(BlockGrad<S>& block, const BlockChart& chart, const BlockSamples<S>& train,
                         const BlockSamples<S>& held_out, const BlockFitOptions& options,
                         std::vector<FitGroup>& groups) {
  check_samples(train, options);
  const auto error_on = [&](const BlockSamples<S>& samples) {
    return block_output_error(block, samples, options.float_stream, 0, samples.windows());
  };
  LearningRecord record;
  record.optimizer = "adamw";
  record.objective = options.objective;
  block.install(chart.build(groups));
  record.initial_loss = error_on(train);
  if (held_out.windows() > 0) record.held_out_initial = error_on(held_out);

  const Index windows = train.windows();
  const Index steps_an_epoch = (windows + options.batch - 1) / options.batch;
  Optimizers optimizers(groups, options, options.epochs * steps_an_epoch);
  StepLog log(options.objective, options.epochs * steps_an_epoch);
  for (Index step = 0; step < options.epochs * steps_an_epoch; ++step) {
    const Index window = step % steps_an_epoch * options.batch;
    const Index count = std::min(options.batch, windows - window);
    const auto entries = static_cast<double>(count * train.length * train.target.cols());
    record.losses.push_back(
        add_squared_error(block, window_input(train, options.float_stream, window, count), train,
                          window, entries, options.relative) /
        entries);
    optimizers.step(step, chart.pull_back(groups, block.take_gradients()), groups);
    block.install(chart.build(groups));
    record.tokens += count * train.length;
    log.after(++record.steps);
  }
  record.evaluations = record.steps;
  record.final_loss = error_on(train);
  if (held_out.windows() > 0) record.held_out_final = error_on(held_out);
  record.termination = fmt::format("Took all {} steps.", record.steps);
  return record;
}

#define RUQ_INSTANTIATE(S)                                                                    \
  template LearningRecord fit_block(BlockGrad<S>&, const BlockChart&, const BlockSamples<S>&, \
                                    const BlockSamples<S>&, const BlockFitOptions&,           \
                                    std::vector<FitGroup>&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
