#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "ruquant/learn/psot.hpp"
#include "ruquant/model/activations.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("infoquant obeys the laws of methods, and says where no Hadamard matrix exists") {
  check_method_laws("infoquant");
  CHECK(method_claims("infoquant").fallbacks(tiny_config("odd factors")).size() == 4);
}

Plan plan_of(const char* shape,
             const std::vector<std::pair<std::string, std::string>>& settings = {}) {
  TinyBench<double> bench(tiny_config(shape));
  return bench.plan(*small_method("infoquant", settings), quant_settings());
}

TEST_CASE("each matrix is where the method puts it") {
  const Plan plan = plan_of("grouped");  // 36 channels, 9 heads of 4 over 3
  const LayerPlan& layer = plan.layers[1];
  CHECK(plan.residual.is_identity());
  for (const SiteKind kind : {SiteKind::attn_in, SiteKind::mlp_in}) {
    CHECK(layer[kind].folded.describe() == "scale");
    CHECK(layer[kind].online.describe() == "blocks(2x18)");
  }
  CHECK(layer[SiteKind::attn_out].folded.describe() == "blocks(3x4)");
  CHECK(layer[SiteKind::attn_out].online.is_identity());
  const auto& heads = std::get<BlockDiagonal<double>>(layer[SiteKind::attn_out].folded.steps()[0]);
  CHECK(heads.maps[0].map != heads.maps[1].map);
  CHECK(layer[SiteKind::mlp_out].online.describe() == "signs, hadamard(96)");
  CHECK(layer.query_key.describe() == "hadamard(4)");
}

TEST_CASE("clips are learned for every site of every block, after the rotations") {
  const std::vector<std::pair<std::string, std::string>> settings = {
      {"learn_clips", "true"},   {"learning_windows", "6"}, {"held_out_windows", "2"},
      {"learning_tokens", "16"}, {"clip_epochs", "6"},      {"temperature", "40"}};
  const Plan plain = plan_of("grouped", {{"temperature", "40"}});
  Plan clipped = plan_of("grouped", settings);
  CHECK(small_method("infoquant", settings)->needs_model());
  CHECK_FALSE(small_method("infoquant")->needs_model());
  const std::size_t sites = plain.learning.size();
  REQUIRE(clipped.learning.size() == sites + 2);
  for (std::size_t l = 0; l < 2; ++l) {
    const LearningRecord& record = clipped.learning[sites + l];
    CHECK(record.where == "layers." + std::to_string(l));
    CHECK(record.steps == 36);
    CHECK(record.held_out_final.has_value());
    for (const SiteKind kind : kLinearSites) {
      auto& clips = clipped.layers[l][kind].clips;
      REQUIRE(clips.has_value());
      CHECK(clips->low == clips->high);
      CHECK(clips->low > 0.5);
      CHECK(clips->low < 1);
      CHECK(clips->low != doctest::Approx((1 + 1 / (1 + std::exp(-4.0))) / 2));  // it moved
      clips = {};
    }
  }
  clipped.learning.resize(sites);
  CHECK(same_plan(clipped, plain));
}

TEST_CASE("where few codes make clipping pay, learned clips lower the error of every block") {
  TinyBench<double> bench(tiny_config("grouped"));
  const auto method = small_method("infoquant", {{"learn_clips", "true"},
                                                 {"steps", "0"},
                                                 {"learning_windows", "12"},
                                                 {"held_out_windows", "2"},
                                                 {"learning_tokens", "16"},
                                                 {"clip_epochs", "10"}});
  const Plan plan = bench.plan(*method, quant_settings("W16A2-Q16K16V16"));
  for (const LearningRecord& record : plan.learning) {
    if (record.optimizer != "adamw") continue;
    INFO(record.where);
    CHECK(record.final_loss < 0.98 * record.initial_loss);
    CHECK(*record.held_out_final < *record.held_out_initial);
  }
}

TEST_CASE("clips start at the quantizer's ratio, and stay away where nothing is rounded") {
  TinyBench<double> bench(tiny_config("grouped"));
  const auto method = small_method("infoquant", {{"learn_clips", "true"},
                                                 {"learning_windows", "1"},
                                                 {"held_out_windows", "0"},
                                                 {"learning_tokens", "8"},
                                                 {"clip_epochs", "0"}});
  QuantSettings quant = quant_settings();
  quant.activation.clip_ratio = 0.9;
  CHECK(bench.plan(*method, quant).layers[1][SiteKind::mlp_in].clips->low == doctest::Approx(0.9));
  const Plan plan = bench.plan(*method, quant_settings("W4A16-Q16K16V16"));
  CHECK_FALSE(plan.layers[0][SiteKind::attn_in].clips.has_value());
}

