#include "ruquant/learn/model_rotation.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ruquant/method/common.hpp"
#include "ruquant/model/fuse.hpp"
#include "ruquant/transform/hadamard.hpp"
#include "support/differences.hpp"
#include "support/frozen_rounding.hpp"
#include "support/laws.hpp"
#include "support/tiny_model.hpp"

namespace ruq::test {
namespace {

constexpr Index kLength = 4;

std::size_t at(Index layer) { return static_cast<std::size_t>(layer); }

Transform<double> rotation(Index width, const std::string& name) {
  Transform<double> transform(width);
  if (hadamard_exists(width)) {
    transform.append(HadamardStep{width});
  } else {
    Stream stream(1, name);
    transform.append(BlockDiagonal<double>{{{haar_orthogonal(width, stream), {}}}, {0}});
  }
  return transform;
}

ModelRotations random_rotations(const ModelConfig& config) {
  Stream stream(1, "rotations");
  ModelRotations rotations{haar_orthogonal(config.width, stream), {}};
  for (Index l = 0; l < config.layers; ++l) {
    rotations.values.push_back(haar_orthogonal(config.head_width, stream));
  }
  return rotations;
}

struct Problem {
  Problem(const ModelConfig& c, const std::string& widths)
      : config(c),
        model(tiny_model(c)),
        ids(tiny_tokens(2 * kLength, c)),
        rotations(random_rotations(c)),
        setup{rotation(c.head_width, "r3"), rotation(c.mlp_width, "r4"), quant_settings(widths)} {}

  TokenWindows tokens() const { return {ids, kLength}; }

  ModelConfig config;
  Model<double> model;
  std::vector<std::int32_t> ids;
  ModelRotations rotations;
  ModelRotationObjective<double>::Setup setup;
};

double loss_of(const Model<double>& model, const SiteHook<double>& hook, const TokenWindows& t) {
  return cross_entropy(final_hidden<double>(model, t.ids, t.length, hook), model.head_weight(), t);
}

// The rotations as the executor knows them.
Plan as_plan(const Problem& p) {
  Plan plan = Plan::identity("test", p.config.layers, p.setup.quant);
  plan.residual.append(BlockDiagonal<double>{{{p.rotations.residual, {}}}, {0}});
  for (Index l = 0; l < p.config.layers; ++l) {
    const LayerWeights<double>& weights = p.model.layers[at(l)];
    LayerPlan& layer = plan.layers[at(l)];
    layer[SiteKind::attn_in].folded.append(Scale<double>{weights.attn_norm.cwiseInverse()});
    layer[SiteKind::mlp_in].folded.append(Scale<double>{weights.mlp_norm.cwiseInverse()});
    layer[SiteKind::attn_out].folded.append(BlockDiagonal<double>{
        {{p.rotations.values[at(l)], {}}}, std::vector<Index>(at(p.config.kv_heads), 0)});
    layer[SiteKind::mlp_out].online = p.setup.hidden;
    layer.query_key = p.setup.query_key;
  }
  return plan;
}

TEST_CASE("the loss is that of the executor under the plan, rounded or not") {
  for (const TinyShape& shape : shapes_with_odd_widths()) {
    for (const char* widths : {"W16A16-Q16K16V16", "W4A4-Q4K4V4", "W16A4-Q16K4V4"}) {
      INFO(shape.name << ", " << widths);
      const Problem p(shape.config, widths);
      ModelRotationObjective<double> objective(p.model, p.setup);
      const PlannedModel<double> planned(p.model, as_plan(p));
      const double loss = objective.evaluate(p.rotations, p.tokens());
      CHECK(loss ==
            doctest::Approx(loss_of(planned.model(), planned.hook(), p.tokens())).epsilon(1e-9));
      const double original = loss_of(p.model, {}, p.tokens());
      CHECK((std::abs(loss - original) < 1e-9) == (std::string(widths) == "W16A16-Q16K16V16"));
    }
  }
}

TEST_CASE("with groups of their own for o_proj's inputs the loss is still the executor's") {
  Problem p(tiny_config("grouped"), "W4A4-Q4K4V4");
  const double by_rows =
      ModelRotationObjective<double>(p.model, p.setup).evaluate(p.rotations, p.tokens());
  p.setup.quant.attn_out_group_size = p.config.head_width;
  ModelRotationObjective<double> objective(p.model, p.setup);
  const PlannedModel<double> planned(p.model, as_plan(p));
  const double loss = objective.evaluate(p.rotations, p.tokens());
  CHECK(loss ==
        doctest::Approx(loss_of(planned.model(), planned.hook(), p.tokens())).epsilon(1e-9));
  CHECK(std::abs(loss - by_rows) > 1e-6);
}

TEST_CASE("derivatives by R1 and every R2 without rounding, by differences") {
  for (const TinyShape& shape : shapes_with_odd_widths()) {
    INFO(shape.name);
    Problem p(shape.config, "W16A16-Q16K16V16");
    ModelRotationObjective<double> objective(p.model, p.setup);
    ModelRotations gradient;
    const double at_start = objective.evaluate(p.rotations, p.tokens(), &gradient);
    const auto loss = [&] { return objective.evaluate(p.rotations, p.tokens()); };
    CHECK(loss() == at_start);
    check_gradient_of_rows(loss, p.rotations.residual, gradient.residual, {0, 7}, 1e-6);
    for (std::size_t l = 0; l < p.rotations.values.size(); ++l) {
      INFO("layer " << l);
      check_gradient_of_rows(loss, p.rotations.values[l], gradient.values[l], {0, 3}, 1e-6);
    }
  }
}

// The model put together from plain products and the executor's blocks, with every rounding frozen
// where it was at the first call: a smooth function whose derivatives the rules describe.
class FrozenModel {
 public:
  explicit FrozenModel(const Problem& problem)
      : p_(problem), sites_(at(p_.config.layers)), weights_(at(p_.config.layers)) {
    loss();
  }

