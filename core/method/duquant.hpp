// DuQuant (arXiv 2406.01721): a greedily searched block rotation, zigzag, and a second one, at
// every linear site (specification §2.1); same smoothing, calibration, attention operands and
// sharing as RUQuant. DuQuant+LWC learns clip factors of weight rows once all rotations are there
// (learn/weight_clipping.hpp), where the published code does both block by block: there a rotation
// is calibrated behind blocks that are clipped already.
#pragma once

#include <functional>
#include <string>

#include "ruquant/learn/weight_clipping.hpp"
#include "ruquant/method/block_rotation.hpp"
#include "ruquant/method/common.hpp"

namespace ruq {

struct DuquantOptions {
  SmoothingOptions smoothing{.alpha = 0.6, .grouped = "online"};
  Index block_size = 128;     ///< B
  bool ragged = true;         ///< allow a narrower last block
  Index search_steps = 256;   ///< N
  std::string index = "row";  ///< which coordinate a step swaps to the front: row, channel
  BlockRotationOptions blocks;
  std::string calibration = "mean";  ///< mean, samples, float
  std::string lwc = "false";         ///< true: learn the clip factors of weights
  WeightClippingOptions clipping{};
};

/// An orthogonal factor C' [n,n] whenever a search asks for one, n = B − 1.
using OrthogonalFactors = std::function<Matrix<double>(Index n)>;

/// The rotation of one tensor, which becomes tensor·transform. Factors are asked for map by map, in
/// order: one a map with index "row", one a step with "channel". A random partition
/// needs `draws`.
template <class S>
Transform<double> duquant_site(Matrix<S>& tensor, const DuquantOptions& options,
                               const OrthogonalFactors& factors, Draws* draws = nullptr);

}  // namespace ruq
