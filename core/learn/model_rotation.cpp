#include "ruquant/learn/model_rotation.hpp"

#include <array>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/ops_grad.hpp"
#include "ruquant/learn/straight_through.hpp"
#include "ruquant/learn/tiled_product.hpp"

namespace ruq {
namespace {

constexpr std::array kReaders = {Linear::q_proj, Linear::k_proj, Linear::v_proj, Linear::gate_proj,
                                 Linear::up_proj};
constexpr std::array kWriters = {Linear::o_proj, Linear::down_proj};

std::size_t at(Index layer) { return static_cast<std::size_t>(layer); }

// The norm's gain moves into what reads it, R4 into down_proj.
template <class S>
LayerWeights<S> source_layer(const LayerWeights<S>& original, const Transform<double>& hidden) {
  LayerWeights<S> layer = original;
  for (const Linear linear : kReaders) {
    const auto& gain =
        input_site(linear) == SiteKind::attn_in ? original.attn_norm : original.mlp_norm;
    layer[linear].weight.array().rowwise() *= gain.transpose().array();
  }
  layer.attn_norm.setOnes();
  layer.mlp_norm.setOnes();
  Matrix<double> down = layer[Linear::down_proj].weight.template cast<double>();
  hidden.apply_dual(down);
  layer[Linear::down_proj].weight = down.template cast<S>();
  return layer;
}

template <class S>
BlockGrad<S> block_of(const Model<S>& model,
                      const typename ModelRotationObjective<S>::Setup& setup) {
  PerSite<Transform<double>> fixed;
  fixed[SiteKind::mlp_out] = setup.hidden;
  QuantSettings quant = setup.quant;
  quant.weight.bits = 16;  // weights come rounded
  BlockGrad<S> block(model.config, model.layers.at(0), fixed, quant);
  BlockParameters parameters;
  parameters.query_key = setup.query_key;
  block.install(std::move(parameters));
  return block;
}

// R2ᵀ·W for the rows of every head.
template <class S>
Matrix<S> map_outputs(const Matrix<S>& weight, const Matrix<S>& map) {
  Matrix<S> result(weight.rows(), weight.cols());
  const Index e = map.rows();
  for (Index row = 0; row < weight.rows(); row += e) {
    result.middleRows(row, e).noalias() = map.transpose() * weight.middleRows(row, e);
  }
  return result;
}

// W·R2 for the columns of every head: rows of one head each.
template <class S>
Matrix<S> map_inputs(Matrix<S> weight, const Matrix<S>& map) {
  const Index rows = weight.rows();
  const Index cols = weight.cols();
  weight.resize(weight.size() / map.rows(), map.rows());
  weight = product<S>(weight, map);
  weight.resize(rows, cols);
  return weight;
}

template <class S>
Vector<S> map_bias(const Vector<S>& bias, const Matrix<S>& map) {
  const Matrix<S> rows = bias.reshaped(map.rows(), bias.size() / map.rows()).transpose();
  return (rows * map).eval().template reshaped<Eigen::RowMajor>();
}

}  // namespace

template <class S>
ModelRotationObjective<S>::ModelRotationObjective(const Model<S>& model, const Setup& setup)
    : model_(model), quant_(setup.quant), block_(block_of<S>(model, setup)) {
  const Index layers = model.config.layers;
  source_.resize(at(layers));
  folded_.resize(at(layers));
  if (quant_.weight.rounds()) unrounded_.resize(at(layers));
  parallel_for(layers,
               [&](Index l) { source_[at(l)] = source_layer(model.layers[at(l)], setup.hidden); });
}

template <class S>
void ModelRotationObjective<S>::check(const ModelRotations& rotations) const {
  const ModelConfig& config = model_.config;
  RUQ_CHECK(std::ssize(rotations.values) == config.layers, "{} value rotations for {} layers",
            rotations.values.size(), config.layers);
  const auto check_square = [](const Matrix<double>& map, Index width, const char* name) {
    RUQ_CHECK(map.rows() == width && map.cols() == width, "{}: [{}, {}] for a width of {}", name,
              map.rows(), map.cols(), width);
  };
  check_square(rotations.residual, config.width, "R1");
  for (const auto& map : rotations.values) check_square(map, config.head_width, "R2");
}

template <class S>
void ModelRotationObjective<S>::fold(const Cast& rotations, Index layer) {
  const Matrix<S>& r1 = rotations.residual;
  const Matrix<S>& r2 = rotations.values[at(layer)];
  LayerWeights<S> weights = source_[at(layer)];
  LinearWeights<S>& values = weights[Linear::v_proj];
  values.weight = map_outputs(values.weight, r2);
  if (values.bias.size() > 0) values.bias = map_bias(values.bias, r2);
  weights[Linear::o_proj].weight = map_inputs(std::move(weights[Linear::o_proj].weight), r2);
  for (const Linear linear : kReaders) {
    weights[linear].weight = product<S>(weights[linear].weight, r1);
  }
  const Matrix<S> back = turned<S>(r1);
  for (const Linear linear : kWriters) {
    weights[linear].weight = product<S>(back, weights[linear].weight);
    if (weights[linear].bias.size() > 0) weights[linear].bias = back * weights[linear].bias;
  }
  if (quant_.weight.rounds()) {
    for (const Linear linear : kLinears) {
      unrounded_[at(layer)][linear] = weights[linear].weight;
      round_rows(weights[linear].weight, quant_.weight);
    }
  }
  folded_[at(layer)] = std::move(weights);
}

// The loss of the stream after the last block, which becomes ∂L/∂ of itself where `gradient` is
// asked for. The final gain and R1ᵀ act on the states, so that the head itself is never rotated.
template <class S>
double ModelRotationObjective<S>::head_loss(const Cast& rotations, const TokenWindows& tokens,
                                            Matrix<S>& stream, ModelRotations* gradient) const {
  const double epsilon = model_.config.norm_epsilon;
  const Vector<S> ones = Vector<S>::Ones(stream.cols());
  const auto gain = model_.final_norm.transpose().array();
  const Matrix<S> normed = rms_norm(stream, ones, epsilon);
  Matrix<S> states = product_transposed<S>(normed, rotations.residual);
  states.array().rowwise() *= gain;
  Matrix<S> slope;
  const double loss =
      cross_entropy(states, model_.head_weight(), tokens, gradient == nullptr ? nullptr : &slope);
  if (gradient == nullptr) return loss;
  slope.array().rowwise() *= gain;
  Matrix<S> by_rotation;
  add_transposed_product(slope, normed, by_rotation);
  gradient->residual += by_rotation.template cast<double>();
  stream = rms_norm_backward(stream, ones, epsilon, tiled_product(slope, rotations.residual));
  return loss;
}

template <class S>
void ModelRotationObjective<S>::collect(const Cast& rotations, Index layer, BlockGrad<S>& block,
                                        ModelRotations& gradient) const {
  const PerLinear<Vector<double>> biases = block.bias_gradients();
  PerLinear<Matrix<S>> slopes = block.take_weight_gradients();
  if (quant_.weight.rounds()) {
    for (const Linear linear : kLinears) {
      round_rows_backward(unrounded_[at(layer)][linear], quant_.weight, slopes[linear]);
    }
  }
  const LayerWeights<S>& source = source_[at(layer)];
  const Matrix<S>& r2 = rotations.values[at(layer)];
  const auto before_r1 = [&](Linear linear) -> Matrix<S> {
    const Matrix<S>& weight = source[linear].weight;
    if (linear == Linear::v_proj) return map_outputs(weight, r2);
    return linear == Linear::o_proj ? map_inputs(weight, r2) : weight;
  };
  Matrix<S> sum;
  for (const Linear linear : kReaders) {
    add_transposed_product(before_r1(linear), slopes[linear], sum);
  }
  for (const Linear linear : kWriters) {
    sum += product_transposed<S>(before_r1(linear), slopes[linear]);
    const Vector<S>& bias = source[linear].bias;
    if (bias.size() == 0) continue;
    gradient.residual += bias.template cast<double>() * biases[linear].transpose();
  }
  gradient.residual += sum.template cast<double>();
  collect_values(rotations, layer, slopes, biases[Linear::v_proj], gradient.values[at(layer)]);
}

// ∂L/∂R2, from the slopes of the weights with R1 in them.
template <class S>
void ModelRotationObjective<S>::collect_values(const Cast& rotations, Index layer,
                                               const PerLinear<Matrix<S>>& slopes,
                                               const Vector<double>& bias_slope,
                                               Matrix<double>& gradient) const {
  const LayerWeights<S>& source = source_[at(layer)];
  const Index e = model_.config.head_width;
  const Matrix<S> outputs = product_transposed<S>(slopes[Linear::v_proj], rotations.residual);
  const LinearWeights<S>& values = source[Linear::v_proj];
  for (Index row = 0; row < outputs.rows(); row += e) {
    const Matrix<S> part =
        values.weight.middleRows(row, e) * outputs.middleRows(row, e).transpose();
    gradient += part.template cast<double>();
    if (values.bias.size() == 0) continue;
    gradient += values.bias.segment(row, e).template cast<double>() *
                bias_slope.segment(row, e).transpose();
  }
  Matrix<S> inputs = product<S>(rotations.residual, slopes[Linear::o_proj]);
  Matrix<S> heads = source[Linear::o_proj].weight;
  inputs.resize(inputs.size() / e, e);
  heads.resize(heads.size() / e, e);
  Matrix<S> sum;
  add_transposed_product(heads, inputs, sum);
  gradient += sum.template cast<double>();
}

template <class S>
double ModelRotationObjective<S>::evaluate(const ModelRotations& rotations,
                                           const TokenWindows& tokens, ModelRotations* gradient) {
  check(rotations);
  const ModelConfig& config = model_.config;
  Cast cast{rotations.residual.template cast<S>(), {}};
  for (const auto& map : rotations.values) cast.values.push_back(map.template cast<S>());
  parallel_for(config.layers, [&](Index l) { fold(cast, l); });
  const auto install = [&](Index l, BlockGrad<S>& block) { block.set_layer(folded_[at(l)]); };

  ModelGrad<S> chain(config.layers);
  const Matrix<S> embedded = embed<S>(model_, tokens.ids);
  Matrix<S> stream =
      chain.forward(block_, product<S>(embedded, cast.residual), tokens.length, install);
  if (gradient == nullptr) return head_loss(cast, tokens, stream, nullptr);
  gradient->residual.setZero(config.width, config.width);
  gradient->values.assign(at(config.layers),
                          Matrix<double>::Zero(config.head_width, config.head_width));
  const double loss = head_loss(cast, tokens, stream, gradient);
  stream =
      chain.backward(block_, std::move(stream), tokens.length, install,
                     [&](Index l, BlockGrad<S>& block) { collect(cast, l, block, *gradient); });
  Matrix<S> by_rotation;
  add_transposed_product(embedded, stream, by_rotation);
  gradient->residual += by_rotation.template cast<double>();
  return loss;
}

template class ModelRotationObjective<float>;
template class ModelRotationObjective<double>;

}  // namespace ruq
