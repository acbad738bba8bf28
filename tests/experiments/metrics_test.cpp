#include "experiments/metrics.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "experiments/kept.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

TEST_CASE("bits and bytes are means over weights, by their size") {
  std::vector<RoundedLinear> rounded(2);
  rounded[0].size = 300;
  rounded[0].bits = {.codes = 4};
  rounded[0].details["loss"] = 1;
  rounded[0].seconds = 2;
  rounded[0].cpu_seconds = 1.5;
  rounded[1].size = 100;
  rounded[1].bits = {.codes = 4, .grid = 1, .kept = 2, .positions = 1};
  rounded[1].details["loss"] = 3;
  rounded[1].seconds = 0.5;
  rounded[1].cpu_seconds = 0.25;
  TrialResult result;
  measure_weights(rounded, result);
  CHECK(result.metrics["weight.effective_bits"] == 5);
  CHECK(result.metrics["weight.mib"] == 400 * 5.0 / 8 / 1048576);
  CHECK(result.metrics["weight.loss"] == 2);
  CHECK(result.timing.rounding_seconds == 2.5);
  CHECK(result.timing.rounding_cpu_seconds == 1.75);

  TrialResult none;
  measure_weights({}, none);
  CHECK(none.metrics.empty());
}

TEST_CASE("learning is summed up over records; a loss of nothing has no ratio") {
  Plan plan = Plan::identity("x", 1, QuantSettings{});
  TrialResult none;
  measure_learning(plan, none);
  CHECK(none.metrics.empty());

  plan.learning.push_back({.where = "a",
                           .initial_loss = 4,
                           .final_loss = 1,
                           .held_out_initial = 2,
                           .held_out_final = 1,
                           .steps = 3,
                           .tokens = 30});
  plan.learning.push_back({.where = "b",
                           .initial_loss = 1,
                           .final_loss = 1,
                           .held_out_initial = 1,
                           .held_out_final = 2,
                           .steps = 4,
                           .tokens = 40});
  plan.learning.push_back({.where = "c", .initial_loss = 0, .final_loss = 0, .steps = 1});
  plan.learning.push_back({.where = "d", .initial_loss = 2, .final_loss = 1.9});  // no step
  TrialResult result;
  measure_learning(plan, result);
  CHECK(result.metrics["learning.loss_ratio"] == doctest::Approx(0.5));
  CHECK(result.metrics["learning.held_out_ratio"] == doctest::Approx(1));
  CHECK(result.metrics["learning.held_out_improved"] == 0.5);
  CHECK(result.metrics["learning.steps"] == 8);
  CHECK(result.metrics["learning.tokens"] == 70);
  CHECK(result.metrics["learning.share"] == 1);
}

TEST_CASE("the share that was learned is of blocks, or of the steps of a schedule") {
  const auto share = [](const std::vector<LearningRecord>& records) {
    Plan plan = Plan::identity("x", 8, QuantSettings{});
    plan.learning = records;
    TrialResult result;
    measure_learning(plan, result);
    return result.metrics["learning.share"];
  };
  CHECK(share({{.where = "layers.0", .steps = 3}, {.where = "layers.1", .steps = 3}}) == 0.25);
  CHECK(share({{.where = "layers.3.attn_in", .steps = 3},
               {.where = "layers.3.mlp_in", .steps = 3}}) == 0.125);
  CHECK(share({{.where = "model", .steps = 10, .details = {{"scheduled_steps", 100}}}}) == 0.1);
  CHECK(share({{.where = "model", .steps = 10}}) == 1);
}

ChoiceTask two_choices(Index items) {
  ChoiceTask task;
  task.name = "some";
  task.normalized = true;
  for (Index i = 0; i < items; ++i) {
    task.items.push_back({{{1}}, {{0, {1}, 1}, {0, {1, 2}, 2}}, 0});
  }
  return task;
}

ChoiceScores scores(std::vector<std::vector<double>> likelihood) {
  ChoiceScores all;
  for (const auto& item : likelihood) all.greedy.emplace_back(item.size(), item[0] > -1);
  all.log_likelihood = std::move(likelihood);
  return all;
}

