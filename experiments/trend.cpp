#include "experiments/trend.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "ruquant/eval/language.hpp"

namespace ruq {
namespace {

using Json = nlohmann::ordered_json;
using Options = std::vector<std::pair<std::string, std::string>>;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

bool is_meant(const SummaryRow& row, const Options& options) {
  const Json& config = row.results["config"];
  return std::all_of(options.begin(), options.end(), [&](const auto& option) {
    return config.contains(option.first) &&
           config[option.first].template get<std::string>() == option.second;
  });
}

using Rows = std::vector<const SummaryRow*>;

Rows meant_rows(const std::vector<SummaryRow>& rows, const std::string& metric,
                const Options& options) {
  Rows meant;
  for (const SummaryRow& row : rows) {
    const bool usable = row.status == "done" && row.results["metrics"].contains(metric);
    if (usable && is_meant(row, options)) meant.push_back(&row);
  }
  return meant;
}

// Options that both trials have and neither set names are equal, the seed apart. Presets are not
// looked at: what they stand for is.
bool agree(const SummaryRow& a, const SummaryRow& b, const std::set<std::string>& named) {
  const auto is_passed_over = [](const std::string& name) {
    return name == "quant.preset" || name == "method.preset" || name == "method.schedule" ||
           name == "seed";
  };
  const Json& other = b.results["config"];
  for (const auto& [name, value] : a.results["config"].items()) {
    if (named.contains(name) || is_passed_over(name)) continue;
    if (other.contains(name) && other[name] != value) return false;
  }
  return true;
}

bool is_random(const SummaryRow& row) { return row.results["random"] == true; }

std::string seed_of(const SummaryRow& row) { return row.results["config"]["seed"]; }

std::set<std::string> seeds_of(const Rows& rows) {
  std::set<std::string> seeds;
  for (const SummaryRow* row : rows) seeds.insert(seed_of(*row));
  return seeds;
}

// The two sides of a comparison: trials that are compared one with one (`paired`), or all of one
// side with all of the other.
struct Sides {
  Rows lower, than;
  bool paired = true;
};

void add(const SummaryRow* row, Rows& rows) {
  if (std::find(rows.begin(), rows.end(), row) == rows.end()) rows.push_back(row);
}

Sides sides_of(const Rows& lower, const Rows& than, const std::set<std::string>& named) {
  Sides all, pairs;
  all.paired = false;
  for (const SummaryRow* a : lower) {
    for (const SummaryRow* b : than) {
      if (!agree(*a, *b, named)) continue;
      add(a, all.lower);
      add(b, all.than);
      if (is_random(*a) && is_random(*b) && seed_of(*a) != seed_of(*b)) continue;
      pairs.lower.push_back(a);
      pairs.than.push_back(b);
    }
  }
  // Several trials of one setting, each with a seed of its own.
  const auto is_sample = [](const Rows& rows) {
    return rows.size() > 1 && seeds_of(rows).size() == rows.size() &&
           std::all_of(rows.begin(), rows.end(), [](auto* row) { return is_random(*row); });
  };
  const bool other_seeds =
      is_sample(all.lower) && is_sample(all.than) && seeds_of(all.lower) != seeds_of(all.than);
  return other_seeds ? all : pairs;
}

std::vector<double> values_of(const Rows& rows, const std::string& metric) {
  std::vector<double> values;
  for (const SummaryRow* row : rows) values.push_back(row->results["metrics"][metric]);
  return values;
}

TrendVerdict judge(const Trend& trend, const std::vector<SummaryRow>& rows) {
  TrendVerdict result{trend, "no data", 0, kNone};
  std::set<std::string> named(trend.ignoring.begin(), trend.ignoring.end());
  for (const Options* options : {&trend.lower, &trend.than}) {
    for (const auto& [name, value] : *options) named.insert(name);
  }
  const Sides sides = sides_of(meant_rows(rows, trend.metric, trend.lower),
                               meant_rows(rows, trend.metric, trend.than), named);
  if (sides.lower.empty()) return result;
  const auto lower = values_of(sides.lower, trend.metric);
  const auto than = values_of(sides.than, trend.metric);
  result.paired = sides.paired;
  result.pairs = std::min(std::ssize(lower), std::ssize(than));
  result.difference = mean(lower) - mean(than);
  result.half_width =
      sides.paired ? interval95(differences(lower, than)) : unpaired_interval95(lower, than);
  Index samples = result.pairs;
  if (trend.metric == "nll" || trend.metric == "nll_over_float") {
    const auto by_window = differences(window_losses(sides.lower), window_losses(sides.than));
    samples = std::max(samples, std::ssize(by_window));
    const double over_windows = interval95(by_window);
    const bool wider = !(over_windows <= result.half_width);  // or the only one
    if (std::isfinite(over_windows) && wider) result.half_width = over_windows;
  }
  if (!std::isfinite(result.half_width)) return result;
  const double excess = result.difference - trend.margin;
  result.verdict = samples < kFewestForOrder        ? "unresolved"
                   : excess + result.half_width < 0 ? "confirmed"
                   : excess - result.half_width > 0 ? "contradicted"
                                                    : "unresolved";
  return result;
}

std::string interval_words(const TrendVerdict& verdict) {
  if (verdict.pairs == 0) return "";
  if (!std::isfinite(verdict.half_width)) return fmt::format("{:+.4f}", verdict.difference);
  return fmt::format("{:+.4f} ± {:.4f}", verdict.difference, verdict.half_width);
}

}  // namespace

std::vector<TrendVerdict> judge_trends(const Sweep& sweep, const std::vector<SummaryRow>& rows) {
  std::vector<TrendVerdict> verdicts;
  for (const Trend& trend : sweep.trends) verdicts.push_back(judge(trend, rows));
  return verdicts;
}

std::string trends_markdown(const std::vector<TrendVerdict>& verdicts) {
  if (verdicts.empty()) return "";
  std::string text =
      "\n## Expected trends\n\nAs the configuration states them. A difference is that of paired "
      "trials, or of all where they have other seeds, with the wider of its 95 % intervals over "
      "trials and over windows; where there is a "
      "margin, the claim is that the difference stays below it.\n\n"
      "| claim | metric | difference | margin | pairs | verdict |\n|---|---|---|---|---|---|\n";
  for (const TrendVerdict& verdict : verdicts) {
    text += fmt::format("| {} | {} | {} | {} | {} | {} |\n", verdict.trend.claim,
                        verdict.trend.metric, interval_words(verdict),
                        verdict.trend.margin > 0 ? fmt::format("{}", verdict.trend.margin) : "",
                        verdict.pairs, verdict.verdict);
  }
  return text;
}

Json trends_json(const std::vector<TrendVerdict>& verdicts) {
  Json list = Json::array();
  for (const TrendVerdict& verdict : verdicts) {
    Json item = {{"claim", verdict.trend.claim},   {"metric", verdict.trend.metric},
                 {"verdict", verdict.verdict},     {"difference", verdict.difference},
                 {"margin", verdict.trend.margin}, {"pairs", verdict.pairs},
                 {"paired", verdict.paired}};
    if (std::isfinite(verdict.half_width)) item["half_width"] = verdict.half_width;
    list.push_back(std::move(item));
  }
  return list;
}

}  // namespace ruq
