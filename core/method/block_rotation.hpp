// The skeleton that RUQuant and DuQuant share (specification §1.7): a block map, then τ times a
// permutation of the channels (by zigzag) and another block map. They differ in how a map is built
// from its samples.
#pragma once

#include <functional>

#include "ruquant/base/fields.hpp"
#include "ruquant/base/matrix.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/model/model.hpp"
#include "ruquant/transform/partition.hpp"
#include "ruquant/transform/transform.hpp"

namespace ruq {

/// Builds an orthogonal map [B,B] from samples [N,B], which become samples·map.
template <class S>
using MapBuilder = std::function<Matrix<double>(Matrix<S>& samples)>;

struct BlockRotationOptions {
  Index permutations = 1;  ///< τ (the paper's T)
  /// Which channels share a block after the first map: zigzag, contiguous (the maps alone), random,
  /// or mass (balanced).
  std::string partition = "zigzag";
  bool share_blocks = true;  ///< one map for all full blocks, or one each (Q4)
};

/// The transform of a site from its tensor [tokens, width], which becomes tensor·transform. A
/// narrower last block has a map of its own, built from its own columns. A random partition needs
/// `draws`.
template <class S>
Transform<double> block_rotation(Matrix<S>& tensor, const BlockLayout& layout,
                                 const BlockRotationOptions& options, const MapBuilder<S>& build,
                                 Draws* draws = nullptr);

void bind(Fields& fields, BlockRotationOptions& options);

/// Error naming the site whose width a block size does not fit.
void check_block_size(const ModelConfig& config, Index block_size, bool ragged);

}  // namespace ruq
