// Explicit levels: every row of a weight (or group of it) has a codebook of its own, 2^k levels
// that make Σ(w − ŵ)² as small as any 2^k levels can. This is the Lloyd-Max quantizer of the row's
// own values, found exactly as the best clusters on a line (theory/kmeans.hpp), and so a lower
// bound on the weight error of every scalar rounding with as many levels a group.
#pragma once

#include "ruquant/base/matrix.hpp"
#include "ruquant/quant/quantizer.hpp"

namespace ruq {

/// The weight [out, in] with each value replaced by its level; uses bits and group_size of the
/// spec. Error if there are not 1 to 8 bits.
template <class S>
Matrix<S> round_to_best_levels(const Matrix<S>& weight, const QuantSpec& spec);

/// Every value replaced by the mean of the values of its row and group that have the same code: the
/// thresholds of the grid with the levels that are best for them.
template <class S>
Matrix<S> bin_centroids(const Matrix<S>& weight, const Grid<S>& grid);

}  // namespace ruq
