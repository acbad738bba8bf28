// Trends: what a configuration expects of its sweep, judged after the run.
//
// "lower than" is a comparison of two sets of trials which agree in all options that neither set
// names and both methods have, the method among them, but for those that the trend ignores. Where
// both have the same seeds, trials of equal seed are paired (a method that draws nothing goes with
// every seed); where one setting was run with other seeds than the other, all trials of the one are
// held against all of the other. The difference of the metric gets two 95 % intervals (Student t;
// Welch's where nothing is paired): over trials, and, where the metric is the loss, over windows
// after averaging trials. The wider of those that exist decides: `confirmed` when it lies below the
// trend's margin (zero unless one is given), which says that the first set is no worse than the
// second by more than that; `contradicted` when above, else `unresolved`, as is what rests on fewer
// than kFewestForOrder windows and trials; `no data` when nothing can be compared or nothing says
// how far the difference may be off.
#pragma once

#include <string>
#include <vector>

#include "experiments/summary.hpp"

namespace ruq {

/// Windows, or trials of the smaller side, below which an order is not said to be there.
inline constexpr Index kFewestForOrder = 10;

struct TrendVerdict {
  Trend trend;
  std::string verdict;
  double difference = 0;  ///< mean of lower − than
  double half_width = 0;  ///< of the interval that decided; NaN where there is none
  Index pairs = 0;        ///< of trials; where nothing is paired, trials of the smaller side
  bool paired = true;     ///< trial by trial
};

std::vector<TrendVerdict> judge_trends(const Sweep& sweep, const std::vector<SummaryRow>& rows);

/// A section of summary.md; empty without trends.
std::string trends_markdown(const std::vector<TrendVerdict>& verdicts);

/// trends.json: a list of claim, metric, verdict, difference, half_width, margin, pairs, paired.
nlohmann::ordered_json trends_json(const std::vector<TrendVerdict>& verdicts);

}  // namespace ruq
