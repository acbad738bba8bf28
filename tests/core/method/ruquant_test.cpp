#include "ruquant/method/ruquant.hpp"

#include <doctest/doctest.h>

#include <map>
#include <set>

#include "ruquant/learn/reflection.hpp"
#include "support/errors.hpp"
#include "support/walked.hpp"

namespace ruq::test {
namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;

TEST_CASE("ruquant obeys the laws of methods") { check_method_laws("ruquant"); }

TEST_CASE("the paper's preset, with a map a block and no zigzag, obeys them too") {
  check_method_laws("ruquant", method_claims("ruquant"),
                    {{"preset", "paper"}, {"share_blocks", "false"}, {"partition", "contiguous"}});
}

TEST_CASE("every switch keeps the outputs of the float model") {
  const std::vector<Settings> variants = {
      {{"rotation", "householder"}, {"target", "u11"}},
      {{"rotation", "givens"}, {"permutations", "3"}},
      {{"rotation", "hadamard"}},
      {{"global_reflection", "none"}, {"permutations", "0"}},
      {{"target", "ramp"}, {"pick", "range"}, {"partition", "mass"}},
      {{"target", "corner"}, {"pick", "random"}, {"partition", "random"}},
      {{"global_reflection", "optimized"}, {"reflection_iterations", "3"}},
      {{"global_reflection", "finetuned"},
       {"learning_windows", "2"},
       {"held_out_windows", "1"},
       {"learning_tokens", "16"},
       {"epochs", "1"}},
      {{"calibration", "samples"}},
      {{"calibration", "float"}},
      {{"smoothing_grouped", "shared"}},
      {{"smoothing_grouped", "online"}},
      {{"smoothing", "none"}},
      {{"steps", "0"}},
      {{"block_size", "1"}}};
  for (const char* shape : {"grouped", "biases"}) {
    for (const Settings& settings : variants) {
      INFO(shape << ": " << settings[0].first << " = " << settings[0].second);
      TinyBench<double> bench(tiny_config(shape));
      check_outputs_kept(bench.plan(*small_method("ruquant", settings), quant_settings()),
                         tiny_config(shape));
    }
  }
}

TEST_CASE("smoothing of grouped heads: folded when shared, online otherwise") {
  TinyBench<double> bench(tiny_config("grouped"));
  const auto planned = [&](const char* grouped) {
    return bench.plan(*small_method("ruquant", {{"smoothing_grouped", grouped}}), quant_settings());
  };
  const Plan shared = planned("shared");
  CHECK(shared.layers[0][SiteKind::attn_out].folded.describe() == "scale");
  CHECK(shared.fallbacks.empty());
  const Plan online = planned("online");
  CHECK(online.layers[0][SiteKind::attn_out].folded.is_identity());
  CHECK(online.layers[0][SiteKind::attn_out].online.describe().rfind("scale, blocks", 0) == 0);
  CHECK(online.fallbacks.size() == 1);
}

TEST_CASE("after the global reflection the extreme token is nowhere negative") {
  for (const char* shape : {"multi-head", "grouped", "odd factors"}) {
    CAPTURE(std::string(shape));
    const WalkedSite walked = walk_one_site("ruquant", shape);
    const std::size_t steps = walked.online.steps().size();
    REQUIRE(std::holds_alternative<Reflection<double>>(walked.online.steps().back()));
    const Matrix<double> before = after_steps(walked, steps - 1);
    const Matrix<double> after = after_steps(walked, steps);
    const Index row = extreme_row(before);
    CHECK(before.row(row).minCoeff() < -0.01);
    CHECK(after.row(row).minCoeff() >= -1e-12 * after.row(row).norm());
    CHECK((after.array() < 0).any());
  }
}

TEST_CASE("the presets differ in the Givens direction and the floor alone") {
  const auto values = [](const char* preset) {
    Ruquant method;
    Fields fields;
    method.bind(fields);
    fields.set("preset", preset);
    std::map<std::string, std::string> result;
    for (const Field& field : fields.all()) result[field.name] = field.get();
    return result;
  };
  const auto official = values("official");
  const auto paper = values("paper");
  std::set<std::string> different;
  for (const auto& [name, value] : official) {
    if (paper.at(name) != value) different.insert(name);
  }
  CHECK(different == std::set<std::string>{"preset", "givens", "omega_floor"});
  CHECK(official.at("givens") == "code");
  CHECK(paper.at("givens") == "mapped");
  CHECK(paper.at("omega_floor") == "0");
  const std::map<std::string, std::string> defaults = {
      {"block_size", "128"}, {"steps", "16"},         {"givens_per_step", "3"},
      {"permutations", "1"}, {"smoothing", "0.6"},    {"share_blocks", "true"},
      {"target", "u01"},     {"calibration", "mean"}, {"global_reflection", "init"}};
  for (const auto& [name, value] : defaults) {
    CAPTURE(name);
    CHECK(official.at(name) == value);
  }
}

RuquantOptions blocks_of(Index block_size, Index steps) {
  RuquantOptions options;
  options.block_size = block_size;
  options.steps = steps;
  return options;
}

BlockRotationOptions permutations(Index count) {
  BlockRotationOptions options;
  options.permutations = count;
  return options;
}

// Stage 1 on a tensor as wide as the default model.
SiteRotation<double> rotate(Index width, const RuquantOptions& options, Matrix<double>* moved) {
  *moved = gaussian(20, width, "site", 3);
  Stream draws(2, "site");
  return ruquant_site(*moved, options, draws);
}

TEST_CASE("a remainder of 64 channels has a map of its own width") {
  Matrix<double> moved;
  const RuquantOptions options = blocks_of(128, 2);
  const SiteRotation<double> site = rotate(576, options, &moved);
  CHECK(site.transform.describe() == "blocks(5x128), permutation, blocks(5x128)");
  for (const std::size_t step : {0, 2}) {
    const auto& blocks = std::get<BlockDiagonal<double>>(site.transform.steps()[step]);
    REQUIRE(blocks.maps.size() == 2);
    CHECK(blocks.maps[1].map.rows() == 64);
    CHECK(blocks.which == std::vector<Index>{0, 0, 0, 0, 1});
  }
  Matrix<double> again = gaussian(20, 576, "site", 3);
  site.transform.apply(again);
  CHECK(relative_error(moved, again) < 1e-12);
  CHECK(orthogonality_error(site.transform.to_matrix(576)) < 1e-12);
}

TEST_CASE("share_blocks = false builds d/B maps, all different") {
  Matrix<double> moved;
  RuquantOptions options = blocks_of(12, 2);
  options.blocks.share_blocks = false;
  const SiteRotation<double> site = rotate(40, options, &moved);
  const auto& blocks = std::get<BlockDiagonal<double>>(site.transform.steps()[0]);
  REQUIRE(blocks.maps.size() == 4);
  CHECK(blocks.which == std::vector<Index>{0, 1, 2, 3});
  CHECK(blocks.maps[3].map.rows() == 4);
  CHECK(blocks.maps[0].map != blocks.maps[1].map);
  options.blocks.share_blocks = true;
  CHECK(std::get<BlockDiagonal<double>>(rotate(48, options, &moved).transform.steps()[0])
            .maps.size() == 1);
}

TEST_CASE("zigzag off leaves maps alone; T maps follow the first") {
  Matrix<double> moved;
  RuquantOptions options = blocks_of(8, 1);
  options.blocks.partition = "contiguous";
  CHECK(rotate(24, options, &moved).transform.describe() == "blocks(3x8), blocks(3x8)");
  options.blocks = permutations(2);
  CHECK(rotate(24, options, &moved).transform.describe() ==
        "blocks(3x8), permutation, blocks(3x8), permutation, blocks(3x8)");
  options.blocks = permutations(0);
  options.global_reflection = "none";
  const SiteRotation<double> site = rotate(24, options, &moved);
  CHECK(site.transform.describe() == "blocks(3x8)");
  CHECK(site.direction.size() == 0);
}

TEST_CASE("the optimized reflection lowers the smooth objective of the site") {
  // Few steps leave outliers for the reflection to move.
  const Settings rough = {
      {"preset", "paper"}, {"steps", "1"}, {"givens_per_step", "0"}, {"permutations", "0"}};
  Settings optimized = rough;
  optimized.emplace_back("global_reflection", "optimized");
  const WalkedSite init = walk_one_site("ruquant", "multi-head", rough);
  const WalkedSite best = walk_one_site("ruquant", "multi-head", optimized);
  const auto direction = [](const WalkedSite& walked) {
    return std::get<Reflection<double>>(walked.online.steps().back()).v;
  };
  const Matrix<double> y = after_steps(init, 1);
  CHECK(y == after_steps(best, 1));

  // The site feeds q, k and v, seen through the block map (orthogonal, so its own dual).
  const Model<double> model = tiny_model(tiny_config("multi-head"));
  Matrix<double> w(96, 32);
  w << model.layers[0][Linear::q_proj].weight, model.layers[0][Linear::k_proj].weight,
      model.layers[0][Linear::v_proj].weight;
  Transform<double> block_map(32);
  block_map.append(init.online.steps()[0]);
  w = w * dense_matrix(block_map, 32);
  const SmoothRangeObjective objective(y, w, direction(init), {});
  CHECK(objective.evaluate(direction(best), nullptr) <
        0.9 * objective.evaluate(direction(init), nullptr));
}

TEST_CASE("optimized reflections are judged on the output of held-out blocks") {
  TinyBench<double> bench(tiny_config("grouped"));
  const Settings settings = {{"global_reflection", "optimized"},
                             {"reflection_iterations", "3"},
                             {"held_out_windows", "3"},
                             {"learning_tokens", "12"}};
  const Plan plan = bench.plan(*small_method("ruquant", settings), quant_settings());
  std::vector<LearningRecord> sites, blocks;
  for (const LearningRecord& record : plan.learning) {
    (record.objective == "block output" ? blocks : sites).push_back(record);
  }
  CHECK(sites.size() == 8);
  for (const LearningRecord& record : sites) {
    CHECK_FALSE(record.held_out_initial.has_value());
    CHECK(record.details.at("other_rows_start") > 0);
    CHECK(record.details.at("other_rows_end") > 0);
  }
  REQUIRE(blocks.size() == 2);
  // The first block's input is the same whatever the plan, so its error can be had from the
  // executor.
  const auto ids =
      bench.session.learning_tokens({.train = 0, .held_out = 3, .tokens = 12}).held_out;
  const Matrix<double> input = embed<double>(bench.model, ids);
  Matrix<double> target = input, output = input;
  block_forward<double>(bench.model.config, bench.model.layers[0], 0, 12, {}, target);
  const PlannedModel<double> planned(bench.model, plan);
  block_forward(bench.model.config, planned.model().layers[0], 0, 12, planned.hook(), output);
  CHECK(*blocks[0].held_out_final ==
        doctest::Approx((output - target).squaredNorm() / static_cast<double>(output.size()))
            .epsilon(1e-9));
  CHECK(*blocks[0].held_out_initial != *blocks[0].held_out_final);
}

// What the four global reflections of a layer are.
std::vector<Vector<double>> reflections_of(const Plan& plan, std::size_t layer) {
  std::vector<Vector<double>> all;
  for (const SiteKind kind : kLinearSites) {
    all.push_back(std::get<Reflection<double>>(plan.layers[layer][kind].online.steps().back()).v);
  }
  return all;
}

TEST_CASE("fine-tuning moves the reflections of every block and nothing else, and tells of it") {
  const ModelConfig config = tiny_config("grouped");
  for (const char* optimizer : {"adamw", "lbfgs"}) {
    CAPTURE(std::string(optimizer));
    Settings settings = {{"block_size", "4"}, {"preset", "paper"}};
    TinyBench<double> bench(config);
    const Plan init = bench.plan(*small_method("ruquant", settings), quant_settings());
    settings.insert(settings.end(), {{"global_reflection", "finetuned"},
                                     {"finetune_optimizer", optimizer},
                                     {"learning_windows", "3"},
                                     {"held_out_windows", "2"},
                                     {"learning_tokens", "16"},
                                     {"finetune_iterations", "6"},
                                     {"epochs", "4"}});
    const auto method = small_method("ruquant", settings);
    CHECK(method->needs_model());
    Plan tuned = bench.plan(*method, quant_settings());
    REQUIRE(tuned.learning.size() == 2);
    for (std::size_t l = 0; l < 2; ++l) {
      const LearningRecord& record = tuned.learning[l];
      CHECK(record.where == fmt::format("layers.{}", l));
      CHECK(record.optimizer == optimizer);
      CHECK(record.held_out_initial.has_value());
      CHECK(record.held_out_final.has_value());
      CHECK(!record.termination.empty());
      const bool adamw = record.optimizer == "adamw";
      CHECK(record.evaluations == std::ssize(record.losses));
      CHECK(record.tokens == record.evaluations * (adamw ? 1 : 3) * 16);
      if (adamw) CHECK(record.steps == 12);
      // L-BFGS keeps the best point that it has seen.
      if (!adamw) CHECK(record.final_loss <= record.initial_loss * (1 + 1e-12));
      CHECK(reflections_of(tuned, l) != reflections_of(init, l));
      for (const SiteKind kind : kLinearSites) {
        tuned.layers[l][kind].online = init.layers[l][kind].online;
      }
    }
    tuned.learning.clear();
    CHECK(same_plan(tuned, init));
  }
}

TEST_CASE("fine-tuning where nothing is rounded is refused") {
  const auto method = small_method("ruquant", {{"global_reflection", "finetuned"}});
  check_error([&] { method->check(tiny_config("grouped"), quant_settings("W16A16-Q4K4V4")); },
              {"method.global_reflection", "finetuned", "W16A16-Q4K4V4"});
}

TEST_CASE("blocks that do not fit the model are refused with the site and what would") {
  const ModelConfig config = tiny_config("grouped");  // widths 36, 36, 36, 96
  const auto check = [&](const Settings& settings) {
    small_method("ruquant", settings)->check(config, quant_settings());
  };
  check({{"block_size", "8"}});
  check({{"block_size", "12"}, {"ragged", "false"}});
  check_error(
      [&] {
        check({{"block_size", "8"}, {"ragged", "false"}});
      },
      {"method.block_size", "attn_in", "36", "6 and 9"});
  check_error([&] { check({{"block_size", "64"}}); }, {"method.block_size", "64", "36"});
}

}  // namespace
}  // namespace ruq::test
