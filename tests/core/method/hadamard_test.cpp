#include "ruquant/transform/hadamard.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("hadamard obeys the laws of methods, and says where no matrix exists") {
  check_method_laws("hadamard");
  CHECK(site_hadamard_fallbacks(tiny_config("odd factors")).size() == 4);
  CHECK(site_hadamard_fallbacks(tiny_config("grouped")).empty());
}

TEST_CASE("without smoothing it obeys them as well") {
  MethodClaims claims;
  claims.fallbacks = site_hadamard_fallbacks;
  check_method_laws("hadamard", claims, {{"smoothing", "none"}});
}

TEST_CASE("every site is spread evenly, with signs of its own") {
  const ModelConfig config = tiny_config("grouped");
  TinyBench<double> bench(config);
  const Plan plan =
      bench.plan(*small_method("hadamard", {{"smoothing", "none"}}), quant_settings());
  std::vector<Matrix<double>> maps;
  for (Index l = 0; l < 2; ++l) {
    for (const SiteKind kind : kLinearSites) {
      const Index width = config.site_width(kind);
      maps.push_back(site_transform(plan, config, {l, kind}).to_matrix(width));
      CHECK((maps.back().array().abs() - 1 / std::sqrt(double(width))).abs().maxCoeff() < 1e-14);
      CHECK(orthogonality_error(maps.back()) < 1e-12);
    }
  }
  CHECK(maps[0] != maps[4]);  // attn_in of two layers
  CHECK(maps[0] != maps[2]);  // attn_in and mlp_in
}

TEST_CASE("heads get the largest power of two that divides them") {
  const auto order = [](const char* shape) {
    TinyBench<double> bench(tiny_config(shape));
    const Plan plan = bench.plan(*small_method("hadamard"), quant_settings());
    return std::get<HadamardStep>(plan.layers[0].query_key.steps().at(0)).order;
  };
  CHECK(order("normed heads") == 16);
  CHECK(order("biases") == 4);
  CHECK(order("odd factors") == 2);
}

}  // namespace
}  // namespace ruq::test
