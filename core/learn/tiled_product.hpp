// Products of backward passes, where one factor is as long as a window and both results are as wide
// as a weight. Tiles are smaller than those of base/matrix.hpp, so that a single short window keeps
// all threads busy; they are fixed, so results do not depend on the number of threads.
#pragma once

#include "ruquant/base/matrix.hpp"

namespace ruq {

/// Rows of one tile of what is below. Part of the numbers.
inline constexpr Index kBackwardTile = 128;

/// A·B for A [m,k], B [k,n].
template <class S>
Matrix<S> tiled_product(const Matrix<S>& a, const Matrix<S>& b);

/// sum += Aᵀ·B for A [k,m], B [k,n]; a sum without entries is set instead, to [m,n].
template <class S>
void add_transposed_product(const Matrix<S>& a, const Matrix<S>& b, Matrix<S>& sum);

/// Aᵀ, in square tiles: row-major matrices are slow to turn line by line.
template <class S>
Matrix<S> turned(const ConstMatrixView<S>& a);

}  // namespace ruq
