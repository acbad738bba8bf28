#include "ruquant/quant/clamp_rows.hpp"

#include <doctest/doctest.h>

#include "ruquant/model/fuse.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("rows are clamped to their own factors of their own ends") {
  Matrix<double> w{{-4, -1, 0, 2}, {1, 2, 3, 4}, {-8, -6, -5, -2}};
  clamp_rows(w, {Vector<double>{{0.5, 0.5, 0.75}}, Vector<double>{{0.25, 0.75, 1}}});
  CHECK(w == Matrix<double>{{-2, -1, 0, 0.5}, {1, 2, 3, 3}, {-6, -6, -5, -2}});
}

TEST_CASE("the executor clamps rows under quarot_weight and narrows ranges under omniquant") {
  const ModelConfig config = tiny_config("multi-head");
  const LayerWeights<double> layer = tiny_model(config).layers[0];
  for (const GridRule rule : {GridRule::quarot_weight, GridRule::omniquant}) {
    CAPTURE(to_string(rule));
    Plan plan = Plan::identity("test", 1, quant_settings("W4A16-Q16K16V16"));
    plan.quant.weight = {.bits = 4, .symmetric = true, .rule = rule, .clip_ratio = 0.9};
    const Index rows = config.out_width(Linear::o_proj);
    const RowClips<double> clips{Vector<double>::Constant(rows, 0.9),
                                 Vector<double>::Constant(rows, 0.6)};
    plan.layers[0].weight_clips[Linear::o_proj] = clips;
    LayerWeights<double> installed = layer;
    install_site(plan, {0, SiteKind::attn_out}, installed);

    Matrix<double> expected = layer[Linear::o_proj].weight;
    if (rule == GridRule::quarot_weight) {
      clamp_rows(expected, clips);
      QuantSpec whole = plan.quant.weight;
      whole.clip_ratio = 1;
      fake_quantize(expected, whole);
    } else {
      round_to_grid(expected, fit_grid(expected, plan.quant.weight, &clips));
    }
    CHECK(installed[Linear::o_proj].weight == expected);
  }
}

}  // namespace
}  // namespace ruq::test
