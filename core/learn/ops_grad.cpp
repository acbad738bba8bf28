#include "ruquant/learn/ops_grad.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/tiled_product.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 64;
constexpr Index kQueryTile = 128;  // query rows whose probabilities are held at once

// One row of RMSNorm; `row` holds γ⊙g on entry and dx on exit.
template <class S, class Input, class Row>
void norm_row_backward(const Input& x, double epsilon, Row&& row) {
  const S width = static_cast<S>(x.size());
  const S factor = S(1) / std::sqrt(x.squaredNorm() / width + static_cast<S>(epsilon));
  const S along = row.dot(x) * factor * factor / width;
  row = factor * (row - along * x);
}

// Softmax probabilities of the query rows first, first + 1, ... over the keys 0, 1, ...
template <class S>
void causal_probabilities(Index first, S scale, Matrix<S>& scores) {
  for (Index i = 0; i < scores.rows(); ++i) {
    const Index seen = first + i + 1;
    auto row = scores.row(i).head(seen).array();
    row = (scale * (row - row.maxCoeff())).exp();
    row /= row.sum();
    scores.row(i).tail(scores.cols() - seen).setZero();
  }
}

// One query head of one window; dk and dv are its own part.
template <class S>
void attend_backward(const ConstMatrixView<S>& q, const ConstMatrixView<S>& k,
                     const ConstMatrixView<S>& v, const ConstMatrixView<S>& gradient,
                     MatrixView<S> dq, Matrix<S>& dk, Matrix<S>& dv) {
  const S scale = S(1) / std::sqrt(static_cast<S>(q.cols()));
  dk.setZero(k.rows(), k.cols());
  dv.setZero(v.rows(), v.cols());
  for (Index begin = 0; begin < q.rows(); begin += kQueryTile) {
    const Index rows = std::min(kQueryTile, q.rows() - begin);
    const Index keys = begin + rows;
    const auto queries = q.middleRows(begin, rows);
    const auto g = gradient.middleRows(begin, rows);
    Matrix<S> p(rows, keys), ds(rows, keys), part(keys, q.cols());
    product_transposed_into<S>(queries, k.topRows(keys), p);
    causal_probabilities<S>(begin, scale, p);
    product_transposed_into<S>(g, v.topRows(keys), ds);
    product_into<S>(turned<S>(p), g, part);
    dv.topRows(keys) += part;
    const Vector<S> mean = p.cwiseProduct(ds).rowwise().sum();
    ds = (scale * p.array() * (ds.colwise() - mean).array()).matrix();
    product_into<S>(ds, k.topRows(keys), dq.middleRows(begin, rows));
    product_into<S>(turned<S>(ds), queries, part);
    dk.topRows(keys) += part;
  }
}

}  // namespace

template <class S>
Matrix<S> rms_norm_backward(const Matrix<S>& x, const Vector<S>& gain, double epsilon,
                            const Matrix<S>& gradient) {
  Matrix<S> dx(x.rows(), x.cols());
  parallel_rows(x.rows(), kGrain, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      dx.row(r) = gradient.row(r).cwiseProduct(gain.transpose());
      norm_row_backward<S>(x.row(r), epsilon, dx.row(r));
    }
  });
  return dx;
}

template <class S>
Matrix<S> norm_and_rotate_backward(const RopeTable<S>& table, const Vector<S>& gain, double epsilon,
                                   const Matrix<S>& x, const Matrix<S>& gradient) {
  const Index length = table.cosine.rows();
  const Index half = table.cosine.cols();
  Matrix<S> dx(gradient.rows(), gradient.cols());
  parallel_rows(gradient.rows(), kGrain, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const auto cosine = table.cosine.row(r % length).array();
      const auto sine = table.sine.row(r % length).array();
      for (Index c = 0; c < gradient.cols(); c += 2 * half) {
        const auto first = gradient.row(r).segment(c, half).array();
        const auto second = gradient.row(r).segment(c + half, half).array();
        auto head = dx.row(r).segment(c, 2 * half);
        head.head(half) = first * cosine + second * sine;
        head.tail(half) = second * cosine - first * sine;
        if (gain.size() == 0) continue;
        head.array() *= gain.transpose().array();
        norm_row_backward<S>(x.row(r).segment(c, 2 * half), epsilon, head);
      }
    }
  });
  return dx;
}

template <class S>
AttentionGradients<S> attention_backward(const ModelConfig& config, Index length,
                                         const Matrix<S>& q, const Matrix<S>& k, const Matrix<S>& v,
                                         const Matrix<S>& gradient) {
  const Index windows = q.rows() / length;
  const Index group = config.heads / config.kv_heads;
  const Index e = config.head_width;
  AttentionGradients<S> result{Matrix<S>(q.rows(), q.cols()), Matrix<S>::Zero(k.rows(), k.cols()),
                               Matrix<S>::Zero(v.rows(), v.cols())};
  // Heads run on their own; what a group shares is summed in the order of its heads.
  const auto tasks = static_cast<std::size_t>(windows * config.heads);
  std::vector<Matrix<S>> dk(tasks), dv(tasks);
  parallel_for(windows * config.heads, [&](Index task) {
    const Index row = task / config.heads * length;
    const Index head = task % config.heads;
    const Index shared = head / group * e;
    const auto t = static_cast<std::size_t>(task);
    attend_backward<S>(q.block(row, head * e, length, e), k.block(row, shared, length, e),
                       v.block(row, shared, length, e), gradient.block(row, head * e, length, e),
                       result.queries.block(row, head * e, length, e), dk[t], dv[t]);
  });
  parallel_for(windows * config.kv_heads, [&](Index task) {
    const Index window = task / config.kv_heads;
    const Index shared = task % config.kv_heads;
    for (Index head = shared * group; head < (shared + 1) * group; ++head) {
      const auto t = static_cast<std::size_t>(window * config.heads + head);
      result.keys.block(window * length, shared * e, length, e) += dk[t];
      result.values.block(window * length, shared * e, length, e) += dv[t];
    }
  });
  return result;
}

template <class S>
GateGradients<S> gate_backward(const Matrix<S>& gates, const Matrix<S>& up,
                               const Matrix<S>& gradient) {
  GateGradients<S> result{Matrix<S>(up.rows(), up.cols()), Matrix<S>(up.rows(), up.cols())};
  parallel_rows(up.rows(), kGrain, [&](Index begin, Index end) {
    const Index rows = end - begin;
    const auto x = gates.middleRows(begin, rows).array();
    const auto g = gradient.middleRows(begin, rows).array();
    const Eigen::Array<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> sigmoid =
        S(1) / (S(1) + (-x).exp());
    result.up.middleRows(begin, rows) = (g * x * sigmoid).matrix();
    result.gates.middleRows(begin, rows) =
        (g * up.middleRows(begin, rows).array() * sigmoid * (S(1) + x * (S(1) - sigmoid))).matrix();
  });
  return result;
}

#define RUQ_INSTANTIATE(S)                                                                       \
  template Matrix<S> rms_norm_backward(const Matrix<S>&, const Vector<S>&, double,               \
                                       const Matrix<S>&);                                        \
  template Matrix<S> norm_and_rotate_backward(const RopeTable<S>&, const Vector<S>&, double,     \
                                              const Matrix<S>&, const Matrix<S>&);               \
  template AttentionGradients<S> attention_backward(const ModelConfig&, Index, const Matrix<S>&, \
                                                    const Matrix<S>&, const Matrix<S>&,          \
                                                    const Matrix<S>&);                           \
  template GateGradients<S> gate_backward(const Matrix<S>&, const Matrix<S>&, const Matrix<S>&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
