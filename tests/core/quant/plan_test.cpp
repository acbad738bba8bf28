#include "ruquant/quant/plan.hpp"

#include <doctest/doctest.h>

#include "ruquant/base/rng.hpp"
#include "ruquant/io/tensor_store.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

// A plan with something unusual in every field that is saved.
Plan rich_plan() {
  Plan plan = Plan::identity("somewhat-rich", 2, quant_settings("W3A4-Q5K6V8"));
  plan.quant.weight = {.bits = 3,
                       .symmetric = true,
                       .rule = GridRule::quarot_weight,
                       .group_size = 4,
                       .clip_ratio = 0.1 + 0.2,
                       .search = true};
  plan.quant.keys.rule = GridRule::quarot_activation;
  plan.quant.rounding = "septq";
  plan.quant.rounding_options.septq.kept_percent = 0.1 + 0.2;
  plan.quant.rounding_options.uniquanf.mapping = "direct";
  plan.quant.activation_levels = "centroid";
  plan.quant.attn_out_group_size = 8;
  Stream stream(1, "plan");
  plan.residual.append(Scale<double>{stream.signs(12)});
  plan.residual.append(HadamardStep{12, true});
  plan.layers[0][SiteKind::attn_in].folded.append(Scale<double>{stream.uniform(12)});
  SitePlan& out = plan.layers[0][SiteKind::attn_out];
  const Matrix<double> map = stream.normal(4, 4);
  out.online.append(BlockDiagonal<double>{{{map, {}}, {map, map.transpose()}}, {1, 0, 1}});
  out.online.append(Kronecker<double>{{}, {map, map}, 3, 4});
  plan.layers[1][SiteKind::mlp_out].online.append(Permutation{stream.permutation(12)});
  plan.layers[1][SiteKind::mlp_out].online.append(
      Reflection<double>{stream.normal(12, 1).col(0).normalized()});
  plan.layers[1][SiteKind::mlp_in].online = Transform<double>(12);
  plan.layers[1].query_key.append(HadamardStep{4});
  plan.layers[1][SiteKind::mlp_in].clips = {0.1 + 0.2, 0.75};
  plan.layers[0][SiteKind::mlp_out].levels = {stream.uniform(15), stream.uniform(16)};
  plan.layers[1].weight_clips[2] = {stream.uniform(5), stream.uniform(5)};
  plan.learning.push_back({.where = "layers.0",
                           .optimizer = "adamw",
                           .objective = "block output",
                           .losses = {3, 1, 2},
                           .initial_loss = 0.1 + 0.2,
                           .final_loss = 0.25,
                           .held_out_final = 0.5,
                           .steps = 3,
                           .evaluations = 4,
                           .tokens = 5,
                           .termination = "Took all 3 steps.",
                           .details = {{"noise", 0.125}, {"other", 2}}});
  plan.learning.push_back({.where = "model"});
  plan.note_fallback("heads: something, instead");
  plan.note_fallback("attn_out: else");
  return plan;
}

TEST_CASE("a saved plan comes back to the last bit") {
  const TemporaryFolder folder;
  const Plan plan = rich_plan();
  save_plan(plan, folder / "plan.h5");
  const Plan loaded = load_plan(folder / "plan.h5");
  CHECK(same_plan(loaded, plan));
  CHECK(loaded.quant.weight == plan.quant.weight);
  CHECK(loaded.fallbacks == plan.fallbacks);
  CHECK(describe(loaded) == describe(plan));

  const Plan plain = Plan::identity("plain", 3, QuantSettings{});
  save_plan(plain, folder / "plain.h5");
  CHECK(same_plan(load_plan(folder / "plain.h5"), plain));
}

TEST_CASE("plans that differ anywhere compare as different") {
  const auto differs = [](const auto& change) {
    Plan changed = rich_plan();
    change(changed);
    return !same_plan(changed, rich_plan());
  };
  CHECK_FALSE(differs([](Plan&) {}));
  CHECK(differs([](Plan& p) { p.method = "else"; }));
  CHECK(differs([](Plan& p) { p.quant.values.clip_ratio = 0.999; }));
  CHECK(differs([](Plan& p) { p.residual = {}; }));
  CHECK(differs([](Plan& p) { p.layers.pop_back(); }));
  CHECK(differs([](Plan& p) { p.layers[1].query_key.append(HadamardStep{2}); }));
  CHECK(differs([](Plan& p) { p.layers[0][SiteKind::attn_in].folded = {}; }));
  CHECK(differs([](Plan& p) { p.note_fallback("one more"); }));
  CHECK(differs([](Plan& p) { p.quant.rounding_options.gptq.damping = 0.5; }));
  CHECK(differs([](Plan& p) { p.quant.activation_levels = "midpoint"; }));
  CHECK(differs([](Plan& p) { p.quant.attn_out_group_size = 4; }));
  CHECK(differs([](Plan& p) { p.layers[1][SiteKind::mlp_in].clips = {}; }));
  CHECK(differs([](Plan& p) { p.layers[0][SiteKind::mlp_out].levels.levels(3) = 7; }));
  CHECK(differs([](Plan& p) { p.layers[1].weight_clips[2]->high(0) = 7; }));
  CHECK(differs([](Plan& p) { p.learning[0].held_out_final = {}; }));
  CHECK(differs([](Plan& p) { p.learning[0].losses[1] = 7; }));
}

