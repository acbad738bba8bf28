#include "ruquant/learn/block_grad.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>
#include <array>
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ruquant/base/rng.hpp"
#include "ruquant/model/fuse.hpp"
#include "support/differences.hpp"
#include "support/errors.hpp"
#include "support/frozen_rounding.hpp"
#include "support/laws.hpp"
#include "support/tiny_model.hpp"

namespace ruq::test {
namespace {

constexpr Index kLength = 3;
constexpr Index kRows = 2 * kLength;

SquareMap<double> with_dual(const Matrix<double>& map) { return {map, map.inverse().transpose()}; }

BlockDiagonal<double> one_map(const Matrix<double>& map) { return {{with_dual(map)}, {0}}; }

// The least divisor above one.
Index least_factor(Index width) {
  Index factor = 2;
  while (width % factor != 0) ++factor;
  return factor;
}

// Numbers of everything that can be trained, one kind of step at each site.
struct Numbers {
  explicit Numbers(const ModelConfig& config)
      : scale(1.2 + 0.2 * gaussian(config.width, 1, "scale").col(0).array()),
        head_maps(near_identity(config.head_width, "head maps")),
        left(near_identity(least_factor(config.width), "left")),
        right(near_identity(config.width / left.rows(), "right")),
        query_key(near_identity(config.head_width, "query key")),
        values(near_identity(config.head_width, "values")) {
    for (const SiteKind kind : kLinearSites) {
      directions[kind] = gaussian(config.site_width(kind), 1, "v " + to_string(kind)).col(0);
    }
    heads = config.heads;
  }
  static Matrix<double> near_identity(Index n, const std::string& name) {
    return Matrix<double>::Identity(n, n) + 0.4 / std::sqrt(double(n)) * gaussian(n, n, name);
  }

  BlockParameters build() const {
    BlockParameters p;
    p.online[SiteKind::attn_in].append(Scale<double>{scale});
    p.online[SiteKind::attn_out].append(BlockDiagonal<double>{
        {with_dual(head_maps)}, std::vector<Index>(static_cast<std::size_t>(heads), 0)});
    p.online[SiteKind::mlp_in].append(
        Kronecker<double>{with_dual(left), with_dual(right), left.rows(), right.rows()});
    for (const SiteKind kind : kLinearSites) {
      p.online[kind].append(Reflection<double>{directions[kind].normalized()});
    }
    p.query_key.append(one_map(query_key));
    p.values.append(one_map(values));
    return p;
  }

