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

std::vector<const SummaryRow*> meant_rows(const std::vector<SummaryRow>& rows,
                                          const std::string& metric, const Options& options) {
  std::vector<const SummaryRow*> meant;
  for (const SummaryRow& row : rows) {
    const bool usable = row.status == "done" && row.results["metrics"].contains(metric);
    if (usable && is_meant(row, options)) meant.push_back(&row);
  }
  return meant;
}

// Options that both trials have and neither set names are equal. Presets are not looked at: what
// they stand for is.
bool is_pair(const SummaryRow& a, const SummaryRow& b, const std::set<std::string>& named) {
  const auto is_preset = [](const std::string& name) {
    return name == "quant.preset" || name == "method.preset" || name == "method.schedule";
  };
  for (const auto& [name, value] : a.results["config"].items()) {
    if (named.contains(name) || is_preset(name)) continue;
    const Json& other = b.results["config"];
    if (name == "seed") {
      const bool both = a.results["random"] == true && b.results["random"] == true;
      if (both && other["seed"] != value) return false;
    } else if (other.contains(name) && other[name] != value) {
      return false;
    }
  }
  return true;
}

// Differences of the loss window by window, averaged over the pairs.
std::vector<double> window_differences(
    const std::vector<std::pair<const SummaryRow*, const SummaryRow*>>& pairs) {
  std::vector<double> mean_differences;
  for (const auto& [lower, than] : pairs) {
    const auto a = lower->results["windows"]["nll"].get<std::vector<double>>();
    const auto b = than->results["windows"]["nll"].get<std::vector<double>>();
    if (a.size() != b.size()) return {};
    mean_differences.resize(a.size());
    for (std::size_t w = 0; w < a.size(); ++w) {
      mean_differences[w] += (a[w] - b[w]) / static_cast<double>(pairs.size());
    }
  }
  return mean_differences;
}

TrendVerdict judge(const Trend& trend, const std::vector<SummaryRow>& rows) {
  TrendVerdict result{trend, "no data", 0, kNone, 0};
  std::set<std::string> named(trend.ignoring.begin(), trend.ignoring.end());
  for (const Options* options : {&trend.lower, &trend.than}) {
    for (const auto& [name, value] : *options) named.insert(name);
  }
  std::vector<std::pair<const SummaryRow*, const SummaryRow*>> pairs;
  std::vector<double> differences;
  for (const SummaryRow* lower : meant_rows(rows, trend.metric, trend.lower)) {
    for (const SummaryRow* than : meant_rows(rows, trend.metric, trend.than)) {
      if (!is_pair(*lower, *than, named)) continue;
      pairs.emplace_back(lower, than);
      differences.push_back(lower->results["metrics"][trend.metric].get<double>() -
                            than->results["metrics"][trend.metric].get<double>());
    }
  }
  if (pairs.empty()) return result;
  result.pairs = std::ssize(pairs);
  result.difference = mean(differences);
  result.half_width = interval95(differences);
  if (trend.metric == "nll" || trend.metric == "nll_over_float") {
    const double over_windows = interval95(window_differences(pairs));
    const bool wider = !(over_windows <= result.half_width);  // or the only one
    if (std::isfinite(over_windows) && wider) result.half_width = over_windows;
  }
  if (!std::isfinite(result.half_width)) return result;
  const double excess = result.difference - trend.margin;
  result.verdict = excess + result.half_width < 0   ? "confirmed"
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
      "trials, with the wider of its 95 % intervals over trials and over windows; where there is a "
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
                 {"margin", verdict.trend.margin}, {"pairs", verdict.pairs}};
    if (std::isfinite(verdict.half_width)) item["half_width"] = verdict.half_width;
    list.push_back(std::move(item));
  }
  return list;
}

}  // namespace ruq
