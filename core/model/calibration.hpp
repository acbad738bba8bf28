// What methods may see. A CalibrationSession gives the weights and statistics of a model and walks
// its sites in order on a named activation stream. It is served by a model (ModelSession) or by a
// file of dumped activations (see activations.hpp), and methods cannot tell the difference.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ruquant/model/fuse.hpp"
#include "ruquant/model/model.hpp"
#include "ruquant/quant/plan.hpp"

namespace ruq {

/// Which activations calibrate the transforms. `float_samples`: sequences through the float model.
/// `mean_prefix`: the position-wise mean embedding of many sequences, through the network as
/// quantized so far (what RUQuant and DuQuant do). `samples_prefix`: sequences through the network
/// as quantized so far.
enum class CalibrationStream { float_samples, mean_prefix, samples_prefix };

/// Called when the tensor of a site [n, width] is about to be quantized: sets the plan's transform
/// of that site. The tensor has `folded` and the residual basis already behind it.
template <class S>
using SiteVisitor = std::function<void(const Site& site, const Matrix<S>& tensor, Plan& plan)>;

/// The largest |activation| of every channel at the four linear sites, on the float stream, before
/// any transform: [layer][site] → vector of the site's width.
using ChannelMaxima = std::vector<PerSite<Vector<double>>>;

/// Sequences that a method learns from, and those on which it is judged.
struct LearningWindows {
  Index train = 8;
  Index held_out = 2;
  Index tokens = 256;  ///< of each
  Index blocks = 0;    ///< blocks that are learned, from the first on; 0: all
};

/// Their ids, [windows·tokens] each. No token of a held-out window is in one to learn from.
struct LearningTokens {
  std::vector<std::int32_t> train, held_out;
};

/// Tells, of windows numbered from 0, which judge what is learned from the others.
using HeldOut = std::function<bool(Index window)>;

template <class S>
struct BlockView {
  Index layer = 0;
  const LayerWeights<S>& weights;  ///< before any transform
  const BlockSamples<S>& train;
  const BlockSamples<S>& held_out;  ///< no rows where none were asked for
};

/// Called block after block; may change everything the plan says about this layer.
template <class S>
using BlockVisitor = std::function<void(const BlockView<S>& block, Plan& plan)>;

struct WalkOptions {
  Index layers = 0;  ///< that are walked, from the first on; 0: all
  /// Visits of one layer leave for those of later ones what the plan holds, and nothing else: such
  /// a walk can be interrupted.
  bool plan_is_memory = true;
  /// Sequences that share no token with the others; none: all are drawn freely. Not on a mean
  /// sequence, nor on a dump, whose rows are what they are.
  HeldOut held_out = {};
};

/// Keeps plans in the making, so that an interrupted run goes on where it was and ends in the same
/// plan to the last bit. The long parts of one, its walks and loops of steps, are numbered from 0.
class PlanJournal {
 public:
  virtual ~PlanJournal() = default;
  /// How many layers or steps of this part were done, from the first on, and the plan as it was
  /// after them; 0, and the plan untouched, if nothing was kept.
  virtual Index resume(Index part, Plan& plan) = 0;
  /// Called after every layer or step: `done` of `all` are.
  virtual void keep(Index part, Index done, Index all, const Plan& plan) = 0;
};

template <class S>
class CalibrationSession {
 public:
  virtual ~CalibrationSession() = default;
  virtual const ModelConfig& config() const = 0;
  /// The sites that exist here, in order of execution: all linear sites of a model, or those
  /// dumped.
  virtual std::vector<Site> sites() const = 0;
  /// The weight of a linear [out, in], before any transform.
  virtual const Matrix<S>& weight(Index layer, Linear linear) const = 0;
  /// The gain of the norm that produces attn_in or mlp_in.
  virtual const Vector<S>& norm_gain(Index layer, SiteKind kind) const = 0;
  virtual const ChannelMaxima& channel_maxima() = 0;
  /// Rows of a walked tensor that belong to one sequence; 0 where rows are single tokens.
  virtual Index window_tokens() const { return 0; }
  /// Visits every linear site in order. A session over a dump walks the stream it holds.
  void walk(CalibrationStream stream, Plan& plan, const SiteVisitor<S>& visit,
            const WalkOptions& options = {}) {
    walk_sites(stream, plan, visit, options);
  }

