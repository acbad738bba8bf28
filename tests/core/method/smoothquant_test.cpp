#include <doctest/doctest.h>

#include <cmath>

#include "support/laws.hpp"

namespace ruq::test {
namespace {

MethodClaims scales() { return {.rotates_queries_and_keys = false, .random = false}; }

TEST_CASE("smoothquant obeys the laws of methods") { check_method_laws("smoothquant"); }

TEST_CASE("scales shared by a group of heads fold into v_proj, with nothing to fall back from") {
  check_method_laws("smoothquant", scales(), {{"smoothing_grouped", "shared"}});
}

TEST_CASE("without alpha smoothquant moves nothing") {
  check_method_laws("smoothquant",
                    {.moved = {}, .rotates_queries_and_keys = false, .random = false},
                    {{"smoothing", "none"}});
}

TEST_CASE("at alpha 1/2 the largest activation and weight of a channel become equal") {
  TinyBench<double> bench(tiny_config("grouped"));
  const Plan plan = bench.plan(*small_method("smoothquant"), quant_settings());
  const ChannelMaxima& maxima = bench.session.channel_maxima();
  const std::vector<std::pair<SiteKind, Linear>> keys = {{SiteKind::attn_in, Linear::q_proj},
                                                         {SiteKind::attn_out, Linear::o_proj},
                                                         {SiteKind::mlp_in, Linear::up_proj},
                                                         {SiteKind::mlp_out, Linear::down_proj}};
  for (Index l = 0; l < 2; ++l) {
    for (const auto& [kind, linear] : keys) {
      CAPTURE(to_string(kind));
      const auto transform = site_transform(plan, bench.model.config, {l, kind});
      Matrix<double> activation = maxima[std::size_t(l)][std::size_t(kind)].transpose();
      Matrix<double> weight = bench.session.weight(l, linear).cwiseAbs().colwise().maxCoeff();
      transform.apply(activation);
      transform.apply_dual(weight);
      CHECK(relative_error(activation, weight) < 1e-12);
    }
  }
}

TEST_CASE("its own code smooths behind the norms, by the largest weight of all linears there") {
  for (const char* shape : {"multi-head", "grouped", "biases"}) {
    check_method_laws("smoothquant",
                      {.moved = {SiteKind::attn_in, SiteKind::mlp_in},
                       .rotates_queries_and_keys = false,
                       .random = false},
                      {{"preset", "official"}});
    TinyBench<double> bench(tiny_config(shape));
    const Plan plan =
        bench.plan(*small_method("smoothquant", {{"preset", "official"}}), quant_settings());
    for (const SiteKind kind : {SiteKind::attn_in, SiteKind::mlp_in}) {
      const auto transform = site_transform(plan, bench.model.config, {1, kind});
      Matrix<double> activation = bench.session.channel_maxima()[1][kind].transpose();
      transform.apply(activation);
      RowVector<double> weight = RowVector<double>::Zero(activation.cols());
      for (const Linear linear : linears_of(kind)) {
        Matrix<double> largest = bench.session.weight(1, linear).cwiseAbs().colwise().maxCoeff();
        transform.apply_dual(largest);
        weight = weight.cwiseMax(largest.row(0)).eval();
      }
      CHECK(relative_error(activation, Matrix<double>(weight)) < 1e-12);
    }
  }
}

TEST_CASE("alpha 1 divides by the largest activation alone") {
  TinyBench<double> bench(tiny_config("multi-head"));
  const Plan plan =
      bench.plan(*small_method("smoothquant", {{"smoothing", "1"}}), quant_settings());
  const ChannelMaxima& maxima = bench.session.channel_maxima();
  for (const SiteKind kind : kLinearSites) {
    Matrix<double> activation = maxima[1][std::size_t(kind)].transpose();
    // A scale is never below 0.01; no channel here is that quiet.
    REQUIRE(activation.minCoeff() > 0.01);
    site_transform(plan, bench.model.config, {1, kind}).apply(activation);
    CHECK((activation.array() - 1).abs().maxCoeff() < 1e-12);
  }
}

TEST_CASE("smoothing tames the outliers of a quantized model") {
  TinyBench<double> bench(tiny_config("multi-head"));
  const auto error = [&](const char* method) {
    const Plan plan = bench.plan(*small_method(method), quant_settings("W8A4-Q16K16V16"));
    return relative_distance(bench.logits(plan), bench.logits());
  };
  CHECK(error("smoothquant") < error("rtn"));
}

}  // namespace
}  // namespace ruq::test
