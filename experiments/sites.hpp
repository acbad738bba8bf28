// The tensor level of a trial: what quantization costs single sites, on tokens that calibrated
// nothing.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "experiments/trial.hpp"
#include "ruquant/model/activations.hpp"

namespace ruq {

/// The sites that the settings name, in order of execution; without layers the first, the last and
/// two between.
std::vector<Site> captured_sites(const ActivationSettings& settings, Index layers);

/// Leaves of a set the sites that the settings name; without layers those of all. Error if none is
/// left.
void keep_named_sites(const ActivationSettings& settings, ActivationSet& set);

/// Errors of Lloyd-Max levels on untouched sites, by site and bits: slow, and the same for every
/// plan.
using LloydMaxErrors = std::map<std::string, double>;

/// Every measure of site_distortion and `lloyd_max_gap_db` for every site, as result.sites and,
/// mean over sites and over those of a kind, as metrics `tensor.<measure>[.<kind>]`. For figures it
/// keeps the first `sample_tokens` rows before and after the transform, and the bins of the
/// quantizer, of two sites: the one with the widest tokens among those behind a norm, and among
/// those behind an activation function; none where `sample_tokens` is 0.
void measure_sites(const ActivationSet& set, const Plan& plan, Index sample_tokens,
                   LloydMaxErrors& known, TrialResult& result);

}  // namespace ruq
