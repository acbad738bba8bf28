#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "ruquant/learn/model_rotation.hpp"
#include "ruquant/transform/hadamard.hpp"
#include "support/laws.hpp"
#include "support/method_claims.hpp"

namespace ruq::test {
namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;

const Settings kSmall = {{"steps", "3"}, {"learning_tokens", "8"}};

Settings with(Settings settings) {
  settings.insert(settings.begin(), kSmall.begin(), kSmall.end());
  return settings;
}

Plan plan_of(const TinyBench<double>& bench, const Settings& settings,
             const QuantSettings& quant = quant_settings()) {
  TinyBench<double> fresh(bench.model.config);
  return fresh.plan(*small_method("spinquant", settings), quant);
}

TEST_CASE("spinquant obeys the laws of methods") {
  check_method_laws("spinquant", method_claims("spinquant"), kSmall);
  CHECK(method_claims("spinquant").fallbacks(tiny_config("odd factors")).size() == 4);
}

TEST_CASE("learning lowers the loss and says so; the rotations stay orthogonal") {
  for (const char* shape : {"grouped", "biases"}) {
    INFO(std::string(shape));
    const ModelConfig config = tiny_config(shape);
    TinyBench<double> bench(config);
    const Plan plan = plan_of(bench, {{"steps", "40"},
                                      {"learning_tokens", "32"},
                                      {"learning_batch", "16"},  // a few windows do not tell
                                      {"learning_rate", "0.1"}});
    REQUIRE(plan.learning.size() == 1);
    const LearningRecord& record = plan.learning[0];
    CHECK(record.where == "model");
    CHECK(record.losses.size() == 40);
    CHECK(record.initial_loss == record.losses[0]);
    CHECK(record.final_loss < record.initial_loss);
    CHECK(record.held_out_final < record.held_out_initial);
    CHECK(record.tokens == 40 * 16 * 32);
    CHECK(record.details.at("orthogonality_drift") < 1e-3);
    CHECK(orthogonality_error(plan.residual.to_matrix(config.width)) < 1e-12);
    for (const LayerPlan& layer : plan.layers) {
      const Transform<double>& values = layer[SiteKind::attn_out].folded;
      CHECK(orthogonality_error(values.to_matrix(config.kv_width())) < 1e-12);
    }
  }
}

TEST_CASE("each choice of what is learned moves that and nothing else") {
  TinyBench<double> bench(tiny_config("grouped"));
  const Plan none = plan_of(bench, with({{"learn", "none"}}));
  CHECK(none.learning.empty());
  const auto residual = [](const Plan& plan) { return plan.residual.to_matrix(36); };
  const auto values = [](const Plan& plan, std::size_t l) {
    return plan.layers[l][SiteKind::attn_out].folded.to_matrix(12);
  };
  CHECK((residual(none).array().abs() - 1.0 / 6).abs().maxCoeff() < 1e-14);
  CHECK(values(none, 0) != values(none, 1));
  for (const char* learn : {"r1", "r2", "both"}) {
    INFO(std::string(learn));
    const Plan plan = plan_of(bench, with({{"learn", learn}}));
    const bool r1 = std::string(learn) != "r2";
    const bool r2 = std::string(learn) != "r1";
    CHECK((relative_error(residual(plan), residual(none)) > 1e-6) == r1);
    CHECK((relative_error(values(plan, 1), values(none, 1)) > 1e-6) == r2);
  }
  CHECK(small_method("spinquant")->needs_model());
  CHECK_FALSE(small_method("spinquant", {{"learn", "none"}})->needs_model());
}

TEST_CASE("the record's losses are those of the executor under the plan") {
  TinyBench<double> bench(tiny_config("biases"));
  for (const char* weights : {"true", "false"}) {
    QuantSettings quant = quant_settings();
    const Plan plan = plan_of(bench, with({{"weights_in_learning", weights}}), quant);
    Plan as_learned = plan;
    if (std::string(weights) == "false") as_learned.quant.weight.bits = 16;
    const PlannedModel<double> planned(bench.model, as_learned);
    const auto ids =
        bench.session.learning_tokens({.train = 6, .held_out = 2, .tokens = 8}).held_out;
    const Matrix<double> states = final_hidden<double>(planned.model(), ids, 8, planned.hook());
    const double loss = cross_entropy(states, planned.model().head_weight(), {ids, 8});
    CHECK(*plan.learning[0].held_out_final == doctest::Approx(loss).epsilon(1e-9));
    CHECK(plan.learning[0].details.at("held_out_float") ==
          doctest::Approx(cross_entropy(final_hidden<double>(bench.model, ids, 8, {}),
                                        bench.model.head_weight(), {ids, 8})));
  }
}

TEST_CASE("the first steps of a schedule are those of the whole one") {
  TinyBench<double> bench(tiny_config("grouped"));
  const Plan whole = plan_of(bench, {{"steps", "6"}, {"learning_tokens", "8"}});
  const Plan part =
      plan_of(bench, {{"steps", "6"}, {"learning_steps", "2"}, {"learning_tokens", "8"}});
  const std::vector<double>& losses = whole.learning[0].losses;
  CHECK(part.learning[0].losses == std::vector<double>(losses.begin(), losses.begin() + 2));
  CHECK(part.learning[0].steps == 2);
  CHECK(part.learning[0].details.at("scheduled_steps") == 6);
  CHECK(part.learning[0].termination == "Took 2 of 6 steps.");
  const Plan brief = plan_of(bench, {{"steps", "2"}, {"learning_tokens", "8"}});
  CHECK(brief.learning[0].losses[0] == losses[0]);
  CHECK(brief.residual.to_matrix(36) != part.residual.to_matrix(36));
}

TEST_CASE("the paper's schedule is a preset, and single fields win over it") {
  auto method = make_method("spinquant");
  Fields fields;
  method->bind(fields);
  fields.set("schedule", "paper");
  CHECK(fields.find("steps")->get() == "100");
  CHECK(fields.find("learning_batch")->get() == "8");
  CHECK(fields.find("learning_tokens")->get() == "2048");
  fields.set("steps", "3");
  CHECK(fields.find("steps")->get() == "3");
}

}  // namespace
}  // namespace ruq::test
