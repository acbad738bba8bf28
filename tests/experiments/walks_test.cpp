#include "experiments/walks.hpp"

#include <doctest/doctest.h>

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
  KeptWalks first(folder / "plan.h5", 0);
  Plan plan = marked_plan(1);
  CHECK(first.resume(0, plan) == 0);
  CHECK(same_plan(plan, marked_plan(1)));
  first.keep(0, 1, 3, marked_plan(2));
  first.keep(0, 2, 3, marked_plan(3));
  first.resume(1, plan);
  while (first.took().first < 0.2) {
  }
  first.keep(1, 3, 3, marked_plan(4));

  KeptWalks second(folder / "plan.h5", 0);
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
  KeptWalks(folder / "plan.h5", 0).keep(0, 1, 3, plan);
  Plan other = marked_plan(2);
  CHECK(KeptWalks(folder / "plan.h5", 0).resume(0, other) == 1);
  CHECK(same_plan(other, marked_plan(1)));
  CHECK(other.quant.rounding == "rtn");
}

TEST_CASE("short walks leave no file") {
  const TemporaryFolder folder;
  KeptWalks walks(folder / "plan.h5", 3600);
  Plan plan = marked_plan(1);
  walks.resume(0, plan);
  for (Index done = 1; done <= 3; ++done) walks.keep(0, done, 3, plan);
  CHECK(std::filesystem::is_empty(folder / ""));
}

}  // namespace
}  // namespace ruq::test
