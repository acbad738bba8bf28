#include "ruquant/learn/block_grad.hpp"

#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/ops_grad.hpp"
#include "ruquant/learn/straight_through.hpp"
#include "ruquant/learn/weight_rounding.hpp"

namespace ruq {
namespace {

bool is_linear_site(SiteKind kind) { return !linears_of(kind).empty(); }

// Runs `change` on a tensor [n, heads·e] as rows of one head of one token.
template <class S, class Change>
void per_head(Matrix<S>& tensor, Index head_width, const Change& change) {
  const Index rows = tensor.rows();
  const Index cols = tensor.cols();
  tensor.resize(rows * (cols / head_width), head_width);
  change(tensor);
  tensor.resize(rows, cols);
}

}  // namespace

template <class S>
BlockGrad<S>::BlockGrad(const ModelConfig& config, const LayerWeights<S>& folded,
                        const PerSite<Transform<double>>& fixed, const QuantSettings& quant,
                        Index layer)
    : config_(config), quant_(quant), layer_(layer), fixed_(fixed), weights_(folded) {
  for (const SiteKind kind : kLinearSites) fixed_cast_[at(kind)] = fixed[at(kind)].cast<S>();
  for (const Linear linear : kLinears) {
    base_[at(linear)] = folded[linear].weight.template cast<double>();
    fixed[at(input_site(linear))].apply_dual(base_[at(linear)]);
  }
  value_bias_ = folded[Linear::v_proj].bias.template cast<double>();
  install({});
}

template <class S>
void BlockGrad<S>::install(BlockParameters parameters) {
  parameters_ = std::move(parameters);
  RUQ_CHECK(parameters_.values.is_identity() || fixed_[at(SiteKind::attn_out)].is_identity(),
            "a trained map of the values needs an identity as fixed transform at attn_out");
  for (const SiteKind kind : kLinearSites) {
    online_[at(kind)] = parameters_.online[at(kind)].template cast<S>();
  }
  query_ = parameters_.query_key.template cast<S>();
  for (const Linear linear : kLinears) {
    Matrix<S> weight = trained_weight(linear).template cast<S>();
    RowClips<S> storage;
    round_weight_rows(weight, quant_.weight, clips_of(linear, storage));
    weights_[linear].weight = std::move(weight);
  }
  if (value_bias_.size() > 0) {
    Matrix<double> bias = value_bias_.transpose();
    per_head(bias, config_.head_width,
             [&](Matrix<double>& rows) { parameters_.values.apply(rows); });
    weights_[Linear::v_proj].bias = bias.row(0).transpose().template cast<S>();
  }
  clear_sums();
}

template <class S>
void BlockGrad<S>::clear_sums() {
  sums_ = {};
  for (const SiteKind kind : kLinearSites) {
    sums_.online[at(kind)] = zero_gradient(parameters_.online[at(kind)]);
    sums_.activation_clips[at(kind)] = {0, 0};
  }
  sums_.query_key = zero_gradient(parameters_.query_key);
  sums_.values = zero_gradient(parameters_.values);
  for (const Linear linear : kLinears) {
    const Matrix<S>& weight = weights_[linear].weight;
    rounded_sums_[at(linear)].setZero(weight.rows(), weight.cols());
  }
  value_bias_sum_.setZero(value_bias_.size());
}

// The weight as it is before it is rounded, with all transforms in it.
template <class S>
Matrix<double> BlockGrad<S>::trained_weight(Linear linear) const {
  Matrix<double> weight = online_weight(linear);
  if (linear == Linear::v_proj) map_value_outputs(weight);
  return weight;
}

// Its rows are the channels of all heads of the values.
template <class S>
void BlockGrad<S>::map_value_outputs(Matrix<double>& weight) const {
  if (parameters_.values.is_identity()) return;
  Matrix<double> columns = weight.transpose();
  per_head(columns, config_.head_width,
           [&](Matrix<double>& rows) { parameters_.values.apply(rows); });
  weight = columns.transpose();
}

// The weight with the transforms of its inputs.
template <class S>
Matrix<double> BlockGrad<S>::online_weight(Linear linear) const {
  Matrix<double> weight = base_[at(linear)];
  if (linear == Linear::o_proj) {
    per_head(weight, config_.head_width,
             [&](Matrix<double>& rows) { parameters_.values.apply_dual(rows); });
  }
  parameters_.online[at(input_site(linear))].apply_dual(weight);
  return weight;
}

template <class S>
const RowClips<S>* BlockGrad<S>::clips_of(Linear linear, RowClips<S>& storage) const {
  const auto& clips = parameters_.weight_clips[at(linear)];
  if (!clips) return nullptr;
  storage = {clips->low.template cast<S>(), clips->high.template cast<S>()};
  return &storage;
}

template <class S>
const RowClips<S>* BlockGrad<S>::clips_of(SiteKind kind, Index rows, RowClips<S>& storage) const {
  const auto& clips = parameters_.activation_clips[at(kind)];
  if (!clips) return nullptr;
  storage = {Vector<S>::Constant(rows, static_cast<S>(clips->low)),
             Vector<S>::Constant(rows, static_cast<S>(clips->high))};
  return &storage;
}

template <class S>
void BlockGrad<S>::apply_hook(SiteKind kind, Matrix<S>& tensor) const {
  if (is_linear_site(kind)) {
    fixed_cast_[at(kind)].apply(tensor);
    online_[at(kind)].apply(tensor);
    RowClips<S> storage;
    round_rows(tensor, quant_.activation, clips_of(kind, tensor.rows(), storage));
    return;
  }
  per_head(tensor, config_.head_width, [&](Matrix<S>& rows) {
    switch (kind) {
      case SiteKind::queries:
        query_.apply(rows);
        return round_rows(rows, quant_.queries);
      case SiteKind::keys:
        query_.inverse_transpose().apply(rows);
        return round_rows(rows, quant_.keys);
      default:
        return round_rows(rows, quant_.values);
    }
  });
}

template <class S>
Matrix<S> BlockGrad<S>::forward(Matrix<S> x, Index length, BlockRecord<S>* record) const {
  const SiteHook<S> hook = [&](const Site& site, Matrix<S>& tensor) {
    if (record != nullptr) record->before[at(site.kind)] = tensor;
    apply_hook(site.kind, tensor);
    if (record != nullptr) record->after[at(site.kind)] = tensor;
  };
  if (record != nullptr) {
    record->length = length;
    record->input = x;
  }
  block_forward(config_, weights_, layer_, length, hook, x);
  return x;
}

// `before` is the tensor that the hook was given; `gradient` goes in after it and comes out before.
template <class S>
void BlockGrad<S>::site_backward(SiteKind kind, const Matrix<S>& before, Matrix<S>& gradient) {
  Matrix<S> moved = before;
  fixed_cast_[at(kind)].apply(moved);
  Matrix<S> rounded_input = moved;
  online_[at(kind)].apply(rounded_input);
  RowClips<S> storage;
  const RowClips<S>* clips = clips_of(kind, moved.rows(), storage);
  RowClips<S> slope{Vector<S>::Zero(moved.rows()), Vector<S>::Zero(moved.rows())};
  round_rows_backward(rounded_input, quant_.activation, gradient, clips, &slope);
  sums_.activation_clips[at(kind)].low += slope.low.template cast<double>().sum();
  sums_.activation_clips[at(kind)].high += slope.high.template cast<double>().sum();
  transform_backward(online_[at(kind)], std::move(moved), gradient, sums_.online[at(kind)]);
  fixed_cast_[at(kind)].apply_transpose(gradient);
}

template <class S>
void BlockGrad<S>::head_backward(SiteKind kind, const Matrix<S>& before, Matrix<S>& gradient) {
  const QuantSpec& spec = kind == SiteKind::queries ? quant_.queries
                          : kind == SiteKind::keys  ? quant_.keys
                                                    : quant_.values;
  const Index e = config_.head_width;
  Matrix<S> rows = before;
  rows.resize(before.size() / e, e);
  per_head(gradient, e, [&](Matrix<S>& g) {
    if (kind == SiteKind::values) return round_rows_backward(rows, spec, g);
    Matrix<S> moved = rows;
    (kind == SiteKind::keys ? query_.inverse_transpose() : query_).apply(moved);
    round_rows_backward(moved, spec, g);
    if (kind == SiteKind::keys) {
      dual_backward(query_, std::move(rows), g, sums_.query_key);
    } else {
      transform_backward(query_, std::move(rows), g, sums_.query_key);
    }
  });
}

template <class S>
Matrix<S> BlockGrad<S>::linear(Linear which, const Matrix<S>& x) const {
  Matrix<S> y = product_transposed<S>(x, weights_[which].weight);
  if (weights_[which].bias.size() > 0) y.rowwise() += weights_[which].bias.transpose();
  return y;
}

template <class S>
Matrix<S> BlockGrad<S>::linear_backward(Linear which, const Matrix<S>& x,
                                        const Matrix<S>& gradient) {
  const Matrix<S> turned = gradient.transpose();
  rounded_sums_[at(which)] += product<S>(turned, x);
  return product<S>(gradient, weights_[which].weight);
}

// Returns the gradient of the stream between attention and MLP.
template <class S>
Matrix<S> BlockGrad<S>::mlp_backward(const BlockRecord<S>& record, const Matrix<S>& gradient) {
  const Matrix<S>& u = record.after[at(SiteKind::mlp_in)];
  Matrix<S> hidden =
      linear_backward(Linear::down_proj, record.after[at(SiteKind::mlp_out)], gradient);
  site_backward(SiteKind::mlp_out, record.before[at(SiteKind::mlp_out)], hidden);
  const GateGradients<S> branches =
      gate_backward(linear(Linear::gate_proj, u), linear(Linear::up_proj, u), hidden);
  Matrix<S> normed = linear_backward(Linear::gate_proj, u, branches.gates);
  normed += linear_backward(Linear::up_proj, u, branches.up);
  site_backward(SiteKind::mlp_in, record.before[at(SiteKind::mlp_in)], normed);

  const Matrix<S> stream =
      record.input + linear(Linear::o_proj, record.after[at(SiteKind::attn_out)]);
  return gradient + rms_norm_backward(stream, weights_.mlp_norm, config_.norm_epsilon, normed);
}

// From queries, keys and values after RoPE to the normed stream after its hook.
template <class S>
Matrix<S> BlockGrad<S>::projections_backward(const BlockRecord<S>& record, const Matrix<S>& dq,
                                             const Matrix<S>& dk, const Matrix<S>& dv) {
  const Matrix<S>& u = record.after[at(SiteKind::attn_in)];
  const RopeTable<S> table = rope_table<S>(config_, record.length);
  const auto turned_back = [&](Linear which, const Vector<S>& gain, const Matrix<S>& gradient) {
    const Matrix<S> projected = gain.size() > 0 ? linear(which, u) : Matrix<S>();
    return norm_and_rotate_backward(table, gain, config_.norm_epsilon, projected, gradient);
  };
  Matrix<S> normed =
      linear_backward(Linear::q_proj, u, turned_back(Linear::q_proj, weights_.q_norm, dq));
  normed += linear_backward(Linear::k_proj, u, turned_back(Linear::k_proj, weights_.k_norm, dk));
  normed += linear_backward(Linear::v_proj, u, dv);
  if (value_bias_.size() > 0) {
    value_bias_sum_ += dv.colwise().sum().transpose().template cast<double>();
  }
  return normed;
}

template <class S>
Matrix<S> BlockGrad<S>::attention_part_backward(const BlockRecord<S>& record,
                                                const Matrix<S>& gradient) {
  Matrix<S> mixed = linear_backward(Linear::o_proj, record.after[at(SiteKind::attn_out)], gradient);
  site_backward(SiteKind::attn_out, record.before[at(SiteKind::attn_out)], mixed);
  AttentionGradients<S> heads = attention_backward(
      config_, record.length, record.after[at(SiteKind::queries)], record.after[at(SiteKind::keys)],
      record.after[at(SiteKind::values)], mixed);
  head_backward(SiteKind::queries, record.before[at(SiteKind::queries)], heads.queries);
  head_backward(SiteKind::keys, record.before[at(SiteKind::keys)], heads.keys);
  head_backward(SiteKind::values, record.before[at(SiteKind::values)], heads.values);
  Matrix<S> normed = projections_backward(record, heads.queries, heads.keys, heads.values);
  site_backward(SiteKind::attn_in, record.before[at(SiteKind::attn_in)], normed);
  return gradient +
         rms_norm_backward(record.input, weights_.attn_norm, config_.norm_epsilon, normed);
}

template <class S>
Matrix<S> BlockGrad<S>::backward(const BlockRecord<S>& record, const Matrix<S>& gradient) {
  RUQ_CHECK(gradient.rows() == record.input.rows() && gradient.cols() == record.input.cols(),
            "a gradient of [{}, {}] for a block output of [{}, {}]", gradient.rows(),
            gradient.cols(), record.input.rows(), record.input.cols());
  return attention_part_backward(record, mlp_backward(record, gradient));
}

// From the rounded weight back to the parameters of its transforms, and to the weight itself.
template <class S>
void BlockGrad<S>::weight_backward(Linear linear, BlockGradients& sums, bool with_weights) {
  const SiteKind site = input_site(linear);
  Matrix<S>& rounded = rounded_sums_[at(linear)];
  RowClips<S> storage;
  const RowClips<S>* clips = clips_of(linear, storage);
  RowClips<S> slope{Vector<S>::Zero(rounded.rows()), Vector<S>::Zero(rounded.rows())};
  round_weight_rows_backward<S>(trained_weight(linear).template cast<S>(), quant_.weight, rounded,
                                clips, &slope);
  if (clips != nullptr) {
    sums.weight_clips[at(linear)] = {slope.low.template cast<double>(),
                                     slope.high.template cast<double>()};
  }
  Matrix<double> gradient = rounded.template cast<double>();
  const Index e = config_.head_width;
  if (linear == Linear::v_proj && !parameters_.values.is_identity()) {
    Matrix<double> channels = online_weight(linear).transpose();
    channels.resize(channels.size() / e, e);
    Matrix<double> turned = gradient.transpose();
    per_head(turned, e, [&](Matrix<double>& g) {
      transform_backward(parameters_.values, std::move(channels), g, sums.values);
    });
    gradient = turned.transpose();
  }
  const bool has_values = linear == Linear::o_proj && !parameters_.values.is_identity();
  Matrix<double> weight = base_[at(linear)];
  if (has_values) {
    per_head(weight, e, [&](Matrix<double>& rows) { parameters_.values.apply_dual(rows); });
  }
  dual_backward(parameters_.online[at(site)], std::move(weight), gradient, sums.online[at(site)]);
  if (has_values) {
    Matrix<double> rows = base_[at(linear)];
    rows.resize(rows.size() / e, e);
    per_head(gradient, e, [&](Matrix<double>& g) {
      dual_backward(parameters_.values, std::move(rows), g, sums.values);
    });
  }
  if (!with_weights) return;
  fixed_[at(site)].inverse_transpose().apply_transpose(gradient);
  sums.weights[at(linear)] = std::move(gradient);
}

template <class S>
void BlockGrad<S>::value_bias_backward(BlockGradients& sums) {
  if (value_bias_.size() == 0 || parameters_.values.is_identity()) return;
  const Index e = config_.head_width;
  Matrix<double> rows = value_bias_.transpose();
  rows.resize(rows.size() / e, e);
  Matrix<double> gradient = value_bias_sum_.transpose();
  gradient.resize(gradient.size() / e, e);
  transform_backward(parameters_.values, std::move(rows), gradient, sums.values);
}

template <class S>
BlockGradients BlockGrad<S>::take_gradients(bool with_weights) {
  BlockGradients result = std::move(sums_);
  for (const Linear linear : kLinears) weight_backward(linear, result, with_weights);
  value_bias_backward(result);
  clear_sums();
  return result;
}

template class BlockGrad<float>;
template class BlockGrad<double>;

}  // namespace ruq
