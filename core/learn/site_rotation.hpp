// Learning the rotation of one site by Cayley SGD on minibatches of its rows, whatever is
// minimised: the learner that InfoQuant's matrices and the comparison of objectives share.
//
// A rotation is block-diagonal: run b of the channels is mapped by maps[which[b]], x ↦ x·Q. Three
// objectives, each a mean over rows and all of the same maps:
//
//   psot              ‖p ⊙ |y| · a‖_F / √rows of InfoQuant (psot.hpp): smooth
//   smooth_range      the expected squared error of rounding by smooth ranges (reflection.hpp),
//                     relative to the energy of the site's output: smooth
//   straight_through  ‖Q_a(X·Q)·Q_w(W·Q)ᵀ − X·Wᵀ‖² over the energy of X·Wᵀ, with gradients through
//                     the rounding as if it were not there (straight_through.hpp). The function
//                     itself is piecewise smooth with jumps, so its gradient is a guess.
//
// What SingleQuant (arXiv 2511.22316; specification §1.1) says of the last, "non-smooth and noisy",
// is measured at the start and at the end of learning; the record's details hold
//   gradient_noise_start, _end   trace of the covariance of minibatch gradients over the squared
//                                norm of their mean, all as tangents ½(G·Qᵀ − Q·Gᵀ); 0 without
//                                noise, about the number of batches when all is noise
//   kept_promise_start, _end     over a step along the mean tangent that turns channels by 0.001
//   rad
//                                (rms), the decrease of the loss on those batches over the decrease
//                                that the gradient foretells: about 1 for a smooth objective
//   loss_total_variation_over_drop  Σ|L_{i+1} − L_i| over |L_last − L_first| of the recorded
//                                losses: 1 when they fall all the way, large when they wander
//   rate_limited_steps           share of steps whose length the learning rate set; the others were
//                                cut to 1/‖W‖₁ (cayley.hpp)
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ruquant/base/rng.hpp"
#include "ruquant/learn/psot.hpp"
#include "ruquant/quant/plan.hpp"

namespace ruq {

using Maps = std::vector<Matrix<double>>;

/// Rows [n, width] of a site and the map that every run of channels shares with others. All maps
/// have the width of a run, width / which.size().
struct SiteRows {
  Matrix<double> x;
  std::vector<Index> which;
};

class RotationObjective {
 public:
  virtual ~RotationObjective() = default;
  virtual std::string name() const = 0;
  virtual Index rows() const = 0;
  /// The loss over these rows; its gradient by each map in `gradient` unless null.
  virtual double evaluate(const Maps& maps, std::span<const Index> rows, Maps* gradient) const = 0;
};

/// `outlier` marks rows (empty: none).
std::unique_ptr<RotationObjective> psot_objective(SiteRows site, std::vector<bool> outlier,
                                                  const PsotOptions& options = {});

/// `weights` [out, width]: of all linears that the site feeds. Sharpness is fixed at `start`. Error
/// if neither activations nor weights are rounded.
std::unique_ptr<RotationObjective> smooth_range_objective(SiteRows site, Matrix<double> weights,
                                                          const QuantSettings& quant,
                                                          const Maps& start);
/// Error if neither activations nor weights are rounded.
std::unique_ptr<RotationObjective> straight_through_objective(SiteRows site, Matrix<double> weights,
                                                              const QuantSettings& quant);

struct RotationOptions {
  Index steps = 40;
  Index batch_rows = 512;  ///< all rows where there are fewer
  double rate_start = 2;   ///< Cayley learning rate, falling linearly
  double rate_end = 0.02;
  /// Rates are rms turns in radian: gradients are scaled so that the tangent of the first batch has
  /// length 1 per channel. One rate then suits every objective.
  bool rate_in_radian = false;
  Index noise_batches = 8;  ///< for the measures of the gradient; 0 leaves them out
};

/// Learns `maps` in place, from orthogonal to orthogonal; the last iterate is the result, as
/// published. Rows come in a new random order every epoch. initial_loss and final_loss are over at
/// most 4096 evenly spaced rows. Does not fill `where` and the held-out errors.
LearningRecord learn_rotation(const RotationObjective& objective, const RotationOptions& options,
                              const Stream& stream, Maps& maps);

/// X·diag(Q).
Matrix<double> rotated(const SiteRows& site, const Maps& maps);

/// The quantized output error of a site: ‖Q_a(X)·Q_w(W)ᵀ − X·Wᵀ‖² / ‖X·Wᵀ‖² for rows and weights in
/// the basis in which they are rounded. 0 at 16 bits.
double quantized_output_error(const Matrix<double>& x, const Matrix<double>& weights,
                              const QuantSettings& quant);

/// Judges a rotation and its start on rows that nothing was learned from: held_out_initial and
/// held_out_final are quantized output errors of the site, details held_out_loss_start and _end the
/// loss of `objective` (made of these rows; may be null). Nothing without rows.
void judge_held_out(const SiteRows& held_out, const Matrix<double>& weights,
                    const QuantSettings& quant, const RotationObjective* objective,
                    const Maps& start, const Maps& learned, LearningRecord& record);

/// Rows to learn from and rows to be judged on.
struct RowSplit {
  std::vector<Index> train, held_out;
};

/// Every fifth of the sequences of `sequence` rows is held out; with fewer than five sequences, or
/// none (0), every fifth of twenty equal runs of rows. Nothing is held out of fewer than five rows.
RowSplit split_rows(Index rows, Index sequence);

/// The sequences that it holds out of five or more, for a walk to draw apart from the others.
bool held_out_sequence(Index sequence);

Matrix<double> gathered(const Matrix<double>& x, std::span<const Index> rows);

}  // namespace ruq
