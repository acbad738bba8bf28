// Hadamard matrices and their fast application.
//
// Orders n = k·2^m with k in {1, 12, 20, 28, 36, 40, 52, 60, 108, 140, 156, 172}. The base matrix
// had_k is built, not stored: Paley's first construction for k−1 prime (12, 20, 60, 108, 140),
// his second for 28 and 36, the doubling of 20 for 40, and Williamson's four circulants for 52,
// 156 and 172. They equal, entry by entry, the tables that the QuaRot code carries.
#pragma once

#include "ruquant/base/matrix.hpp"

namespace ruq {

/// n = base · 2^m; base is the largest k of the list above for which that holds.
struct HadamardOrder {
  Index base = 1;
  Index power_of_two = 1;
};

bool hadamard_exists(Index n);
/// Error if no matrix of order n can be built.
HadamardOrder hadamard_order(Index n);

/// had_k of ±1, for a base k of the list.
Matrix<double> hadamard_base(Index k);

/// Applies the normalised matrix of order n to every consecutive run of n channels of every row:
/// x ↦ x·(had_kᵀ ⊗ H_{2^m})/√n, or with had_k instead of its transpose when `transposed`.
template <class S>
void hadamard_in_place(MatrixView<S> x, Index n, bool transposed);

/// The largest power of two that divides `width` and is at most `limit`.
Index largest_power_of_two(Index width, Index limit);

}  // namespace ruq