TEST_CASE("layers beyond those asked for keep their random start") {
  const Plan all = plan_of("grouped");
  const Plan start = plan_of("grouped", {{"steps", "0"}});
  const Plan first = plan_of("grouped", {{"learning_blocks", "1"}});
  const auto matrix = [](const Plan& plan, std::size_t layer, SiteKind kind) {
    const SitePlan& site = plan.layers[layer][kind];
    return (kind == SiteKind::attn_out ? site.folded : site.online)
        .to_matrix(kind == SiteKind::attn_out  ? 12
                   : kind == SiteKind::mlp_out ? 96
                                               : 36);
  };
  for (const SiteKind kind : kLinearSites) {
    CAPTURE(to_string(kind));
    CHECK(matrix(first, 0, kind) == matrix(all, 0, kind));
    CHECK(relative_error(matrix(first, 1, kind), matrix(start, 1, kind)) < 1e-14);
  }
  REQUIRE(first.learning.size() == 3);
  CHECK(first.learning.back().where == "layers.0.mlp_in");
  CHECK(first.fallbacks == all.fallbacks);
}

TEST_CASE("blocks that do not divide the width become one") {
  const Plan plan = plan_of("multi-head", {{"blocks", "5"}});
  CHECK(plan.layers[0][SiteKind::mlp_in].online.describe() == "blocks(1x32)");
  CHECK(plan.fallbacks ==
        std::vector<std::string>{"attn_in: 5 blocks do not divide 32 channels, one block instead",
                                 "mlp_in: 5 blocks do not divide 32 channels, one block instead"});
}

// The tensors of all sites of the first layers, with the plan's folded scales behind them.
std::map<std::string, Matrix<double>> walked(TinyBench<double>& bench, const Plan& plan) {
  std::map<std::string, Matrix<double>> tensors;
  Plan folded = Plan::identity("folded", bench.model.config.layers, quant_settings());
  for (std::size_t l = 0; l < folded.layers.size(); ++l) {
    for (const SiteKind kind : {SiteKind::attn_in, SiteKind::mlp_in}) {
      folded.layers[l][kind].folded = plan.layers[l][kind].folded;
    }
  }
  bench.session.walk(CalibrationStream::float_samples, folded,
                     [&](const Site& site, const Matrix<double>& tensor, Plan&) {
                       tensors[to_string(site)] = tensor;
                     });
  return tensors;
}

// These tensors have entries in the hundreds. At T = 2 a Hadamard matrix that shares out one of
// them evenly is a minimum so narrow that steps leave it for good; a softmax as wide as the entries
// has none of that.
TEST_CASE("learning presses the peaks of all three matrices below those of the random start") {
  for (const char* shape : {"multi-head", "biases"}) {
    const Plan plan = plan_of(shape, {{"steps", "30"},
                                      {"batch_tokens", "32"},
                                      {"learning_rate", "1e-2"},
                                      {"temperature", "40"}});
    REQUIRE(plan.learning.size() == 6);  // three matrices a layer
    for (const LearningRecord& record : plan.learning) {
      INFO(shape << " " << record.where);
      CHECK(record.final_loss < record.initial_loss);
      CHECK(record.held_out_final.has_value());
      CHECK(record.details.count("held_out_loss_end") == 1);
    }
  }
}

TEST_CASE("the recorded losses are psot of the tensors that the sites see") {
  TinyBench<double> bench(tiny_config("multi-head"));
  const Plan plan = bench.plan(*small_method("infoquant"), quant_settings());
  const Matrix<double> x = walked(bench, plan)["layers.0.mlp_in"];
  const auto& step =
      std::get<BlockDiagonal<double>>(plan.layers[0][SiteKind::mlp_in].online.steps()[0]);
  // 64 rows in runs of three, of which every fifth is held out.
  Matrix<double> held_out(12, 32);
  for (Index i = 0; i < 12; ++i) held_out.row(i) = x.row(i / 3 * 15 + 12 + i % 3);
  const double loss = psot_loss(held_out, {step.maps[0].map, step.maps[1].map}, {}).loss;
  CHECK(plan.learning[2].where == "layers.0.mlp_in");
  CHECK(plan.learning[2].details.at("held_out_loss_end") ==
        doctest::Approx(loss / std::sqrt(12.0)).epsilon(1e-12));
}