  double loss() {
    const Matrix<double>& r1 = p_.rotations.residual;
    Matrix<double> x = embed<double>(p_.model, p_.ids) * r1;
    for (Index l = 0; l < p_.config.layers; ++l) {
      const SiteHook<double> hook = [&](const Site& site, Matrix<double>& t) { visit(site, t); };
      block_forward(p_.config, layer(l), l, kLength, hook, x);
    }
    const Vector<double> ones = Vector<double>::Ones(p_.config.width);
    Matrix<double> states = rms_norm(x, ones, p_.config.norm_epsilon) * r1.transpose();
    states = (states * p_.model.final_norm.asDiagonal()).eval();
    return cross_entropy(states, p_.model.head_weight(), p_.tokens());
  }

 private:
  using Rounding = std::optional<FrozenRounding>;

  static void round(Rounding& rounding, const QuantSpec& spec, Matrix<double>& x) {
    if (!spec.rounds()) return;
    if (!rounding) rounding.emplace(x, spec, nullptr);
    x = (*rounding)(x, nullptr);
  }
  // R2 on the diagonal, once a head.
  Matrix<double> over_heads(Index layer, Index heads) const {
    const Matrix<double>& r2 = p_.rotations.values[at(layer)];
    const Index e = r2.rows();
    Matrix<double> all = Matrix<double>::Zero(heads * e, heads * e);
    for (Index h = 0; h < heads; ++h) all.block(h * e, h * e, e, e) = r2;
    return all;
  }
  LayerWeights<double> layer(Index l) {
    const Matrix<double>& r1 = p_.rotations.residual;
    LayerWeights<double> w = p_.model.layers[at(l)];
    const Matrix<double> read = w.attn_norm.asDiagonal() * r1;
    const Matrix<double> read_mlp = w.mlp_norm.asDiagonal() * r1;
    const Matrix<double> values = over_heads(l, p_.config.kv_heads).transpose();
    w[Linear::v_proj].weight = values * w[Linear::v_proj].weight;
    if (w[Linear::v_proj].bias.size() > 0) {
      w[Linear::v_proj].bias = values * w[Linear::v_proj].bias;
    }
    w[Linear::o_proj].weight = w[Linear::o_proj].weight * over_heads(l, p_.config.heads);
    w[Linear::down_proj].weight =
        w[Linear::down_proj].weight * p_.setup.hidden.to_matrix(p_.config.mlp_width);
    for (const Linear linear : {Linear::q_proj, Linear::k_proj, Linear::v_proj}) {
      w[linear].weight = w[linear].weight * read;
    }
    for (const Linear linear : {Linear::gate_proj, Linear::up_proj}) {
      w[linear].weight = w[linear].weight * read_mlp;
    }
    for (const Linear linear : {Linear::o_proj, Linear::down_proj}) {
      w[linear].weight = r1.transpose() * w[linear].weight;
      if (w[linear].bias.size() > 0) w[linear].bias = r1.transpose() * w[linear].bias;
    }
    for (const Linear linear : kLinears) {
      round(weights_[at(l)][linear], p_.setup.quant.weight, w[linear].weight);
    }
    w.attn_norm.setOnes();
    w.mlp_norm.setOnes();
    return w;
  }
  void visit(const Site& site, Matrix<double>& tensor) {
    Rounding& rounding = sites_[at(site.layer)][site.kind];
    if (!linears_of(site.kind).empty()) {
      if (site.kind == SiteKind::mlp_out) p_.setup.hidden.apply(tensor);
      return round(rounding, p_.setup.quant.of(site.kind), tensor);
    }
    const Index rows = tensor.rows();
    const Index cols = tensor.cols();
    tensor.resize(tensor.size() / p_.config.head_width, p_.config.head_width);
    if (site.kind != SiteKind::values) p_.setup.query_key.apply(tensor);
    round(rounding,
          site.kind == SiteKind::values ? p_.setup.quant.values
          : site.kind == SiteKind::keys ? p_.setup.quant.keys
                                        : p_.setup.quant.queries,
          tensor);
    tensor.resize(rows, cols);
  }

