#include "ruquant/learn/activation_clipping.hpp"

#include <cmath>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/clip_logits.hpp"

namespace ruq {
namespace {

double factor(double c) { return (1 + sigmoid(c)) / 2; }

double start_at(double clip_ratio) {
  if (clip_ratio <= 0.5 || clip_ratio >= 1) return kFirstClipLogit;
  const double share = 2 * clip_ratio - 1;
  return std::log(share / (1 - share));
}

const FitGroup& of(const std::vector<FitGroup>& groups, SiteKind kind) {
  return groups[static_cast<std::size_t>(kind)];
}

// One number a site.
std::vector<FitGroup> start_groups(const QuantSpec& spec, double rate) {
  std::vector<FitGroup> groups;
  for (const SiteKind kind : kLinearSites) {
    groups.push_back(
        {to_string(kind), Vector<double>::Constant(1, start_at(spec.clip_ratio)), rate});
  }
  return groups;
}

BlockChart chart_of(const LayerPlan& layer) {
  BlockParameters fixed;
  fixed.query_key = layer.query_key;
  fixed.weight_clips = layer.weight_clips;
  return {[fixed](const std::vector<FitGroup>& groups) {
            BlockParameters parameters = fixed;
            for (const SiteKind kind : kLinearSites) {
              const double clip = factor(of(groups, kind).value(0));
              parameters.activation_clips[kind] = ClipPair{clip, clip};
            }
            return parameters;
          },
          [](const std::vector<FitGroup>& groups, const BlockGradients& gradients) {
            std::vector<Vector<double>> slopes;
            for (const SiteKind kind : kLinearSites) {
              const ClipPair& slope = gradients.activation_clips[kind];
              const Vector<double> both = Vector<double>::Constant(1, slope.low + slope.high);
              slopes.push_back(through_clip_factors(of(groups, kind).value, both) / 2);
            }
            return slopes;
          }};
}

template <class S>
void learn_block(const ModelConfig& config, const BlockView<S>& block,
                 const ActivationClippingOptions& options, Plan& plan) {
  LayerPlan& layer = plan.layers.at(static_cast<std::size_t>(block.layer));
  PerSite<Transform<double>> fixed;
  for (const SiteKind kind : kLinearSites) fixed[kind] = layer[kind].online;
  LayerWeights<S> folded = block.weights;
  fold_layer(plan, config, block.layer, folded);
  BlockGrad<S> grad(config, folded, fixed, plan.quant, block.layer);
  std::vector<FitGroup> groups = start_groups(plan.quant.activation, options.learning_rate);
  LearningRecord record = fit_block(
      grad, chart_of(layer), block.train, block.held_out,
      {.objective = "block output on the quantized stream", .epochs = options.epochs}, groups);
  record.where = fmt::format("layers.{}", block.layer);
  plan.learning.push_back(std::move(record));
  for (const SiteKind kind : kLinearSites) {
    const double clip = factor(of(groups, kind).value(0));
    layer[kind].clips = ClipPair{clip, clip};
  }
}

}  // namespace

template <class S>
void learn_activation_clips(CalibrationSession<S>& session,
                            const ActivationClippingOptions& options, Plan& plan) {
  if (!plan.quant.activation.rounds()) return;
  session.walk_blocks(options.windows, plan, [&](const BlockView<S>& block, Plan& drawn) {
    learn_block(session.config(), block, options, drawn);
  });
}

template void learn_activation_clips(CalibrationSession<float>&, const ActivationClippingOptions&,
                                     Plan&);
template void learn_activation_clips(CalibrationSession<double>&, const ActivationClippingOptions&,
                                     Plan&);

}  // namespace ruq
