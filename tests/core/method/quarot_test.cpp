#include <doctest/doctest.h>

#include <cmath>

#include "ruquant/transform/hadamard.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("quarot obeys the laws of methods, and says where no Hadamard matrix exists") {
  check_method_laws("quarot");
  CHECK(quarot_fallbacks(tiny_config("odd factors"), false).size() == 4);
  CHECK(quarot_fallbacks(tiny_config("grouped"), false).size() == 1);
}

TEST_CASE("with smoothing R1 runs online, and the laws still hold") {
  MethodClaims claims;
  claims.fallbacks = [](const ModelConfig& config) { return quarot_fallbacks(config, true); };
  check_method_laws("quarot", claims, {{"smoothing", "0.5"}});
}

TEST_CASE("the residual stream is the original one times R1, in every block") {
  for (const char* shape : {"multi-head", "biases", "odd factors"}) {
    CAPTURE(std::string(shape));
    const ModelConfig config = tiny_config(shape);
    TinyBench<double> bench(config);
    const Plan plan = without_rounding(bench.plan(*small_method("quarot"), quant_settings()));
    const PlannedModel<double> planned(bench.model, plan);
    const auto ids = tiny_tokens(10, config);
    Matrix<double> x = embed<double>(bench.model, ids);
    Matrix<double> rotated = embed<double>(planned.model(), ids);
    const Matrix<double> r1 = plan.residual.to_matrix(config.width);
    CHECK(orthogonality_error(r1) < 1e-12);
    for (Index l = 0; l <= config.layers; ++l) {
      CHECK(relative_error(rotated, (x * r1).eval()) < 1e-11);
      if (l == config.layers) break;
      block_forward<double>(config, bench.model.layers[std::size_t(l)], l, 10, {}, x);
      block_forward(config, planned.model().layers[std::size_t(l)], l, 10, planned.hook(), rotated);
      CHECK((planned.model().layers[std::size_t(l)].attn_norm.array() == 1).all());
      CHECK((planned.model().layers[std::size_t(l)].mlp_norm.array() == 1).all());
    }
  }
}

TEST_CASE("R1 is signs times Hadamard, the same in all layers; mlp_out is plain Hadamard") {
  const ModelConfig config = tiny_config("grouped");
  TinyBench<double> bench(config);
  const Plan plan = bench.plan(*small_method("quarot"), quant_settings());
  CHECK(plan.residual.describe() == "signs, hadamard(36)");
  CHECK(plan.layers[1][SiteKind::mlp_out].online.describe() == "hadamard(96)");
  CHECK(plan.layers[1].query_key.describe() == "hadamard(4)");
  CHECK((plan.residual.to_matrix(36).array().abs() - 1.0 / 6).abs().maxCoeff() < 1e-14);
}

TEST_CASE("heads and their mixing compose to one Hadamard matrix over the attention output") {
  const ModelConfig config = tiny_config("multi-head");  // 4 heads of 8
  TinyBench<double> bench(config);
  const Plan plan = bench.plan(*small_method("quarot"), quant_settings());
  CHECK_FALSE(plan.layers[0][SiteKind::attn_out].folded.is_identity());
  Transform<double> whole(32);
  whole.append(HadamardStep{32});
  CHECK(relative_error(site_transform(plan, config, {0, SiteKind::attn_out}).to_matrix(32),
                       whole.to_matrix(32)) < 1e-13);
}

TEST_CASE("a dead norm channel does not stop the fusion") {
  const ModelConfig config = tiny_config("multi-head");
  Model<double> model = tiny_model(config);
  model.layers[0].mlp_norm(5) = 0;
  const auto tokens = tiny_tokens(100, config);
  ModelSession<double> session(model, tokens, tiny_calibration());
  const Plan plan =
      without_rounding(small_method("quarot")->plan(session, quant_settings(), Stream(1, "dead")));
  const PlannedModel<double> planned(model, plan);
  const auto ids = tiny_tokens(8, config);
  const auto logits = [&](const Model<double>& of, const SiteHook<double>& hook) {
    return product_transposed<double>(final_hidden(of, ids, 8, hook), of.head_weight());
  };
  CHECK(relative_distance(logits(planned.model(), planned.hook()), logits(model, {})) < 1e-10);
}

}  // namespace
}  // namespace ruq::test
