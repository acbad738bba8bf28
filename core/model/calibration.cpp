#include "ruquant/model/calibration.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/quant/code_levels.hpp"

namespace ruq {
namespace {

// Where the windows of one purpose begin, uniform on the calibration range.
class WindowDraws {
 public:
  WindowDraws(Index seed, const std::string& purpose, Index length, Index range)
      : stream_(static_cast<std::uint64_t>(seed), fmt::format("calibration/{}", purpose)),
        purpose_(purpose),
        length_(length),
        range_(range) {
    if (length > range) {
      fail("{}: found windows of {} tokens, expected at most the {} of the calibration range",
           purpose, length, range);
    }
  }

  std::vector<Index> take(Index count) {
    const auto room = static_cast<double>(range_ - length_ + 1);
    std::vector<Index> begins;
    for (const double u : stream_.uniform(count)) begins.push_back(static_cast<Index>(u * room));
    return begins;
  }

  // Windows that share a token with a held-out one are drawn again from the places that do not.
  void keep_apart(std::vector<Index>& begins, const std::vector<Index>& held_out) {
    const auto shares = [&](Index begin) {
      return std::any_of(held_out.begin(), held_out.end(),
                         [&](Index other) { return std::abs(begin - other) < length_; });
    };
    if (std::none_of(begins.begin(), begins.end(), shares)) return;
    std::vector<Index> free;
    for (Index place = 0; place + length_ <= range_; ++place) {
      if (!shares(place)) free.push_back(place);
    }
    if (free.empty()) {
      fail(
          "{}: found no window of {} tokens apart from the {} held-out ones in the {} tokens of "
          "the calibration range",
          purpose_, length_, held_out.size(), range_);
    }
    for (Index& begin : begins) {
      if (!shares(begin)) continue;
      const double u = stream_.uniform(1)(0);
      begin = free[static_cast<std::size_t>(u * static_cast<double>(free.size()))];
    }
  }

