// Learned weight clipping (OmniQuant's LWC, arXiv 2308.13137; specification §2.5; DuQuant+LWC,
// §2.1): every row of every weight of a block has two factors sigmoid(γ) of its least and greatest
// value, which take the place of the clip ratio. They are learned block after block on the
// quantized stream, by AdamW without decay at a constant rate, on the block's output error.
//
// The published code can learn scales beside them (LET). Here this is `let`: the divisors s of
// activations that the plan folds at attn_in, mlp_in and mlp_out move too, from where they stand
// (mlp_out's, folded into up_proj, is ours); what else LET has (shifts, scales of queries and keys
// and of the values) is left out. As published the numbers learned are s, not the factors 1/s, and
// are kept from zero by kLeastScale. Published code keeps their size above it and lets the sign
// change; here they stay positive: a negative one would turn rows of the weights that it is folded
// into, under learned clip factors.
#pragma once

#include "ruquant/base/fields.hpp"
#include "ruquant/learn/block_fit.hpp"

namespace ruq {

/// A γ moves by about its rate a step, so that the published rate needs the published number of
/// steps: the short schedule makes up for its few steps by a larger one.
inline constexpr double kShortClipRate = 0.3;
inline constexpr double kPaperClipRate = 5e-3;  ///< the published code has 1e-2
inline constexpr double kLeastScale = 1e-2;     ///< of a learned divisor

struct WeightClippingOptions {
  LearningSchedule schedule{};
  bool clips = true;    ///< LWC
  bool scales = false;  ///< LET, the part of it that is here
  double learning_rate = kShortClipRate;
  double scale_rate = 1e-2;  ///< of the divisors; the published code has 5e-3

  bool learns() const { return clips || scales; }
};

/// The schedule and `lwc_rate`. Short: a few sequences and epochs; paper: 128 sequences of 2048
/// tokens, 20 epochs, one sequence a step.
void bind(Fields& fields, WeightClippingOptions& options);

/// Learns what the plan's layer `block.layer` leaves open and writes it there: weight_clips, and
/// folded scales where `scales` is set. Transforms, activation clips and everything else stay. Adds
/// a LearningRecord. Nothing where weights are not rounded and no scale is learned. Error if a
/// folded transform that should be learned is not one scale.
template <class S>
void learn_weight_clips(const ModelConfig& config, const BlockView<S>& block,
                        const WeightClippingOptions& options, Plan& plan);

/// The same for all blocks of the session's model, in order. Nothing if nothing is to be learned or
/// nothing is rounded.
template <class S>
void learn_weight_clips(CalibrationSession<S>& session, const WeightClippingOptions& options,
                        Plan& plan);

}  // namespace ruq