  Vector<double> scale;
  Matrix<double> head_maps, left, right, query_key, values;
  PerSite<Vector<double>> directions;
  Index heads = 0;
};

// What stands before the trained part: a scale and a permutation, but nothing at attn_out.
PerSite<Transform<double>> fixed_parts(const ModelConfig& config) {
  PerSite<Transform<double>> fixed;
  for (const SiteKind kind : {SiteKind::attn_in, SiteKind::mlp_in, SiteKind::mlp_out}) {
    const Index width = config.site_width(kind);
    const Vector<double> factor = 1 + 0.2 * gaussian(width, 1, "fixed").col(0).array();
    fixed[kind].append(Scale<double>{factor});
    fixed[kind].append(Permutation{Stream(1, "fixed").permutation(width)});
  }
  return fixed;
}

// The same block as a plan of one layer.
Plan as_plan(const PerSite<Transform<double>>& fixed, const BlockParameters& parameters,
             const QuantSettings& quant) {
  Plan plan = Plan::identity("test", 1, quant);
  for (const SiteKind kind : kLinearSites) {
    plan.layers[0][kind].online = fixed[kind].then(parameters.online[kind]);
  }
  plan.layers[0].query_key = parameters.query_key;
  return plan;
}

// Returns what both compute.
template <class S>
Matrix<S> check_forward(const ModelConfig& config, const LayerWeights<S>& layer,
                        const QuantSettings& quant) {
  const auto fixed = fixed_parts(config);
  BlockParameters parameters = Numbers(config).build();
  parameters.values = {};
  BlockGrad<S> block(config, layer, fixed, quant);
  block.install(parameters);

  const Plan plan = as_plan(fixed, parameters, quant);
  LayerWeights<S> installed = layer;
  for (const SiteKind kind : kLinearSites) install_site(plan, {0, kind}, installed);
  for (const Linear linear : kLinears) {
    INFO(to_string(linear));
    CHECK(block.weights()[linear].weight == installed[linear].weight);
  }
  const Matrix<S> x = gaussian(kRows, config.width, "x", 1).cast<S>();
  Matrix<S> y = x;
  block_forward(config, installed, 0, kLength, runtime_hook<S>(plan, config), y);
  CHECK(block.forward(x, kLength) == y);
  BlockRecord<S> record;
  CHECK(block.forward(x, kLength, &record) == y);
  return y;
}

TEST_CASE("the forward pass is that of the executor, to the last bit") {
  for (const TinyShape& shape : shapes_with_odd_widths()) {
    INFO(shape.name);
    const Model<double> model = tiny_model(shape.config);
    for (const char* widths : {"W4A4-Q4K4V4", "W16A16-Q16K16V16", "W3A6-Q16K8V2"}) {
      INFO(std::string(widths));
      const QuantSettings quant = quant_settings(widths);
      check_forward<double>(shape.config, model.layers[0], quant);
      check_forward<float>(shape.config, as_float(model).layers[0], quant);
    }
  }
}

TEST_CASE("with groups of their own for o_proj's inputs it is still that of the executor") {
  const ModelConfig config = tiny_config("grouped");
  const Model<double> model = tiny_model(config);
  const QuantSettings rows = quant_settings("W4A4-Q4K4V4");
  QuantSettings groups = rows;
  groups.attn_out_group_size = config.head_width;
  const Matrix<double> by_rows = check_forward<double>(config, model.layers[0], rows);
  CHECK(check_forward<double>(config, model.layers[0], groups) != by_rows);
  check_forward<float>(config, as_float(model).layers[0], groups);
}

TEST_CASE("a trained map of the values is the map folded at attn_out") {
  for (const char* name : {"grouped", "biases"}) {
    ModelConfig config = tiny_config(name);
    LayerWeights<double> layer = tiny_model(config).layers[0];
    const QuantSettings quant = quant_settings("W4A4-Q4K4V4");
    const Numbers numbers(config);
    BlockGrad<double> block(config, layer, {}, quant);
    block.install(numbers.build());
    const Matrix<double> x = gaussian(kRows, config.width, "x", 1);
    const Matrix<double> trained = block.forward(x, kLength);

    Plan plan = as_plan({}, numbers.build(), quant);
    plan.layers[0][SiteKind::attn_out].folded.append(
        BlockDiagonal<double>{{with_dual(numbers.values)},
                              std::vector<Index>(static_cast<std::size_t>(config.kv_heads))});
    fold_layer(plan, config, 0, layer);
    for (const SiteKind kind : kLinearSites) install_site(plan, {0, kind}, layer);
    Matrix<double> y = x;
    block_forward(config, layer, 0, kLength, runtime_hook<double>(plan, config), y);
    CHECK(relative_error(trained, y) < 1e-12);
  }
}

// A block with its loss Σ y⊙upstream and the numbers that it is a function of.
struct Problem {
  explicit Problem(const std::string& shape, const std::string& widths)
      : config(tiny_config(shape)),
        layer(tiny_model(config).layers[0]),
        numbers(config),
        quant(quant_settings(widths)),
        fixed(fixed_parts(config)),
        x(gaussian(kRows, config.width, "x")),
        upstream(gaussian(kRows, config.width, "upstream")),
        block(config, layer, fixed, quant) {}

  BlockParameters parameters() const {
    BlockParameters p = numbers.build();
    p.activation_clips = activation_clips;
    p.weight_clips = weight_clips;
    return p;
  }
  double loss() {
    block.install(parameters());
    return block.forward(x, kLength).cwiseProduct(upstream).sum();
  }
  double loss_of_weights() {
    BlockGrad<double> changed(config, layer, fixed, quant);
    changed.install(parameters());
    return changed.forward(x, kLength).cwiseProduct(upstream).sum();
  }
  BlockGradients gradients() {
    block.install(parameters());
    BlockRecord<double> record;
    block.forward(x, kLength, &record);
    dx = block.backward(record, upstream);
    return block.take_gradients(true);
  }

