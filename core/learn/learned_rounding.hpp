// Weight roundings that learn block by block: UniQuanF (arXiv 2506.03781; specification §3.4) and
// FlexRound (arXiv 2306.00317), which is UniQuanF with its levels held uniform and every weight
// mapped afresh at every step: local and periodic mapping are UniQuanF's own.
//
// A block's weights, transforms already in them, are written in the form of quant/uniquanf.hpp and
// their parameters moved by Adam until the quantized block's output on the quantized stream is near
// the float block's output on the float stream, as mean squared error. One window a step, in order;
// the learning rate falls to zero along half a cosine. The block's input takes every entry from the
// quantized or from the float stream by the toss of a coin (QDrop). Codes are renewed as
// UniquanfOptions says. Clip factors that a method learned for weight rows are the ends that steps
// start from. The last windows are kept out and judge.
#pragma once

#include "ruquant/model/fuse.hpp"

namespace ruq {

/// FlexRound in terms of UniQuanF: it rounds afresh at every step, and on even levels the filter is
/// the clamp's own gradient.
UniquanfOptions flexround_options();

/// Rounds the weights of the block in place and reports (RoundingHelp::learner). Error if the plan
/// has levels of its own for activations, or leaves no window to learn from.
template <class S>
void learned_rounding(const BlockTask<S>& task);

}  // namespace ruq
