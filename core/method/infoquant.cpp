// InfoQuant (arXiv 2605.26175; specification §4.2): orthogonal matrices that suppress peaks (PSOT,
// core/learn/psot.hpp), learned for each site alone on the float stream.
//
//   attn_in, mlp_in  Q1, Q4: block-diagonal, after the norm's gain has been folded into the weights
//   attn_out         Q2: one matrix a key-value head, folded into v_proj, learned on the values and
//                    on the attention output of the heads that share them
//   mlp_out          randomized Hadamard, online; queries and keys: Hadamard
//
// Bases differ from layer to layer, so the published deployment keeps the residual stream rotated
// and hands it over by R_prevᵀ·R_next online. Here the stream stays in its own basis and every site
// applies its matrix online: the same rounded tensors, hence the same numbers. The Hadamard matrix
// at lm_head is left out, since nothing is rounded there. With `learn_clips` activation
// clips are learned afterwards, as the paper does (learn/activation_clipping.hpp); without, sites
// have the clip ratio of the quantizer.
//
// Our readings of what the specification leaves open: the loss of Q2 is the sum of the two losses,
// each over its value at the start (times their mean, to keep the unit); its softmax runs over a
// head of V and over the heads of one group of the attention output. Outlier tokens are found in
// the tensor of the site, those of attn_in serve Q2, and layers count from 0. On a dump, whose rows
// are no sequences, no tokens are marked, and V has no bias.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/activation_clipping.hpp"
#include "ruquant/learn/site_rotation.hpp"
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"

namespace ruq {
namespace {

constexpr Index kOutlierSamples = 10;
constexpr Index kFirstOutlierLayer = 2;
// The published learning rates meet a loss summed over 4 sequences of 2048; ours is a mean.
const double kRateUnit = std::sqrt(4.0 * 2048);

// The sum of two objectives, each over its value at the start, for every head in turn.
class BalancedHeads final : public RotationObjective {
 public:
  struct Pair {
    std::unique_ptr<RotationObjective> values, outputs;  // values: null where unknown
  };
  BalancedHeads(std::vector<Pair> heads, const Maps& start) : heads_(std::move(heads)) {
    std::vector<Index> all;
    for (Index row = 0; row < rows(); ++row) all.push_back(row);
    for (std::size_t h = 0; h < heads_.size(); ++h) {
      const double outputs = heads_[h].outputs->evaluate({start[h]}, all, nullptr);
      const double values =
          heads_[h].values ? heads_[h].values->evaluate({start[h]}, all, nullptr) : outputs;
      const double unit = 0.5 * (values + outputs);
      factors_.push_back({unit / std::max(values, 1e-300), unit / std::max(outputs, 1e-300)});
    }
  }

  std::string name() const override { return "psot of values and attention output"; }
  Index rows() const override { return heads_[0].outputs->rows(); }

  double evaluate(const Maps& maps, std::span<const Index> rows, Maps* gradient) const override {
    double loss = 0;
    if (gradient != nullptr) gradient->assign(maps.size(), {});
    for (std::size_t h = 0; h < heads_.size(); ++h) {
      if (gradient != nullptr) (*gradient)[h].setZero(maps[h].rows(), maps[h].cols());
      const auto add = [&](const RotationObjective* part, double factor) {
        if (part == nullptr) return;
        Maps slope;
        loss += factor * part->evaluate({maps[h]}, rows, gradient == nullptr ? nullptr : &slope);
        if (gradient != nullptr) (*gradient)[h] += factor * slope[0];
      };
      add(heads_[h].values.get(), factors_[h].first);
      add(heads_[h].outputs.get(), factors_[h].second);
    }
    return loss;
  }

