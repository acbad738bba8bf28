#include "ruquant/learn/block_fit.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "ruquant/learn/clip_logits.hpp"
#include "support/errors.hpp"
#include "support/learned_block.hpp"

namespace ruq::test {
namespace {

constexpr Index kLength = 8;

// One group: a scale of the channels at mlp_in, which also lets the test see every gradient.
struct Problem {
  Problem() : config(tiny_config("multi-head")), quant(quant_settings("W4A4-Q16K16V16")) {
    Model<double> model = tiny_model(config);
    calm(model);
    layer = model.layers[0];
    samples = drawn_samples(config, layer, kLength, 3, "train");
    held_out = drawn_samples(config, layer, kLength, 2, "held out");
    groups.push_back({"scale", Vector<double>::Ones(config.width), 1e-3});
    chart.build = [](const std::vector<FitGroup>& now) {
      BlockParameters p;
      p.online[at].append(Scale<double>{now[0].value});
      return p;
    };
    chart.pull_back = [this](const std::vector<FitGroup>&, const BlockGradients& g) {
      gradients.push_back(g.online[at][0].vector);
      return std::vector<Vector<double>>{gradients.back()};
    };
  }
  double executed(const BlockSamples<double>& s, bool float_stream) const {
    Plan plan = Plan::identity("test", 1, quant);
    plan.layers[0][SiteKind::mlp_in].online.append(Scale<double>{groups[0].value});
    return executed_error(plan, config, 0, layer, s, float_stream);
  }
  LearningRecord fit(const BlockFitOptions& options) {
    gradients.clear();
    BlockGrad<double> block(config, layer, {}, quant);
    return fit_block(block, chart, samples, held_out, options, groups);
  }

  static constexpr std::size_t at = static_cast<std::size_t>(SiteKind::mlp_in);
  ModelConfig config;
  QuantSettings quant;
  LayerWeights<double> layer;
  BlockSamples<double> samples, held_out;
  BlockChart chart;
  std::vector<FitGroup> groups;
  std::vector<Vector<double>> gradients;
};

TEST_CASE("the record tells the executor's errors before and after, on either stream") {
  for (const bool float_stream : {false, true}) {
    Problem p;
    const double before = p.executed(p.samples, float_stream);
    const double held_before = p.executed(p.held_out, float_stream);
    const LearningRecord record =
        p.fit({.objective = "mine", .epochs = 2, .batch = 2, .float_stream = float_stream});
    CHECK(record.objective == "mine");
    CHECK(record.initial_loss == doctest::Approx(before).epsilon(1e-10));
    CHECK(record.held_out_initial.value() == doctest::Approx(held_before).epsilon(1e-10));
    CHECK(record.final_loss == doctest::Approx(p.executed(p.samples, float_stream)).epsilon(1e-10));
    CHECK(record.held_out_final.value() ==
          doctest::Approx(p.executed(p.held_out, float_stream)).epsilon(1e-10));
    CHECK(record.final_loss != record.initial_loss);
    // Batches of two and one window in each of two epochs.
    CHECK(record.steps == 4);
    CHECK(record.evaluations == 4);
    CHECK(record.losses.size() == 4);
    CHECK(record.tokens == 2 * 3 * kLength);
  }
}

TEST_CASE("a relative loss has the same gradient over the loss") {
  Problem plain;
  Problem relative;
  const LearningRecord record = plain.fit({.batch = 3});
  CHECK(record.losses[0] == doctest::Approx(record.initial_loss).epsilon(1e-10));
  relative.fit({.batch = 3, .relative = true});
  CHECK(relative_error(Vector<double>(relative.gradients[0] * record.losses[0]),
                       plain.gradients[0]) < 1e-10);
}

TEST_CASE("a cosine ends at its final rate") {
  Problem p;
  std::vector<Vector<double>> values;
  const auto build = p.chart.build;
  p.chart.build = [&](const std::vector<FitGroup>& groups) {
    values.push_back(groups[0].value);
    return build(groups);
  };
  // AdamW's first step has the length of its rate in every channel that has a gradient.
  p.fit({.epochs = 40, .batch = 3, .final_rate = 1e-9});
  const auto step = [&](std::size_t i) {
    return (values[i + 1] - values[i]).cwiseAbs().maxCoeff();
  };
  CHECK(step(0) == doctest::Approx(1e-3).epsilon(1e-3));
  CHECK(step(39) < 0.05 * step(0));
}

TEST_CASE("training lowers the error, and without epochs nothing moves") {
  Problem p;
  const LearningRecord still = p.fit({.epochs = 0});
  CHECK(p.groups[0].value == Vector<double>::Ones(p.config.width));
  CHECK(still.final_loss == still.initial_loss);
  CHECK(still.steps == 0);
  const LearningRecord record = p.fit({.epochs = 30, .batch = 3, .relative = true});
  CHECK(record.final_loss < record.initial_loss);
}

TEST_CASE("a group keeps to its own decay and is named where its gradient is not finite") {
  Problem p;
  p.groups[0].weight_decay = 0.5;
  p.groups[0].learning_rate = 0.1;
  p.chart.pull_back = [](const std::vector<FitGroup>& groups, const BlockGradients&) {
    return std::vector<Vector<double>>{Vector<double>::Zero(groups[0].value.size())};
  };
  p.fit({.batch = 3});
  CHECK(p.groups[0].value(0) == doctest::Approx(0.95));
  p.chart.pull_back = [](const std::vector<FitGroup>& groups, const BlockGradients&) {
    return std::vector<Vector<double>>{
        Vector<double>::Constant(groups[0].value.size(), std::nan(""))};
  };
  check_error([&] { p.fit({.batch = 3}); }, {"scale", "NaN"});
  p.samples = {};
  check_error([&] { p.fit({}); }, {"no windows"});
}

TEST_CASE("the schedule's preset stands for its numbers, which can still be set one by one") {
  LearningSchedule schedule;
  const LearningSchedule paper{
      .preset = "paper", .windows = {.train = 128, .held_out = 8, .tokens = 2048}, .epochs = 15};
  Fields fields;
  bind(fields, schedule, LearningSchedule{}, paper);
  CHECK(fields.find("schedule")->get() == "short");
  fields.set("schedule", "paper");
  fields.set("epochs", "3");
  CHECK(schedule.windows.train == 128);
  CHECK(schedule.windows.tokens == 2048);
  CHECK(schedule.epochs == 3);
  fields.set("schedule", "short");
  CHECK(schedule.windows.train == LearningSchedule{}.windows.train);
}

}  // namespace
}  // namespace ruq::test
