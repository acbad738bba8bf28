// Learned activation clipping (InfoQuant, arXiv 2605.26175; specification §4.2): the least and the
// greatest value of every token at a linear site are multiplied by one learned factor a site,
//
//   (1 + sigmoid(c)) / 2, between a half and one,
//
// found block after block by AdamW on the block's output error, on the quantized stream. Where c
// starts is not known of the published code; here at the quantizer's clip ratio, or at 4 (0.991)
// where that is one or no more than a half.
#pragma once

#include "ruquant/learn/block_fit.hpp"

namespace ruq {

struct ActivationClippingOptions {
  LearningWindows windows;
  Index epochs = 5;
  double learning_rate = 0.05;
};

/// Sets SitePlan::clips of all linear sites of the session's model and adds a LearningRecord a
/// block. Nothing where activations are not rounded.
template <class S>
void learn_activation_clips(CalibrationSession<S>& session,
                            const ActivationClippingOptions& options, Plan& plan);

}  // namespace ruq
