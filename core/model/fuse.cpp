#include "ruquant/model/fuse.hpp"

#include <cmath>
#include <memory>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/quant/rounding.hpp"

namespace ruq {
namespace {

template <class S, class Change>
void in_double(Matrix<S>& matrix, const Change& change) {
  Matrix<double> wide = matrix.template cast<double>();
  change(wide);
  matrix = wide.template cast<S>();
}

template <class S>
void apply_dual(const Transform<double>& transform, Matrix<S>& weight) {
  if (transform.is_identity()) return;
  in_double(weight, [&](Matrix<double>& w) { transform.apply_dual(w); });
}

template <class S>
void apply_to_outputs(const Transform<double>& transform, LinearWeights<S>& linear) {
  if (transform.is_identity()) return;
  in_double(linear.weight, [&](Matrix<double>& w) { transform.apply_to_outputs(w); });
  if (linear.bias.size() == 0) return;
  Matrix<double> row = linear.bias.transpose().template cast<double>();
  transform.apply(row);
  linear.bias = row.transpose().template cast<S>();
}

// The factors of a transform that is one Scale or nothing.
Vector<double> only_scale(const Transform<double>& transform, Index width, const char* where) {
  if (transform.is_identity()) return Vector<double>::Ones(width);
  const auto* scale = std::get_if<Scale<double>>(&transform.steps().front());
  if (scale == nullptr || transform.steps().size() != 1) {
    fail("{}: only a scale can be folded here, found: {}", where, transform.describe());
  }
  return scale->factor;
}

template <class S>
void fold_norm(const Plan& plan, const Transform<double>& folded, SiteKind kind,
               LayerWeights<S>& weights) {
  Vector<S>& gain = kind == SiteKind::attn_in ? weights.attn_norm : weights.mlp_norm;
  const Vector<double> factor = only_scale(folded, gain.size(), to_string(kind).c_str());
  Vector<double> folded_gain = gain.template cast<double>().cwiseProduct(factor);
  for (const Linear linear : linears_of(kind)) {
    Matrix<S>& weight = weights[linear].weight;
    in_double(weight, [&](Matrix<double>& w) {
      w.array().rowwise() /= factor.transpose().array();
      // A channel with zero gain carries nothing; under a residual basis it must say so in the
      // weight, since the gain becomes one.
      if (plan.residual.is_identity()) return;
      for (Index j = 0; j < w.cols(); ++j) {
        if (folded_gain(j) == 0) w.col(j).setZero();
      }
      plan.residual.apply_dual(w);
    });
  }
  if (!plan.residual.is_identity()) {
    for (double& value : folded_gain) {
      if (value != 0 && std::abs(value - 1) > 1e-6) {
        fail("{}: a residual basis needs norm gains of one after folding, found {}",
             to_string(kind), value);
      }
      value = 1;
    }
  }
  gain = folded_gain.template cast<S>();
}

// Rounds one weight in place and tells what it takes to store.
template <class S>
RoundedLinear round_linear(const Plan& plan, const std::string& rounding, Index layer,
                           Linear linear, const HessianFactor* hessian, LayerWeights<S>& weights) {
  Matrix<S>& weight = weights[linear].weight;
  const auto& planned = plan.layers.at(static_cast<std::size_t>(layer)).weight_clips[linear];
  RowClips<S> clips;
  if (planned) clips = {planned->low.template cast<S>(), planned->high.template cast<S>()};
  const double start = now_seconds();
  const double cpu_start = work_seconds();
  RoundedWeight<S> rounded =
      with_context(fmt::format("layers.{}.{}", layer, to_string(linear)), [&] {
        return round_weight<S>(rounding, {weight, plan.quant.weight, hessian,
                                          plan.quant.rounding_options, planned ? &clips : nullptr});
      });
  weight = std::move(rounded.weight);
  return {layer,
          linear,
          weight.size(),
          rounded.bits,
          std::move(rounded.details),
          now_seconds() - start,
          work_seconds() - cpu_start};
}

}  // namespace

Transform<double> repeat_over_query_heads(const Transform<double>& value_space,
                                          const ModelConfig& config) {
  const Index group = config.heads / config.kv_heads;
  const Index e = config.head_width;
  Transform<double> repeated(value_space.is_identity() ? 0 : config.query_width());
  for (const Step<double>& step : value_space.steps()) {
    if (const auto* scale = std::get_if<Scale<double>>(&step)) {
      Vector<double> factor(config.query_width());
      for (Index head = 0; head < config.heads; ++head) {
        factor.segment(head * e, e) = scale->factor.segment(head / group * e, e);
      }
      repeated.append(Scale<double>{factor});
    } else if (const auto* hadamard = std::get_if<HadamardStep>(&step);
               hadamard != nullptr && e % hadamard->order == 0) {
      repeated.append(*hadamard);
    } else if (const auto* blocks = std::get_if<BlockDiagonal<double>>(&step);
               blocks != nullptr && std::ssize(blocks->which) == config.kv_heads) {
      BlockDiagonal<double> wide{blocks->maps, {}};
      for (Index head = 0; head < config.heads; ++head) {
        wide.which.push_back(blocks->which[static_cast<std::size_t>(head / group)]);
      }
      repeated.append(std::move(wide));
    } else {
      fail("attn_out: only head-local maps can be folded into v_proj, found: {}",
           value_space.describe());
    }
  }
  return repeated;
}

Transform<double> site_transform(const Plan& plan, const ModelConfig& config, const Site& site) {
  const SitePlan& here = plan.layers.at(static_cast<std::size_t>(site.layer))[site.kind];
  Transform<double> transform =
      site.kind == SiteKind::attn_out ? repeat_over_query_heads(here.folded, config) : here.folded;
  if (has_norm(site.kind)) transform = transform.then(plan.residual);
  return transform.then(here.online);
}

template <class S>
void fold_layer(const Plan& plan, const ModelConfig& config, Index layer,
                LayerWeights<S>& weights) {
  const LayerPlan& here = plan.layers.at(static_cast<std::size_t>(layer));
  fold_norm(plan, here[SiteKind::attn_in].folded, SiteKind::attn_in, weights);
  fold_norm(plan, here[SiteKind::mlp_in].folded, SiteKind::mlp_in, weights);

  const Transform<double>& values = here[SiteKind::attn_out].folded;
  apply_to_outputs(values, weights[Linear::v_proj]);
  apply_dual(repeat_over_query_heads(values, config), weights[Linear::o_proj].weight);

  const Transform<double>& hidden = here[SiteKind::mlp_out].folded;
  only_scale(hidden, config.mlp_width, "mlp_out");
  apply_to_outputs(hidden, weights[Linear::up_proj]);
  apply_dual(hidden, weights[Linear::down_proj].weight);

  apply_to_outputs(plan.residual, weights[Linear::o_proj]);
  apply_to_outputs(plan.residual, weights[Linear::down_proj]);
}

template <class S>
void transform_site_weights(const Plan& plan, const Site& site, LayerWeights<S>& weights) {
  const Transform<double>& online =
      plan.layers.at(static_cast<std::size_t>(site.layer))[site.kind].online;
  for (const Linear linear : linears_of(site.kind)) apply_dual(online, weights[linear].weight);
}

template <class S>
void install_site(const Plan& plan, const Site& site, LayerWeights<S>& weights) {
  transform_site_weights(plan, site, weights);
  for (const Linear linear : linears_of(site.kind)) {
    round_linear(plan, "rtn", site.layer, linear, nullptr, weights);
  }
}

template <class S>
void quantize_site(const Plan& plan, const Site& site, Matrix<S>& tensor) {
  const SitePlan& here = plan.layers.at(static_cast<std::size_t>(site.layer))[site.kind];
  fake_quantize(tensor, plan.quant.of(site.kind), here.clips, here.levels);
}

template <class S>
SiteHook<S> runtime_hook(const Plan& plan, const ModelConfig& config) {
  struct Layer {
    PerSite<Transform<S>> online;
    PerSite<std::optional<ClipPair>> clips;
    PerSite<CodeLevels> levels;
    Transform<S> query;
    Transform<S> key;
  };
  auto layers = std::make_shared<std::vector<Layer>>();
  for (const LayerPlan& planned : plan.layers) {
    Layer layer;
    for (const SiteKind kind : kLinearSites) {
      layer.online[kind] = planned[kind].online.template cast<S>();
      layer.clips[kind] = planned[kind].clips;
      layer.levels[kind] = planned[kind].levels;
    }
    layer.query = planned.query_key.template cast<S>();
    layer.key = planned.query_key.inverse_transpose().template cast<S>();
    layers->push_back(std::move(layer));
  }
  const Index head_width = config.head_width;
  const QuantSettings quant = plan.quant;

  // Queries, keys and values are rows of one head of one token.
  const auto per_head = [head_width](Matrix<S>& tensor, const Transform<S>& transform,
                                     const QuantSpec& spec) {
    const Index rows = tensor.rows();
    const Index cols = tensor.cols();
    tensor.resize(rows * (cols / head_width), head_width);
    transform.apply(tensor);
    fake_quantize(tensor, spec);
    tensor.resize(rows, cols);
  };
  return [layers, quant, per_head](const Site& site, Matrix<S>& tensor) {
    const Layer& layer = layers->at(static_cast<std::size_t>(site.layer));
    switch (site.kind) {
      case SiteKind::queries:
        return per_head(tensor, layer.query, quant.queries);
      case SiteKind::keys:
        return per_head(tensor, layer.key, quant.keys);
      case SiteKind::values:
        return per_head(tensor, Transform<S>(), quant.values);
      default:
        layer.online[site.kind].apply(tensor);
        fake_quantize(tensor, quant.of(site.kind), layer.clips[site.kind], layer.levels[site.kind]);
    }
  };
}

template <class S>
PlannedModel<S>::PlannedModel(const Model<S>& model, const Plan& plan,
                              const std::function<void(const Model<S>&)>& before_rounding,
                              const RoundingHelp<S>& help)
    : model_(model), hook_(runtime_hook<S>(plan, model.config)) {
  RUQ_CHECK(plan.layers.size() == model.layers.size(), "plan of {} layers for a model of {}",
            plan.layers.size(), model.layers.size());
  parallel_for(model_.config.layers, [&](Index l) {
    LayerWeights<S>& weights = model_.layers[static_cast<std::size_t>(l)];
    fold_layer(plan, model_.config, l, weights);
    for (const SiteKind kind : kLinearSites) transform_site_weights(plan, Site{l, kind}, weights);
  });
  if (!plan.residual.is_identity()) {
    in_double(model_.head = model_.head_weight(), [&](Matrix<double>& head) {
      head.array().rowwise() *= model_.final_norm.transpose().template cast<double>().array();
      plan.residual.apply_dual(head);
    });
    model_.final_norm.setOnes();
    in_double(model_.embedding, [&](Matrix<double>& rows) { plan.residual.apply(rows); });
  }
  if (before_rounding) before_rounding(model_);
  if (plan.quant.weight.rounds()) round(plan, help);
}

template <class S>
void PlannedModel<S>::round(const Plan& plan, const RoundingHelp<S>& help) {
  const RoundingNeeds needs = rounding_needs(plan.quant.rounding);
  if (needs == RoundingNeeds::weight) return round_alone(plan);
  if (help.ids.empty() || (needs == RoundingNeeds::block && !help.learner)) {
    fail("weight rounding '{}' needs sample sequences, and none were given", plan.quant.rounding);
  }
  needs == RoundingNeeds::block ? round_by_learning(plan, help) : round_by_hessians(plan, help);
}

template <class S>
void PlannedModel<S>::round_alone(const Plan& plan) {
  constexpr auto kEach = static_cast<Index>(kLinears.size());
  rounded_.resize(static_cast<std::size_t>(model_.config.layers * kEach));
  parallel_for(model_.config.layers, [&](Index l) {
    LayerWeights<S>& weights = model_.layers[static_cast<std::size_t>(l)];
    for (const Linear linear : kLinears) {
      rounded_[static_cast<std::size_t>(l * kEach + static_cast<Index>(linear))] =
          round_linear(plan, plan.quant.rounding, l, linear, nullptr, weights);
    }
  });
}

template <class S>
void PlannedModel<S>::round_by_hessians(const Plan& plan, const RoundingHelp<S>& help) {
  Matrix<S> x = embed<S>(model_, help.ids);
  for (Index l = 0; l < model_.config.layers; ++l) {
    LayerWeights<S>& weights = model_.layers[static_cast<std::size_t>(l)];
    const SiteHook<S> round_on_the_way = [&](const Site& site, Matrix<S>& tensor) {
      if (linears_of(site.kind).empty()) {
        hook_(site, tensor);
      } else {
        round_site(plan, help, site, tensor, weights);
      }
    };
    block_forward(model_.config, weights, l, help.length, round_on_the_way, x);
  }
}

template <class S>
void PlannedModel<S>::round_by_learning(const Plan& plan, const RoundingHelp<S>& help) {
  const ModelConfig& config = model_.config;
  const Index learned = config.first_layers(plan.quant.rounding_options.learning.blocks);
  const SiteHook<S> transforms = runtime_hook<S>(without_rounding(plan), config);
  BlockSamples<S> samples;
  samples.length = help.length;
  samples.quantized_input = samples.float_input = embed<S>(model_, help.ids);
  for (Index l = 0; l < config.layers; ++l) {
    LayerWeights<S>& weights = model_.layers[static_cast<std::size_t>(l)];
    const bool learns = l < learned;
    if (learns) {
      samples.target = samples.float_input;
      block_forward(config, weights, l, help.length, transforms, samples.target);
    } else {
      samples = {};
    }
    const std::string where = fmt::format("layers.{}", l);
    const Stream draws = help.draws.child(where);
    with_context(where, [&] {
      help.learner({plan, config, l, learns, samples, weights, rounded_, learning_, draws});
    });
    if (l + 1 >= learned) continue;  // nobody sees what comes out
    samples.float_input = std::move(samples.target);
    block_forward(config, weights, l, help.length, hook_, samples.quantized_input);
  }
}

// The linears of a site are rounded when their inputs are there and before they are used.
template <class S>
void PlannedModel<S>::round_site(const Plan& plan, const RoundingHelp<S>& help, const Site& site,
                                 Matrix<S>& tensor, LayerWeights<S>& weights) {
  HessianAccumulator sums(tensor.cols());
  const Index windows = tensor.rows() / help.length;
  const RoundingOptions& options = plan.quant.rounding_options;
  const bool quantized = options.hessian_inputs == "quantized";
  plan.layers[static_cast<std::size_t>(site.layer)][site.kind].online.template cast<S>().apply(
      tensor);
  if (!quantized) sums.add(tensor, windows);
  quantize_site(plan, site, tensor);
  if (quantized) sums.add(tensor, windows);
  const HessianFactor hessian = with_context(to_string(site), [&] {
    return factor_hessian(sums.hessian(), options.gptq.damping, options.gptq.act_order);
  });
  for (const Linear linear : linears_of(site.kind)) {
    rounded_.push_back(
        round_linear(plan, plan.quant.rounding, site.layer, linear, &hessian, weights));
  }
}

Plan without_rounding(Plan plan) {
  plan.quant.set_widths(BitWidths{});
  return plan;
}

#define RUQ_INSTANTIATE(S)                                                            \
  template void fold_layer(const Plan&, const ModelConfig&, Index, LayerWeights<S>&); \
  template void transform_site_weights(const Plan&, const Site&, LayerWeights<S>&);   \
  template void quantize_site(const Plan&, const Site&, Matrix<S>&);                  \
  template void install_site(const Plan&, const Site&, LayerWeights<S>&);             \
  template SiteHook<S> runtime_hook<S>(const Plan&, const ModelConfig&);              \
  template class PlannedModel<S>;
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
