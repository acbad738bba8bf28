#include <doctest/doctest.h>

#include "ruquant/quant/rounding.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("rtn obeys the laws of methods") { check_method_laws("rtn"); }

TEST_CASE("rtn is the model with rounded weights and rounded tensors") {
  const ModelConfig config = tiny_config("grouped");
  TinyBench<double> bench(config);
  const Plan plan = bench.plan(*small_method("rtn"), quant_settings("W4A5-Q6K7V8"));
  Model<double> rounded = bench.model;
  for (auto& layer : rounded.layers) {
    for (auto& linear : layer.linears) {
      linear.weight = round_weight("rtn", linear.weight, plan.quant.weight);
    }
  }
  const SiteHook<double> quantize = [&](const Site& site, Matrix<double>& tensor) {
    if (!linears_of(site.kind).empty()) return fake_quantize(tensor, plan.quant.activation);
    QuantSpec per_head = site.kind == SiteKind::queries ? plan.quant.queries
                         : site.kind == SiteKind::keys  ? plan.quant.keys
                                                        : plan.quant.values;
    per_head.group_size = config.head_width;
    fake_quantize(tensor, per_head);
  };
  const auto ids = tiny_tokens(12, config);
  const PlannedModel<double> planned(bench.model, plan);
  CHECK(final_hidden(planned.model(), ids, 12, planned.hook()) ==
        final_hidden(rounded, ids, 12, quantize));
}

}  // namespace
}  // namespace ruq::test
