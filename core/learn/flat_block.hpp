// What FlatQuant (arXiv 2410.09426; specification §2.4) trains in one block, and its chain rule.
//
//   attn_in, mlp_in, mlp_out   a scale d and P = P1 ⊗ P2, sizes by flatquant_sizes()
//   attn_out                   P_o across the query heads, online; P_v of every value head, folded
//                              into v_proj
//   queries, keys              keys get P_h and queries P_h⁻ᵀ
//   clip factors               one pair a site, one pair a weight row, each sigmoid(γ)
//
// Every factor has the form U·diag(σ)·Vᵀ, with U and V the Cayley maps of the strictly lower parts
// of raw matrices.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ruquant/learn/block_fit.hpp"
#include "ruquant/transform/kronecker.hpp"

namespace ruq {

struct SvdFactor {
  Matrix<double> raw_u, raw_v;  ///< [n,n]; the part below the diagonal counts
  Vector<double> sigma;         ///< [n]; no rows at all: no factor here

  Index width() const { return sigma.size(); }
  /// P = U·diag(σ)·Vᵀ with its dual P⁻ᵀ = U·diag(1/σ)·Vᵀ.
  SquareMap<double> build() const;
  /// ∂L/∂(raw_u, raw_v, σ) from ∂L/∂P, in which the dual is accounted for (transform_grad.hpp).
  SvdFactor gradient(const Matrix<double>& by_map) const;
  /// The same from ∂L/∂P⁻ᵀ.
  SvdFactor gradient_by_dual(const Matrix<double>& by_dual) const;
};

/// A raw matrix [width,width] for a place such as "attn_in.left.u".
using RawMaps = std::function<Matrix<double>(const std::string& place, Index width)>;

/// Numbers, or the gradient by them.
struct FlatBlock {
  PerSite<SvdFactor> left, right;       ///< at attn_out P_o to the left and nothing to the right
  PerSite<Vector<double>> scale;        ///< d; empty at attn_out
  SvdFactor values, heads;              ///< P_v, P_h
  PerSite<Vector<double>> site_clips;   ///< γ of {low, high}
  PerLinear<Vector<double>> low, high;  ///< γ of every row [out]

  /// A site's online transform without d: P1 ⊗ P2, or P_o ⊗ I.
  Transform<double> online(SiteKind kind, Index head_width) const;
  Transform<double> query_key() const;  ///< as LayerPlan::query_key wants it
  Transform<double> value_map() const;  ///< of one head
};

/// Which of them are trained.
struct FlatParts {
  bool transforms = true;
  bool scale = true;
  bool clips = true;
  bool any() const { return transforms || scale || clips; }
};

/// Raw maps as drawn, σ and d of ones, γ at the start.
FlatBlock flat_start(const ModelConfig& config, const RawMaps& draw);

/// Clip factors only where `with_clips`.
BlockParameters flat_parameters(const FlatBlock& block, const ModelConfig& config, bool with_clips);

/// By the chain rule; clips are left empty where the gradients have none.
FlatBlock flat_gradient(const FlatBlock& block, const BlockGradients& gradients);

/// The vectors of a block that `parts` names, in a fixed order: `visit(name, values, is_clip)`.
void visit_flat_parts(
    FlatBlock& block, const FlatParts& parts,
    const std::function<void(const std::string&, Eigen::Map<Vector<double>>, bool)>& visit);

struct FlatRates {
  double transform = 5e-3;  ///< of factors and d
  double clip = 5e-2;
  double weight_decay = 0.01;
  double final_rate = 5e-6;
};

/// Trains the parts of `flat` in place on the float stream of the block, from weights before any
/// transform. Clips that are not trained are not used.
template <class S>
LearningRecord fit_flat_block(const ModelConfig& config, const BlockView<S>& block,
                              const QuantSettings& quant, const FlatParts& parts,
                              const FlatRates& rates, const LearningSchedule& schedule,
                              FlatBlock& flat);

}  // namespace ruq
