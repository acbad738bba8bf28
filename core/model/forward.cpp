#include "ruquant/model/forward.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 64;       // token rows of one parallel range of cheap work
constexpr Index kQueryTile = 128;  // query rows whose scores are held at once; part of the numbers

// x·0 is 0 for every finite x and NaN otherwise, so one vectorised sum tells.
template <class S>
bool all_finite(const Matrix<S>& x) {
  return (x.array() * S(0)).sum() == S(0);
}

template <class S>
void visit(const SiteHook<S>& hook, const Site& site, Matrix<S>& tensor) {
  if (!all_finite(tensor)) fail("{}: NaN or infinity in the activations", to_string(site));
  if (!hook) return;
  hook(site, tensor);
  if (!all_finite(tensor)) fail("{}: NaN or infinity after quantization", to_string(site));
}

template <class S>
Matrix<S> linear(const LinearWeights<S>& weights, const Matrix<S>& x) {
  Matrix<S> y = product_transposed<S>(x, weights.weight);
  if (weights.bias.size() > 0) y.rowwise() += weights.bias.transpose();
  return y;
}

// Angular frequencies of the e/2 planes of one head; [e/2]. `llama3` leaves short wavelengths
// alone, divides long ones by the factor, and blends between the two (Llama 3.1).
Vector<double> rope_frequencies(const ModelConfig& config) {
  const Index half = config.head_width / 2;
  Vector<double> frequencies(half);
  const RopeScaling& scaling = config.rope_scaling;
  for (Index i = 0; i < half; ++i) {
    double f = std::pow(config.rope_base,
                        -2.0 * static_cast<double>(i) / static_cast<double>(config.head_width));
    if (scaling.kind == RopeScaling::Kind::linear) f /= scaling.factor;
    if (scaling.kind == RopeScaling::Kind::llama3) {
      const double turns =
          static_cast<double>(scaling.original_context) * f / (2 * std::numbers::pi);
      const double keep = std::clamp(
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor),
          0.0, 1.0);
      f = (1 - keep) * f / scaling.factor + keep * f;
    }
    frequencies(i) = f;
  }
  return frequencies;
}

// Normalises every head by its own RMS (Qwen3), then rotates the plane (i, i + e/2) of every head
// by the angle of the token's position.
template <class S>
void norm_and_rotate(const RopeTable<S>& table, const std::vector<Index>& positions,
                     Index head_width, const Vector<S>& gain, double epsilon, Matrix<S>& x) {
  const Index half = head_width / 2;
  parallel_rows(x.rows(), kGrain, [&](Index begin, Index end) {
    RowVector<S> low(half);
    for (Index r = begin; r < end; ++r) {
      const Index position = positions[static_cast<std::size_t>(r)];
      const auto cosine = table.cosine.row(position).array();
      const auto sine = table.sine.row(position).array();
      for (Index c = 0; c < x.cols(); c += head_width) {
        auto head = x.row(r).segment(c, head_width);
        if (gain.size() > 0) {
          const S mean = head.squaredNorm() / static_cast<S>(head_width);
          head *= S(1) / std::sqrt(mean + static_cast<S>(epsilon));
          head.array() *= gain.transpose().array();
        }
        auto first = head.head(half).array();
        auto second = head.tail(half).array();
        low = first * cosine - second * sine;
        second = second * cosine + first * sine;
        first = low.array();
      }
    }
  });
}

// Causal softmax of one tile of scores: row i may see keys 0..first+i.
template <class S>
void causal_softmax(Index first, S scale, MatrixView<S> scores) {
  for (Index i = 0; i < scores.rows(); ++i) {
    const Index seen = first + i + 1;
    auto row = scores.row(i).head(seen).array();
    const S top = row.maxCoeff();
    row = (scale * (row - top)).exp();
    row *= S(1) / row.sum();
    scores.row(i).tail(scores.cols() - seen).setZero();
  }
}

// One head of one segment: out [rows, e] from q of its rows and k, v of its prefix and its rows.
template <class S>
void attend(const ConstMatrixView<S>& q, const ConstMatrixView<S>& k, const ConstMatrixView<S>& v,
            MatrixView<S> out) {
  const S scale = S(1) / std::sqrt(static_cast<S>(q.cols()));
  const Index prefix = k.rows() - q.rows();
  Matrix<S> buffer(std::min(kQueryTile, q.rows()), k.rows());
  for (Index begin = 0; begin < q.rows(); begin += kQueryTile) {
    const Index rows = std::min(kQueryTile, q.rows() - begin);
    const Index keys = prefix + begin + rows;
    MatrixView<S> scores = buffer.topLeftCorner(rows, keys);
    product_transposed_into<S>(q.middleRows(begin, rows), k.topRows(keys), scores);
    causal_softmax<S>(prefix + begin, scale, scores);
    product_into<S>(scores, v.topRows(keys), out.middleRows(begin, rows));
  }
}

