// DuQuant's block map: a greedy search over products of one fixed rotation whose first row is
// constant, moved by swaps to wherever the extreme entry is (arXiv 2406.01721; specification §2.1).
#pragma once

#include <vector>

#include "ruquant/base/matrix.hpp"
#include "ruquant/base/rng.hpp"

namespace ruq {

/// R̃ [B,B]: orthogonal, first row constant 1/√B.
Matrix<double> duquant_base_rotation(Index block);

/// Which coordinate the next swap moves to the front. `channel` is the paper's: the channel of the
/// extreme entry, one new C' a step, score max|X|. `row` is the code's: the index of the extreme
/// entry's row modulo B, one C' for all steps, score max X − min X.
enum class SwapIndex { row, channel };

struct SearchMapOptions {
  Index steps = 256;  ///< N
  SwapIndex index = SwapIndex::row;
};

struct SearchMapTrace {
  std::vector<Index> swap_rows;  ///< row of the extreme entry before each step, and after the last
  std::vector<Index> swap_indices;
  std::vector<double> peaks;  ///< score of each prefix, N + 1 values
  Index prefix_length = 0;
};

/// Orthogonal [n,n] factor of a Gaussian draw (Householder QR, signs as they come).
Matrix<double> random_orthogonal_factor(Index n, Draws& draws);

/// A fresh C' [B-1,B-1] whenever the search asks for one.
using FactorSource = std::function<Matrix<double>()>;

/// The map M [B,B] (row ← row·M): the best-scoring prefix R_1…R_n, n ≤ N, of factors
/// R_k = E_j (R̃·diag(1, C')) E_j. `samples` [N,B] becomes samples·M.
template <class S>
Matrix<double> build_search_map(Matrix<S>& samples, const SearchMapOptions& options,
                                const FactorSource& next_factor, SearchMapTrace* trace = nullptr);

}  // namespace ruq