  ModelConfig config;
  LayerWeights<double> layer;
  Numbers numbers;
  QuantSettings quant;
  PerSite<Transform<double>> fixed;
  PerSite<std::optional<ClipPair>> activation_clips;
  PerLinear<std::optional<RowClips<double>>> weight_clips;
  Matrix<double> x, upstream, dx;
  BlockGrad<double> block;
};

// dL/dω of v = ω/‖ω‖ at the ω of the numbers.
Vector<double> of_direction(const Vector<double>& omega, const Vector<double>& gradient) {
  const Vector<double> v = omega.normalized();
  return (gradient - gradient.dot(v) * v) / omega.norm();
}

// Without rounding transforms change nothing, so only the input and the weights have a derivative.
TEST_CASE("derivatives of a smooth block by its input and weights, by differences") {
  for (const char* shape : {"grouped", "biases", "normed heads", "odd factors", "odd widths"}) {
    INFO(std::string(shape));
    Problem p(shape, "W16A16-Q16K16V16");
    const BlockGradients g = p.gradients();
    const auto loss = [&] { return p.loss(); };
    check_gradient_of_rows(loss, p.x, p.dx, {0, 1, kRows - 1}, 1e-6);
    const auto loss_of_weights = [&] { return p.loss_of_weights(); };
    for (const Linear linear : kLinears) {
      INFO(to_string(linear));
      check_gradient_of_rows(loss_of_weights, p.layer[linear].weight, g.weights[linear], {0, 7},
                             1e-6);
    }
    for (const SiteKind kind : kLinearSites) {
      const Vector<double>& omega = p.numbers.directions[kind];
      CHECK(of_direction(omega, g.online[kind].back().vector).norm() < 1e-10 * p.dx.norm());
    }
  }
}

// The block put together from the executor's parts, with every rounding frozen where it was at the
// first call (see frozen_rounding.hpp): a smooth function whose derivatives the rules describe.
class FrozenBlock {
 public:
  explicit FrozenBlock(const Problem& problem) : p_(problem) { loss(); }

  double loss() {
    const BlockParameters parameters = p_.parameters();
    LayerWeights<double> weights = p_.layer;
    for (const Linear linear : kLinears) {
      Matrix<double>& weight = weights[linear].weight;
      const SiteKind site = input_site(linear);
      p_.fixed[site].apply_dual(weight);
      if (linear == Linear::o_proj) repeated_values(p_.config.heads).apply_dual(weight);
      parameters.online[site].apply_dual(weight);
      if (linear == Linear::v_proj) map_values(weights[linear]);
      const auto& clips = parameters.weight_clips[linear];
      round(weight_roundings_[linear], p_.quant.weight, clips ? &*clips : nullptr, weight);
    }
    const SiteHook<double> hook = [&](const Site& site, Matrix<double>& tensor) {
      visit(parameters, site.kind, tensor);
    };
    Matrix<double> y = p_.x;
    block_forward(p_.config, weights, 0, kLength, hook, y);
    return y.cwiseProduct(p_.upstream).sum();
  }

 private:
  using Rounding = std::optional<FrozenRounding>;

  static void round(Rounding& rounding, const QuantSpec& spec, const RowClips<double>* clips,
                    Matrix<double>& x) {
    if (!rounding) rounding.emplace(x, spec, clips);
    x = (*rounding)(x, clips);
  }
  Transform<double> repeated_values(Index heads) const {
    Transform<double> repeated;
    repeated.append(BlockDiagonal<double>{{with_dual(p_.numbers.values)},
                                          std::vector<Index>(static_cast<std::size_t>(heads), 0)});
    return repeated;
  }
  void map_values(LinearWeights<double>& values) const {
    const Transform<double> map = repeated_values(p_.config.kv_heads);
    map.apply_to_outputs(values.weight);
    if (values.bias.size() == 0) return;
    Matrix<double> bias = values.bias.transpose();
    map.apply(bias);
    values.bias = bias.transpose();
  }
  void visit(const BlockParameters& parameters, SiteKind kind, Matrix<double>& tensor) {
    Rounding& rounding = roundings_[kind];
    if (!linears_of(kind).empty()) {
      p_.fixed[kind].then(parameters.online[kind]).apply(tensor);
      RowClips<double> clips;
      const auto& pair = parameters.activation_clips[kind];
      if (pair) {
        clips = {Vector<double>::Constant(tensor.rows(), pair->low),
                 Vector<double>::Constant(tensor.rows(), pair->high)};
      }
      return round(rounding, p_.quant.of(kind), pair ? &clips : nullptr, tensor);
    }
    const Index rows = tensor.rows();
    const Index cols = tensor.cols();
    tensor.resize(tensor.size() / p_.config.head_width, p_.config.head_width);
    if (kind == SiteKind::queries) tensor = tensor * p_.numbers.query_key;
    if (kind == SiteKind::keys) tensor = tensor * with_dual(p_.numbers.query_key).dual;
    round(rounding, kind == SiteKind::values ? p_.quant.values : p_.quant.queries, nullptr, tensor);
    tensor.resize(rows, cols);
  }

