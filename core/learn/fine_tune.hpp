// RUQuant's fine-tuned stage 2 (specification §1.10, §1.14): the directions ω of the four global
// reflections of a block are moved until the quantized block's output is near to the float one.
//
//   L(ω) = mean over tokens and channels of (block(x; ω) − target)²,   v = ω / max(‖ω‖, 1e-12)
//
// x is the quantized stream and target the float block's output on the float stream. One ω serves
// activations and weights of its site; weights are transformed and rounded again whenever ω moves;
// rounding is straight-through (straight_through.hpp). Two optimizers:
//   adamw   the published recipe: one window a step, windows in order, constant rate; before each
//           forward |ω_j| is raised to `omega_floor` (0 stays 0), and once more at the end
//   lbfgs   Ceres, all windows at once, v on a product of spheres, no floor. The objective jumps
//           where codes do, so a line search may give up early: the report says why it stopped. The
//           best v seen is kept, never worse than the start.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "ruquant/learn/adamw.hpp"
#include "ruquant/learn/block_error.hpp"

namespace ruq {

/// ω of every linear site, [width of the site] each.
using Directions = PerSite<Vector<double>>;

/// The unit vectors of the reflections at the end of each site's online transform. Error where
/// there is none.
Directions reflections(const LayerPlan& plan);

/// L and its gradient, as a function of ω.
template <class S>
class ReflectionObjective {
 public:
  /// `folded`: weights after fold_layer. Error unless every site's online transform in `plan` ends
  /// in a reflection; what comes before it stays fixed. Weights are rounded to nearest.
  ReflectionObjective(const ModelConfig& config, const LayerWeights<S>& folded,
                      const LayerPlan& plan, const QuantSettings& quant, Index layer = 0);

  /// The reflections of the plan.
  const Directions& start() const { return start_; }
  /// L over the windows named; fills `gradient` (∂L/∂ω) unless null.
  double evaluate(const Directions& omega, const BlockSamples<S>& samples,
                  std::span<const Index> windows, Directions* gradient = nullptr);
  /// L over all windows.
  double evaluate(const Directions& omega, const BlockSamples<S>& samples,
                  Directions* gradient = nullptr);
  /// L of sequences that nothing was learned from; nothing where there are none.
  std::optional<double> judge(const Directions& omega, const BlockSamples<S>& held_out);
  /// The block's output on one window [length, h] at the ω last evaluated.
  Matrix<S> output(const BlockSamples<S>& samples, Index window) const;

 private:
  void install(const Directions& omega);

  Directions start_;
  Transform<double> query_key_;
  BlockGrad<S> block_;
};

struct FineTuneOptions {
  std::string optimizer = "adamw";  ///< adamw, lbfgs
  AdamWOptions adamw{};
  double omega_floor = 0.01;  ///< adamw only
  Index epochs = 20;          ///< adamw: passes over the windows
  Index max_iterations = 30;  ///< lbfgs
  Index max_evaluations = 0;  ///< lbfgs, of the loss over all windows; 0: as many as it takes
};

/// |ω_j| raised to the floor, signs kept; zero stays zero.
Vector<double> raised_to_floor(Vector<double> omega, double floor);

/// One AdamW step for each window of `order`, on ω in place; the record has the loss of each step's
/// window before the step. `after_step` sees ω after the step, before the next floor. What is said
/// of start and result is for the caller to add.
template <class S>
LearningRecord tune_by_adamw(ReflectionObjective<S>& objective, const BlockSamples<S>& samples,
                             std::span<const Index> order, const FineTuneOptions& options,
                             Directions& omega,
                             const std::function<void(const Directions&)>& after_step = {});

/// L-BFGS from ω / ‖ω‖, in place; the record has the loss of all windows at each evaluation.
template <class S>
LearningRecord tune_by_lbfgs(ReflectionObjective<S>& objective, const BlockSamples<S>& samples,
                             const FineTuneOptions& options, Directions& omega);

/// Tunes the four reflections at the end of the online transforms of `plan`, in place, and judges
/// start and result on `held_out` where it has windows. `start`, when given, is an ω whose length
/// matters (AdamW's steps are not scale free); otherwise the plan's unit vectors. Error if there is
/// nothing to learn from or shapes do not fit.
template <class S>
LearningRecord fine_tune_reflections(const ModelConfig& config, const LayerWeights<S>& folded,
                                     const QuantSettings& quant, const BlockSamples<S>& train,
                                     const BlockSamples<S>& held_out,
                                     const FineTuneOptions& options, LayerPlan& plan,
                                     const Directions* start = nullptr);

}  // namespace ruq