TEST_CASE("a file that is no plan is refused by name") {
  const TemporaryFolder folder;
  check_error([&] { load_plan(folder / "missing.h5"); }, {"missing.h5"});
  {
    TensorWriter other(folder / "other.h5");
    other.attribute("", "format", std::string("something else"));
    other.commit();
  }
  check_error([&] { load_plan(folder / "other.h5"); }, {"other.h5", "not a plan"});
  write_bytes(folder / "text.h5", "hello");
  check_error([&] { load_plan(folder / "text.h5"); }, {"text.h5"});
}

TEST_CASE("bit widths print in full and parse back") {
  const BitWidths widths = {.weight = 4, .activation = 6, .queries = 16, .keys = 3, .values = 2};
  CHECK(to_string(widths) == "W4A6-Q16K3V2");
  CHECK(bit_widths("W4A6-Q16K3V2") == widths);
  CHECK(bit_widths(to_string(BitWidths{})) == BitWidths{});
  CHECK(bit_widths("W8A8-Q8K8V8").keys == 8);
}

TEST_CASE("anything but the full form of bit widths is refused") {
  for (const char* text :
       {"", "W4A4", "W4A4-Q4K4", "W4A4-Q4K4V4 ", "w4a4-q4k4v4", "W4A4Q4K4V4", "A4W4-Q4K4V4",
        "W1A4-Q4K4V4", "W9A4-Q4K4V4", "W4A4-Q4K4V12", "W-4A4-Q4K4V4", "W4.5A4-Q4K4V4", "WA4-Q4K4V4",
        "W4A4-Q4K4V", "W99999999999999999999A4-Q4K4V4"}) {
    CAPTURE(std::string(text));
    check_error([&] { bit_widths(text); }, {"W4A4-Q16K4V4"});
  }
}

TEST_CASE("set_widths changes bits alone") {
  QuantSettings quant;
  quant.keys = {.symmetric = true, .clip_ratio = 0.9};
  quant.set_widths(bit_widths("W2A3-Q4K5V6"));
  CHECK(to_string(quant.widths()) == "W2A3-Q4K5V6");
  CHECK(quant.keys.symmetric);
  CHECK(quant.keys.clip_ratio == 0.9);
}

TEST_CASE("what is quantized at a site has the site's own spec") {
  QuantSettings quant;
  quant.activation = {.bits = 4, .group_size = 128};
  quant.keys = {.bits = 3};
  CHECK(quant.of(SiteKind::attn_out) == quant.activation);
  quant.attn_out_group_size = 64;
  CHECK(quant.of(SiteKind::attn_out).group_size == 64);
  CHECK(quant.of(SiteKind::attn_out).bits == 4);
  CHECK(quant.of(SiteKind::mlp_in) == quant.activation);
  CHECK(quant.of(SiteKind::keys) == quant.keys);
  CHECK(quant.single(SiteKind::attn_out).activation.group_size == 64);
  CHECK(quant.single(SiteKind::mlp_out).activation.group_size == 128);
}

TEST_CASE("a fallback is noted once") {
  Plan plan = Plan::identity("x", 1, QuantSettings{});
  plan.note_fallback("a");
  plan.note_fallback("b");
  plan.note_fallback("a");
  CHECK(plan.fallbacks == std::vector<std::string>{"a", "b"});
}

TEST_CASE("describe has a line for each layer's sites, its pair, and each fallback") {
  const std::string text = describe(rich_plan());
  for (const char* line :
       {"somewhat-rich W3A4-Q5K6V8 residual: signs, hadamard(12)\n",
        "layers.0.attn_in folded: scale | online: identity\n",
        "layers.0.attn_out folded: identity | online: blocks(3x4), kronecker(3x4)\n",
        "layers.1.mlp_out folded: identity | online: permutation, reflection\n",
        "layers.1.query_key hadamard(4)\n", "fallback: attn_out: else\n"}) {
    CAPTURE(std::string(line));
    CHECK(text.find(line) != std::string::npos);
  }
}

}  // namespace
}  // namespace ruq::test
