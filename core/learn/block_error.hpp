// The error of a block's output, which everything that learns within one block makes smaller:
//
//   L = mean over tokens and channels of (block(x) − target)²
//
// x is the stream that the block sees, target what the float block gives on the float stream.
#pragma once

#include "ruquant/learn/block_grad.hpp"
#include "ruquant/model/fuse.hpp"

namespace ruq {

/// Rows of `count` windows, [count·length, h]: of the float stream, or of what the blocks quantized
/// so far give.
template <class S>
Matrix<S> window_input(const BlockSamples<S>& samples, bool float_stream, Index window,
                       Index count = 1);

/// Σ (block(input) − target)², the targets being those of the windows from `window` on.
template <class S>
double squared_error(const BlockGrad<S>& block, Matrix<S> input, const BlockSamples<S>& samples,
                     Index window);

/// L over the windows [first, last).
template <class S>
double block_output_error(const BlockGrad<S>& block, const BlockSamples<S>& samples,
                          bool float_stream, Index first, Index last);

/// Returns squared_error() and adds to the block's sums the gradient of that sum over `entries`:
/// with all entries of the windows, of their L. `relative`: of that divided by its own value held
/// constant (FlatQuant), so that every step has a gradient of the same relative size.
template <class S>
double add_squared_error(BlockGrad<S>& block, Matrix<S> input, const BlockSamples<S>& samples,
                         Index window, double entries, bool relative = false);

}  // namespace ruq