 private:
  std::vector<Pair> heads_;
  std::vector<std::pair<double, double>> factors_;
};

// Rows that hold an entry beyond mean ± kσ, with k from the first ten sequences.
std::vector<bool> outlier_rows(const Matrix<double>& x, Index sequence) {
  std::vector<Matrix<double>> samples;
  for (Index s = 0; s < std::min(x.rows() / sequence, kOutlierSamples); ++s) {
    samples.push_back(x.middleRows(s * sequence, sequence));
  }
  const OutlierTokens found = outlier_tokens(samples);
  const double limit = static_cast<double>(found.multiple) * found.deviation;
  std::vector<bool> marked;
  for (Index r = 0; r < x.rows(); ++r) {
    marked.push_back(((x.row(r).array() - found.mean).abs() > limit).any());
  }
  return marked;
}

std::vector<bool> gathered_mask(const std::vector<bool>& mask, std::span<const Index> rows) {
  std::vector<bool> some;
  if (mask.empty()) return some;
  for (const Index row : rows) some.push_back(mask[static_cast<std::size_t>(row)]);
  return some;
}

// What one layer hands from attn_in to attn_out.
struct LayerValues {
  Index layer = -1;
  Matrix<double> values;  // [n, kv_heads·e]
  std::vector<bool> outlier;
};

class InfoQuant final : public MethodBase<InfoQuant> {
 public:
  void bind(Fields& fields) override {
    fields.add_preset(
        "schedule", schedule_, {"short", "paper"},
        "40 steps of 512 tokens, or 480 of 8192, drawn anew at every step (as many as 15 epochs "
        "of 128 sequences of 2048, 4 a step)",
        [this](const std::string& name) { apply_schedule(name); });
    fields.add("blocks", blocks_, {.min = 1}, "blocks of the matrices at attn_in and mlp_in");
    fields.add("steps", learning_.steps, {.min = 0, .max = 1000000},
               "steps of each matrix; 0 leaves the random start");
    fields.add("batch_tokens", learning_.batch_rows, {.min = 1}, "tokens of one step");
    fields.add("learning_rate", rate_start_, {.min = 0, .max = 1e6},
               "of Cayley SGD at the first step, for the loss summed over 8192 tokens");
    fields.add("last_learning_rate", rate_end_, {.min = 0, .max = 1e6},
               "at the last step; falls linearly");
    fields.add("noise_batches", learning_.noise_batches, {.min = 0, .max = 4096},
               "batches that measure the noise of the gradient; 0: not measured");
    fields.add("temperature", psot_.temperature, {.min = 1e-6, .max = 1e6}, "T of the softmax");
    fields.add("outlier_weight", psot_.outlier_weight, {.min = 0, .max = 1e6},
               "a: weight of outlier tokens, from the third layer on");
    bind_clips(fields);
  }
  void bind_clips(Fields& fields) {
    fields.add("learn_clips", learn_clips_, "learn a clip factor of every site afterwards");
    fields.add("clip_epochs", clips_.epochs, {.min = 0, .max = 1000},
               "passes over the windows that the clip factors are learned from");
    fields.add("clip_rate", clips_.learning_rate, {.min = 0}, "AdamW's rate of the clip factors");
    ruq::bind(fields, clips_.windows);
  }
  bool is_random() const override { return true; }
  int revision(const QuantSettings& quant) const override {
    return (quant.attn_out_group_size > 0 ? 1 : 0) + held_out_revision(schedule_);
  }
  bool needs_model() const override { return learn_clips_; }

  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant,
               const Stream& stream) const {
    const ModelConfig& config = session.config();
    Plan plan = Plan::identity("infoquant", config.layers, quant);
    rotate_queries_and_keys(config, config.head_width, plan);
    for (const Site& site : session.sites()) {
      if (!has_norm(site.kind)) continue;
      site_of(plan, site).folded.append(Scale<double>{fused_gain(session, site)});
    }
    if (session.window_tokens() == 0) {
      plan.note_fallback("outlier tokens: a dump has no sequences to find them in, none marked");
    }
    const Index learned = config.first_layers(clips_.windows.blocks);  // the same as the clips
    LayerValues before;
    session.walk(CalibrationStream::float_samples, plan,
                 [&](const Site& site, const Matrix<S>& tensor, Plan& drawn) {
                   visit(session, site, tensor.template cast<double>(),
                         stream.child(to_string(site)), before, drawn);
                 },
                 {.layers = learned, .held_out = held_out_sequence});
    for (const Site& site : session.sites()) {
      if (site.layer < learned) continue;
      leave_start(config, site, stream.child(to_string(site)), plan);
    }
    if (learn_clips_) learn_activation_clips(session, clips_, plan);
    return plan;
  }

