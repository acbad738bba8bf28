#include "experiments/resume.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <thread>

#include "experiments/file_lock.hpp"
#include "ruquant/learn/learned_rounding.hpp"
#include "support/laws.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

Plan marked_plan(double mark) {
  Plan plan = Plan::identity("marked", 3, quant_settings());
  plan.learning.push_back({.where = "layers.0", .final_loss = mark});
  return plan;
}

TEST_CASE("a walk goes on from the layer kept last, with the time that it took so far") {
  const TemporaryFolder folder;
  KeptParts first(folder / "plan.h5", 0);
  Plan plan = marked_plan(1);
  CHECK(first.resume(0, plan) == 0);
  CHECK(same_plan(plan, marked_plan(1)));
  first.keep(0, 1, 3, marked_plan(2));
  first.keep(0, 2, 3, marked_plan(3));
  first.resume(1, plan);
  while (first.took().first < 0.2) {
  }
  first.keep(1, 3, 3, marked_plan(4));

  KeptParts second(folder / "plan.h5", 0);
  CHECK(second.took().first < 0.1);
  CHECK(second.resume(0, plan) == 2);
  CHECK(same_plan(plan, marked_plan(3)));
  CHECK(second.resume(1, plan) == 3);
  CHECK(same_plan(plan, marked_plan(4)));
  CHECK(second.resume(2, plan) == 0);
  CHECK(same_plan(plan, marked_plan(4)));
  CHECK(second.took().first > 0.2);
  CHECK(second.took().second > 0.1);

  second.clear();
  CHECK(std::filesystem::is_empty(folder / ""));
}

TEST_CASE("how weights are rounded in the end is the trial's own") {
  const TemporaryFolder folder;
  Plan plan = marked_plan(1);
  plan.quant.rounding = "gptq";
  KeptParts(folder / "plan.h5", 0).keep(0, 1, 3, plan);
  Plan other = marked_plan(2);
  CHECK(KeptParts(folder / "plan.h5", 0).resume(0, other) == 1);
  CHECK(same_plan(other, marked_plan(1)));
  CHECK(other.quant.rounding == "rtn");
}

TEST_CASE("short walks leave no file") {
  const TemporaryFolder folder;
  KeptParts walks(folder / "plan.h5", 3600);
  Plan plan = marked_plan(1);
  walks.resume(0, plan);
  for (Index done = 1; done <= 3; ++done) walks.keep(0, done, 3, plan);
  CHECK(std::filesystem::is_empty(folder / ""));
}

// A model under UniQuanF, its blocks rounded by `learner`.
PlannedModel<float> rounded_by(const KeptRoundings::Learner& learner) {
  const ModelConfig config = tiny_config("grouped");
  Plan plan = Plan::identity("rtn", config.layers, quant_settings("W3A16-Q16K16V16"));
  plan.quant.rounding = "uniquanf";
  plan.quant.rounding_options.learning.epochs = 1;
  plan.quant.rounding_options.learning.held_out = 1;
  return {as_float(tiny_model(config)), plan, {}, {tiny_tokens(32, config), 8, learner}};
}

TEST_CASE(
    "blocks whose rounding was learned are not learned again, and come back to the last bit") {
  const TemporaryFolder folder;
  const PlannedModel<float> whole = rounded_by(learned_rounding<float>);
  Index learned = 0;
  const auto run = [&](double shortest, Index blocks) {
    KeptRoundings kept(folder / "rounding.h5", shortest, [&](const BlockTask<float>& task) {
      if (blocks-- == 0) throw 0;
      ++learned;
      learned_rounding<float>(task);
    });
    const PlannedModel<float> planned =
        rounded_by([&](const BlockTask<float>& task) { kept.round(task); });
    CHECK((kept.found_seconds() > 0) == (learned < 2));
    kept.clear();
    return planned;
  };
  CHECK_THROWS(run(0, 1));
  CHECK(learned == 1);
  learned = 0;
  const PlannedModel<float> resumed = run(0, 1);
  CHECK(learned == 1);
  CHECK(std::filesystem::is_empty(folder / ""));
  CHECK(resumed.learning() == whole.learning());
  REQUIRE(resumed.rounded().size() == whole.rounded().size());
  for (std::size_t i = 0; i < whole.rounded().size(); ++i) {
    const RoundedLinear& expected = whole.rounded()[i];
    const RoundedLinear& found = resumed.rounded()[i];
    CHECK(found.layer == expected.layer);
    CHECK(found.linear == expected.linear);
    CHECK(found.size == expected.size);
    CHECK(found.bits.total() == expected.bits.total());
    CHECK(found.details == expected.details);
    const auto l = static_cast<std::size_t>(found.layer);
    CHECK(resumed.model().layers[l][found.linear].weight ==
          whole.model().layers[l][found.linear].weight);
  }

  learned = 0;
  CHECK_THROWS(run(3600, 1));
  CHECK(std::filesystem::is_empty(folder / ""));
}

TEST_CASE("a block that another process is learning is waited for") {
  const TemporaryFolder folder;
  KeptRoundings theirs(folder / "rounding.h5", 0, learned_rounding<float>);
  rounded_by([&](const BlockTask<float>& task) { theirs.round(task); });
  // As if they were still at the second block.
  const std::filesystem::path second = folder / "rounding.layer1.h5", aside = folder / "aside";
  std::filesystem::rename(second, aside);
  std::optional<FileLock> lock(std::in_place, second, "the rounding of layers.1");

  Index learned = 0;
  KeptRoundings mine(folder / "rounding.h5", 0, [&](const BlockTask<float>& task) {
    ++learned;
    learned_rounding<float>(task);
  });
  std::thread other;
  rounded_by([&](const BlockTask<float>& task) {
    if (task.layer == 1) {
      other = std::thread([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        std::filesystem::rename(aside, second);
        lock.reset();
      });
    }
    mine.round(task);
  });
  other.join();
  CHECK(learned == 0);
  CHECK(mine.waited_seconds() > 0.1);
  mine.clear();
  CHECK(std::filesystem::is_empty(folder / ""));
}

}  // namespace
}  // namespace ruq::test
