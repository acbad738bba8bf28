// Backward functions of what a decoder block is made of. Each takes the inputs of the forward
// operation (see model/forward.hpp) and the gradient of a scalar with respect to its output, and
// returns the gradient with respect to its input; nothing but the inputs is kept from the forward
// pass. Rows are tokens, n = windows·length.
#pragma once

#include "ruquant/base/matrix.hpp"
#include "ruquant/model/forward.hpp"

namespace ruq {

/// y = x·γ / sqrt(mean(x²) + ε) row by row: with r the factor of a row,
/// dx = r·(γ⊙g) − x·r³·(Σ γ⊙g⊙x) / h. All [n, h].
template <class S>
Matrix<S> rms_norm_backward(const Matrix<S>& x, const Vector<S>& gain, double epsilon,
                            const Matrix<S>& gradient);

/// The norm of every head (none where `gain` is empty) and the rotation after it, [n, heads·e];
/// `x` is the input of the norm and is not read without one.
template <class S>
Matrix<S> norm_and_rotate_backward(const RopeTable<S>& table, const Vector<S>& gain, double epsilon,
                                   const Matrix<S>& x, const Matrix<S>& gradient);

template <class S>
struct AttentionGradients {
  Matrix<S> queries;       ///< [n, heads·e]
  Matrix<S> keys, values;  ///< [n, kv_heads·e]
};

/// Causal softmax attention. Probabilities P are computed again, a tile of query rows at a time:
/// dV = Pᵀ·g, dS = P⊙(g·Vᵀ − rowsum(P⊙(g·Vᵀ)))/√e, dQ = dS·K, dK = dSᵀ·Q.
template <class S>
AttentionGradients<S> attention_backward(const ModelConfig& config, Index length,
                                         const Matrix<S>& q, const Matrix<S>& k, const Matrix<S>& v,
                                         const Matrix<S>& gradient);

template <class S>
struct GateGradients {
  Matrix<S> gates, up;  ///< [n, f]
};

/// y = gates·σ(gates) ⊙ up.
template <class S>
GateGradients<S> gate_backward(const Matrix<S>& gates, const Matrix<S>& up,
                               const Matrix<S>& gradient);

}  // namespace ruq