// Columns [first, first + e) of a segment's prefix and its own rows, under each other.
template <class S>
Matrix<S> with_prefix(const Segment& segment, const Matrix<S>& x, Index first, Index e) {
  Matrix<S> rows(segment.prefix_rows + segment.rows, e);
  rows << x.block(segment.prefix_begin, first, segment.prefix_rows, e),
      x.block(segment.begin, first, segment.rows, e);
  return rows;
}

template <class S>
Matrix<S> attention(const ModelConfig& config, const Layout& layout, const Matrix<S>& q,
                    const Matrix<S>& k, const Matrix<S>& v) {
  const Index group = config.heads / config.kv_heads;
  const Index e = config.head_width;
  Matrix<S> out(q.rows(), q.cols());
  parallel_for(std::ssize(layout) * config.heads, [&](Index task) {
    const Segment& segment = layout[static_cast<std::size_t>(task / config.heads)];
    if (segment.rows == 0) return;
    const Index head = task % config.heads;
    const Index shared = head / group * e;
    const auto queries = q.block(segment.begin, head * e, segment.rows, e);
    const auto result = out.block(segment.begin, head * e, segment.rows, e);
    if (segment.prefix_rows == 0) {
      attend<S>(queries, k.block(segment.begin, shared, segment.rows, e),
                v.block(segment.begin, shared, segment.rows, e), result);
    } else {
      attend<S>(queries, with_prefix(segment, k, shared, e), with_prefix(segment, v, shared, e),
                result);
    }
  });
  return out;
}

// The position of every row. Error unless the segments cover the rows in order, each prefix being
// an earlier segment's rows.
std::vector<Index> positions_of(const Layout& layout, Index rows) {
  std::vector<Index> positions;
  for (const Segment& segment : layout) {
    RUQ_CHECK(segment.begin == std::ssize(positions) && segment.rows >= 0 &&
                  segment.prefix_begin + segment.prefix_rows <= segment.begin,
              "a segment of rows {} to {} behind row {}", segment.begin,
              segment.begin + segment.rows, positions.size());
    for (Index i = 0; i < segment.rows; ++i) positions.push_back(segment.prefix_rows + i);
  }
  RUQ_CHECK(std::ssize(positions) == rows, "segments of {} rows for a stream of {}",
            positions.size(), rows);
  return positions;
}

template <class S>
void gate(const Matrix<S>& gates, Matrix<S>& up) {
  parallel_rows(up.rows(), kGrain, [&](Index begin, Index end) {
    const auto g = gates.middleRows(begin, end - begin).array();
    up.middleRows(begin, end - begin).array() *= g / (S(1) + (-g).exp());
  });
}

}  // namespace

template <class S>
RopeTable<S> rope_table(const ModelConfig& config, Index length) {
  const Vector<double> frequencies = rope_frequencies(config);
  RopeTable<S> table{Matrix<S>(length, frequencies.size()), Matrix<S>(length, frequencies.size())};
  for (Index t = 0; t < length; ++t) {
    for (Index i = 0; i < frequencies.size(); ++i) {
      const double angle = static_cast<double>(t) * frequencies(i);
      table.cosine(t, i) = static_cast<S>(std::cos(angle));
      table.sine(t, i) = static_cast<S>(std::sin(angle));
    }
  }
  return table;
}

template <class S>
Matrix<S> embed(const Model<S>& model, std::span<const std::int32_t> ids) {
  Matrix<S> x(std::ssize(ids), model.embedding.cols());
  for (Index t = 0; t < x.rows(); ++t) {
    const Index id = ids[static_cast<std::size_t>(t)];
    if (id < 0 || id >= model.embedding.rows()) {
      fail("token {}: found id {}, expected 0 to {}", t, id, model.embedding.rows() - 1);
    }
    x.row(t) = model.embedding.row(id);
  }
  return x;
}

template <class S>
Matrix<S> rms_norm(const Matrix<S>& x, const Vector<S>& gain, double epsilon) {
  Matrix<S> y(x.rows(), x.cols());
  parallel_rows(x.rows(), kGrain, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const S mean = x.row(r).squaredNorm() / static_cast<S>(x.cols());
      const S factor = S(1) / std::sqrt(mean + static_cast<S>(epsilon));
      y.row(r) = factor * x.row(r).cwiseProduct(gain.transpose());
    }
  });
  return y;
}

Layout windows_layout(Index count, Index length) {
  Layout layout;
  for (Index w = 0; w < count; ++w) layout.push_back({.begin = w * length, .rows = length});
  return layout;
}

