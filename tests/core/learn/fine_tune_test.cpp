#include "ruquant/learn/fine_tune.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <variant>
#include <vector>

#include "ruquant/model/fuse.hpp"
#include "support/errors.hpp"
#include "support/learned_block.hpp"
#include "support/tiny_model.hpp"

namespace ruq::test {
namespace {

constexpr Index kLength = 16;
constexpr Index kWindows = 8;

// The published rate of 1e-2 is for hundreds of channels and thousands of steps; it would throw the
// entries of a unit vector of 36 channels about.
constexpr AdamWOptions kSmallSteps{.learning_rate = 1e-3};

// A block that is given outlier channels and should give what the float block gives.
template <class S>
struct Bench {
  explicit Bench(const std::string& shape, const std::string& widths = "W4A4-Q4K4V4")
      : config(tiny_config(shape)), quant(quant_settings(widths)) {
    Model<double> model = tiny_model(config);
    calm(model);
    if constexpr (std::is_same_v<S, float>) {
      layer = as_float(model).layers[0];
    } else {
      layer = model.layers[0];
    }
    for (const SiteKind kind : kLinearSites) {
      const Index width = config.site_width(kind);
      const Vector<double> signs = gaussian(width, 1, "signs").col(0).cwiseSign();
      plan[kind].online.append(Scale<double>{signs});
      plan[kind].online.append(
          Reflection<double>{gaussian(width, 1, "omega " + to_string(kind)).col(0).normalized()});
    }
    samples.length = kLength;
    samples.quantized_input =
        gaussian(kWindows * kLength, config.width, "input", 2).template cast<S>();
    samples.target = samples.quantized_input;
    block_forward<S>(config, layer, 0, kLength, {}, samples.target);
  }

  // Through the executor, knowing nothing of the objective.
  double executed_loss() const {
    Plan whole = Plan::identity("test", 1, quant);
    whole.layers[0] = plan;
    return executed_error(whole, config, 0, layer, samples, false);
  }
  LearningRecord tune(const FineTuneOptions& options) {
    return fine_tune_reflections(config, layer, quant, samples, {}, options, plan);
  }