 private:
  static SitePlan& site_of(Plan& plan, const Site& site) {
    return plan.layers[static_cast<std::size_t>(site.layer)][site.kind];
  }

  void apply_schedule(const std::string& name) {
    learning_.steps = name == "paper" ? 480 : 40;
    learning_.batch_rows = name == "paper" ? 8192 : 512;
  }

  template <class S>
  void visit(CalibrationSession<S>& session, const Site& site, const Matrix<double>& x,
             const Stream& stream, LayerValues& before, Plan& plan) const {
    if (site.kind == SiteKind::mlp_out) return leave_start(session.config(), site, stream, plan);
    const Matrix<double> weights = stacked_weights(session, plan, site);
    if (site.kind == SiteKind::attn_out) {
      if (before.layer != site.layer) before = {};
      return learn_heads(session, site, x, weights, before, stream, plan);
    }
    std::vector<bool> outlier;
    if (session.window_tokens() > 0 && site.layer >= kFirstOutlierLayer) {
      outlier = outlier_rows(x, session.window_tokens());
    }
    learn_blocks(site, x, weights, outlier, session.window_tokens(), stream, plan);
    if (site.kind == SiteKind::attn_in) {
      before = {site.layer, values_of(session, site, x, weights), std::move(outlier)};
    }
  }

  // The matrices of a site as they are before anything is learned; mlp_out keeps its for good.
  void leave_start(const ModelConfig& config, const Site& site, const Stream& stream,
                   Plan& plan) const {
    const Index width = config.site_width(site.kind);
    if (site.kind == SiteKind::mlp_out) {
      Stream draws = stream.child("start");
      site_of(plan, site).online = randomized_hadamard(width, draws, to_string(site.kind), plan);
    } else if (site.kind == SiteKind::attn_out) {
      const Maps maps = start_maps(site, config.kv_heads, config.head_width, stream, plan);
      site_of(plan, site).folded.append(step_of(maps, counted(config.kv_heads)));
    } else {
      const Index count = block_count(site, width, plan);
      const Maps maps = start_maps(site, count, width / count, stream, plan);
      site_of(plan, site).online.append(step_of(maps, counted(count)));
    }
  }

  static std::vector<Index> counted(Index count) {
    std::vector<Index> numbers(static_cast<std::size_t>(count));
    std::iota(numbers.begin(), numbers.end(), Index{0});
    return numbers;
  }

  // V [n, kv_heads·e]: the last rows of what attn_in feeds, and the bias that only a model knows.
  template <class S>
  static Matrix<double> values_of(CalibrationSession<S>& session, const Site& site,
                                  const Matrix<double>& x, const Matrix<double>& weights) {
    const ModelConfig& config = session.config();
    Matrix<double> values = product_transposed<double>(x, weights.bottomRows(config.kv_width()));
    if (config.has_bias(Linear::v_proj)) {
      const auto& layer = session.model().layers[static_cast<std::size_t>(site.layer)];
      values.rowwise() += layer[Linear::v_proj].bias.template cast<double>().transpose();
    }
    return values;
  }

  RotationOptions learning() const {
    RotationOptions options = learning_;
    options.rate_start = kRateUnit * rate_start_;
    options.rate_end = kRateUnit * rate_end_;
    return options;
  }

  static Maps start_maps(const Site& site, Index count, Index width, const Stream& stream,
                         Plan& plan) {
    Maps maps;
    Stream draws = stream.child("start");
    for (Index m = 0; m < count; ++m) {
      maps.push_back(
          randomized_hadamard(width, draws, to_string(site.kind), plan).to_matrix(width));
    }
    return maps;
  }

  static BlockDiagonal<double> step_of(const Maps& maps, const std::vector<Index>& which) {
    BlockDiagonal<double> step{{}, which};
    for (const Matrix<double>& map : maps) step.maps.push_back({map, {}});
    return step;
  }

  Index block_count(const Site& site, Index width, Plan& plan) const {
    if (width % blocks_ == 0) return blocks_;
    plan.note_fallback(fmt::format("{}: {} blocks do not divide {} channels, one block instead",
                                   to_string(site.kind), blocks_, width));
    return 1;
  }

