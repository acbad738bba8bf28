#include "ruquant/learn/weight_clipping.hpp"

#include <doctest/doctest.h>

#include "support/errors.hpp"
#include "support/learned_block.hpp"

namespace ruq::test {
namespace {

// A bench whose model is calm, and a plan with smoothing-like scales in its first layer.
struct Clipping {
  explicit Clipping(const std::string& shape) : bench(tiny_config(shape)) {
    calm(bench.model);
    options.schedule = {.windows = {.train = 4, .held_out = 2, .tokens = 8}, .epochs = 10};
    plan = Plan::identity("test", bench.model.config.layers, quant_settings());
    for (LayerPlan& layer : plan.layers) {
      for (const SiteKind kind : {SiteKind::attn_in, SiteKind::mlp_in, SiteKind::mlp_out}) {
        const Index width = bench.model.config.site_width(kind);
        const Vector<double> scale =
            (0.3 * gaussian(width, 1, to_string(kind)).col(0).array()).exp();
        layer[kind].folded.append(Scale<double>{scale});
        layer[kind].online.append(Reflection<double>{gaussian(width, 1, "v").col(0).normalized()});
      }
    }
  }
  Plan learned() {
    Plan result = plan;
    learn_weight_clips<double>(bench.session, options, result);
    return result;
  }

  TinyBench<double> bench;
  WeightClippingOptions options;
  Plan plan;
};

void check_records(Clipping& c, const Plan& plan) {
  const ModelConfig& config = c.bench.model.config;
  REQUIRE(std::ssize(plan.learning) == config.layers);
  Plan walked = plan;
  c.bench.session.walk_blocks(
      c.options.schedule.windows, walked, [&](const BlockView<double>& block, Plan& now) {
        const LearningRecord& record = plan.learning[static_cast<std::size_t>(block.layer)];
        const auto error = [&](const BlockSamples<double>& samples) {
          return executed_error(now, config, block.layer, block.weights, samples, false);
        };
        CHECK(record.where == "layers." + std::to_string(block.layer));
        CHECK(record.final_loss == doctest::Approx(error(block.train)).epsilon(1e-9));
        CHECK(record.held_out_final.value() ==
              doctest::Approx(error(block.held_out)).epsilon(1e-9));
      });
}

TEST_CASE("clip factors of every row lower the block's error, and the executor agrees") {
  for (const char* shape : {"multi-head", "grouped", "biases"}) {
    CAPTURE(shape);
    Clipping c(shape);
    // Only weights are rounded: codes of activations that jump would drown what is learned here.
    c.options.schedule.epochs = 20;
    c.plan.quant = quant_settings("W3A16-Q16K16V16");
    const Plan plan = c.learned();
    check_records(c, plan);
    for (const LearningRecord& record : plan.learning) {
      CHECK(record.final_loss < record.initial_loss);
    }
    for (const Linear linear : kLinears) {
      const auto& clips = plan.layers[0].weight_clips[linear];
      REQUIRE(clips.has_value());
      CHECK(clips->low.size() == c.bench.model.config.out_width(linear));
      for (const Vector<double>& one : {clips->low, clips->high}) {
        CHECK(one.minCoeff() > 0);
        CHECK(one.maxCoeff() < 1);
        CHECK(one.maxCoeff() - one.minCoeff() > 1e-3);  // rows went their own ways
      }
    }
    CHECK(same_transform(plan.layers[0][SiteKind::mlp_in].folded,
                         c.plan.layers[0][SiteKind::mlp_in].folded));
  }
}

TEST_CASE("scales move from where they stand, and the float function stays") {
  Clipping c("grouped");
  c.options.scales = true;
  const Plan plan = c.learned();
  check_records(c, plan);
  for (const SiteKind kind : {SiteKind::attn_in, SiteKind::mlp_in, SiteKind::mlp_out}) {
    const auto& before = std::get<Scale<double>>(c.plan.layers[0][kind].folded.steps()[0]).factor;
    const auto& after = std::get<Scale<double>>(plan.layers[0][kind].folded.steps()[0]).factor;
    const double moved = (after - before).cwiseAbs().maxCoeff();
    CHECK(moved > 1e-3);
    CHECK(moved < 1);
    CHECK(same_transform(plan.layers[0][kind].online, c.plan.layers[0][kind].online));
  }
  CHECK(relative_distance(c.bench.logits(without_rounding(plan)), c.bench.logits()) < 1e-10);
}

// Massive channels have factors of a few hundredths; a step of the rate on the factor itself would
// take them through zero.
TEST_CASE("scales of outlier channels stay positive however long they are learned") {
  Clipping c("grouped");
  c.options.scales = true;
  c.options.clips = false;
  c.options.schedule.epochs = 25;
  const std::vector<SiteKind> kinds = {SiteKind::attn_in, SiteKind::mlp_in, SiteKind::mlp_out};
  for (const SiteKind kind : kinds) {
    auto& folded = c.plan.layers[0][kind].folded;
    Vector<double> factor = std::get<Scale<double>>(folded.steps()[0]).factor;
    factor.head(4) << 0.02, 0.05, 80, 300;  // divisors of 50, 20, 1/80, and one below the least
    folded = Transform<double>(factor.size());
    folded.append(Scale<double>{factor});
  }
  const Plan plan = c.learned();
  check_records(c, plan);
  for (const SiteKind kind : kinds) {
    CAPTURE(to_string(kind));
    const auto& after = std::get<Scale<double>>(plan.layers[0][kind].folded.steps()[0]).factor;
    CHECK(after.minCoeff() > 0);
    CHECK(after.maxCoeff() <= 1 / kLeastScale + 1e-9);
    // 100 steps of 0.01 move a divisor by about one: little where it is 50.
    CHECK(after[0] == doctest::Approx(0.02).epsilon(0.05));
  }
  CHECK(relative_distance(c.bench.logits(without_rounding(plan)), c.bench.logits()) < 1e-10);
}

TEST_CASE("the schedule's preset brings the rate that suits its number of steps") {
  WeightClippingOptions options;
  Fields fields;
  bind(fields, options);
  CHECK(options.learning_rate == kShortClipRate);
  fields.set("schedule", "paper");
  CHECK(options.learning_rate == kPaperClipRate);
  CHECK(options.schedule.epochs == 20);
  CHECK(options.schedule.windows.train == 128);
  fields.set("lwc_rate", "0.01");
  CHECK(options.learning_rate == 0.01);
}

TEST_CASE("where nothing is rounded there is nothing to clip") {
  Clipping c("multi-head");
  c.plan.quant = quant_settings("W16A4-Q4K4V4");
  const Plan plan = c.learned();
  CHECK(plan.learning.empty());
  CHECK_FALSE(plan.layers[0].weight_clips[0].has_value());
}

TEST_CASE("a folded map that is not a scale is refused by its place") {
  Clipping c("multi-head");
  c.options.scales = true;
  c.plan.layers[0][SiteKind::mlp_out].folded.append(Scale<double>{Vector<double>::Ones(48)});
  check_error([&] { c.learned(); }, {"mlp_out", "scale"});
}

}  // namespace
}  // namespace ruq::test
