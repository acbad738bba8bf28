#include <doctest/doctest.h>

#include "support/learned_block.hpp"
#include "support/walked.hpp"

namespace ruq::test {
namespace {

MethodClaims claims() {
  MethodClaims result{.rotates_queries_and_keys = false, .random = false};
  result.fallbacks = smoothing_fallback;
  return result;
}

TEST_CASE("omniquant obeys the laws of methods") { check_method_laws("omniquant", claims()); }

TEST_CASE("with clips alone, and with neither, it obeys them too") {
  check_method_laws("omniquant", claims(), {{"let", "false"}});
  check_method_laws("omniquant", claims(), {{"let", "false"}, {"lwc", "false"}});
}

TEST_CASE("without learning it is smoothquant and needs no model") {
  const auto method = small_method("omniquant", {{"let", "false"}, {"lwc", "false"}});
  CHECK_FALSE(method->needs_model());
  CHECK(small_method("omniquant", {{"let", "false"}})->needs_model());
  CHECK(small_method("omniquant", {{"lwc", "false"}})->needs_model());
  TinyBench<double> bench(tiny_config("grouped"));
  Plan plan = bench.plan(*method, quant_settings());
  plan.method = "smoothquant";
  CHECK(same_plan(plan, bench.plan(*small_method("smoothquant"), quant_settings())));
}

TEST_CASE("what it learned is what the executor runs, with and without scales") {
  const LearningWindows windows{.train = 2, .held_out = 1, .tokens = 8};
  for (const char* let : {"false", "true"}) {
    check_learned_blocks(*small_method("omniquant", {{"let", let}}), quant_settings(), windows,
                         tiny_config("biases"), false);
  }
}

}  // namespace
}  // namespace ruq::test