 private:
  Stream stream_;
  std::string purpose_;
  Index length_, range_;
};

}  // namespace

template <class S>
const Model<S>& CalibrationSession<S>::model() const {
  fail("found a dump of activations, expected a model: this method learns from whole blocks");
}

template <class S>
std::vector<std::int32_t> CalibrationSession<S>::windows(Index, Index, const std::string&,
                                                         const HeldOut&) const {
  model();
  return {};
}

template <class S>
LearningTokens CalibrationSession<S>::learning_tokens(const LearningWindows&) const {
  model();
  return {};
}

template <class S>
void CalibrationSession<S>::walk_blocks(const LearningWindows&, Plan&, const BlockVisitor<S>&) {
  model();
}

template <class S>
void walk_layer(const ModelConfig& config, LayerWeights<S> weights, Index layer, Index length,
                bool quantized, Plan& plan, const SiteVisitor<S>& visit, Matrix<S>& x) {
  fold_layer(plan, config, layer, weights);
  // The hook of this layer alone, rebuilt from the plan whenever a visit has changed it.
  Plan here = plan;
  const SiteHook<S> hook = [&](const Site& site, Matrix<S>& tensor) {
    if (is_linear_site(site.kind)) {
      with_context(to_string(site), [&] { visit(site, tensor, plan); });
      if (!quantized) return;
      install_site(plan, site, weights);
      plan.layers[static_cast<std::size_t>(layer)][site.kind].online.template cast<S>().apply(
          tensor);
      quantize_site(plan, site, tensor);
    } else if (quantized) {
      here.layers.assign(1, plan.layers[static_cast<std::size_t>(layer)]);
      runtime_hook<S>(here, config)(Site{0, site.kind}, tensor);
    }
  };
  block_forward(config, weights, layer, length, hook, x);
}

template <class S>
ModelSession<S>::ModelSession(const Model<S>& model, std::span<const std::int32_t> tokens,
                              const CalibrationOptions& options)
    : model_(model), tokens_(tokens), options_(options) {
  if (std::ssize(tokens) < options.window_tokens) {
    fail(
        "calibration.window_tokens: found {}, expected at most the {} tokens of the calibration "
        "range",
        options.window_tokens, tokens.size());
  }
}

template <class S>
std::vector<Site> ModelSession<S>::sites() const {
  std::vector<Site> all;
  for (Index l = 0; l < model_.config.layers; ++l) {
    for (const SiteKind kind : kLinearSites) all.push_back({l, kind});
  }
  return all;
}

template <class S>
const Matrix<S>& ModelSession<S>::weight(Index layer, Linear linear) const {
  return model_.layers.at(static_cast<std::size_t>(layer))[linear].weight;
}

template <class S>
const Vector<S>& ModelSession<S>::norm_gain(Index layer, SiteKind kind) const {
  const LayerWeights<S>& weights = model_.layers.at(static_cast<std::size_t>(layer));
  return kind == SiteKind::attn_in ? weights.attn_norm : weights.mlp_norm;
}

template <class S>
std::vector<std::int32_t> ModelSession<S>::windows(Index count, Index length,
                                                   const std::string& purpose,
                                                   const HeldOut& held_out) const {
  WindowDraws draws(options_.seed, purpose, length, std::ssize(tokens_));
  std::vector<Index> begins = draws.take(count);
  if (!held_out) return cut(begins, length);
  std::vector<Index> train, judging;
  for (Index w = 0; w < count; ++w) {
    (held_out(w) ? judging : train).push_back(begins[static_cast<std::size_t>(w)]);
  }
  draws.keep_apart(train, judging);
  auto next = train.begin();
  for (Index w = 0; w < count; ++w) {
    if (!held_out(w)) begins[static_cast<std::size_t>(w)] = *next++;
  }
  return cut(begins, length);
}

template <class S>
LearningTokens ModelSession<S>::learning_tokens(const LearningWindows& options) const {
  WindowDraws draws(options_.seed, "learning", options.tokens, std::ssize(tokens_));
  WindowDraws judging(options_.seed, "held out", options.tokens, std::ssize(tokens_));
  std::vector<Index> train = draws.take(options.train);
  const std::vector<Index> held_out = judging.take(options.held_out);
  draws.keep_apart(train, held_out);
  return {cut(train, options.tokens), cut(held_out, options.tokens)};
}

template <class S>
std::vector<std::int32_t> ModelSession<S>::cut(std::span<const Index> begins, Index length) const {
  std::vector<std::int32_t> ids;
  for (const Index begin : begins) {
    ids.insert(ids.end(), tokens_.begin() + begin, tokens_.begin() + begin + length);
  }
  return ids;
}

template <class S>
const ChannelMaxima& ModelSession<S>::channel_maxima() {
  if (!maxima_.empty()) return maxima_;
  const ModelConfig& config = model_.config;
  ChannelMaxima maxima(static_cast<std::size_t>(config.layers));
  for (auto& layer : maxima) {
    for (const SiteKind kind : kLinearSites) {
      layer[kind] = Vector<double>::Zero(config.site_width(kind));
    }
  }
  const SiteHook<S> track = [&](const Site& site, Matrix<S>& tensor) {
    if (!is_linear_site(site.kind)) return;
    auto& seen = maxima[static_cast<std::size_t>(site.layer)][site.kind];
    seen =
        seen.cwiseMax(tensor.cwiseAbs().colwise().maxCoeff().transpose().template cast<double>());
  };
  const auto ids = windows(options_.windows, options_.window_tokens, "maxima");
  for (Index w = 0; w < options_.windows; ++w) {
    const auto window = std::span(ids).subspan(static_cast<std::size_t>(w * options_.window_tokens),
                                               static_cast<std::size_t>(options_.window_tokens));
    final_hidden(model_, window, options_.window_tokens, track);
  }
  maxima_ = std::move(maxima);
  return maxima_;
}

template <class S>
Matrix<S> ModelSession<S>::stream_input(CalibrationStream stream, const HeldOut& held_out) const {
  if (stream != CalibrationStream::mean_prefix) {
    return embed<S>(model_, windows(options_.windows, options_.window_tokens, "samples", held_out));
  }
  const auto ids = windows(options_.mean_windows, options_.window_tokens, "mean");
  Matrix<double> mean = Matrix<double>::Zero(options_.window_tokens, model_.config.width);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    mean.row(static_cast<Index>(i) % options_.window_tokens) +=
        model_.embedding.row(ids[i]).template cast<double>();
  }
  mean /= static_cast<double>(options_.mean_windows);
  return mean.template cast<S>();
}

// Layer after layer. For layers that an earlier run had done `step` gets the plan that it left, to
// take from it what a visit would find; nothing is done at all if those were all of them.
template <class S>
void ModelSession<S>::walk_layers(Index layers, Plan& plan, PlanJournal* journal,
                                  const std::function<void(Index, const Plan*)>& step) {
  const Index number = parts_++;
  Plan kept = plan;
  const Index done = journal == nullptr ? 0 : journal->resume(number, kept);
  if (done < layers) {
    for (Index l = 0; l < done; ++l) step(l, &kept);
  }
  if (done > 0) plan = std::move(kept);
  for (Index l = done; l < layers; ++l) {
    step(l, nullptr);
    if (journal != nullptr) journal->keep(number, l + 1, layers, plan);
  }
}

