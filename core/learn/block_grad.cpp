#include "ruquant/learn/block_grad.hpp"

#include <algorithm>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/ops_grad.hpp"
#include "ruquant/learn/straight_through.hpp"
#include "ruquant/learn/tiled_product.hpp"
#include "ruquant/learn/weight_rounding.hpp"

namespace ruq {
namespace {

// Runs `change` on a tensor [n, heads·e] as rows of one head of one token.
template <class S, class Change>
void per_head(Matrix<S>& tensor, Index head_width, const Change& change) {
  const Index rows = tensor.rows();
  const Index cols = tensor.cols();
  tensor.resize(rows * (cols / head_width), head_width);
  change(tensor);
  tensor.resize(rows, cols);
}

// `map` acts on every head of the outputs of a weight [kv_heads·e, in], its rows.
template <class S>
void outputs_backward(const Transform<S>& map, Index head_width, const Matrix<S>& weight,
                      Matrix<S>& gradient, TransformGradient& sum) {
  Matrix<S> channels = weight.transpose();
  channels.resize(channels.size() / head_width, head_width);
  Matrix<S> by_channels = gradient.transpose();
  per_head(by_channels, head_width,
           [&](Matrix<S>& g) { transform_backward(map, std::move(channels), g, sum); });
  gradient = by_channels.transpose();
}

}  // namespace

template <class S>
BlockGrad<S>::BlockGrad(const ModelConfig& config, const LayerWeights<S>& folded,
                        const PerSite<Transform<double>>& fixed, const QuantSettings& quant,
                        Index layer)
    : config_(config), quant_(quant), layer_(layer), fixed_(fixed), weights_(folded) {
  for (const SiteKind kind : kLinearSites) {
    fixed_cast_[kind] = fixed[kind].cast<S>();
    fixed_dual_[kind] = fixed_cast_[kind].inverse_transpose();
  }
  for (const Linear linear : kLinears) {
    base_[linear] = folded[linear].weight.template cast<double>();
    fixed[input_site(linear)].apply_dual(base_[linear]);
  }
  value_bias_ = folded[Linear::v_proj].bias.template cast<double>();
  install({});
}

template <class S>
void BlockGrad<S>::install(BlockParameters parameters) {
  parameters_ = std::move(parameters);
  RUQ_CHECK(parameters_.values.is_identity() || fixed_[SiteKind::attn_out].is_identity(),
            "a trained map of the values needs an identity as fixed transform at attn_out");
  for (const SiteKind kind : kLinearSites) {
    online_[kind] = parameters_.online[kind].template cast<S>();
  }
  query_ = parameters_.query_key.template cast<S>();
  values_ = parameters_.values.template cast<S>();
  for (const Linear linear : kLinears) {
    const Matrix<double>& base = base_[linear];
    weights_[linear].weight.resize(base.rows(), base.cols());
    unrounded_[linear].resize(base.rows(), base.cols());
  }
  const std::vector<WeightTile> tiles = weight_tiles();
  parallel_for(std::ssize(tiles),
               [&](Index i) { install_tile(tiles[static_cast<std::size_t>(i)]); });
  install_value_bias();
  clear_sums();
}

template <class S>
void BlockGrad<S>::set_weights(PerLinear<Matrix<S>> weights) {
  for (const Linear linear : kLinears) {
    const Matrix<S>& old = weights_[linear].weight;
    Matrix<S>& next = weights[linear];
    RUQ_CHECK(next.rows() == old.rows() && next.cols() == old.cols(),
              "{}: found a weight of [{}, {}], expected [{}, {}]", to_string(linear), next.rows(),
              next.cols(), old.rows(), old.cols());
    weights_[linear].weight = std::move(next);
  }
  clear_sums();
}

template <class S>
void BlockGrad<S>::set_layer(LayerWeights<S> weights) {
  weights_ = std::move(weights);
  clear_sums();
}

template <class S>
void BlockGrad<S>::clear_sums() {
  sums_ = {};
  for (const SiteKind kind : kLinearSites) {
    sums_.online[kind] = zero_gradient(parameters_.online[kind]);
    sums_.activation_clips[kind] = {0, 0};
  }
  sums_.query_key = zero_gradient(parameters_.query_key);
  sums_.values = zero_gradient(parameters_.values);
  for (const Linear linear : kLinears) {
    rounded_sums_[linear].resize(0, 0);
    bias_sums_[linear].setZero(weights_[linear].bias.size());
  }
}

template <class S>
bool BlockGrad<S>::maps_outputs(Linear linear) const {
  return linear == Linear::v_proj && !parameters_.values.is_identity();
}

template <class S>
void BlockGrad<S>::install_value_bias() {
  if (value_bias_.size() == 0) return;
  Matrix<double> bias = value_bias_.transpose();
  per_head(bias, config_.head_width,
           [&](Matrix<double>& heads) { parameters_.values.apply(heads); });
  weights_[Linear::v_proj].bias = bias.row(0).transpose().template cast<S>();
}

// Rows of weights are transformed and rounded each on its own, in tiles of all linears at once. A
// map of the outputs mixes rows: such a weight is one tile.
template <class S>
auto BlockGrad<S>::weight_tiles() const -> std::vector<WeightTile> {
  std::vector<WeightTile> tiles;
  for (const Linear linear : kLinears) {
    const Index rows = base_[linear].rows();
    const Index tile = maps_outputs(linear) ? rows : kRowTile;
    for (Index begin = 0; begin < rows; begin += tile) {
      tiles.push_back({linear, begin, std::min(rows, begin + tile)});
    }
  }
  return tiles;
}

template <class S>
void BlockGrad<S>::install_tile(const WeightTile& tile) {
  const Index rows = tile.end - tile.begin;
  Matrix<double> base = base_[tile.linear].middleRows(tile.begin, rows);
  if (tile.linear == Linear::o_proj) {
    per_head(base, config_.head_width,
             [&](Matrix<double>& heads) { parameters_.values.apply_dual(heads); });
  }
  parameters_.online[input_site(tile.linear)].apply_dual(base);
  if (maps_outputs(tile.linear)) {
    Matrix<double> channels = base.transpose();
    per_head(channels, config_.head_width,
             [&](Matrix<double>& heads) { parameters_.values.apply(heads); });
    base = channels.transpose();
  }
  Matrix<S> weight = base.template cast<S>();
  unrounded_[tile.linear].middleRows(tile.begin, rows) = weight;
  RowClips<S> storage;
  round_weight_rows(weight, quant_.weight, clips_of(tile, storage));
  weights_[tile.linear].weight.middleRows(tile.begin, rows) = weight;
}

template <class S>
const RowClips<S>* BlockGrad<S>::clips_of(const WeightTile& tile, RowClips<S>& storage) const {
  const auto& clips = parameters_.weight_clips[tile.linear];
  if (!clips) return nullptr;
  const Index rows = tile.end - tile.begin;
  storage = {clips->low.segment(tile.begin, rows).template cast<S>(),
             clips->high.segment(tile.begin, rows).template cast<S>()};
  return &storage;
}

template <class S>
const RowClips<S>* BlockGrad<S>::clips_of(SiteKind kind, Index rows, RowClips<S>& storage) const {
  const auto& clips = parameters_.activation_clips[kind];
  if (!clips) return nullptr;
  storage = {Vector<S>::Constant(rows, static_cast<S>(clips->low)),
             Vector<S>::Constant(rows, static_cast<S>(clips->high))};
  return &storage;
}

template <class S>
void BlockGrad<S>::apply_hook(SiteKind kind, Matrix<S>& tensor, BlockRecord<S>* record) const {
  if (is_linear_site(kind)) fixed_cast_[kind].apply(tensor);
  if (record != nullptr) record->before[kind] = tensor;
  if (is_linear_site(kind)) {
    online_[kind].apply(tensor);
    RowClips<S> storage;
    round_rows(tensor, quant_.of(kind), clips_of(kind, tensor.rows(), storage));
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
    apply_hook(site.kind, tensor, record);
    if (record != nullptr) record->after[site.kind] = tensor;
  };
  if (record != nullptr) {
    record->length = length;
    record->input = x;
  }
  block_forward(config_, weights_, layer_, length, hook, x,
                record != nullptr ? &record->between : nullptr);
  return x;
}

// `before` is the tensor behind the fixed transform; `gradient` goes in after the hook and comes
// out before it.
template <class S>
void BlockGrad<S>::site_backward(SiteKind kind, const Matrix<S>& before, Matrix<S>& gradient) {
  Matrix<S> rounded_input = before;
  online_[kind].apply(rounded_input);
  RowClips<S> storage;
  const RowClips<S>* clips = clips_of(kind, before.rows(), storage);
  RowClips<S> slope{Vector<S>::Zero(before.rows()), Vector<S>::Zero(before.rows())};
  round_rows_backward(rounded_input, quant_.of(kind), gradient, clips, &slope);
  sums_.activation_clips[kind].low += slope.low.template cast<double>().sum();
  sums_.activation_clips[kind].high += slope.high.template cast<double>().sum();
  transform_backward(online_[kind], before, gradient, sums_.online[kind]);
  fixed_cast_[kind].apply_transpose(gradient);
}

template <class S>
void BlockGrad<S>::head_backward(SiteKind kind, const Matrix<S>& before, Matrix<S>& gradient) {
  const QuantSpec spec = quant_.of(kind);
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
Matrix<S> BlockGrad<S>::linear_backward(Linear which, const Matrix<S>& x,
                                        const Matrix<S>& gradient) {
  if (weights_[which].bias.size() > 0) {
    bias_sums_[which] += gradient.colwise().sum().transpose().template cast<double>();
  }
  add_transposed_product(gradient, x, rounded_sums_[which]);
  return tiled_product(gradient, weights_[which].weight);
}

// Returns the gradient of the stream between attention and MLP.
template <class S>
Matrix<S> BlockGrad<S>::mlp_backward(const BlockRecord<S>& record, const Matrix<S>& gradient) {
  const Matrix<S>& u = record.after[SiteKind::mlp_in];
  Matrix<S> hidden = linear_backward(Linear::down_proj, record.after[SiteKind::mlp_out], gradient);
  site_backward(SiteKind::mlp_out, record.before[SiteKind::mlp_out], hidden);
  const GateGradients<S> branches = gate_backward(record.between.gates, record.between.up, hidden);
  Matrix<S> normed = linear_backward(Linear::gate_proj, u, branches.gates);
  normed += linear_backward(Linear::up_proj, u, branches.up);
  site_backward(SiteKind::mlp_in, record.before[SiteKind::mlp_in], normed);

  return gradient +
         rms_norm_backward(record.between.stream, weights_.mlp_norm, config_.norm_epsilon, normed);
}

// From queries, keys and values after RoPE to the normed stream after its hook.
template <class S>
Matrix<S> BlockGrad<S>::projections_backward(const BlockRecord<S>& record, const Matrix<S>& dq,
                                             const Matrix<S>& dk, const Matrix<S>& dv) {
  const Matrix<S>& u = record.after[SiteKind::attn_in];
  const RopeTable<S> table = rope_table<S>(config_, record.length);
  const auto turned_back = [&](const Vector<S>& gain, const Matrix<S>& projected,
                               const Matrix<S>& gradient) {
    return norm_and_rotate_backward(table, gain, config_.norm_epsilon, projected, gradient);
  };
  Matrix<S> normed =
      linear_backward(Linear::q_proj, u, turned_back(weights_.q_norm, record.between.queries, dq));
  normed +=
      linear_backward(Linear::k_proj, u, turned_back(weights_.k_norm, record.between.keys, dk));
  normed += linear_backward(Linear::v_proj, u, dv);
  return normed;
}

template <class S>
Matrix<S> BlockGrad<S>::attention_part_backward(const BlockRecord<S>& record,
                                                const Matrix<S>& gradient) {
  Matrix<S> mixed = linear_backward(Linear::o_proj, record.after[SiteKind::attn_out], gradient);
  site_backward(SiteKind::attn_out, record.before[SiteKind::attn_out], mixed);
  AttentionGradients<S> heads =
      attention_backward(config_, record.length, record.after[SiteKind::queries],
                         record.after[SiteKind::keys], record.after[SiteKind::values], mixed);
  head_backward(SiteKind::queries, record.before[SiteKind::queries], heads.queries);
  head_backward(SiteKind::keys, record.before[SiteKind::keys], heads.keys);
  head_backward(SiteKind::values, record.before[SiteKind::values], heads.values);
  Matrix<S> normed = projections_backward(record, heads.queries, heads.keys, heads.values);
  site_backward(SiteKind::attn_in, record.before[SiteKind::attn_in], normed);
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

// What one tile of a weight adds to the parameters of its transforms.
template <class S>
struct BlockGrad<S>::TileGradients {
  TransformGradient online, values;
};

// From the rounded rows back to the parameters of their transforms, and to the rows themselves.
template <class S>
auto BlockGrad<S>::tile_backward(const WeightTile& tile, BlockGradients& result, bool with_weights)
    -> TileGradients {
  const Linear linear = tile.linear;
  const SiteKind site = input_site(tile.linear);
  const Index rows = tile.end - tile.begin;
  const Index e = config_.head_width;
  TileGradients own{zero_gradient(parameters_.online[site]), zero_gradient(parameters_.values)};
  Matrix<S> gradient = rounded_sums_[linear].middleRows(tile.begin, rows);
  RowClips<S> storage;
  const RowClips<S>* clips = clips_of(tile, storage);
  RowClips<S> slope{Vector<S>::Zero(rows), Vector<S>::Zero(rows)};
  round_weight_rows_backward<S>(unrounded_[linear].middleRows(tile.begin, rows), quant_.weight,
                                gradient, clips, &slope);
  if (clips != nullptr) {
    result.weight_clips[linear].low.segment(tile.begin, rows) = slope.low.template cast<double>();
    result.weight_clips[linear].high.segment(tile.begin, rows) = slope.high.template cast<double>();
  }
  const Matrix<S> base = base_[linear].middleRows(tile.begin, rows).template cast<S>();
  if (maps_outputs(tile.linear)) {
    Matrix<S> channels = base;
    online_[site].apply_dual(channels);
    outputs_backward(values_, e, channels, gradient, own.values);
  }
  const bool has_values = tile.linear == Linear::o_proj && !values_.is_identity();
  Matrix<S> weight = base;
  if (has_values) per_head(weight, e, [&](Matrix<S>& heads) { values_.apply_dual(heads); });
  dual_backward(online_[site], std::move(weight), gradient, own.online);
  if (has_values) {
    Matrix<S> heads = base;
    heads.resize(base.size() / e, e);
    per_head(gradient, e,
             [&](Matrix<S>& g) { dual_backward(values_, std::move(heads), g, own.values); });
  }
  if (with_weights) {
    fixed_dual_[site].apply_transpose(gradient);
    result.weights[linear].middleRows(tile.begin, rows) = gradient.template cast<double>();
  }
  return own;
}

template <class S>
void BlockGrad<S>::value_bias_backward(const Vector<double>& gradient,
                                       TransformGradient& sum) const {
  if (value_bias_.size() == 0 || parameters_.values.is_identity()) return;
  const Index e = config_.head_width;
  Matrix<double> heads = value_bias_.transpose();
  heads.resize(heads.size() / e, e);
  Matrix<double> by_heads = gradient.transpose();
  by_heads.resize(by_heads.size() / e, e);
  transform_backward(parameters_.values, std::move(heads), by_heads, sum);
}

template <class S>
BlockGradients BlockGrad<S>::take_gradients(bool with_weights) {
  BlockGradients result = std::move(sums_);
  for (const Linear linear : kLinears) {
    const Matrix<double>& base = base_[linear];
    if (rounded_sums_[linear].size() == 0) {
      rounded_sums_[linear].setZero(base.rows(), base.cols());
    }
    if (with_weights) result.weights[linear].resize(base.rows(), base.cols());
    if (!parameters_.weight_clips[linear]) continue;
    result.weight_clips[linear] = {Vector<double>(base.rows()), Vector<double>(base.rows())};
  }
  const std::vector<WeightTile> tiles = weight_tiles();
  std::vector<TileGradients> parts(tiles.size());
  parallel_for(std::ssize(tiles), [&](Index i) {
    const auto t = static_cast<std::size_t>(i);
    parts[t] = tile_backward(tiles[t], result, with_weights);
  });
  for (std::size_t t = 0; t < tiles.size(); ++t) {
    add_to(result.online[input_site(tiles[t].linear)], parts[t].online);
    add_to(result.values, parts[t].values);
  }
  value_bias_backward(bias_sums_[Linear::v_proj], result.values);
  clear_sums();
  return result;
}

template <class S>
PerLinear<Matrix<S>> BlockGrad<S>::take_weight_gradients() {
  PerLinear<Matrix<S>> result = std::move(rounded_sums_);
  for (const Linear linear : kLinears) {
    const Matrix<S>& weight = weights_[linear].weight;
    if (result[linear].size() == 0) result[linear].setZero(weight.rows(), weight.cols());
  }
  clear_sums();
  return result;
}

template class BlockGrad<float>;
template class BlockGrad<double>;

}  // namespace ruq
