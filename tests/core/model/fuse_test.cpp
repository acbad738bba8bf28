#include "ruquant/model/fuse.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>
#include <cmath>

#include "ruquant/base/rng.hpp"
#include "ruquant/quant/rounding.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

Vector<double> positive(Index n, const char* name) {
  return (Stream(1, name).uniform(n).array() + 0.25).matrix();
}

Transform<double> scale(Index n, const char* name) {
  Transform<double> t;
  t.append(Scale<double>{positive(n, name)});
  return t;
}

Transform<double> rotation(Index n, const char* name) {
  Stream stream(2, name);
  Transform<double> t;
  t.append(Permutation{stream.permutation(n)});
  t.append(Reflection<double>{stream.normal(n, 1).col(0).normalized()});
  t.append(Scale<double>{stream.signs(n)});
  return t;
}

// An invertible map with its dual, not orthogonal.
SquareMap<double> skewed(Index n, const char* name) {
  const Matrix<double> map =
      Matrix<double>::Identity(n, n) + 0.3 * gaussian(n, n, name) / std::sqrt(double(n));
  return {map, map.inverse().transpose()};
}

Transform<double> blocks(Index n, Index count, const char* name) {
  Transform<double> t;
  t.append(BlockDiagonal<double>{{skewed(n, name)}, std::vector<Index>(std::size_t(count), 0)});
  return t;
}

Plan empty_plan(const ModelConfig& config) {
  return Plan::identity("fuse", config.layers, quant_settings());
}

// A residual basis: the gains are folded to one first.
void add_residual_basis(const ModelConfig& config, Plan& plan) {
  const Model<double> model = tiny_model(config);
  plan.residual = rotation(config.width, "residual");
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    plan.layers[l][SiteKind::attn_in].folded.append(
        Scale<double>{model.layers[l].attn_norm.cwiseInverse()});
    plan.layers[l][SiteKind::mlp_in].folded.append(
        Scale<double>{model.layers[l].mlp_norm.cwiseInverse()});
  }
}

TEST_CASE("an empty plan at 16 bits is the model itself") {
  for (const TinyShape& shape : tiny_shapes()) {
    const TinyBench<float> bench(shape.config);
    CHECK(bench.logits(without_rounding(empty_plan(shape.config))) == bench.logits());
  }
}

TEST_CASE("whatever is folded or run online at one place keeps the outputs") {
  using Change = std::pair<const char*, std::function<void(const ModelConfig&, Plan&)>>;
  const auto everywhere = [](Plan& plan, SiteKind kind, bool folded, const Transform<double>& t) {
    for (LayerPlan& layer : plan.layers) {
      (folded ? layer[kind].folded : layer[kind].online) = t;
    }
  };
  const std::vector<Change> changes = {
      {"norm scales",
       [&](const ModelConfig& c, Plan& p) {
         everywhere(p, SiteKind::attn_in, true, scale(c.width, "a"));
         everywhere(p, SiteKind::mlp_in, true, scale(c.width, "b"));
       }},
      {"hidden scales",
       [&](const ModelConfig& c, Plan& p) {
         everywhere(p, SiteKind::mlp_out, true, scale(c.mlp_width, "c"));
       }},
      {"value scales",
       [&](const ModelConfig& c, Plan& p) {
         everywhere(p, SiteKind::attn_out, true, scale(c.kv_width(), "d"));
       }},
      {"value maps",
       [&](const ModelConfig& c, Plan& p) {
         everywhere(p, SiteKind::attn_out, true, blocks(c.head_width, c.kv_heads, "e"));
       }},
      {"value Hadamard",
       [&](const ModelConfig& c, Plan& p) {
         Transform<double> t(c.kv_width());
         t.append(HadamardStep{2});
         everywhere(p, SiteKind::attn_out, true, scale(c.kv_width(), "f").then(t));
       }},
      {"online rotations and skewed maps",
       [&](const ModelConfig& c, Plan& p) {
         for (const SiteKind kind : kLinearSites) {
           const Index width = c.site_width(kind);
           everywhere(p, kind, false, rotation(width, "g").then(blocks(width / 2, 2, "h")));
         }
       }},
      {"query and key pairs",
       [&](const ModelConfig& c, Plan& p) {
         for (LayerPlan& layer : p.layers) layer.query_key = blocks(c.head_width, 1, "i");
       }},
      {"residual basis", add_residual_basis},
      {"all at once",
       [&](const ModelConfig& c, Plan& p) {
         add_residual_basis(c, p);
         everywhere(p, SiteKind::mlp_out, true, scale(c.mlp_width, "j"));
         everywhere(p, SiteKind::attn_out, true, blocks(c.head_width, c.kv_heads, "k"));
         for (const SiteKind kind : kLinearSites) {
           everywhere(p, kind, false, rotation(c.site_width(kind), "l"));
         }
         for (LayerPlan& layer : p.layers) layer.query_key = blocks(c.head_width, 1, "m");
       }},
  };
  for (const TinyShape& shape : tiny_shapes()) {
    for (const auto& [name, change] : changes) {
      CAPTURE(shape.name);
      CAPTURE(std::string(name));
      Plan plan = empty_plan(shape.config);
      change(shape.config, plan);
      check_outputs_kept(plan, shape.config);
    }
  }
}

