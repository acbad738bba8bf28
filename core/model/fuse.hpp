// The executor: applies a plan to a model. There is no other inference path: every method's plan
// goes through these functions, in calibration and in evaluation.
#pragma once

#include "ruquant/base/rng.hpp"
#include "ruquant/model/forward.hpp"
#include "ruquant/model/model.hpp"
#include "ruquant/quant/plan.hpp"

namespace ruq {

/// One block as something that learns meets it: what arrives on the float network and on the
/// network quantized so far, and what the float block gives; [windows·length, h] each, in the basis
/// of the plan's residual transform.
template <class S>
struct BlockSamples {
  Matrix<S> float_input;
  Matrix<S> quantized_input;
  Matrix<S> target;
  Index length = 0;
  Index windows() const { return length == 0 ? 0 : target.rows() / length; }
};

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

/// While a plan is drawn up: multiplies the linears that `site` feeds by the dual of the online
/// transform and rounds them to nearest, as the published calibrations do whatever rounding comes
/// after. So a plan does not depend on that rounding.
template <class S>
void install_site(const Plan& plan, const Site& site, LayerWeights<S>& weights);

/// Rounds the tensor of a linear site in place, with the site's clip factors and levels.
template <class S>
void quantize_site(const Plan& plan, const Site& site, Matrix<S>& tensor);

/// What became of one weight.
struct RoundedLinear {
  Index layer = 0;
  Linear linear = Linear::q_proj;
  Index size = 0;  ///< entries
  StoredBits bits;
  std::map<std::string, double> details;
  double seconds = 0;
  double cpu_seconds = 0;  ///< of processors
};

/// One block for a rounding that learns: the transformed weights, to be rounded in place, and what
/// flows in and out, in the basis of the folded model. Where `learns` is false the weights are
/// rounded as they start, and there are no samples.
template <class S>
struct BlockTask {
  const Plan& plan;
  const ModelConfig& config;
  Index layer = 0;
  bool learns = true;
  const BlockSamples<S>& samples;
  LayerWeights<S>& weights;
  std::vector<RoundedLinear>& rounded;  ///< one entry is added for each linear
  std::vector<LearningRecord>& learning;
  const Stream& draws;  ///< of this layer
};

/// What rounding may use beside weight and plan.
template <class S>
struct RoundingHelp {
  std::vector<std::int32_t> ids;  ///< sequences that give Hessians and samples
  Index length = 0;               ///< tokens of one
  /// Runs the roundings that learn block by block (learn/learned_rounding.hpp).
  std::function<void(const BlockTask<S>&)> learner;
  Stream draws{0, "rounding"};  ///< what learning draws comes from children named by layer
};

/// A model whose weights carry a plan. At 16 bits everywhere it computes the float model.
template <class S>
class PlannedModel {
 public:
  /// Folds and rounds a copy of `model`. `before_rounding`, when given, sees the copy with all
  /// transforms in its weights and nothing rounded: there the float function must be unchanged.
  /// Roundings that need data take it from `help`, block after block in order of execution: a
  /// linear sees what the network rounded so far gives it. Hessians are of inputs before they are
  /// rounded, or after with `hessian_inputs` = "quantized". Error if the plan's rounding needs help
  /// that is not there.
  PlannedModel(const Model<S>& model, const Plan& plan,
               const std::function<void(const Model<S>&)>& before_rounding = {},
               const RoundingHelp<S>& help = {});

  const Model<S>& model() const { return model_; }
  /// One entry a linear, by layer; empty when weights are not rounded.
  const std::vector<RoundedLinear>& rounded() const { return rounded_; }
  /// Of roundings that learn.
  const std::vector<LearningRecord>& learning() const { return learning_; }
  /// Applies the online transforms and quantizes activations, queries, keys and values.
  SiteHook<S> hook() const { return hook_; }

 private:
  void round(const Plan& plan, const RoundingHelp<S>& help);
  void round_alone(const Plan& plan);
  void round_by_hessians(const Plan& plan, const RoundingHelp<S>& help);
  void round_by_learning(const Plan& plan, const RoundingHelp<S>& help);
  void round_site(const Plan& plan, const RoundingHelp<S>& help, const Site& site,
                  Matrix<S>& tensor, LayerWeights<S>& weights);

  Model<S> model_;
  SiteHook<S> hook_;
  std::vector<RoundedLinear> rounded_;
  std::vector<LearningRecord> learning_;
};

/// What happens to the tensor of a site at run time: online transform, then fake quantization
/// (for queries and keys the pair transform first). `plan` must outlive the hook.
template <class S>
SiteHook<S> runtime_hook(const Plan& plan, const ModelConfig& config);

/// The same model with all quantizers at 16 bits: transforms only. Used to check that they change
/// no output before rounding begins.
Plan without_rounding(Plan plan);

}  // namespace ruq