TEST_CASE("accuracies stand beside the float model's, with and without chance") {
  const ChoiceTask task = two_choices(4);
  const auto mine = scores({{-1, -3}, {-1, -3}, {-3, -1}, {-1, -1.5}});    // three are right
  const auto floats = scores({{-1, -3}, {-1, -3}, {-1, -3}, {-1, -1.5}});  // all are right
  TrialResult result;
  measure_task(task, mine, floats, result);
  CHECK(result.metrics["task.some.acc"] == 0.75);
  CHECK(result.metrics["task.some.acc_stderr"] == doctest::Approx(std::sqrt(0.75 * 0.25 / 3)));
  CHECK(result.metrics["task.some.acc_float"] == 1);
  CHECK(result.metrics["task.some.acc_kept"] == 0.75);
  CHECK(result.metrics["task.some.acc_kept_above_chance"] == 0.5);
  // A character counts: -1 against -1.5 / 2.
  CHECK(result.metrics["task.some.acc_norm"] == 0.5);
  CHECK(result.items["some.acc"] == std::vector<double>{1, 1, 0, 1});
  CHECK(result.items["some.acc_norm"] == std::vector<double>{1, 1, 0, 0});
  CHECK(result.items["some.acc_float"] == std::vector<double>{1, 1, 1, 1});
  CHECK(result.metrics["task.some.chance"] == 0.5);
}

TEST_CASE("last words have a perplexity a word, answers one a token and no accuracy") {
  ChoiceTask task;
  task.name = "some";
  task.items = {{{{1}}, {{0, {1, 2}, 3}}, 0}, {{{1}}, {{0, {1}, 3}}, 0}};
  const auto mine = scores({{-2}, {-0.5}});
  for (const char* kind : {"last_word", "answer"}) {
    CAPTURE(std::string(kind));
    task.kind = kind;
    const bool words = task.kind == "last_word";
    TrialResult result;
    measure_task(task, mine, mine, result);
    CHECK(result.metrics["task.some.ppl"] == doctest::Approx(std::exp(2.5 / (words ? 2 : 3))));
    CHECK(result.metrics.contains("task.some.acc") == words);
    if (words) CHECK(result.metrics["task.some.acc"] == 0.5);
    CHECK(result.items["some.log_likelihood"] == std::vector<double>{-2, -0.5});
  }
}

TEST_CASE("scores of other items than the task's are refused") {
  const ChoiceTask task = two_choices(2);
  const auto mine = scores({{-1, -3}, {-1, -3}});
  TrialResult result;
  check_error(
      [&] {
        measure_task(task, mine, scores({{-1, -3}}), result);
      },
      {"internal check", "some: scores of 1 items beside those of 2"});
  check_error(
      [&] {
        measure_task(task, mine, scores({{-1, -3}, {-1}}), result);
      },
      {"internal check", "some: item 1: 1 scores for 2 choices"});
  const auto more = scores({{-1, -3}, {-1, -3}, {-1, -3}});
  check_error([&] { measure_task(task, more, more, result); }, {"of 2 in the task"});
}

TEST_CASE("what is kept comes back") {
  const TemporaryFolder folder;
  ChannelMaxima maxima(2);
  for (std::size_t l = 0; l < 2; ++l) {
    for (std::size_t k = 0; k < kLinearSites.size(); ++k) {
      maxima[l][k] = Vector<double>::LinSpaced(3 + static_cast<Index>(k), 0.1, 1.0 + double(l));
    }
  }
  write_maxima(maxima, folder / "maxima.h5");
  CHECK(read_maxima(folder / "maxima.h5") == maxima);
  const ChoiceScores made = scores({{-1, -0.1 - 0.2}, {-0.5}});
  write_choices(made, folder / "choices.h5");
  const ChoiceScores read = read_choices(folder / "choices.h5");
  CHECK(read.log_likelihood == made.log_likelihood);
  CHECK(read.greedy == made.greedy);
}

TEST_CASE("a loss beyond guessing is lost, unless the float model's is there too") {
  const Index vocabulary = 256;  // ln 256 = 5.545
  CHECK(lost_words(5.5, 3, vocabulary).empty());
  const std::string words = lost_words(5.6, 3, vocabulary);
  CHECK(words == "a loss of 5.60 nats, worse than guessing among 256 tokens (5.55)");
  CHECK(lost_words(7, 6, vocabulary).empty());
  CHECK_FALSE(lost_words(std::nan(""), 3, vocabulary).empty());
}

}  // namespace
}  // namespace ruq::test