TEST_CASE("the tensor that a hook sees is the original one times site_transform") {
  for (const char* name : {"grouped", "biases"}) {
    const ModelConfig config = tiny_config(name);
    Plan plan = empty_plan(config);
    add_residual_basis(config, plan);
    for (LayerPlan& layer : plan.layers) {
      layer[SiteKind::attn_out].folded = blocks(config.head_width, config.kv_heads, "v");
      layer[SiteKind::mlp_out].folded = scale(config.mlp_width, "m");
      for (const SiteKind kind : kLinearSites) {
        layer[kind].online = rotation(config.site_width(kind), "o");
      }
    }
    const TinyBench<double> bench(config);
    const auto ids = tiny_tokens(12, config);
    std::vector<Matrix<double>> original, seen;
    const SiteHook<double> keep = [&](const Site& site, Matrix<double>& tensor) {
      if (linears_of(site.kind).empty()) return;
      original.push_back(tensor);
      site_transform(plan, config, site).apply(original.back());
    };
    final_hidden(bench.model, ids, 12, keep);
    const PlannedModel<double> planned(bench.model, without_rounding(plan));
    const SiteHook<double> look = [&](const Site& site, Matrix<double>& tensor) {
      planned.hook()(site, tensor);
      if (!linears_of(site.kind).empty()) seen.push_back(tensor);
    };
    final_hidden(planned.model(), ids, 12, look);
    REQUIRE(seen.size() == original.size());
    for (std::size_t i = 0; i < seen.size(); ++i)
      CHECK(relative_error(seen[i], original[i]) < 1e-10);
  }
}

TEST_CASE("the weights of a planned model are the dual images, rounded") {
  const ModelConfig config = tiny_config("multi-head");
  const Model<double> model = tiny_model(config);
  Plan plan = empty_plan(config);
  plan.layers[1][SiteKind::mlp_in].folded = scale(config.width, "s");
  plan.layers[1][SiteKind::mlp_in].online = rotation(config.width, "r");
  const PlannedModel<double> planned(model, plan);
  for (const Linear linear : {Linear::gate_proj, Linear::up_proj}) {
    Matrix<double> expected = model.layers[1][linear].weight;
    site_transform(plan, config, {1, SiteKind::mlp_in}).apply_dual(expected);
    expected = round_weight("rtn", expected, plan.quant.weight);
    CHECK(relative_error(planned.model().layers[1][linear].weight, expected) < 1e-12);
  }
  CHECK(planned.model().layers[0][Linear::o_proj].weight ==
        round_weight("rtn", model.layers[0][Linear::o_proj].weight, plan.quant.weight));
  CHECK(planned.model().embedding == model.embedding);
  CHECK(planned.model().head == model.head);
}

