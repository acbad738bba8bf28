// How the channels of a site form blocks, and in which order they are dealt to them.
#pragma once

#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"
#include "ruquant/base/rng.hpp"

namespace ruq {

/// Consecutive blocks of `block` channels; what is left over forms one narrower block at the end
/// (§1.14 of the specification: "ragged").
struct BlockLayout {
  Index width = 0;
  Index block = 0;

  Index full_blocks() const { return width / block; }
  Index remainder() const { return width % block; }
  Index blocks() const { return full_blocks() + (remainder() > 0 ? 1 : 0); }
  Index block_width(Index b) const { return b < full_blocks() ? block : remainder(); }
};

/// The layout of `width` channels in blocks of `block`. Error if block > width, or if block does
/// not divide width and `ragged` is false (the message names the nearest widths that do).
BlockLayout block_layout(Index width, Index block, bool ragged);

/// The zigzag order of DuQuant and RUQuant: channels sorted by their largest |entry|, descending
/// and stable, are dealt to the blocks in the order 0,1,…,n−1,n−1,…,1,0,0,1,…; a full block is
/// skipped. Returns index so that column j of the permuted tensor is column index[j] of `tensor`.
template <class S>
std::vector<Index> zigzag_order(const Matrix<S>& tensor, const BlockLayout& layout);

/// Channels sorted by their mass Σ|entries|, descending and stable, each to the block that has the
/// least so far and is not full (the first of equals): the blocks end with nearly the same mass, as
/// PeRQ (arXiv 2601.22347) wants it before a block rotation.
template <class S>
std::vector<Index> mass_order(const Matrix<S>& tensor, const BlockLayout& layout);

/// Which channels share a block.
enum class Partition { zigzag, contiguous, random, mass };
std::vector<std::string> partition_names();
Partition partition(const std::string& name);  ///< Error with the nearest name

/// The order of a partition; empty for `contiguous`. Only `random` draws, one
/// permutation, and needs `draws`.
template <class S>
std::vector<Index> channel_order(const Matrix<S>& tensor, const BlockLayout& layout,
                                 Partition partition, Draws* draws = nullptr);

}  // namespace ruq