  // Q1 and Q4.
  void learn_blocks(const Site& site, const Matrix<double>& x, const Matrix<double>& weights,
                    const std::vector<bool>& outlier, Index sequence, const Stream& stream,
                    Plan& plan) const {
    const Index count = block_count(site, x.cols(), plan);
    const std::vector<Index> which = counted(count);
    Maps maps = start_maps(site, count, x.cols() / count, stream, plan);
    const Maps start = maps;
    const RowSplit split = split_rows(x.rows(), sequence);
    const auto objective = psot_objective({gathered(x, split.train), which},
                                          gathered_mask(outlier, split.train), psot_);
    LearningRecord record = learn_rotation(*objective, learning(), stream, maps);
    record.where = to_string(site);
    record.details["outlier_tokens"] =
        static_cast<double>(std::count(outlier.begin(), outlier.end(), true));
    const SiteRows judged{gathered(x, split.held_out), which};
    const auto held_out = psot_objective(judged, gathered_mask(outlier, split.held_out), psot_);
    judge_held_out(judged, weights, plan.quant.single(site.kind), held_out.get(), start, maps,
                   record);
    plan.learning.push_back(std::move(record));
    site_of(plan, site).online.append(step_of(maps, which));
  }

  BalancedHeads head_objective(const ModelConfig& config, const Matrix<double>& outputs,
                               const LayerValues& layer, std::span<const Index> rows,
                               const Maps& start) const {
    const Index e = config.head_width;
    const Index group = config.heads / config.kv_heads;
    const std::vector<bool> outlier = gathered_mask(layer.outlier, rows);
    std::vector<BalancedHeads::Pair> heads;
    for (Index h = 0; h < config.kv_heads; ++h) {
      BalancedHeads::Pair pair;
      if (layer.values.size() > 0) {
        pair.values = psot_objective({gathered(layer.values.middleCols(h * e, e), rows), {0}},
                                     outlier, psot_);
      }
      pair.outputs = psot_objective({gathered(outputs.middleCols(h * group * e, group * e), rows),
                                     std::vector<Index>(static_cast<std::size_t>(group), 0)},
                                    outlier, psot_);
      heads.push_back(std::move(pair));
    }
    return BalancedHeads(std::move(heads), start);
  }

  // Q2 of every key-value head.
  template <class S>
  void learn_heads(CalibrationSession<S>& session, const Site& site, const Matrix<double>& x,
                   const Matrix<double>& weights, const LayerValues& layer, const Stream& stream,
                   Plan& plan) const {
    const ModelConfig& config = session.config();
    if (layer.values.size() == 0) {
      plan.note_fallback("attn_out: no values without attn_in, learned on the output alone");
    }
    Maps maps = start_maps(site, config.kv_heads, config.head_width, stream, plan);
    const Maps start = maps;
    const RowSplit split = split_rows(x.rows(), session.window_tokens());
    const BalancedHeads objective = head_objective(config, x, layer, split.train, start);
    LearningRecord record = learn_rotation(objective, learning(), stream, maps);
    record.where = to_string(site);
    std::vector<Index> of_query_heads;
    for (Index h = 0; h < config.heads; ++h) {
      of_query_heads.push_back(h / (config.heads / config.kv_heads));
    }
    if (!split.held_out.empty()) {
      const BalancedHeads held_out = head_objective(config, x, layer, split.held_out, start);
      judge_held_out({gathered(x, split.held_out), of_query_heads}, weights,
                     plan.quant.single(site.kind), &held_out, start, maps, record);
    }
    plan.learning.push_back(std::move(record));
    site_of(plan, site).folded.append(step_of(maps, counted(config.kv_heads)));
  }

  std::string schedule_ = "short";
  Index blocks_ = 2;
  RotationOptions learning_{.steps = 40, .batch_rows = 512};
  double rate_start_ = 2, rate_end_ = 0.02;
  PsotOptions psot_;
  bool learn_clips_ = false;
  ActivationClippingOptions clips_;
};

}  // namespace

std::unique_ptr<Method> make_infoquant() { return std::make_unique<InfoQuant>(); }

}  // namespace ruq