  const Problem& p_;
  PerKind<Rounding> roundings_;
  PerLinear<Rounding> weight_roundings_;
};

// Differences by ω of v = ω/‖ω‖.
void check_direction(const std::function<double()>& loss, Vector<double>& omega,
                     const StepGradient& gradient) {
  check_gradient(loss, omega, of_direction(omega, gradient.vector), 1e-6);
}

TEST_CASE("derivatives of a rounded block by all that is trained, by differences of it frozen") {
  for (const char* shape : {"grouped", "biases", "normed heads", "odd factors", "odd widths"}) {
    INFO(std::string(shape));
    Problem p(shape, "W4A4-Q4K4V4");
    p.quant.activation.clip_ratio = 0.9;
    p.block = BlockGrad<double>(p.config, p.layer, p.fixed, p.quant);
    const BlockGradients g = p.gradients();
    FrozenBlock frozen(p);
    CHECK(frozen.loss() == doctest::Approx(p.loss()).epsilon(1e-11));
    const auto loss = [&] { return frozen.loss(); };
    check_gradient_of_rows(loss, p.x, p.dx, {0, 1, kRows - 1}, 1e-6);
    const auto online = [&](SiteKind kind) -> const TransformGradient& { return g.online[kind]; };
    check_gradient(loss, p.numbers.scale, online(SiteKind::attn_in)[0].vector, 1e-6);
    check_gradient(loss, p.numbers.head_maps, online(SiteKind::attn_out)[0].maps[0], 1e-6);
    check_gradient(loss, p.numbers.left, online(SiteKind::mlp_in)[0].maps[0], 1e-6);
    check_gradient_of_rows(loss, p.numbers.right, online(SiteKind::mlp_in)[0].maps[1], {0, 5},
                           1e-6);
    check_gradient(loss, p.numbers.query_key, g.query_key[0].maps[0], 1e-6);
    check_gradient(loss, p.numbers.values, g.values[0].maps[0], 1e-6);
    for (const SiteKind kind : kLinearSites) {
      INFO(to_string(kind));
      check_direction(loss, p.numbers.directions[kind], online(kind).back());
    }
    for (const Linear linear : kLinears) {
      INFO(to_string(linear));
      check_gradient_of_rows(loss, p.layer[linear].weight, g.weights[linear], {0, 7}, 1e-6);
    }
  }
}

TEST_CASE("derivatives with groups of their own for o_proj's inputs, by differences") {
  Problem p("grouped", "W4A4-Q4K4V4");
  p.quant.activation.rule = GridRule::quarot_activation;  // within groups zero is not held
  p.quant.activation.clip_ratio = 0.9;
  p.quant.attn_out_group_size = p.config.head_width;
  p.block = BlockGrad<double>(p.config, p.layer, p.fixed, p.quant);
  p.activation_clips[SiteKind::attn_out] = ClipPair{0.85, 0.8};
  const BlockGradients g = p.gradients();
  FrozenBlock frozen(p);
  CHECK(frozen.loss() == doctest::Approx(p.loss()).epsilon(1e-11));
  const auto loss = [&] { return frozen.loss(); };
  check_gradient_of_rows(loss, p.x, p.dx, {0, 1, kRows - 1}, 1e-6);
  check_gradient(loss, p.numbers.head_maps, g.online[SiteKind::attn_out][0].maps[0], 1e-6);
  check_gradient(loss, p.numbers.values, g.values[0].maps[0], 1e-6);
  check_direction(loss, p.numbers.directions[SiteKind::attn_out],
                  g.online[SiteKind::attn_out].back());
  for (const Linear linear : {Linear::v_proj, Linear::o_proj}) {
    INFO(to_string(linear));
    check_gradient_of_rows(loss, p.layer[linear].weight, g.weights[linear], {0, 7}, 1e-6);
  }
  ClipPair& clips = *p.activation_clips[SiteKind::attn_out];
  const ClipPair& slope = g.activation_clips[SiteKind::attn_out];
  CHECK(difference(loss, clips.low) == doctest::Approx(slope.low).epsilon(1e-5));
  CHECK(difference(loss, clips.high) == doctest::Approx(slope.high).epsilon(1e-5));
}

TEST_CASE("derivatives by the clip factors of activations and weights, by differences") {
  for (const char* shape : {"grouped", "normed heads", "odd widths"}) {
    INFO(std::string(shape));
    Problem p(shape, "W4A4-Q4K4V4");
    p.quant.weight.symmetric = true;
    p.block = BlockGrad<double>(p.config, p.layer, p.fixed, p.quant);
    for (const SiteKind kind : kLinearSites) p.activation_clips[kind] = ClipPair{0.75, 0.7};
    for (const Linear linear : kLinears) {
      const Index rows = p.config.out_width(linear);
      p.weight_clips[linear] =
          RowClips<double>{0.7 + 0.05 * gaussian(rows, 1, "low").col(0).array(),
                           0.75 + 0.05 * gaussian(rows, 1, "high").col(0).array()};
    }
    const BlockGradients g = p.gradients();
    FrozenBlock frozen(p);
    CHECK(frozen.loss() == doctest::Approx(p.loss()).epsilon(1e-11));
    const auto loss = [&] { return frozen.loss(); };
    for (const SiteKind kind : kLinearSites) {
      INFO(to_string(kind));
      ClipPair& clips = *p.activation_clips[kind];
      const ClipPair& slope = g.activation_clips[kind];
      CHECK(difference(loss, clips.low) == doctest::Approx(slope.low).epsilon(1e-5));
      CHECK(difference(loss, clips.high) == doctest::Approx(slope.high).epsilon(1e-5));
    }
    for (const Linear linear : kLinears) {
      INFO(to_string(linear));
      RowClips<double>& clips = *p.weight_clips[linear];
      check_gradient(loss, clips.low, g.weight_clips[linear].low, 1e-6);
      check_gradient(loss, clips.high, g.weight_clips[linear].high, 1e-6);
    }
  }
}

// The block with its own rounded weights put back from outside.
struct GivenWeights {
  explicit GivenWeights(Problem& problem) : p(problem) {
    p.block.install(p.parameters());
    layer = p.block.weights();
    for (const Linear linear : kLinears) weights[linear] = layer[linear].weight;
  }
  double loss_of_weights() {
    p.block.set_weights(weights);
    return p.block.forward(p.x, kLength).cwiseProduct(p.upstream).sum();
  }
  double loss_of_layer() {
    p.block.set_layer(layer);
    return p.block.forward(p.x, kLength).cwiseProduct(p.upstream).sum();
  }

