// The loss of a language model and its gradient by what its head is given.
#pragma once

#include <cstdint>
#include <span>

#include "ruquant/base/matrix.hpp"

namespace ruq {

/// Sequences of equal length laid under each other.
struct TokenWindows {
  std::span<const std::int32_t> ids;  ///< [windows·length]
  Index length = 0;

  Index windows() const { return std::ssize(ids) / length; }
};

/// −log softmax(states·headᵀ) of the next token, nats, mean over all windows·(length − 1)
/// predictions; states [windows·length, h], head [vocabulary, h]. `gradient`, when given, becomes
/// ∂L/∂states: (softmax − one-hot)·head over the number of predictions, zero in the last row of a
/// window. Tiles of rows hold their logits, so memory does not grow with the windows. Error unless
/// windows hold at least two tokens and the shapes fit.
template <class S>
double cross_entropy(const Matrix<S>& states, const Matrix<S>& head, const TokenWindows& tokens,
                     Matrix<S>* gradient = nullptr);

}  // namespace ruq
