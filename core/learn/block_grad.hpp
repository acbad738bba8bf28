// The derivative of one quantized decoder block with respect to its input and to everything about
// it that methods train.
//
// Forward is block_forward itself with a hook that transforms and rounds (as runtime_hook does) and
// keeps what backward needs; backward walks the block from its output to its input (ops_grad.hpp,
// straight_through.hpp, transform_grad.hpp). Kept per window: the tensor of every site before what
// is trained and after its hook, and what BlockTrace has. Computed again: attention probabilities,
// trained transforms. Weights are transformed in double; their gradients are in S and summed in
// double, a tile of rows at a time and in a fixed order, so results do not depend on the number of
// threads.
//
//   BlockGrad block(config, folded_weights, fixed, quant);
//   block.install(parameters);                    // transforms and rounds the weights
//   BlockRecord<S> record;
//   Matrix<S> y = block.forward(x, length, &record);
//   Matrix<S> dx = block.backward(record, dy);    // any number of times, sums grow
//   BlockGradients g = block.take_gradients();    // closes the weights' path and clears the sums
//
// Whoever makes the weights itself (learned rounding, a rotation of the whole model) puts them in
// force with set_weights or set_layer and takes the gradients by them.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "ruquant/learn/transform_grad.hpp"
#include "ruquant/model/forward.hpp"
#include "ruquant/model/model.hpp"
#include "ruquant/quant/plan.hpp"

namespace ruq {

/// What can be trained. Transforms act where SitePlan::online and LayerPlan::query_key do, after
/// the fixed transform of the site; weights get their duals.
struct BlockParameters {
  PerSite<Transform<double>> online;
  Transform<double> query_key;  ///< of width head_width; queries get T, keys its dual
  /// Of every head of the values: acts on the outputs of v_proj, weight and bias, before they are
  /// rounded; o_proj gets the dual. What folding it at attn_out (SitePlan::folded) does, which
  /// needs an identity as fixed transform there.
  Transform<double> values;
  PerSite<std::optional<ClipPair>> activation_clips;
  PerLinear<std::optional<RowClips<double>>> weight_clips;  ///< [out] each
};

/// ∂L/∂ of all of BlockParameters; clips only where the parameters have them.
struct BlockGradients {
  PerSite<TransformGradient> online;
  TransformGradient query_key, values;
  PerSite<ClipPair> activation_clips;
  PerLinear<RowClips<double>> weight_clips;
  PerLinear<Matrix<double>> weights;  ///< of the weights before any transform; empty unless asked
};

/// What forward leaves for backward; indexed by SiteKind, all seven.
template <class S>
struct BlockRecord {
  Index length = 0;
  Matrix<S> input;            ///< the residual stream [n, h]
  PerKind<Matrix<S>> before;  ///< what the hook was given, behind the fixed transform
  PerKind<Matrix<S>> after;   ///< what it returned
  BlockTrace<S> between;      ///< what the block computed between its sites
};

template <class S>
class BlockGrad {
 public:
  /// `folded`: weights after fold_layer. `fixed`: per site the first steps of the online transform,
  /// which get no gradient; their dual is applied to the weights once, here. Rounding of weights is
  /// to nearest, whatever quant.rounding says.
  BlockGrad(const ModelConfig& config, const LayerWeights<S>& folded,
            const PerSite<Transform<double>>& fixed, const QuantSettings& quant, Index layer = 0);

  /// Takes the parameters over and clears all sums.
  void install(BlockParameters parameters);
  /// The weights in force: transformed and rounded.
  const LayerWeights<S>& weights() const { return weights_; }
  /// Puts weights in force as they act, [out, in] each: neither transformed nor rounded. Transforms
  /// and rounding of the inputs stay those installed; the sums are cleared. Until the next
  /// install() the gradients by the weights are those of take_weight_gradients().
  void set_weights(PerLinear<Matrix<S>> weights);
  /// The same for a whole layer, norms and biases included: one BlockGrad can serve all blocks of a
  /// model that share their input transforms.
  void set_layer(LayerWeights<S> weights);

  /// The block's output for the residual stream x [windows·length, h].
  Matrix<S> forward(Matrix<S> x, Index length, BlockRecord<S>* record = nullptr) const;
  /// Given ∂L/∂output [n, h] returns ∂L/∂x and adds to the sums.
  Matrix<S> backward(const BlockRecord<S>& record, const Matrix<S>& gradient);
  BlockGradients take_gradients(bool with_weights = false);
  /// ∂L/∂ of the weights in force, [out, in] each; clears all sums.
  PerLinear<Matrix<S>> take_weight_gradients();
  /// ∂L/∂ of the biases, empty where there is none, since the sums were last cleared.
  const PerLinear<Vector<double>>& bias_gradients() const { return bias_sums_; }

 private:
  struct WeightTile {
    Linear linear;
    Index begin, end;  // rows
  };
  struct TileGradients;
  void clear_sums();
  std::vector<WeightTile> weight_tiles() const;
  void install_tile(const WeightTile& tile);
  const RowClips<S>* clips_of(const WeightTile& tile, RowClips<S>& storage) const;
  const RowClips<S>* clips_of(SiteKind kind, Index rows, RowClips<S>& storage) const;
  void apply_hook(SiteKind kind, Matrix<S>& tensor, BlockRecord<S>* record) const;
  void site_backward(SiteKind kind, const Matrix<S>& before, Matrix<S>& gradient);
  void head_backward(SiteKind kind, const Matrix<S>& before, Matrix<S>& gradient);
  Matrix<S> linear_backward(Linear which, const Matrix<S>& x, const Matrix<S>& gradient);
  Matrix<S> mlp_backward(const BlockRecord<S>& record, const Matrix<S>& gradient);
  Matrix<S> attention_part_backward(const BlockRecord<S>& record, const Matrix<S>& gradient);
  Matrix<S> projections_backward(const BlockRecord<S>& record, const Matrix<S>& dq,
                                 const Matrix<S>& dk, const Matrix<S>& dv);
  TileGradients tile_backward(const WeightTile& tile, BlockGradients& result, bool with_weights);
  bool maps_outputs(Linear linear) const;
  void install_value_bias();
  void value_bias_backward(const Vector<double>& gradient, TransformGradient& sum) const;

  ModelConfig config_;
  QuantSettings quant_;
  Index layer_;
  PerSite<Transform<double>> fixed_;
  PerSite<Transform<S>> fixed_cast_;
  PerLinear<Matrix<double>> base_;  // weights with the fixed duals
  Vector<double> value_bias_;       // [kv_heads·e] or empty, before `values`
  LayerWeights<S> weights_;
  BlockParameters parameters_;
  PerSite<Transform<S>> online_, fixed_dual_;
  Transform<S> query_, values_;
  PerLinear<Matrix<S>> unrounded_;     // the weights in force before they were rounded
  PerLinear<Matrix<S>> rounded_sums_;  // ∂L/∂ of the rounded weights; no rows: nothing yet
  PerLinear<Vector<double>> bias_sums_;
  BlockGradients sums_;
};

}  // namespace ruq
