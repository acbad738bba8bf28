// Tables over the trials of a run.
//
// Paired differences: every trial scores the same windows, so a trial and a reference method are
// compared window by window, d_w = nll_w − ref_w, with the standard error of the mean of d over
// windows. The reference is the mean over seeds of one variant of that method, the one with the
// lowest loss at equal quantizers (all quant.* options equal) that did not diverge: what
// analysis/compare.py holds a claim against, too.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "experiments/sweep.hpp"

namespace ruq {

/// One trial as its folder tells it; results and timing are empty objects unless it is done. Its
/// results.config has the options of the configuration, in their order.
struct SummaryRow {
  std::string id;
  std::string status;
  nlohmann::ordered_json results;
  nlohmann::ordered_json timing;
};

/// A row a trial: trial, status, method, widths, the swept keys, all metrics under their own names,
/// paired differences against rtn and quarot with standard errors, and times.
std::string summary_csv(const Sweep& sweep, const std::vector<SummaryRow>& rows);

/// A row for every group of trials that differ in their seed alone: means with 95 % intervals
/// (Student t over seeds), best first within each setting of widths.
std::string summary_markdown(const Sweep& sweep, const std::vector<SummaryRow>& rows);

/// Loss of every window, averaged over the trials; empty where they have not as many windows.
std::vector<double> window_losses(const std::vector<const SummaryRow*>& rows);

/// a − b, entry by entry; empty where they have not as many.
std::vector<double> differences(const std::vector<double>& a, const std::vector<double>& b);

/// Half width of the 95 % interval of a mean: t_{0.975, n−1}·s/√n; NaN for fewer than two values.
double interval95(const std::vector<double>& values);

/// Half width of the 95 % interval of the difference of two means of independent values, Welch:
/// t_{0.975, ν}·√(s²/n + s'²/n'); NaN where either has fewer than two.
double unpaired_interval95(const std::vector<double>& values, const std::vector<double>& others);

}  // namespace ruq