  ModelConfig config;
  QuantSettings quant;
  LayerWeights<S> layer;
  LayerPlan plan;
  BlockSamples<S> samples;
};

void check_unit_reflections(const LayerPlan& plan) {
  for (const SiteKind kind : kLinearSites) {
    REQUIRE(plan[kind].online.steps().size() == 2);
    const auto* last = std::get_if<Reflection<double>>(&plan[kind].online.steps().back());
    REQUIRE(last != nullptr);
    CHECK(std::abs(last->v.norm() - 1) < 1e-12);
  }
}

TEST_CASE(
    "both optimizers find a smaller error of the block's output, and the plan carries the result") {
  for (const char* shape : {"multi-head", "grouped", "normed heads"}) {
    for (const char* optimizer : {"adamw", "lbfgs"}) {
      INFO(std::string(shape) << ", " << std::string(optimizer));
      Bench<double> bench(shape);
      const double before = bench.executed_loss();
      const LearningRecord report = bench.tune({.optimizer = optimizer,
                                                .adamw = kSmallSteps,
                                                .omega_floor = 0,
                                                .epochs = 30,
                                                .max_iterations = 20});
      CHECK(report.initial_loss == doctest::Approx(before).epsilon(1e-12));
      CHECK(report.final_loss == doctest::Approx(bench.executed_loss()).epsilon(1e-9));
      // The recipe returns its last point, which a loss with jumps does not make its best; L-BFGS
      // here keeps the best.
      const double best = *std::min_element(report.losses.begin(), report.losses.end());
      CHECK(best < report.initial_loss);
      if (std::string(optimizer) == "lbfgs") CHECK(report.final_loss < report.initial_loss);
      CHECK(report.evaluations >= report.steps);
      CHECK(std::ssize(report.losses) == report.evaluations);
      CHECK_FALSE(report.termination.empty());
      check_unit_reflections(bench.plan);
    }
  }
}

TEST_CASE("L-BFGS gives the best point it has seen, and counts") {
  Bench<double> bench("grouped");
  const LearningRecord report = bench.tune({.optimizer = "lbfgs", .max_iterations = 8});
  const double best = *std::min_element(report.losses.begin(), report.losses.end());
  CHECK(report.final_loss == doctest::Approx(best).epsilon(1e-12));
  CHECK(report.steps <= 8);
  MESSAGE("from " << report.initial_loss << " to " << report.final_loss << " in " << report.steps
                  << " iterations: " << report.termination);

  // From where it arrived it never gets worse.
  const LearningRecord again = bench.tune({.optimizer = "lbfgs", .max_iterations = 8});
  CHECK(again.final_loss <= report.final_loss * (1 + 1e-12));
}

TEST_CASE("L-BFGS stops when its evaluations are spent") {
  for (const Index budget : {1, 2, 5}) {
    Bench<double> bench("grouped");
    const LearningRecord report =
        bench.tune({.optimizer = "lbfgs", .max_iterations = 100, .max_evaluations = budget});
    CHECK(report.evaluations == budget);
    CHECK(std::ssize(report.losses) == budget);
    CHECK(report.termination == fmt::format("Spent all {} evaluations.", budget));
    const double best = *std::min_element(report.losses.begin(), report.losses.end());
    CHECK(report.final_loss == doctest::Approx(best).epsilon(1e-12));
  }
  Bench<double> free("grouped"), wide("grouped");
  const LearningRecord all = free.tune({.optimizer = "lbfgs", .max_iterations = 8});
  const LearningRecord same =
      wide.tune({.optimizer = "lbfgs", .max_iterations = 8, .max_evaluations = 1000});
  CHECK(all.losses == same.losses);
  CHECK(all.termination == same.termination);
}

TEST_CASE("start and result are judged on the windows held out, where there are any") {
  for (const char* optimizer : {"adamw", "lbfgs"}) {
    Bench<double> bench("grouped");
    BlockSamples<double> held_out = bench.samples;
    held_out.quantized_input = held_out.quantized_input.bottomRows(2 * kLength).eval();
    held_out.target = held_out.target.bottomRows(2 * kLength).eval();
    const FineTuneOptions options{
        .optimizer = optimizer, .adamw = kSmallSteps, .omega_floor = 0, .epochs = 1};
    const LayerPlan before = bench.plan;
    const LearningRecord record = fine_tune_reflections(
        bench.config, bench.layer, bench.quant, bench.samples, held_out, options, bench.plan);
    CHECK(record.optimizer == optimizer);
    CHECK(record.tokens > 0);
    const auto error_of = [&](const LayerPlan& plan) {
      ReflectionObjective<double> objective(bench.config, bench.layer, plan, bench.quant);
      return objective.evaluate(objective.start(), held_out);
    };
    CHECK(record.held_out_initial.value() == doctest::Approx(error_of(before)).epsilon(1e-9));
    CHECK(record.held_out_final.value() == doctest::Approx(error_of(bench.plan)).epsilon(1e-9));
    CHECK(record.held_out_final != record.held_out_initial);
  }
  Bench<double> bench("grouped");
  CHECK_FALSE(bench.tune({.epochs = 1}).held_out_final);
}

TEST_CASE("AdamW takes an epoch's windows in order") {
  Bench<double> bench("grouped");
  ReflectionObjective<double> objective(bench.config, bench.layer, bench.plan, bench.quant);
  const LearningRecord report =
      bench.tune({.adamw = {.learning_rate = 0}, .omega_floor = 0, .epochs = 2});
  REQUIRE(report.losses.size() == 2 * kWindows);
  for (Index step = 0; step < 2 * kWindows; ++step) {
    const Index window = step % kWindows;
    CHECK(report.losses[static_cast<std::size_t>(step)] ==
          doctest::Approx(objective.evaluate(objective.start(), bench.samples, {&window, 1}))
              .epsilon(1e-12));
  }
  CHECK(report.final_loss == report.initial_loss);
  CHECK(report.steps == 2 * kWindows);
}

TEST_CASE("the loss of all windows is the mean of theirs, and so is its gradient") {
  Bench<double> bench("biases");
  ReflectionObjective<double> objective(bench.config, bench.layer, bench.plan, bench.quant);
  Directions all;
  const double loss = objective.evaluate(objective.start(), bench.samples, &all);
  double mean = 0;
  Directions sum;
  for (Index window = 0; window < kWindows; ++window) {
    Directions own;
    mean += objective.evaluate(objective.start(), bench.samples, {&window, 1}, &own) / kWindows;
    for (std::size_t i = 0; i < own.size(); ++i) {
      sum[i] = window == 0 ? own[i] : Vector<double>(sum[i] + own[i]);
    }
  }
  CHECK(loss == doctest::Approx(mean).epsilon(1e-12));
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(relative_error(Vector<double>(sum[i] / kWindows), all[i]) < 1e-10);
    CHECK(std::abs(all[i].dot(objective.start()[i])) < 1e-10 * all[i].norm());  // length is free
  }
}

TEST_CASE("float tunes too") {
  for (const char* optimizer : {"adamw", "lbfgs"}) {
    Bench<float> bench("grouped");
    const LearningRecord report = bench.tune({.optimizer = optimizer,
                                              .adamw = kSmallSteps,
                                              .omega_floor = 0,
                                              .epochs = 30,
                                              .max_iterations = 10});
    CHECK(report.final_loss < report.initial_loss);
    CHECK(report.final_loss == doctest::Approx(bench.executed_loss()).epsilon(1e-3));
  }
}

TEST_CASE("thread counts change nothing") {
  Bench<double> one("grouped");
  Bench<double> three("grouped");
  const FineTuneOptions options{.epochs = 3};
  const int before = threads();
  set_threads(1);
  const LearningRecord a = one.tune(options);
  set_threads(3);
  const LearningRecord b = three.tune(options);
  set_threads(before);
  CHECK(a.losses == b.losses);
}

TEST_CASE("the floor keeps signs and zeros") {
  const Vector<double> omega = (Vector<double>(5) << 0.5, -0.5, 1e-3, -1e-3, 0).finished();
  const Vector<double> floored = raised_to_floor(omega, 0.01);
  CHECK(floored == (Vector<double>(5) << 0.5, -0.5, 0.01, -0.01, 0).finished());
}

TEST_CASE("a plan without reflections and samples that do not fit are refused") {
  Bench<double> bench("grouped");
  bench.plan[SiteKind::mlp_in].online.append(HadamardStep{4});
  check_error([&] { bench.tune({}); }, {"mlp_in", "hadamard(4)", "expected a global reflection"});

  Bench<double> short_one("grouped");
  short_one.samples.target.conservativeResize(kLength, Eigen::NoChange);
  check_error([&] { short_one.tune({}); }, {"inputs [128, 36]", "targets [16, 36]"});
  short_one.samples.quantized_input.resize(0, 36);
  check_error([&] { short_one.tune({}); }, {"found no samples"});
}

}  // namespace
}  // namespace ruq::test
