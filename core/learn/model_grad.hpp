// The derivative through all decoder blocks of a model, one block in force at a time.
//
// Forward keeps the input of every block and nothing else; backward goes from the last block to the
// first, runs each forward again with a record and walks it back. Memory: layers·[n, h] and the
// record of kRowsAtOnce rows.
//
//   ModelGrad<S> chain(config.layers);
//   x = chain.forward(block, x, length, install);           // install(layer, block)
//   dx = chain.backward(block, dy, length, install, collect);  // collect(layer, block)
#pragma once

#include <functional>
#include <vector>

#include "ruquant/learn/block_grad.hpp"

namespace ruq {

template <class S>
class ModelGrad {
 public:
  /// Called with the layer to put in force (set_layer), or with one whose sums are complete
  /// (take_weight_gradients).
  using LayerCall = std::function<void(Index layer, BlockGrad<S>& block)>;

  explicit ModelGrad(Index layers) : inputs_(static_cast<std::size_t>(layers)) {}

  /// The residual stream after the last block, for x [windows·length, h] before the first.
  Matrix<S> forward(BlockGrad<S>& block, Matrix<S> x, Index length, const LayerCall& install);
  /// Given ∂L/∂ of what the last forward() returned, gives ∂L/∂x.
  Matrix<S> backward(BlockGrad<S>& block, Matrix<S> gradient, Index length,
                     const LayerCall& install, const LayerCall& collect);

 private:
  std::vector<Matrix<S>> inputs_;
};

}  // namespace ruq
