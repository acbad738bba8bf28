// Every method on every shape: a method that is listed but not here cannot be.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "support/laws.hpp"

namespace ruq::test {
namespace {

std::vector<TinyShape> all_shapes() {
  std::vector<TinyShape> shapes = tiny_shapes();
  shapes.push_back(full_width_shape());
  return shapes;
}

TEST_CASE("the shapes hold what makes methods stumble") {
  const auto any = [](const auto& holds) {
    const auto shapes = all_shapes();
    return std::any_of(shapes.begin(), shapes.end(),
                       [&](const TinyShape& shape) { return holds(shape.config); });
  };
  CHECK(any([](const ModelConfig& c) { return c.heads == c.kv_heads; }));
  CHECK(any([](const ModelConfig& c) { return c.kv_heads > 1 && c.heads > c.kv_heads; }));
  CHECK(any([](const ModelConfig& c) { return c.attention_bias && c.output_bias && c.mlp_bias; }));
  CHECK(any([](const ModelConfig& c) { return c.qk_norm && c.query_width() != c.width; }));
  CHECK(any([](const ModelConfig& c) { return c.tied_embeddings; }));
  CHECK(any([](const ModelConfig& c) { return c.width == 576 && c.mlp_width == 1536; }));
  CHECK(any([](const ModelConfig& c) { return c.width % 23 == 0; }));
}

TEST_CASE("the table of claims names the methods that exist") {
  std::set<std::string> listed;
  for (const MethodInfo& info : methods()) listed.insert(info.name);
  for (const std::string& name : claimed_methods()) {
    CAPTURE(name);
    CHECK(listed.contains(name));
  }
}

TEST_CASE("every method keeps the float model, moves what it claims and says what it cannot") {
  for (const MethodInfo& info : methods()) {
    const MethodClaims claims = method_claims(info.name);
    const auto method = small_method(info.name);
    for (const TinyShape& shape : all_shapes()) {
      INFO(info.name << " on the shape: " << shape.name);
      method->check(shape.config, quant_settings());
      TinyBench<double> bench(shape.config);
      const Plan plan = bench.plan(*method, quant_settings());
      check_claims(plan, shape.config, claims);
      check_outputs_kept(plan, shape.config);
    }
  }
}

}  // namespace
}  // namespace ruq::test
