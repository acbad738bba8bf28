#include "ruquant/learn/weight_clipping.hpp"

#include <array>
#include <utility>
#include <variant>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/clip_logits.hpp"

namespace ruq {
namespace {

// Where a scale is folded into what produces the tensor.
constexpr std::array kScaledSites = {SiteKind::attn_in, SiteKind::mlp_in, SiteKind::mlp_out};

// What activations are divided by; the step folded there multiplies by the inverse.
Vector<double> folded_divisor(const Transform<double>& folded, SiteKind kind, Index width) {
  if (folded.is_identity()) return Vector<double>::Ones(width);
  const auto* scale = std::get_if<Scale<double>>(&folded.steps().front());
  if (scale == nullptr || folded.steps().size() != 1) {
    fail("{}: only a scale can be learned here, found: {}", to_string(kind), folded.describe());
  }
  return scale->factor.cwiseInverse().cwiseMax(kLeastScale);
}

Transform<double> division_by(const Vector<double>& divisor) {
  Transform<double> division(divisor.size());
  division.append(Scale<double>{divisor.cwiseInverse()});
  return division;
}

// Numbers of one block: γ low and γ high of every linear, then the divisors.
class ClippingChart {
 public:
  ClippingChart(const ModelConfig& config, const WeightClippingOptions& options,
                const LayerPlan& layer, bool rounds)
      : clips_(options.clips && rounds), scales_(options.scales) {
    start_.query_key = layer.query_key;
    for (const SiteKind kind : kLinearSites) {
      start_.activation_clips[kind] = layer[kind].clips;
      if (scales_) start_.online[kind] = layer[kind].online;
    }
    if (clips_) {
      for (const Linear linear : kLinears) add_clips(config, linear, options.learning_rate);
    }
    if (!scales_) return;
    for (const SiteKind kind : kScaledSites) {
      groups.push_back({"scale of " + to_string(kind),
                        folded_divisor(layer[kind].folded, kind, config.site_width(kind)),
                        options.scale_rate, 0, kLeastScale});
    }
  }

  BlockChart chart() const {
    return {[this](const auto& groups_now) { return build(groups_now); },
            [this](const auto& groups_now, const BlockGradients& gradients) {
              return pull_back(groups_now, gradients);
            }};
  }
  BlockParameters build(const std::vector<FitGroup>& now) const {
    BlockParameters parameters = start_;
    std::size_t i = 0;
    if (clips_) {
      for (const Linear linear : kLinears) {
        parameters.weight_clips[linear] =
            RowClips<double>{clip_factors(now[i].value), clip_factors(now[i + 1].value)};
        i += 2;
      }
    }
    if (!scales_) return parameters;
    for (const SiteKind kind : kScaledSites) {
      parameters.online[kind] = division_by(now[i++].value).then(start_.online[kind]);
    }
    return parameters;
  }
  void write(LayerPlan& layer) const {
    if (clips_) layer.weight_clips = build(groups).weight_clips;
    if (!scales_) return;
    std::size_t i = groups.size() - kScaledSites.size();
    for (const SiteKind kind : kScaledSites) {
      layer[kind].folded = division_by(groups[i++].value);
    }
  }

  std::vector<FitGroup> groups;

 private:
  void add_clips(const ModelConfig& config, Linear linear, double rate) {
    const Vector<double> start =
        Vector<double>::Constant(config.out_width(linear), kFirstClipLogit);
    groups.push_back({to_string(linear) + " low", start, rate});
    groups.push_back({to_string(linear) + " high", start, rate});
  }
  std::vector<Vector<double>> pull_back(const std::vector<FitGroup>& now,
                                        const BlockGradients& gradients) const {
    std::vector<Vector<double>> result;
    if (clips_) {
      for (const Linear linear : kLinears) {
        const RowClips<double>& slope = gradients.weight_clips[linear];
        for (const Vector<double>& one : {slope.low, slope.high}) {
          result.push_back(through_clip_factors(now[result.size()].value, one));
        }
      }
    }
    if (!scales_) return result;
    for (const SiteKind kind : kScaledSites) {
      // ∂L/∂s = −∂L/∂(1/s) / s²
      const Vector<double>& s = now[result.size()].value;
      const Vector<double>& by_factor = gradients.online[kind].front().vector;
      result.push_back(-(by_factor.array() / s.array().square()).matrix());
    }
    return result;
  }

  bool clips_, scales_;
  BlockParameters start_;  // what is not learned
};

// The plan with nothing at the places that the chart fills in while it learns.
Plan without_scales(const Plan& plan, Index layer) {
  Plan rest = plan;
  for (const SiteKind kind : kScaledSites) {
    rest.layers[static_cast<std::size_t>(layer)][kind].folded = {};
  }
  return rest;
}

}  // namespace

void bind(Fields& fields, WeightClippingOptions& options) {
  const LearningSchedule paper{.preset = "paper",
                               .windows = {.train = 128, .held_out = 8, .tokens = 2048},
                               .epochs = 20,
                               .batch = 1};
  bind(fields, options.schedule, LearningSchedule{}, paper, [&options](bool is_paper) {
    options.learning_rate = is_paper ? kPaperClipRate : kShortClipRate;
  });
  fields.add("lwc_rate", options.learning_rate, {.min = 0},
             "learning rate of the weights' clip factors (paper 0.005, published code 0.01)");
}

template <class S>
void learn_weight_clips(const ModelConfig& config, const BlockView<S>& block,
                        const WeightClippingOptions& options, Plan& plan) {
  LayerPlan& layer = plan.layers.at(static_cast<std::size_t>(block.layer));
  ClippingChart chart(config, options, layer, plan.quant.weight.rounds());
  if (chart.groups.empty()) return;
  RUQ_CHECK(!options.scales || plan.residual.is_identity(),
            "scales cannot be learned under a residual basis");
  // A transform that follows a learned scale is not fixed for BlockGrad, whose fixed steps come
  // first; its own gradient is not asked for.
  PerSite<Transform<double>> fixed;
  for (const SiteKind kind : kLinearSites) {
    if (!options.scales) fixed[kind] = layer[kind].online;
  }
  LayerWeights<S> folded = block.weights;
  fold_layer(options.scales ? without_scales(plan, block.layer) : plan, config, block.layer,
             folded);
  BlockGrad<S> grad(config, folded, fixed, plan.quant, block.layer);
  const BlockFitOptions fit{.objective = "block output on the quantized stream",
                            .epochs = options.schedule.epochs,
                            .batch = options.schedule.batch};
  LearningRecord record =
      fit_block(grad, chart.chart(), block.train, block.held_out, fit, chart.groups);
  record.where = fmt::format("layers.{}", block.layer);
  plan.learning.push_back(std::move(record));
  chart.write(layer);
}

template <class S>
void learn_weight_clips(CalibrationSession<S>& session, const WeightClippingOptions& options,
                        Plan& plan) {
  if (!options.learns() || !plan.quant.rounds()) return;
  session.walk_blocks(options.schedule.windows, plan, [&](const BlockView<S>& block, Plan& drawn) {
    learn_weight_clips(session.config(), block, options, drawn);
  });
}

#define RUQ_INSTANTIATE(S)                                                  \
  template void learn_weight_clips(const ModelConfig&, const BlockView<S>&, \
                                   const WeightClippingOptions&, Plan&);    \
  template void learn_weight_clips(CalibrationSession<S>&, const WeightClippingOptions&, Plan&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