  Problem& p;
  LayerWeights<double> layer;
  PerLinear<Matrix<double>> weights;
};

TEST_CASE("weights put in force: the same forward, and derivatives by them and the biases") {
  for (const char* shape : {"grouped", "biases"}) {
    INFO(std::string(shape));
    // Inputs stay as they are at 16 bits, so that differences by weights see no jumps.
    Problem p(shape, "W4A16-Q16K16V16");
    const double installed = p.loss();
    GivenWeights given(p);
    CHECK(given.loss_of_weights() == installed);
    for (Matrix<double>& weight : given.weights) weight *= 1.1;  // on no grid
    given.loss_of_weights();
    CHECK(p.block.weights()[Linear::up_proj].weight == given.weights[Linear::up_proj]);
    BlockRecord<double> record;
    p.block.forward(p.x, kLength, &record);
    p.block.backward(record, p.upstream);
    const PerLinear<Vector<double>> biases = p.block.bias_gradients();
    const PerLinear<Matrix<double>> slopes = p.block.take_weight_gradients();
    const auto loss = [&] { return given.loss_of_weights(); };
    for (const Linear linear : kLinears) {
      INFO(to_string(linear));
      check_gradient_of_rows(loss, given.weights[linear], slopes[linear], {0, 7}, 1e-6);
      given.layer[linear].weight = given.weights[linear];
      CHECK(biases[linear].size() == given.layer[linear].bias.size());
    }
    const auto loss_of_layer = [&] { return given.loss_of_layer(); };
    for (const Linear linear : kLinears) {
      if (biases[linear].size() == 0) continue;
      INFO(to_string(linear));
      check_gradient(loss_of_layer, given.layer[linear].bias, biases[linear], 1e-6);
    }
    for (const Matrix<double>& weight : p.block.take_weight_gradients()) CHECK(weight.norm() == 0);
  }
}

TEST_CASE("a weight that does not fit is named") {
  Problem p("grouped", "W4A4-Q4K4V4");
  GivenWeights given(p);
  given.weights[Linear::up_proj].conservativeResize(3, Eigen::NoChange);
  check_error([&] { p.block.set_weights(given.weights); }, {"up_proj", "[3, "});
}

TEST_CASE("gradients do not depend on the number of threads") {
  Problem p("normed heads", "W4A4-Q4K4V4");
  // Longer than the tiles of all products.
  const Matrix<double> x = gaussian(600, p.config.width, "x");
  const Matrix<double> upstream = gaussian(600, p.config.width, "upstream");
  const auto gradients = [&](int count) {
    set_threads(count);
    p.block.install(p.parameters());
    BlockRecord<double> record;
    p.block.forward(x, 300, &record);
    p.dx = p.block.backward(record, upstream);
    set_threads(1);
    return p.block.take_gradients(true);
  };
  const BlockGradients one = gradients(1);
  const Matrix<double> dx = p.dx;
  const BlockGradients three = gradients(3);
  CHECK(p.dx == dx);
  for (const Linear linear : kLinears) {
    CHECK(three.weights[linear] == one.weights[linear]);
  }
  CHECK(three.query_key[0].maps[0] == one.query_key[0].maps[0]);
  for (const SiteKind kind : kLinearSites) {
    CHECK(three.online[kind].back().vector == one.online[kind].back().vector);
  }
}

TEST_CASE("sums grow over windows and are cleared when taken") {
  Problem p("grouped", "W4A4-Q4K4V4");
  const BlockGradients both = p.gradients();
  p.block.install(p.parameters());
  for (Index row = 0; row < kRows; row += kLength) {
    BlockRecord<double> record;
    p.block.forward(p.x.middleRows(row, kLength), kLength, &record);
    const Matrix<double> dx = p.block.backward(record, p.upstream.middleRows(row, kLength));
    CHECK(relative_error(dx, Matrix<double>(p.dx.middleRows(row, kLength))) < 1e-12);
  }
  const BlockGradients one_by_one = p.block.take_gradients(true);
  for (const Linear linear : kLinears) {
    CHECK(relative_error(one_by_one.weights[linear], both.weights[linear]) < 1e-12);
  }
  const BlockGradients empty = p.block.take_gradients(true);
  CHECK(empty.weights[0].norm() == 0);
  CHECK(empty.query_key[0].maps[0].norm() == 0);
}

TEST_CASE("float gradients agree with double") {
  const ModelConfig config = tiny_config("normed heads");
  const Model<double> model = tiny_model(config);
  const QuantSettings quant = quant_settings("W16A16-Q16K16V16");
  const auto fixed = fixed_parts(config);
  const Matrix<double> x = gaussian(kRows, config.width, "x");
  const Matrix<double> upstream = gaussian(kRows, config.width, "upstream");
  BlockGrad<double> wide(config, model.layers[0], fixed, quant);
  BlockGrad<float> narrow(config, as_float(model).layers[0], fixed, quant);
  wide.install(Numbers(config).build());
  narrow.install(Numbers(config).build());
  BlockRecord<double> wide_record;
  BlockRecord<float> narrow_record;
  wide.forward(x, kLength, &wide_record);
  narrow.forward(x.cast<float>(), kLength, &narrow_record);
  const Matrix<double> dx = wide.backward(wide_record, upstream);
  CHECK(relative_error(narrow.backward(narrow_record, upstream.cast<float>()), dx) < 1e-4);
  const BlockGradients a = wide.take_gradients(true);
  const BlockGradients b = narrow.take_gradients(true);
  for (const Linear linear : kLinears) {
    CHECK(relative_error(b.weights[linear], a.weights[linear]) < 1e-4);
  }
}

}  // namespace
}  // namespace ruq::test
