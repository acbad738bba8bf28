// A plan that is drawn up in many runs, each of which ends after one more layer or step, is the
// plan of one run, whatever the method.
#include <doctest/doctest.h>

#include <map>

#include "ruquant/base/error.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

struct Interrupted {};

// Keeps what a run leaves, and ends the run after one layer or step.
class OneAtATime final : public PlanJournal {
 public:
  Index resume(Index part, Plan& plan) override {
    const auto found = kept_.find(part);
    if (found == kept_.end()) return 0;
    plan = found->second.second;
    return found->second.first;
  }
  void keep(Index part, Index done, Index all, const Plan& plan) override {
    CHECK(done <= all);
    kept_.insert_or_assign(part, std::pair(done, plan));
    throw Interrupted();
  }
  Index parts() const { return std::ssize(kept_); }

 private:
  std::map<Index, std::pair<Index, Plan>> kept_;
};

// Draws up the plan, activation levels included, in as many runs as it takes. Returns how many.
Index plan_in_runs(TinyBench<double>& bench, const Method& method, const QuantSettings& quant,
                   const std::shared_ptr<OneAtATime>& journal, Plan& plan) {
  for (Index runs = 1;; ++runs) {
    REQUIRE(runs < 20);
    bench.session.set_journal(journal);
    try {
      plan = bench.plan(method, quant);
      fit_activation_levels(bench.session, plan);
      return runs;
    } catch (const Interrupted&) {
    }
  }
}

using Settings = std::vector<std::pair<std::string, std::string>>;

// Walks of the method that may be kept, and one more for levels.
void check_interrupted(const std::string& name, const Settings& settings, Index walks) {
  INFO(name);
  const auto method = small_method(name, settings);
  QuantSettings quant = quant_settings();
  quant.activation_levels = "lloyd_max";
  const ModelConfig config = tiny_config("grouped");
  TinyBench<double> bench(config);
  Plan whole = bench.plan(*method, quant);
  fit_activation_levels(bench.session, whole);

  const auto journal = std::make_shared<OneAtATime>();
  Plan pieces;
  const Index runs = plan_in_runs(bench, *method, quant, journal, pieces);
  CHECK(same_plan(pieces, whole));
  CHECK(journal->parts() == walks + 1);
  CHECK(runs == config.layers * (walks + 1) + 1);
}

TEST_CASE("methods that learn block after block") {
  check_interrupted("omniquant", {}, 1);
  check_interrupted("flatquant", {}, 1);
  check_interrupted("duquant", {{"lwc", "true"}}, 2);
  check_interrupted("infoquant", {{"learn_clips", "true"}}, 2);
}

TEST_CASE("RUQuant keeps stage 2, and stage 1 where nothing but the plan comes of it") {
  check_interrupted("ruquant", {{"global_reflection", "finetuned"}}, 1);
  check_interrupted("ruquant", {{"global_reflection", "optimized"}}, 1);
}

TEST_CASE("SpinQuant keeps every step") {
  TinyBench<double> bench(tiny_config("grouped"));
  const auto method = small_method("spinquant", {{"steps", "5"}, {"learning_batch", "1"}});
  const Plan whole = bench.plan(*method, quant_settings());
  Plan pieces;
  CHECK(plan_in_runs(bench, *method, quant_settings(), std::make_shared<OneAtATime>(), pieces) ==
        6);
  CHECK(same_plan(pieces, whole));
}

TEST_CASE("every method gives the same plan") {
  for (const MethodInfo& info : methods()) {
    INFO(info.name);
    const auto method = small_method(info.name);
    TinyBench<double> bench(tiny_config("grouped"));
    const Plan whole = bench.plan(*method, quant_settings());
    Plan pieces;
    plan_in_runs(bench, *method, quant_settings(), std::make_shared<OneAtATime>(), pieces);
    CHECK(same_plan(pieces, whole));
  }
}

}  // namespace
}  // namespace ruq::test
