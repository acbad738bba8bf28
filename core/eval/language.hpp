// How well a (quantized) model predicts text, window by window, beside the float model.
//
// Position t of a window predicts token t + 1, so a window of n tokens gives n − 1 predictions.
// Logits are final_hidden·headᵀ; with p the softmax of the float model and q that of this one:
//   nll        −log q(next), nats, mean over the window
//   kl         Σ_v p_v·(log p_v − log q_v), nats, mean over the window
//   agreement  share of positions at which both models have the same most likely token
// Perplexity is exp of the mean nll over all windows of equal length.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

/// One value a window. All but nll are empty where no float model was given.
struct WindowScores {
  std::vector<double> nll;
  std::vector<double> reference_nll;  ///< of the float model
  std::vector<double> kl;
  std::vector<double> agreement;
};

/// Final hidden states [n, h] and the head [vocabulary, h] that turns them into logits.
template <class S>
struct Hidden {
  const Matrix<S>& states;
  const Matrix<S>& head;
};

/// Scores windows of `length` tokens laid under each other. `reference` is the float model on the
/// same tokens, or null. Sums run in double and in a fixed order.
template <class S>
WindowScores score_windows(const Hidden<S>& model, std::span<const std::int32_t> ids, Index length,
                           const Hidden<S>* reference);

/// Log probability of each next token: [n − 1] for one window, in nats.
template <class S>
Vector<double> next_token_log_probabilities(const Hidden<S>& model,
                                            std::span<const std::int32_t> ids);

double mean(std::span<const double> values);

}  // namespace ruq
