#include <doctest/doctest.h>

#include <cmath>

#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("learned_rotation obeys the laws of methods") { check_method_laws("learned_rotation"); }

TEST_CASE("so it does with the other objectives, after smoothing") {
  for (const std::string objective : {"straight_through", "smooth_range"}) {
    MethodClaims claims = method_claims("learned_rotation");
    claims.fallbacks = [](const ModelConfig& config) {
      std::vector<std::string> lines = smoothing_fallback(config);
      for (const std::string& line : method_claims("learned_rotation").fallbacks(config)) {
        lines.push_back(line);
      }
      return lines;
    };
    check_method_laws("learned_rotation", claims,
                      {{"objective", objective}, {"smoothing", "0.5"}, {"steps", "2"}});
  }
}

Plan plan_of(const std::vector<std::pair<std::string, std::string>>& settings) {
  TinyBench<double> bench(tiny_config("multi-head"));
  return bench.plan(*small_method("learned_rotation", settings), quant_settings());
}

TEST_CASE("all blocks share a map, every site has its own, and a record tells how it went") {
  const Plan plan = plan_of({{"steps", "20"}, {"learning_rate", "0.1"}});
  const auto& first =
      std::get<BlockDiagonal<double>>(plan.layers[0][SiteKind::attn_in].online.steps().at(0));
  CHECK(first.maps.size() == 1);
  CHECK(first.which == std::vector<Index>(4, 0));
  const auto& second =
      std::get<BlockDiagonal<double>>(plan.layers[1][SiteKind::attn_in].online.steps().at(0));
  CHECK(first.maps[0].map != second.maps[0].map);
  REQUIRE(plan.learning.size() == 8);
  CHECK(plan.learning[7].where == "layers.1.mlp_out");
  for (const LearningRecord& record : plan.learning) {
    CAPTURE(record.where);
    CHECK(record.optimizer == "cayley sgd");
    CHECK(record.objective == "psot");
    CHECK(record.final_loss < record.initial_loss);
    CHECK(record.held_out_initial.value() > 0);
    CHECK(record.held_out_final.value() > 0);
    CHECK(record.details.at("gradient_noise_end") > 0);
  }
}

TEST_CASE("straight-through learning is judged by the measure that it learns") {
  const Plan plan = plan_of({{"objective", "straight_through"}, {"steps", "20"}});
  for (const LearningRecord& record : plan.learning) {
    CAPTURE(record.where);
    CHECK(record.objective == "straight_through");
    // The loss over the held-out rows has the energy of their output in both.
    CHECK(record.details.at("held_out_loss_end") ==
          doctest::Approx(record.held_out_final.value()).epsilon(1e-12));
  }
}

TEST_CASE("without steps the random start is left, with the error that the record holds") {
  const Plan plan = plan_of({{"steps", "0"}});
  const Matrix<double> map = plan.layers[0][SiteKind::attn_in].online.to_matrix(32);
  CHECK(plan.learning[0].held_out_final.value() ==
        doctest::Approx(plan.learning[0].held_out_initial.value()));
  CHECK(plan.learning[0].losses.empty());
  CHECK((map.topLeftCorner(8, 8).array().abs() - 1 / std::sqrt(8.0)).abs().maxCoeff() < 1e-12);
}

TEST_CASE("a schedule sets steps and batch, which can be set after it") {
  const auto method = make_method("learned_rotation");
  Fields fields;
  method->bind(fields);
  CHECK(fields.find("steps")->get() == "30");
  fields.set("schedule", "long");
  CHECK(fields.find("steps")->get() == "300");
  CHECK(fields.find("batch_tokens")->get() == "512");
}

}  // namespace
}  // namespace ruq::test