  const Problem& p_;
  std::vector<PerKind<Rounding>> sites_;
  std::vector<PerLinear<Rounding>> weights_;
};

// Along a random direction of one matrix; the straight-through rules say what it must be.
void check_along(const std::function<double()>& loss, Matrix<double>& x,
                 const Matrix<double>& gradient, const std::string& name) {
  const Matrix<double> start = x;
  const Matrix<double> direction = gaussian(x.rows(), x.cols(), name);
  constexpr double kStep = 1e-6;
  x = start + kStep * direction;
  const double above = loss();
  x = start - kStep * direction;
  const double below = loss();
  x = start;
  const double scale =
      gradient.norm() * direction.norm() / std::sqrt(static_cast<double>(x.size()));
  CHECK(scale > 0);
  CHECK(std::abs((above - below) / (2 * kStep) - gradient.cwiseProduct(direction).sum()) <
        1e-5 * scale);
}

void check_by_frozen_model(Problem& p) {
  ModelRotationObjective<double> objective(p.model, p.setup);
  ModelRotations gradient;
  const double rounded = objective.evaluate(p.rotations, p.tokens(), &gradient);
  FrozenModel frozen(p);
  CHECK(frozen.loss() == doctest::Approx(rounded).epsilon(1e-10));
  const auto loss = [&] { return frozen.loss(); };
  for (const char* name : {"first", "second"}) {
    check_along(loss, p.rotations.residual, gradient.residual, name);
    for (std::size_t l = 0; l < p.rotations.values.size(); ++l) {
      check_along(loss, p.rotations.values[l], gradient.values[l], name);
    }
  }
}

// Values have 8 bits: at 4 some attention outputs of a first token (rounded values themselves)
// share the largest level, and there a maximum has no derivative.
TEST_CASE("derivatives at 4 bits along directions, by differences of the model frozen") {
  for (const TinyShape& shape : shapes_with_odd_widths()) {
    for (const char* widths : {"W4A4-Q4K4V8", "W16A4-Q16K4V8"}) {
      INFO(shape.name << ", " << widths);
      Problem p(shape.config, widths);
      p.setup.quant.activation.clip_ratio = 0.9;
      check_by_frozen_model(p);
    }
  }
}

// Values are not rounded: in a group of few channels levels are shared sooner.
TEST_CASE("derivatives with groups of their own for o_proj's inputs, by the model frozen") {
  Problem p(tiny_config("grouped"), "W4A4-Q4K4V16");
  p.setup.quant.activation.rule = GridRule::quarot_activation;
  p.setup.quant.activation.clip_ratio = 0.9;
  p.setup.quant.attn_out_group_size = p.config.head_width;
  check_by_frozen_model(p);
}

TEST_CASE("float agrees with double, and threads change nothing") {
  const Problem p(tiny_config("biases"), "W16A16-Q16K16V16");
  ModelRotationObjective<double> wide(p.model, p.setup);
  const Model<float> model = as_float(p.model);
  ModelRotationObjective<float> narrow(model, {p.setup.query_key, p.setup.hidden, p.setup.quant});
  ModelRotations a, b, c;
  const double loss = wide.evaluate(p.rotations, p.tokens(), &a);
  CHECK(narrow.evaluate(p.rotations, p.tokens(), &b) == doctest::Approx(loss).epsilon(1e-5));
  CHECK(relative_error(b.residual, a.residual) < 1e-3);
  CHECK(relative_error(b.values[1], a.values[1]) < 1e-3);
  set_threads(3);
  narrow.evaluate(p.rotations, p.tokens(), &c);
  set_threads(1);
  CHECK(c.residual == b.residual);
  CHECK(c.values[0] == b.values[0]);
}

}  // namespace
}  // namespace ruq::test