template <class S>
void block_forward(const ModelConfig& config, const LayerWeights<S>& weights, Index layer,
                   Index length, const SiteHook<S>& hook, Matrix<S>& x, BlockTrace<S>* trace) {
  RUQ_CHECK(length > 0 && x.rows() % length == 0, "{} rows in windows of {}", x.rows(), length);
  block_forward(config, weights, layer, windows_layout(x.rows() / length, length), hook, x, trace);
}

template <class S>
void block_forward(const ModelConfig& config, const LayerWeights<S>& weights, Index layer,
                   const Layout& layout, const SiteHook<S>& hook, Matrix<S>& x,
                   BlockTrace<S>* trace) {
  const std::vector<Index> positions = positions_of(layout, x.rows());
  const auto at = [&](SiteKind kind, Matrix<S>& tensor) { visit(hook, Site{layer, kind}, tensor); };
  {
    Matrix<S> u = rms_norm(x, weights.attn_norm, config.norm_epsilon);
    at(SiteKind::attn_in, u);
    Matrix<S> q = linear(weights[Linear::q_proj], u);
    Matrix<S> k = linear(weights[Linear::k_proj], u);
    Matrix<S> v = linear(weights[Linear::v_proj], u);
    if (trace != nullptr) {
      trace->queries = weights.q_norm.size() > 0 ? q : Matrix<S>();
      trace->keys = weights.k_norm.size() > 0 ? k : Matrix<S>();
    }
    const Index reach =
        positions.empty() ? 0 : *std::max_element(positions.begin(), positions.end()) + 1;
    const auto table = rope_table<S>(config, reach);
    norm_and_rotate(table, positions, config.head_width, weights.q_norm, config.norm_epsilon, q);
    norm_and_rotate(table, positions, config.head_width, weights.k_norm, config.norm_epsilon, k);
    at(SiteKind::queries, q);
    at(SiteKind::keys, k);
    at(SiteKind::values, v);
    Matrix<S> a = attention(config, layout, q, k, v);
    at(SiteKind::attn_out, a);
    x += linear(weights[Linear::o_proj], a);
  }
  Matrix<S> u = rms_norm(x, weights.mlp_norm, config.norm_epsilon);
  at(SiteKind::mlp_in, u);
  const Matrix<S> gates = linear(weights[Linear::gate_proj], u);
  Matrix<S> hidden = linear(weights[Linear::up_proj], u);
  if (trace != nullptr) {
    trace->stream = x;
    trace->gates = gates;
    trace->up = hidden;
  }
  gate(gates, hidden);
  at(SiteKind::mlp_out, hidden);
  x += linear(weights[Linear::down_proj], hidden);
}

template <class S>
Matrix<S> final_hidden(const Model<S>& model, std::span<const std::int32_t> ids, Index length,
                       const SiteHook<S>& hook) {
  RUQ_CHECK(length > 0 && std::ssize(ids) % length == 0, "{} tokens in windows of {}", ids.size(),
            length);
  return final_hidden(model, ids, windows_layout(std::ssize(ids) / length, length), hook);
}

template <class S>
Matrix<S> final_hidden(const Model<S>& model, std::span<const std::int32_t> ids,
                       const Layout& layout, const SiteHook<S>& hook) {
  Matrix<S> x = embed(model, ids);
  for (Index l = 0; l < model.config.layers; ++l) {
    block_forward(model.config, model.layers[static_cast<std::size_t>(l)], l, layout, hook, x);
  }
  // What the last block writes passes no further site.
  if (!all_finite(x)) fail("NaN or infinity in the output of the last block");
  return rms_norm(x, model.final_norm, model.config.norm_epsilon);
}

#define RUQ_INSTANTIATE(S)                                                                       \
  template Matrix<S> embed(const Model<S>&, std::span<const std::int32_t>);                      \
  template Matrix<S> rms_norm(const Matrix<S>&, const Vector<S>&, double);                       \
  template RopeTable<S> rope_table(const ModelConfig&, Index);                                   \
  template void block_forward(const ModelConfig&, const LayerWeights<S>&, Index, Index,          \
                              const SiteHook<S>&, Matrix<S>&, BlockTrace<S>*);                   \
  template void block_forward(const ModelConfig&, const LayerWeights<S>&, Index, const Layout&,  \
                              const SiteHook<S>&, Matrix<S>&, BlockTrace<S>*);                   \
  template Matrix<S> final_hidden(const Model<S>&, std::span<const std::int32_t>, const Layout&, \
                                  const SiteHook<S>&);                                           \
  template Matrix<S> final_hidden(const Model<S>&, std::span<const std::int32_t>, Index,         \
                                  const SiteHook<S>&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