template <class S>
void ModelSession<S>::walk_sites(CalibrationStream stream, Plan& plan, const SiteVisitor<S>& visit,
                                 const WalkOptions& options) {
  Matrix<S> x = stream_input(stream, options.held_out);
  plan.residual.template cast<S>().apply(x);
  const bool quantized = stream != CalibrationStream::float_samples;
  const auto step = [&](Index l, const Plan* kept) {
    const SiteVisitor<S> take = [&](const Site& site, const Matrix<S>&, Plan& here) {
      here.layers[static_cast<std::size_t>(l)][site.kind] =
          kept->layers[static_cast<std::size_t>(l)][site.kind];
    };
    walk_layer(model_.config, model_.layers[static_cast<std::size_t>(l)], l, options_.window_tokens,
               quantized, plan, kept == nullptr ? visit : take, x);
  };
  walk_layers(model_.config.first_layers(options.layers), plan,
              options.plan_is_memory ? journal_.get() : nullptr, step);
}

template <class S>
void ModelSession<S>::walk_blocks(const LearningWindows& options, Plan& plan,
                                  const BlockVisitor<S>& visit) {
  // One set of sequences: the float stream in the model's own basis, and what the visitor sees.
  struct Sequences {
    Matrix<S> original;
    BlockSamples<S> seen;
  };
  const Transform<S> residual = plan.residual.template cast<S>();
  const auto start = [&](const std::vector<std::int32_t>& tokens) {
    Sequences stream{embed<S>(model_, tokens), {}};
    stream.seen.length = options.tokens;
    stream.seen.quantized_input = stream.original;
    residual.apply(stream.seen.quantized_input);
    return stream;
  };
  const LearningTokens tokens = learning_tokens(options);
  std::array streams = {start(tokens.train), start(tokens.held_out)};
  const SiteVisitor<S> nothing = [](const Site&, const Matrix<S>&, Plan&) {};
  Plan identity = Plan::identity("float", model_.config.layers, QuantSettings{});
  const Index layers = model_.config.first_layers(options.blocks);
  walk_layers(layers, plan, journal_.get(), [&](Index l, const Plan* kept) {
    const LayerWeights<S>& weights = model_.layers[static_cast<std::size_t>(l)];
    for (Sequences& stream : streams) {
      stream.seen.float_input = stream.original;
      residual.apply(stream.seen.float_input);
      walk_layer(model_.config, weights, l, options.tokens, false, identity, nothing,
                 stream.original);
      stream.seen.target = stream.original;
      residual.apply(stream.seen.target);
    }
    if (kept != nullptr) {
      plan.layers[static_cast<std::size_t>(l)] = kept->layers[static_cast<std::size_t>(l)];
    } else {
      with_context(fmt::format("layers.{}", l), [&] {
        visit(BlockView<S>{l, weights, streams[0].seen, streams[1].seen}, plan);
      });
    }
    if (l + 1 == layers) return;  // nobody sees what comes out of the last
    for (Sequences& stream : streams) {
      walk_layer(model_.config, weights, l, options.tokens, true, plan, nothing,
                 stream.seen.quantized_input);
    }
  });
}

template <class S>
Index ModelSession<S>::resume_steps(Plan& state) {
  ++parts_;
  return journal_ ? journal_->resume(parts_ - 1, state) : 0;
}

template <class S>
void ModelSession<S>::keep_steps(Index done, Index all, const Plan& state) {
  if (journal_) journal_->keep(parts_ - 1, done, all, state);
}

template <class S>
void fit_activation_levels(CalibrationSession<S>& session, Plan& plan) {
  const QuantSettings& quant = plan.quant;
  if (quant.activation_levels == "midpoint" || !quant.activation.rounds()) return;
  const SiteVisitor<S> fit = [](const Site& site, const Matrix<S>& tensor, Plan& here) {
    SitePlan& planned = here.layers[static_cast<std::size_t>(site.layer)][site.kind];
    Matrix<S> rows = tensor;
    planned.online.template cast<S>().apply(rows);
    LevelFit sums(here.quant.of(site.kind), planned.clips);
    sums.add(rows);
    planned.levels = fitted_levels(sums, here.quant.activation_levels);
  };
  session.walk(CalibrationStream::samples_prefix, plan, fit);
}

#define RUQ_INSTANTIATE(S)                                                                 \
  template void walk_layer(const ModelConfig&, LayerWeights<S>, Index, Index, bool, Plan&, \
                           const SiteVisitor<S>&, Matrix<S>&);                             \
  template void fit_activation_levels(CalibrationSession<S>&, Plan&);                      \
  template class CalibrationSession<S>;                                                    \
  template class ModelSession<S>;
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