TEST_CASE("the head's matrix balances the values and the attention output of its group") {
  const char* shape = "biases";  // two heads of 12 over one, with a bias of the values
  TinyBench<double> bench(tiny_config(shape));
  const Plan plan = bench.plan(*small_method("infoquant", {{"steps", "0"}}), quant_settings());
  auto tensors = walked(bench, plan);
  const LayerWeights<double>& layer = bench.model.layers[0];
  Matrix<double> scaled = tensors["layers.0.attn_in"];
  scaled.array().rowwise() *= layer.attn_norm.transpose().array();
  Matrix<double> values = scaled * layer[Linear::v_proj].weight.transpose();
  values.rowwise() += layer[Linear::v_proj].bias.transpose();
  const Matrix<double> q =
      std::get<BlockDiagonal<double>>(plan.layers[0][SiteKind::attn_out].folded.steps()[0])
          .maps[0]
          .map;
  const auto some = [](const Matrix<double>& all, bool held_out) {
    Matrix<double> rows(64, all.cols());
    Index count = 0;
    for (Index r = 0; r < 64; ++r) {
      if ((r / 3 % 5 == 4) == held_out) rows.row(count++) = all.row(r);
    }
    return Matrix<double>(rows.topRows(count));
  };
  const LearningRecord& record = plan.learning[1];
  CHECK(record.where == "layers.0.attn_out");
  for (const bool held_out : {false, true}) {
    const Matrix<double> v = some(values, held_out);
    const Matrix<double> a = some(tensors["layers.0.attn_out"], held_out);
    const double sum = psot_loss(v, {q}, {}).loss + psot_loss(a, {q, q}, {}).loss;
    const double loss = held_out ? record.details.at("held_out_loss_start") : record.initial_loss;
    CHECK(loss == doctest::Approx(sum / std::sqrt(static_cast<double>(v.rows()))).epsilon(1e-11));
  }
}

// Four layers without outlier channels, but with one massive token in every window.
void plant_massive_tokens(TinyBench<double>& bench) {
  Matrix<double>& embedding = bench.model.embedding;
  embedding.col(2) /= 10;
  embedding.col(31) /= 5;
  embedding.row(7).setZero();
  embedding(7, 5) = 300;
  for (std::size_t i = 0; i < bench.calibration.size(); ++i) {
    if (bench.calibration[i] == 7) bench.calibration[i] = 8;
    if (i % 16 == 0) bench.calibration[i] = 7;
  }
}

TEST_CASE("massive tokens are found, and count from the third layer on") {
  ModelConfig config = tiny_config("multi-head");
  config.layers = 4;
  TinyBench<double> bench(config);
  plant_massive_tokens(bench);
  const auto plan = [&](const char* weight) {
    return bench.plan(*small_method("infoquant", {{"outlier_weight", weight}}), quant_settings());
  };
  const Plan heavy = plan("30");
  const Plan even = plan("1");
  for (std::size_t i = 0; i < heavy.learning.size(); ++i) {
    INFO(heavy.learning[i].where);
    CHECK((heavy.learning[i].initial_loss == even.learning[i].initial_loss) == (i < 6));
    if (i % 3 == 1) continue;  // Q2 takes the marks of attn_in
    CHECK(heavy.learning[i].details.at("outlier_tokens") == (i < 6 ? 0 : 4));
  }
}

TEST_CASE("a dump of some sites is enough, without values or sequences") {
  TinyBench<float> bench(tiny_config("multi-head"));
  const ActivationSet set = capture_activations(
      bench.model, bench.session, bench.test, 16,
      {.sites = {{0, SiteKind::attn_out}, {1, SiteKind::mlp_in}, {1, SiteKind::mlp_out}},
       .calibration_tokens = 40,
       .test_tokens = 16},
      "tiny");
  DumpSession session(set);
  const Plan plan = small_method("infoquant")->plan(session, quant_settings(), Stream(1, "laws"));
  CHECK(plan.layers[0][SiteKind::attn_out].folded.describe() == "blocks(4x8)");
  CHECK(plan.layers[1][SiteKind::mlp_in].online.describe() == "blocks(2x16)");
  CHECK(plan.layers[0][SiteKind::mlp_in].online.is_identity());
  REQUIRE(plan.learning.size() == 2);
  CHECK(plan.fallbacks.at(0) ==
        "outlier tokens: a dump has no sequences to find them in, none marked");
  CHECK(plan.fallbacks.at(1) == "attn_out: no values without attn_in, learned on the output alone");
}

}  // namespace
}  // namespace ruq::test