TEST_CASE("activations, queries, keys and values are rounded with their own quantizers") {
  const ModelConfig config = tiny_config("grouped");
  const auto changes = [&](const char* widths, SiteKind kind) {
    const Plan plan = Plan::identity("x", config.layers, quant_settings(widths));
    const SiteHook<double> hook = runtime_hook<double>(plan, config);
    Matrix<double> tensor = gaussian(5, config.site_width(kind), "tensor");
    const Matrix<double> before = tensor;
    hook({1, kind}, tensor);
    return tensor != before;
  };
  const std::vector<std::pair<const char*, SiteKind>> pairs = {
      {"W16A16-Q4K16V16", SiteKind::queries},
      {"W16A16-Q16K4V16", SiteKind::keys},
      {"W16A16-Q16K16V4", SiteKind::values},
      {"W16A4-Q16K16V16", SiteKind::mlp_out}};
  for (const auto& [widths, kind] : pairs) {
    for (const auto& [other, other_kind] : pairs) {
      CAPTURE(std::string(widths));
      CHECK(changes(widths, other_kind) == (kind == other_kind));
    }
  }
}

TEST_CASE("the input of o_proj can be rounded in groups of its own") {
  const ModelConfig config = tiny_config("grouped");
  Plan plan = Plan::identity("x", config.layers, quant_settings("W16A4-Q16K16V16"));
  plan.quant.attn_out_group_size = config.head_width;
  const SiteHook<double> hook = runtime_hook<double>(plan, config);
  for (const SiteKind kind : kLinearSites) {
    Matrix<double> found = gaussian(5, config.site_width(kind), "tensor");
    Matrix<double> expected = found;
    QuantSpec spec = plan.quant.activation;
    if (kind == SiteKind::attn_out) spec.group_size = config.head_width;
    fake_quantize(expected, spec);
    hook({1, kind}, found);
    CAPTURE(to_string(kind));
    CHECK(found == expected);
  }
}

TEST_CASE("queries, keys and values are rounded head by head") {
  const ModelConfig config = tiny_config("grouped");
  const Plan plan = Plan::identity("x", config.layers, quant_settings());
  for (const SiteKind kind : {SiteKind::queries, SiteKind::keys, SiteKind::values}) {
    const Matrix<double> tensor = gaussian(5, config.site_width(kind), "heads");
    Matrix<double> by_hook = tensor;
    runtime_hook<double>(plan, config)({0, kind}, by_hook);
    REQUIRE(by_hook.rows() == 5);
    for (Index head = 0; head < tensor.cols() / config.head_width; ++head) {
      Matrix<double> part = tensor.middleCols(head * config.head_width, config.head_width);
      fake_quantize(part, plan.quant.queries);
      CHECK(by_hook.middleCols(head * config.head_width, config.head_width) == part);
    }
  }
}

TEST_CASE("repeat_over_query_heads gives every query head its group's part") {
  const ModelConfig config = tiny_config("grouped");  // 9 heads over 3, of width 4
  const Transform<double> value = scale(config.kv_width(), "v");
  const Matrix<double> small = value.to_matrix(config.kv_width());
  const Matrix<double> wide = repeat_over_query_heads(value, config).to_matrix(36);
  for (Index head = 0; head < 9; ++head) {
    CHECK(wide.block(4 * head, 4 * head, 4, 4) == small.block(head / 3 * 4, head / 3 * 4, 4, 4));
  }
  CHECK(repeat_over_query_heads({}, config).is_identity());
  CHECK(repeat_over_query_heads({}, config).width() == 0);
}

