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

  for (const Index layers : {0, 3}) {
    const Plan plain = Plan::identity("plain", layers, QuantSettings{});
    save_plan(plain, folder / "plain.h5");
    CHECK(same_plan(load_plan(folder / "plain.h5"), plain));
  }
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

// A plan in a file that `spoil` writes to as well is refused with the file and these words.
template <class Spoil>
void refuse_file(const Plan& plan, const Spoil& spoil, const std::string& place,
                 const std::string& found) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "bad.h5";
  TensorWriter file(path);
  write_plan(plan, file);
  spoil(file);
  file.commit();
  check_error([&] { load_plan(path); }, {path.string() + ": " + place, found});
}

TEST_CASE("steps that are not whole are refused with file and step") {
  const std::string at = "layers/0/mlp_in/online";
  const std::string step = at + "/step0";
  const auto refuse = [&](const char* kind, const auto& write, const char* found) {
    const auto add_step = [&](TensorWriter& file) {
      file.attribute(at, "steps", std::int64_t{1});
      file.attribute(step, "kind", std::string(kind));
      write(file);
    };
    refuse_file(Plan::identity("x", 1, QuantSettings{}), add_step, step + ": ", found);
  };
  refuse(
      "permutation",
      [&](TensorWriter& file) {
        file.write(step + "/index", std::vector<Index>{0, 1, 900});
      },
      "takes channel 900, expected each of 0 to 2 once");
  refuse(
      "block_diagonal",
      [&](TensorWriter& file) {
        file.write(step + "/which", std::vector<Index>{0, 1});
        file.write(step + "/map0/map", gaussian(3, 3, "map"));
      },
      "mapped by map 1, expected one of the 1 maps");
  refuse(
      "block_diagonal",
      [&](TensorWriter& file) {
        file.write(step + "/which", std::vector<Index>{0});
        file.write(step + "/map0/map", gaussian(3, 3, "map"));
        file.write(step + "/map0/dual", gaussian(2, 2, "dual"));
      },
      "dual of 2x2, expected 3x3");
  refuse(
      "kronecker",
      [&](TensorWriter& file) {
        file.attribute(step, "left_width", std::int64_t{4});
        file.attribute(step, "right_width", std::int64_t{2});
        file.write(step + "/left/map", gaussian(3, 3, "map"));
      },
      "left Kronecker factor: found a map of width 3, expected 4");
  refuse(
      "hadamard",
      [&](TensorWriter& file) {
        file.attribute(step, "order", std::int64_t{-8});
        file.attribute(step, "transposed", std::int64_t{0});
      },
      "no Hadamard matrix of order -8");
  refuse(
      "twist", [](TensorWriter&) {}, "unknown kind of step 'twist'");
}

TEST_CASE("levels and row clips whose lengths do not go together are refused") {
  const auto refuse = [](const auto& spoil, const char* place, const char* found) {
    Plan plan = rich_plan();
    spoil(plan);
    refuse_file(
        plan, [](TensorWriter&) {}, place, found);
  };
  refuse([](Plan& p) { p.layers[0][SiteKind::mlp_out].levels.thresholds.conservativeResize(14); },
         "layers/0/mlp_out: ", "found 14 thresholds, expected one less than the 16 levels");
  refuse([](Plan& p) { p.layers[1].weight_clips[2]->high.conservativeResize(4); },
         "layers/1/weight_clips/v_proj: ", "found 5 low and 4 high factors");
}

TEST_CASE("counts that no plan has are refused with file and place") {
  const auto refuse = [](const char* group, const char* name, Index value, const char* place,
                         const char* expected) {
    const auto change = [&](TensorWriter& file) { file.attribute(group, name, value); };
    const std::string found = fmt::format("found {} = {}, expected {}", name, value, expected);
    refuse_file(rich_plan(), change, place, found);
  };
  for (const Index layers : {Index{-1}, Index{0}, Index{3}, Index{1} << 60}) {
    refuse("", "layers", layers, "found layers", "2, the number of groups in 'layers'");
  }
  refuse("residual", "steps", -1, "residual: ", "at least 0");
  refuse("layers/1/query_key", "width", -4, "layers/1/query_key: ", "at least 0");
  refuse("quant/weight", "bits", 0, "quant/weight: ", "at least 1");
  refuse("quant/keys", "group_size", -4, "quant/keys: ", "at least 0");
  refuse("quant", "attn_out_group_size", -1, "quant: ", "at least 0");
}

TEST_CASE("names that no quantizer knows are refused with file and place") {
  const auto refuse = [](const char* group, const char* name, const char* place) {
    const auto change = [&](TensorWriter& file) {
      file.attribute(group, name, std::string("nonsense"));
    };
    refuse_file(rich_plan(), change, place, "'nonsense'");
  };
  refuse("quant/values", "rule", "quant/values: ");
  refuse("quant/options", "hessian_inputs", "quant/options/hessian_inputs: ");
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
