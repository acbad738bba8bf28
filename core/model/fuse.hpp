// The executor: applies a plan to a model. There is no other inference path: every method's plan
// goes through these functions, in calibration and in evaluation.
#pragma once

#include "ruquant/model/forward.hpp"
#include "ruquant/model/model.hpp"
#include "ruquant/quant/plan.hpp"

namespace ruq {

/// A head-local map of the value space [kv_heads·e] seen from the attention output [heads·e]: every
/// query head of a group repeats its key-value head's part.
Transform<double> repeat_over_query_heads(const Transform<double>& value_space,
                                          const ModelConfig& config);

/// The whole map between the original tensor at a site and the tensor that is quantized there:
/// folded, then the residual basis (attn_in, mlp_in), then online.
Transform<double> site_transform(const Plan& plan, const ModelConfig& config, const Site& site);

/// Folds what does not depend on the tensors: SitePlan::folded into norm gains, up_proj and v_proj,
/// and the residual basis into all weights of the layer. The float function of the layer, in the
/// new basis, is unchanged. Error if a residual basis meets a norm gain that is not one after
/// folding.
template <class S>
void fold_layer(const Plan& plan, const ModelConfig& config, Index layer, LayerWeights<S>& weights);

/// Multiplies the linears that `site` feeds by the dual of the online transform.
template <class S>
void transform_site_weights(const Plan& plan, const Site& site, LayerWeights<S>& weights);

/// Rounds the linears that `site` feeds as the plan says.
template <class S>
void round_site_weights(const Plan& plan, const Site& site, LayerWeights<S>& weights);

/// Both, in this order.
template <class S>
void install_site(const Plan& plan, const Site& site, LayerWeights<S>& weights);

/// A model whose weights carry a plan. At 16 bits everywhere it computes the float model.
template <class S>
class PlannedModel {
 public:
  /// Folds and rounds a copy of `model`. `before_rounding`, when given, sees the copy with all
  /// transforms in its weights and nothing rounded: there the float function must be unchanged.
  PlannedModel(const Model<S>& model, const Plan& plan,
               const std::function<void(const Model<S>&)>& before_rounding = {});

  const Model<S>& model() const { return model_; }
  /// Applies the online transforms and quantizes activations, queries, keys and values.
  SiteHook<S> hook() const { return hook_; }

 private:
  Model<S> model_;
  SiteHook<S> hook_;
};

/// What happens to the tensor of a site at run time: online transform, then fake quantization
/// (for queries and keys the pair transform first). `plan` must outlive the hook.
template <class S>
SiteHook<S> runtime_hook(const Plan& plan, const ModelConfig& config);

/// The same model with all quantizers at 16 bits: transforms only. Used to check that they change
/// no output before rounding begins.
Plan without_rounding(Plan plan);

}  // namespace ruq