TEST_CASE("what cannot be folded is refused with the place and what was found") {
  const ModelConfig config = tiny_config("grouped");
  const Model<double> model = tiny_model(config);
  const auto message = [&](const auto& change) {
    Plan plan = empty_plan(config);
    change(plan);
    return error_of([&] { PlannedModel<double>(model, plan); });
  };
  const auto contains = [](const std::string& text, const char* part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  contains(message([&](Plan& p) {
             p.layers[0][SiteKind::attn_in].folded = rotation(config.width, "r");
           }),
           "attn_in: only a scale");
  contains(message([&](Plan& p) {
             p.layers[1][SiteKind::mlp_out].folded = rotation(config.mlp_width, "r");
           }),
           "mlp_out: only a scale");
  contains(message([&](Plan& p) {
             p.layers[1][SiteKind::attn_out].folded = rotation(config.kv_width(), "r");
           }),
           "attn_out: only head-local maps");
  contains(message([&](Plan& p) { p.residual = rotation(config.width, "r"); }),
           "norm gains of one");
  Plan short_plan = Plan::identity("short", 1, quant_settings());
  check_error([&] { PlannedModel<double>(model, short_plan); }, {"plan of 1 layers"});
}

TEST_CASE("a norm gain of zero survives a residual basis") {
  const ModelConfig config = tiny_config("multi-head");
  Model<double> model = tiny_model(config);
  model.layers[0].attn_norm(4) = 0;
  model.layers[1].mlp_norm(0) = 0;
  Plan plan = without_rounding(empty_plan(config));
  plan.residual = rotation(config.width, "residual");
  for (std::size_t l = 0; l < 2; ++l) {
    const auto inverse = [](double gain) { return gain == 0 ? 1 : 1 / gain; };
    plan.layers[l][SiteKind::attn_in].folded.append(
        Scale<double>{model.layers[l].attn_norm.unaryExpr(inverse)});
    plan.layers[l][SiteKind::mlp_in].folded.append(
        Scale<double>{model.layers[l].mlp_norm.unaryExpr(inverse)});
  }
  const auto ids = tiny_tokens(9, config);
  const PlannedModel<double> planned(model, plan);
  const auto logits = [&](const Model<double>& of, const SiteHook<double>& hook) {
    return product_transposed<double>(final_hidden(of, ids, 9, hook), of.head_weight());
  };
  CHECK(relative_distance(logits(planned.model(), planned.hook()), logits(model, {})) < 1e-10);
}

// Two windows of 12 tokens, which give Hessians and samples.
RoundingHelp<double> two_windows(const ModelConfig& config) {
  return {tiny_tokens(24, config, 9), 12, {}};
}

TEST_CASE("a rounding with a Hessian sees what the network rounded so far gives each linear") {
  for (const char* inputs : {"float", "quantized"}) {
    for (const char* shape : {"grouped", "normed heads"}) {
      CAPTURE(std::string(inputs));
      CAPTURE(std::string(shape));
      const ModelConfig config = tiny_config(shape);
      const Model<double> model = tiny_model(config);
      Plan plan = empty_plan(config);
      plan.quant.rounding = "gptq";
      plan.quant.rounding_options.hessian_inputs = inputs;
      plan.layers[1][SiteKind::mlp_out].online = rotation(config.mlp_width, "r");
      const RoundingHelp<double> help = two_windows(config);
      const PlannedModel<double> planned(model, plan, {}, help);
      REQUIRE(planned.rounded().size() == 7 * static_cast<std::size_t>(config.layers));

      // Once more by hand for the last linear: the inputs come from the finished model, in which
      // only linears behind this site could differ.
      const Site last{config.layers - 1, SiteKind::mlp_out};
      HessianAccumulator sums(config.mlp_width);
      const SiteHook<double> collect = [&](const Site& site, Matrix<double>& tensor) {
        Matrix<double> moved = tensor;
        if (site == last) plan.layers[1][SiteKind::mlp_out].online.apply(moved);
        planned.hook()(site, tensor);
        if (site == last) sums.add(std::string(inputs) == "quantized" ? tensor : moved, 2);
      };
      final_hidden(planned.model(), help.ids, help.length, collect);
      Matrix<double> weight = model.layers[1][Linear::down_proj].weight;
      plan.layers[1][SiteKind::mlp_out].online.apply_dual(weight);
      const RoundingOptions& options = plan.quant.rounding_options;
      const HessianFactor hessian = factor_hessian(sums.hessian(), options.gptq.damping);
      const auto expected =
          round_weight<double>("gptq", {weight, plan.quant.weight, &hessian, options});
      CHECK(relative_error(planned.model().layers[1][Linear::down_proj].weight, expected.weight) <
            1e-9);
      CHECK(planned.rounded().back().details.at("loss") ==
            doctest::Approx(expected.details.at("loss")));
    }
  }
}

TEST_CASE("GPTQ loses less at the outputs than rounding to nearest") {
  const ModelConfig config = tiny_config("multi-head");
  const Model<double> model = tiny_model(config);
  Plan plan = Plan::identity("fuse", config.layers, quant_settings("W3A16-Q16K16V16"));
  const RoundingHelp<double> help = {tiny_tokens(40 * 12, config, 9), 12, {}};
  const auto error = [&](const char* rounding) {
    plan.quant.rounding = rounding;
    const PlannedModel<double> planned(model, plan, {}, help);
    const auto ids = tiny_tokens(20 * 12, config, 10);
    return relative_distance(final_hidden(planned.model(), ids, 12, planned.hook()),
                             final_hidden<double>(model, ids, 12, {}));
  };
  CHECK(error("gptq") < 0.9 * error("rtn"));
}

TEST_CASE("a rounding that needs samples and has none is refused by name") {
  const ModelConfig config = tiny_config("multi-head");
  const Model<double> model = tiny_model(config);
  for (const char* rounding : {"gptq", "uniquanf"}) {
    Plan plan = empty_plan(config);
    plan.quant.rounding = rounding;
    check_error([&] { PlannedModel<double>(model, plan); }, {rounding, "needs sample sequences"});
  }
  Plan plan = empty_plan(config);
  plan.quant.rounding = "flexround";
  check_error([&] { PlannedModel<double>(model, plan, {}, two_windows(config)); },
              {"flexround", "needs sample sequences"});
}

TEST_CASE("a learner gets both streams, the float block's output and the transformed weights") {
  const ModelConfig config = tiny_config("grouped");
  const Model<double> model = tiny_model(config);
  Plan plan = empty_plan(config);
  plan.quant.rounding = "uniquanf";
  add_residual_basis(config, plan);
  RoundingHelp<double> help = two_windows(config);
  std::vector<Matrix<double>> inputs;
  Matrix<double> expected = embed<double>(model, help.ids);
  plan.residual.apply(expected);
  help.learner = [&](const BlockTask<double>& task) {
    CHECK(relative_error(task.samples.float_input, expected) < 1e-10);
    Matrix<double> original = task.samples.float_input;
    plan.residual.apply_transpose(original);  // orthogonal: back to the basis of the model
    block_forward<double>(config, model.layers[std::size_t(task.layer)], task.layer, 12, {},
                          original);
    plan.residual.apply(original);
    CHECK(relative_error(task.samples.target, original) < 1e-10);
    expected = original;
    if (task.layer == 0) CHECK(task.samples.quantized_input == task.samples.float_input);
    if (task.layer == 1) CHECK(task.samples.quantized_input != task.samples.float_input);
    for (const Linear linear : kLinears) task.weights[linear].weight *= 0.5;
    task.rounded.emplace_back();
  };
  const PlannedModel<double> planned(model, plan, {}, help);
  CHECK(planned.rounded().size() == 2);
}

TEST_CASE("learned clips act on weights and activations as their ratio would") {
  const ModelConfig config = tiny_config("grouped");
  const Model<double> model = tiny_model(config);
  Plan ratio = empty_plan(config);
  ratio.quant.weight.clip_ratio = 0.8;
  ratio.quant.activation.clip_ratio = 0.7;
  Plan clips = empty_plan(config);
  for (LayerPlan& layer : clips.layers) {
    for (const SiteKind kind : kLinearSites) layer[kind].clips = {0.7, 0.7};
    for (const Linear linear : kLinears) {
      const auto rows = Vector<double>::Constant(config.out_width(linear), 0.8);
      layer.weight_clips[linear] = {rows, rows};
    }
  }
  const auto ids = tiny_tokens(12, config, 4);
  const PlannedModel<double> a(model, ratio), b(model, clips);
  CHECK(final_hidden(a.model(), ids, 12, a.hook()) == final_hidden(b.model(), ids, 12, b.hook()));
}

TEST_CASE("without_rounding changes widths alone") {
  Plan plan = empty_plan(tiny_config("grouped"));
  plan.quant.keys.clip_ratio = 0.9;
  plan.residual = rotation(36, "r");
  const Plan exact = without_rounding(plan);
  CHECK(to_string(exact.quant.widths()) == "W16A16-Q16K16V16");
  CHECK(exact.quant.keys.clip_ratio == 0.9);
  CHECK(same_transform(exact.residual, plan.residual));
}

}  // namespace
}  // namespace ruq::test
