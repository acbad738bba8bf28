// SpinQuant's loss (arXiv 2405.16406; specification §2.3): the cross entropy of the quantized model
// as a function of the rotations in it.
//
//   R1 [h,h]  E ← E·R1; what reads the stream W ← W·diag(γ)·R1; what writes it W ← R1ᵀ·W, b ← b·R1;
//             the head reads x·R1ᵀ
//   R2 [e,e]  one a layer, shared by its heads: v_proj ← R2ᵀ·v_proj, b ← b·R2; o_proj ← o_proj·R2
//   R3 on queries and keys, R4 before down_proj: fixed
//
// Weights (after folding) and activations are rounded with straight-through gradients. R1 and R2
// are free matrices here, each use counted: right for an optimizer on the orthogonal group. Folding
// runs in S; the executor, which folds the result, does so in double.
#pragma once

#include <vector>

#include "ruquant/learn/cross_entropy.hpp"
#include "ruquant/learn/model_grad.hpp"

namespace ruq {

struct ModelRotations {
  Matrix<double> residual;             ///< R1
  std::vector<Matrix<double>> values;  ///< R2 of every layer
};

template <class S>
class ModelRotationObjective {
 public:
  struct Setup {
    Transform<double> query_key;  ///< R3, of width e
    Transform<double> hidden;     ///< R4, of width f
    QuantSettings quant;          ///< weights at 16 bits: not rounded while learning
  };
  /// `model` must outlive the objective, which keeps up to three copies of its blocks.
  ModelRotationObjective(const Model<S>& model, const Setup& setup);

  /// Mean cross entropy; `gradient` becomes ∂L/∂R1 and ∂L/∂R2 unless null. Error if a rotation does
  /// not fit.
  double evaluate(const ModelRotations& rotations, const TokenWindows& tokens,
                  ModelRotations* gradient = nullptr);

 private:
  /// The rotations in S.
  struct Cast {
    Matrix<S> residual;
    std::vector<Matrix<S>> values;
  };
  void check(const ModelRotations& rotations) const;
  void fold(const Cast& rotations, Index layer);
  double head_loss(const Cast& rotations, const TokenWindows& tokens, Matrix<S>& stream,
                   ModelRotations* gradient) const;
  void collect(const Cast& rotations, Index layer, BlockGrad<S>& block,
               ModelRotations& gradient) const;
  void collect_values(const Cast& rotations, Index layer, const PerLinear<Matrix<S>>& slopes,
                      const Vector<double>& bias_slope, Matrix<double>& gradient) const;

  const Model<S>& model_;
  QuantSettings quant_;
  BlockGrad<S> block_;
  std::vector<LayerWeights<S>> source_;          // with norm gains and R4 in the weights
  std::vector<LayerWeights<S>> folded_;          // as they act: rotated and rounded
  std::vector<PerLinear<Matrix<S>>> unrounded_;  // rotated; empty when weights are not rounded
};

}  // namespace ruq