  /// What follows needs a whole model: Error on a session that has none.
  virtual const Model<S>& model() const;
  /// Windows of the calibration range, drawn for this purpose: [windows·tokens] ids. Those held out
  /// stay where they were drawn; others that share a token with one are drawn again. Error if there
  /// is no place for them.
  virtual std::vector<std::int32_t> windows(Index windows, Index tokens, const std::string& purpose,
                                            const HeldOut& held_out = {}) const;
  virtual LearningTokens learning_tokens(const LearningWindows& windows) const;
  /// Visits block after block. After a visit the float stream has gone through the float block and
  /// the quantized stream through the block as the plan now says. Visits know of each other by the
  /// plan alone.
  virtual void walk_blocks(const LearningWindows& windows, Plan& plan,
                           const BlockVisitor<S>& visit);

  /// For a method that learns from the whole model in steps, whose state fits into a plan: begins
  /// such a part, gives the steps that an interrupted run had done, and that run's state.
  virtual Index resume_steps(Plan&) { return 0; }
  virtual void keep_steps(Index /*done*/, Index /*all*/, const Plan&) {}

 private:
  virtual void walk_sites(CalibrationStream stream, Plan& plan, const SiteVisitor<S>& visit,
                          const WalkOptions& options) = 0;
};

/// How a model is calibrated. Windows are cut at random from the calibration range.
struct CalibrationOptions {
  Index windows = 16;        ///< S: sequences for channel maxima and for the sample streams
  Index mean_windows = 128;  ///< sequences averaged into the mean sequence
  Index window_tokens = 512;
  Index seed = 0;  ///< of the window positions, at least 0
};

/// Calibration on a loaded model; statistics are computed on first use and kept.
template <class S>
class ModelSession final : public CalibrationSession<S> {
 public:
  /// `tokens` is the calibration range; it must hold a window. Both must outlive the session.
  ModelSession(const Model<S>& model, std::span<const std::int32_t> tokens,
               const CalibrationOptions& options);

  const ModelConfig& config() const override { return model_.config; }
  std::vector<Site> sites() const override;
  const Matrix<S>& weight(Index layer, Linear linear) const override;
  const Vector<S>& norm_gain(Index layer, SiteKind kind) const override;
  const ChannelMaxima& channel_maxima() override;
  Index window_tokens() const override { return options_.window_tokens; }
  const Model<S>& model() const override { return model_; }
  std::vector<std::int32_t> windows(Index windows, Index tokens, const std::string& purpose,
                                    const HeldOut& held_out = {}) const override;
  LearningTokens learning_tokens(const LearningWindows& windows) const override;
  void walk_blocks(const LearningWindows& windows, Plan& plan,
                   const BlockVisitor<S>& visit) override;
  Index resume_steps(Plan& state) override;
  void keep_steps(Index done, Index all, const Plan& state) override;

  /// Hands over maxima known from an earlier session of the same model, tokens and options.
  void set_channel_maxima(ChannelMaxima maxima) { maxima_ = std::move(maxima); }

  /// What follows is one plan, kept by `journal` while it is made; none: it is not kept.
  void set_journal(std::shared_ptr<PlanJournal> journal) {
    journal_ = std::move(journal);
    parts_ = 0;
  }

 private:
  void walk_sites(CalibrationStream stream, Plan& plan, const SiteVisitor<S>& visit,
                  const WalkOptions& options) override;
  std::vector<std::int32_t> cut(std::span<const Index> begins, Index length) const;
  Matrix<S> stream_input(CalibrationStream stream, const HeldOut& held_out) const;
  void walk_layers(Index layers, Plan& plan, PlanJournal* journal,
                   const std::function<void(Index layer, const Plan* kept)>& step);

  const Model<S>& model_;
  std::span<const std::int32_t> tokens_;
  CalibrationOptions options_;
  ChannelMaxima maxima_;
  std::shared_ptr<PlanJournal> journal_;
  Index parts_ = 0;  // begun since the journal was set
};

/// Fits the levels of every linear site of the session that plan.quant.activation_levels asks for,
/// on samples through the network quantized so far (on a dump: on its rows). Nothing for
/// "midpoint", and at 16 bits.
template <class S>
void fit_activation_levels(CalibrationSession<S>& session, Plan& plan);

/// One step of the walk, for tests and for sessions: runs block `layer` over `x` [windows·length,
/// h]; at every linear site calls `visit`, installs the site's weights and lets the quantized
/// tensor go on. With `quantized` false the tensors stay float.
template <class S>
void walk_layer(const ModelConfig& config, LayerWeights<S> weights, Index layer, Index length,
                bool quantized, Plan& plan, const SiteVisitor<S>& visit, Matrix<S>& x);

}  // namespace ruq
