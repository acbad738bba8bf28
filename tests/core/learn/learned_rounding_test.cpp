#include "ruquant/learn/learned_rounding.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

constexpr Index kWindow = 16;

struct Rounded {
  std::vector<RoundedLinear> linears;
  std::vector<LearningRecord> learning;
  Model<double> model;
};

Plan plan_for(const ModelConfig& config, const std::string& rounding, const char* widths) {
  Plan plan = Plan::identity("learned", config.layers, quant_settings(widths));
  plan.quant.rounding = rounding;
  plan.quant.rounding_options.learning.epochs = 12;
  return plan;
}

Rounded rounded(const ModelConfig& config, const Plan& plan, Index windows = 6) {
  const PlannedModel<double> planned(
      tiny_model(config), plan, {},
      {tiny_tokens(windows * kWindow, config, 5), kWindow, learned_rounding<double>});
  return {planned.rounded(), planned.learning(), planned.model()};
}

TEST_CASE("learning lowers the block's output error below that of its start") {
  for (const char* rounding : {"uniquanf", "flexround"}) {
    for (const char* shape : {"grouped", "normed heads"}) {
      CAPTURE(std::string(rounding));
      CAPTURE(std::string(shape));
      const ModelConfig config = tiny_config(shape);
      Plan plan = plan_for(config, rounding, "W3A16-Q16K16V16");
      plan.layers[0][SiteKind::mlp_out].online.append(HadamardStep{4});
      plan.quant.rounding_options.learning.epochs = 4;
      const Rounded result = rounded(config, plan, 26);  // fewer are learned by heart
      REQUIRE(result.learning.size() == 2);
      // The second block of a random model gets a stream that is far off whatever its weights are,
      // so only the first is asked to do better on what it has not seen.
      const LearningRecord& first = result.learning.front();
      CHECK(*first.held_out_final < *first.held_out_initial);
      for (const LearningRecord& record : result.learning) {
        CHECK(record.final_loss < 0.95 * record.initial_loss);
        CHECK(record.held_out_final.has_value());
        CHECK(record.steps == 4 * 24);  // of 26 windows two judge
        CHECK(record.losses.size() == 96);
        CHECK(record.tokens == 96 * kWindow);
      }
      REQUIRE(result.linears.size() == 14);
      for (const RoundedLinear& linear : result.linears) {
        CHECK(linear.details.at("unification_error") < 1e-14);
      }
    }
  }
}

TEST_CASE(
    "no epochs leave the start: round to nearest for FlexRound, the unified one for UniQuanF") {
  const ModelConfig config = tiny_config("multi-head");
  for (const auto& [rounding, start] :
       {std::pair("flexround", "rtn"), std::pair("uniquanf", "uniquanf_init")}) {
    Plan plan = plan_for(config, rounding, "W3A16-Q16K16V16");
    plan.quant.rounding_options.learning.epochs = 0;
    const Rounded result = rounded(config, plan);
    const Matrix<double> weight = tiny_model(config).layers[0][Linear::q_proj].weight;
    CHECK(relative_error(result.model.layers[0][Linear::q_proj].weight,
                         round_weight(start, weight, plan.quant.weight)) < 1e-12);
  }
}

TEST_CASE("FlexRound maps every weight afresh, whatever UniQuanF's mapping") {
  const ModelConfig config = tiny_config("multi-head");
  const auto learned = [&](const char* rounding, const UniquanfOptions& options) {
    Plan plan = plan_for(config, rounding, "W3A16-Q16K16V16");
    plan.quant.rounding_options.learning.epochs = 2;
    plan.quant.rounding_options.uniquanf = options;
    return rounded(config, plan).model.layers[0][Linear::q_proj].weight;
  };
  const UniquanfOptions seldom{.mapping = "local", .mapping_period = 3};
  const UniquanfOptions always{.mapping = "direct", .mapping_period = 1};
  CHECK(learned("flexround", seldom) == learned("flexround", always));
  CHECK(learned("uniquanf", seldom) != learned("uniquanf", always));
}

