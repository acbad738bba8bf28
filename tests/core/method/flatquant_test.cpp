#include <doctest/doctest.h>

#include "ruquant/transform/kronecker.hpp"
#include "support/learned_block.hpp"

namespace ruq::test {
namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;

Settings untrained() {
  return {{"learn_transforms", "false"}, {"learn_scale", "false"}, {"learn_clips", "false"}};
}

MethodClaims claims() {
  MethodClaims result;
  result.fallbacks = [](const ModelConfig& config) -> std::vector<std::string> {
    if (config.width != 46) return {};
    return {"attn_in: no factors of one parity for 46, 2 and 23 instead",
            "mlp_in: no factors of one parity for 46, 2 and 23 instead"};
  };
  return result;
}

const Kronecker<double>& kronecker(const Plan& plan, SiteKind kind) {
  return std::get<Kronecker<double>>(plan.layers[0][kind].online.steps().at(0));
}

TEST_CASE("flatquant obeys the laws of methods") { check_method_laws("flatquant", claims()); }

TEST_CASE("its untrained start obeys them too, needs no model, and learns nothing") {
  check_method_laws("flatquant", claims(), untrained());
  const auto method = small_method("flatquant", untrained());
  CHECK_FALSE(method->needs_model());
  CHECK(small_method("flatquant")->needs_model());
  TinyBench<double> bench(tiny_config("grouped"));
  const Plan plan = bench.plan(*method, quant_settings());
  CHECK(plan.learning.empty());
  CHECK_FALSE(plan.layers[0][SiteKind::attn_in].clips.has_value());
  CHECK_FALSE(plan.layers[0].weight_clips[0].has_value());
}

TEST_CASE("maps have the factors of the paper's rule and lie where it puts them") {
  TinyBench<double> bench(tiny_config("grouped"));  // 36 and 96 channels, 9 heads of 4 over 3
  const Plan plan = bench.plan(*small_method("flatquant"), quant_settings());
  CHECK(kronecker(plan, SiteKind::attn_in).left_width == 6);
  CHECK(kronecker(plan, SiteKind::mlp_out).left_width == 8);
  CHECK(kronecker(plan, SiteKind::mlp_out).right_width == 12);
  CHECK(kronecker(plan, SiteKind::attn_out).left_width == 9);
  CHECK(kronecker(plan, SiteKind::attn_out).right.map.size() == 0);
  const auto& values =
      std::get<BlockDiagonal<double>>(plan.layers[0][SiteKind::attn_out].folded.steps().at(0));
  CHECK(values.maps.size() == 1);
  CHECK(values.which.size() == 3);
  CHECK(plan.layers[0][SiteKind::mlp_out].folded.describe() == "scale");
  CHECK(plan.layers[0].query_key.width() == 4);
}

TEST_CASE("scales start from the largest weight and activation of a channel") {
  Settings settings = untrained();
  TinyBench<double> bench(tiny_config("grouped"));
  const Plan plan = bench.plan(*small_method("flatquant", settings), quant_settings());
  const Vector<double> largest = bench.session.weight(1, Linear::gate_proj)
                                     .cwiseAbs()
                                     .cwiseMax(bench.session.weight(1, Linear::up_proj).cwiseAbs())
                                     .colwise()
                                     .maxCoeff();
  const Vector<double>& x = bench.session.channel_maxima()[1][std::size_t(SiteKind::mlp_in)];
  const auto& d =
      std::get<Scale<double>>(plan.layers[1][SiteKind::mlp_in].folded.steps().at(0)).factor;
  CHECK(relative_error(d, flatquant_init_scale(largest, x, 0.3)) < 1e-12);

  settings.push_back({"scale_alpha", "none"});
  const Plan bare = bench.plan(*small_method("flatquant", settings), quant_settings());
  CHECK(std::get<Scale<double>>(bare.layers[1][SiteKind::mlp_in].folded.steps().at(0)).factor ==
        Vector<double>::Ones(36));
}

TEST_CASE("what it learned is what the executor runs, for every part and quantizer") {
  const LearningWindows windows{.train = 2, .held_out = 1, .tokens = 8};
  QuantSettings symmetric = quant_settings();
  symmetric.weight = {.bits = 4, .symmetric = true, .rule = GridRule::quarot_weight};
  symmetric.activation = {.bits = 4, .symmetric = true, .rule = GridRule::quarot_activation};
  for (const char* off : {"none", "learn_transforms", "learn_scale", "learn_clips"}) {
    CAPTURE(off);
    Settings settings;
    if (std::string(off) != "none") settings.push_back({off, "false"});
    const auto method = small_method("flatquant", settings);
    check_learned_blocks(*method, quant_settings(), windows, tiny_config("biases"), true);
    check_learned_blocks(*method, symmetric, windows, tiny_config("grouped"), true);
  }
}

TEST_CASE("parts that are not learned stay at their start") {
  TinyBench<double> bench(tiny_config("multi-head"));
  const Plan start = bench.plan(*small_method("flatquant", untrained()), quant_settings());
  const Plan plan = bench.plan(
      *small_method("flatquant", {{"learn_transforms", "false"}, {"learn_clips", "false"}}),
      quant_settings());
  const LayerPlan& a = start.layers[0];
  const LayerPlan& b = plan.layers[0];
  CHECK(same_transform(a[SiteKind::attn_in].online, b[SiteKind::attn_in].online));
  CHECK(same_transform(a.query_key, b.query_key));
  CHECK_FALSE(same_transform(a[SiteKind::attn_in].folded, b[SiteKind::attn_in].folded));
  CHECK_FALSE(b[SiteKind::attn_in].clips.has_value());
}

TEST_CASE("training lowers the error of the blocks that it is trained on") {
  TinyBench<double> bench(tiny_config("grouped"));
  calm(bench.model);
  const auto method = small_method(
      "flatquant", {{"epochs", "15"}, {"learning_windows", "6"}, {"learning_batch", "2"}});
  const Plan plan = bench.plan(*method, quant_settings("W4A8-Q8K8V8"));
  for (const LearningRecord& record : plan.learning) {
    CAPTURE(record.where);
    CHECK(record.final_loss < 0.9 * record.initial_loss);
    CHECK(record.steps == 45);
  }
}

}  // namespace
}  // namespace ruq::test
