// From what a trial computed to the metrics that its record holds.
#pragma once

#include <string>
#include <vector>

#include "experiments/trial.hpp"
#include "ruquant/eval/choices.hpp"
#include "ruquant/model/fuse.hpp"

namespace ruq {

/// `weight.effective_bits`, `weight.mib`, and what roundings said about themselves, as means over
/// linears; the time of rounding.
void measure_weights(const std::vector<RoundedLinear>& rounded, TrialResult& result);

/// `learning.loss_ratio`, `.held_out_ratio` (geometric means of final over initial over all records
/// that have both and took a step), `.held_out_improved` (share of these), `.steps`, `.tokens`
/// (sums), `.share` (of the blocks, or of the steps of a schedule of the whole model). Nothing
/// where nothing was learned.
void measure_learning(const Plan& plan, TrialResult& result);

/// `task.<name>.acc` and `.acc_norm`, each with `_stderr`, the float model's as `_float`, their
/// ratio `_kept` and the same after both lost what guessing gives, `_kept_above_chance`; `.ppl` for
/// words and answers. Single items go to result.items.
void measure_task(const ChoiceTask& task, const ChoiceScores& scores, const ChoiceScores& floats,
                  TrialResult& result);

/// Why a loss says nothing any more: it is worse than guessing among `vocabulary` tokens, where the
/// float model's is not. Empty where it does.
std::string lost_words(double nll, double nll_float, Index vocabulary);

}  // namespace ruq