TEST_CASE("learned factors of weight rows set the ends that the start sees") {
  const ModelConfig config = tiny_config("multi-head");
  const Matrix<double> weight = tiny_model(config).layers[0][Linear::q_proj].weight;
  RowClips<double> clips{Vector<double>::LinSpaced(weight.rows(), 0.5, 0.9),
                         Vector<double>::LinSpaced(weight.rows(), 0.95, 0.6)};
  for (const auto& [rounding, start] :
       {std::pair("flexround", "rtn"), std::pair("uniquanf", "uniquanf_init")}) {
    for (const GridRule rule : {GridRule::omniquant, GridRule::quarot_weight}) {
      Plan plan = plan_for(config, rounding, "W3A16-Q16K16V16");
      plan.quant.weight.rule = rule;
      plan.quant.rounding_options.learning.epochs = 0;
      plan.layers[0].weight_clips[Linear::q_proj] = clips;
      const Matrix<double> found = rounded(config, plan).model.layers[0][Linear::q_proj].weight;
      const RoundingInputs<double> inputs{weight, plan.quant.weight, nullptr,
                                          plan.quant.rounding_options, &clips};
      CAPTURE(std::string(rounding));
      CHECK(relative_error(found, round_weight<double>(start, inputs).weight) < 1e-12);
      CHECK(relative_error(found, round_weight(start, weight, plan.quant.weight)) > 1e-2);
    }
  }
}

TEST_CASE("blocks beyond those asked for keep their start") {
  const ModelConfig config = tiny_config("multi-head");
  Plan plan = plan_for(config, "flexround", "W3A16-Q16K16V16");
  plan.quant.rounding_options.learning.blocks = 1;
  const Rounded result = rounded(config, plan);
  REQUIRE(result.learning.size() == 1);
  CHECK(result.learning[0].where == "layers.0");
  CHECK(result.learning[0].steps > 0);
  const Matrix<double> weight = tiny_model(config).layers[1][Linear::q_proj].weight;
  CHECK(relative_error(result.model.layers[1][Linear::q_proj].weight,
                       round_weight("rtn", weight, plan.quant.weight)) < 1e-12);
}

TEST_CASE("every row has at most 2^k values, and bits are counted for the deployed form") {
  const ModelConfig config = tiny_config("grouped");
  const Rounded uniquanf = rounded(config, plan_for(config, "uniquanf", "W2A16-Q16K16V16"));
  for (const LayerWeights<double>& layer : uniquanf.model.layers) {
    for (const Linear linear : kLinears) {
      const Matrix<double>& weight = layer[linear].weight;
      for (Index r = 0; r < weight.rows(); ++r) {
        std::vector<double> values(weight.row(r).begin(), weight.row(r).end());
        std::sort(values.begin(), values.end());
        CHECK(std::unique(values.begin(), values.end()) - values.begin() <= 4);
      }
    }
  }
  // q_proj of width 36: two codes, three numbers of 16 bits a row.
  CHECK(uniquanf.linears[0].bits.total() == doctest::Approx(2 + 16 * 3.0 / 36));
  const Rounded flexround = rounded(config, plan_for(config, "flexround", "W2A16-Q16K16V16"));
  CHECK(flexround.linears[0].bits.total() == doctest::Approx(2 + 16 * 2.0 / 36));
}

TEST_CASE("the same plan gives the same weights, whatever the threads") {
  const ModelConfig config = tiny_config("grouped");
  const Plan plan = plan_for(config, "uniquanf", "W4A4-Q4K4V4");
  const Rounded once = rounded(config, plan);
  const int before = threads();
  set_threads(2);
  const Rounded again = rounded(config, plan);
  set_threads(before);
  for (const Linear linear : kLinears) {
    CHECK(once.model.layers[1][linear].weight == again.model.layers[1][linear].weight);
  }
  CHECK(once.learning == again.learning);
}

TEST_CASE("what cannot be learned is refused") {
  const ModelConfig config = tiny_config("grouped");
  Plan plan = plan_for(config, "uniquanf", "W4A4-Q4K4V4");
  check_error([&] { rounded(config, plan, 2); },
              {"quant.learning.held_out", "fewer than the 2 calibration windows"});
  plan.layers[0][SiteKind::attn_in].levels = {Vector<double>::Zero(15), Vector<double>::Zero(16)};
  check_error([&] { rounded(config, plan); }, {"uniquanf", "quant.activation_levels"});
}

}  // namespace
}  // namespace ruq::test
