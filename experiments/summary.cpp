#include "experiments/summary.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "ruquant/eval/language.hpp"

namespace ruq {
namespace {

using Json = nlohmann::ordered_json;

bool done(const SummaryRow& row) { return row.status == "done"; }

bool has_windows(const SummaryRow& row) {
  return done(row) && row.results.contains("windows") && row.results["windows"].contains("nll");
}

double standard_error(const std::vector<double>& values) {
  if (values.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  const double center = mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - center) * (value - center);
  const auto n = static_cast<double>(values.size());
  return std::sqrt(squares / (n - 1) / n);
}

// All options of the quantizers, and what the windows are cut from: trials are paired when equal.
std::string pairing_key(const SummaryRow& row) {
  std::string key = row.results["token_ranges"].dump() + row.results["inputs"].dump();
  for (const auto& [name, value] : row.results["config"].items()) {
    if (name.starts_with("quant.") || name.starts_with("evaluation.")) {
      key += name + value.get<std::string>() + ";";
    }
  }
  return key;
}

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"') result += '"';
    result += c;
  }
  return result + "\"";
}

std::string number(double value) { return std::isfinite(value) ? fmt::format("{}", value) : ""; }

std::string text_at(const Json& object, const char* section, const std::string& key) {
  if (!object.contains(section) || !object[section].contains(key)) return "";
  const Json& value = object[section][key];
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// Trials that differ in their seed alone.
struct Group {
  std::string label;
  std::string widths;
  std::vector<const SummaryRow*> rows;

  std::vector<double> metric(const std::string& name) const {
    std::vector<double> values;
    for (const SummaryRow* row : rows) {
      if (row->results["metrics"].contains(name)) values.push_back(row->results["metrics"][name]);
    }
    return values;
  }
  std::vector<double> time(const std::string& name) const {
    std::vector<double> values;
    for (const SummaryRow* row : rows) {
      if (row->timing.contains(name)) values.push_back(row->timing[name]);
    }
    return values;
  }
};

struct Paired {
  double difference = 0;
  double error = 0;
};

std::string diverged_reason(const Group& group) {
  for (const SummaryRow* row : group.rows) {
    const std::string why = row->results.value("diverged", "");
    if (!why.empty()) return why;
  }
  return "";
}

// The variant of `method` that `row` is held against: of those on the same windows with equal
// quantizers the one with the lowest loss, for a claim is held against the strongest.
const Group* reference_of(const SummaryRow& row, const std::vector<Group>& groups,
                          const std::string& method) {
  const Group* best = nullptr;
  for (const Group& group : groups) {
    const SummaryRow& one = *group.rows.front();
    if (one.results["method"] != method || !has_windows(one)) continue;
    if (!diverged_reason(group).empty()) continue;
    if (pairing_key(one) != pairing_key(row)) continue;
    if (best == nullptr || mean(window_losses(group.rows)) < mean(window_losses(best->rows)))
      best = &group;
  }
  return best;
}

// Losses of windows of a trial like `row` minus those of the reference method.
std::optional<Paired> against(const std::vector<double>& losses, const SummaryRow& row,
                              const std::vector<Group>& groups, const std::string& method) {
  const Group* reference = reference_of(row, groups, method);
  if (reference == nullptr) return std::nullopt;
  const auto over_windows = differences(losses, window_losses(reference->rows));
  return Paired{mean(over_windows), standard_error(over_windows)};
}

// "ruquant method.rotation=givens seed=2" → "ruquant rotation=givens".
std::string label_without_seed(const std::string& about) {
  std::istringstream words(about);
  std::string label;
  for (std::string word; words >> word;) {
    if (word.starts_with("seed=") || word.starts_with("quant.widths=")) continue;
    if (word.starts_with("method.")) word = word.substr(7);
    label += (label.empty() ? "" : " ") + word;
  }
  return label;
}

std::vector<Group> groups_of(const std::vector<SummaryRow>& rows) {
  std::vector<Group> groups;
  std::map<std::string, std::size_t> known;
  for (const SummaryRow& row : rows) {
    if (!done(row)) continue;
    Json config = row.results["config"];
    config.erase("seed");
    const auto [found, fresh] = known.try_emplace(config.dump(), groups.size());
    if (fresh) {
      const std::string label = label_without_seed(row.results["about"]);
      groups.push_back({label, row.results["widths"], {}});
    }
    groups[found->second].rows.push_back(&row);
  }
  return groups;
}

std::string with_interval(const std::vector<double>& values, int digits) {
  if (values.empty()) return "";
  const double half = interval95(values);
  return std::isfinite(half) ? fmt::format("{:.{}f} ± {:.{}f}", mean(values), digits, half, digits)
                             : fmt::format("{:.{}f}", mean(values), digits);
}

// Mean over a group's seeds of the paired difference, with its standard error over windows.
std::string group_against(const Group& group, const std::vector<Group>& groups,
                          const std::string& method) {
  if (!has_windows(*group.rows.front())) return "";
  const auto paired = against(window_losses(group.rows), *group.rows.front(), groups, method);
  return paired ? fmt::format("{:+.3f} ({:.3f})", paired->difference, paired->error) : "";
}

std::string perplexity_name(const Group& group) {
  for (const auto& [name, value] : group.rows.front()->results["metrics"].items()) {
    if (name.starts_with("ppl.w")) return name;
  }
  return "";
}

// What the trials were computed with; how many with which where that differs.
std::string arithmetic(const std::vector<SummaryRow>& rows) {
  std::map<std::string, int> trials;
  for (const SummaryRow& row : rows) {
    if (done(row)) ++trials[row.results["math_backend"]];
  }
  if (trials.size() == 1) return trials.begin()->first;
  std::vector<std::string> each;
  for (const auto& [name, count] : trials) {
    each.push_back(fmt::format("{} ({} trial{})", name, count, count == 1 ? "" : "s"));
  }
  return fmt::format("{}", fmt::join(each, " and "));
}

std::string provenance(const std::vector<SummaryRow>& rows) {
  for (const SummaryRow& row : rows) {
    if (!done(row)) continue;
    const Json& r = row.results;
    std::string text = fmt::format("Model {} ({}).", text_at(r, "inputs", "model"),
                                   text_at(r, "inputs", "model_note"));
    if (r["inputs"].contains("text")) {
      text += fmt::format(" Text {}; token ranges {}.", text_at(r, "inputs", "text"),
                          r["token_ranges"].dump());
    }
    if (r["metrics"].contains("nll_float")) {
      const double loss = r["metrics"]["nll_float"];
      text += fmt::format(
          " The float model has {:.4f} nats per token, a perplexity of {:.2f}, on {} windows of {} "
          "tokens.",
          loss, std::exp(loss), text_at(r, "config", "evaluation.windows"),
          text_at(r, "config", "evaluation.window_tokens"));
    }
    return text + fmt::format(" Computed by {}.", arithmetic(rows));
  }
  return "";
}

}  // namespace

double interval95(const std::vector<double>& values) {
  if (values.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  const boost::math::students_t t(static_cast<double>(values.size() - 1));
  return boost::math::quantile(t, 0.975) * standard_error(values);
}

std::vector<double> window_losses(const std::vector<const SummaryRow*>& rows) {
  std::vector<double> losses;
  for (const SummaryRow* row : rows) {
    const auto nll = row->results["windows"]["nll"].get<std::vector<double>>();
    if (losses.empty()) losses.resize(nll.size());
    if (losses.size() != nll.size()) return {};
    for (std::size_t w = 0; w < nll.size(); ++w) {
      losses[w] += nll[w] / static_cast<double>(rows.size());
    }
  }
  return losses;
}

std::vector<double> differences(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> result;
  for (std::size_t i = 0; i < a.size() && a.size() == b.size(); ++i) result.push_back(a[i] - b[i]);
  return result;
}

double unpaired_interval95(const std::vector<double>& values, const std::vector<double>& others) {
  const double a = std::pow(standard_error(values), 2);
  const double b = std::pow(standard_error(others), 2);
  if (std::isnan(a + b)) return a + b;
  if (a + b == 0) return 0;
  const auto free = [](const std::vector<double>& v) { return static_cast<double>(v.size() - 1); };
  const double degrees = (a + b) * (a + b) / (a * a / free(values) + b * b / free(others));
  return boost::math::quantile(boost::math::students_t(degrees), 0.975) * std::sqrt(a + b);
}

std::string summary_csv(const Sweep& sweep, const std::vector<SummaryRow>& rows) {
  std::set<std::string> metrics;
  for (const SummaryRow& row : rows) {
    if (!done(row)) continue;
    for (const auto& [name, value] : row.results["metrics"].items()) metrics.insert(name);
  }
  std::vector<std::string> axes;
  for (const std::string& axis : sweep.axes) {
    if (axis != "method") axes.push_back(axis);
  }
  const std::vector<std::string> times = {"plan_seconds", "total_seconds", "peak_memory_mib"};

  std::string text = "trial,status,method,widths";
  for (const auto& axis : axes) text += "," + axis;
  for (const auto& metric : metrics) text += "," + metric;
  text += ",nll_minus_rtn,nll_minus_rtn_se,nll_minus_quarot,nll_minus_quarot_se";
  for (const auto& time : times) text += "," + time;
  text += "\n";
  const std::vector<Group> groups = groups_of(rows);
  for (const SummaryRow& row : rows) {
    text += fmt::format("{},{},{},{}", row.id, quoted(row.status),
                        row.results["method"].get<std::string>(),
                        row.results["widths"].get<std::string>());
    for (const auto& axis : axes) text += "," + quoted(text_at(row.results, "axes", axis));
    for (const auto& metric : metrics) text += "," + text_at(row.results, "metrics", metric);
    for (const char* method : {"rtn", "quarot"}) {
      std::optional<Paired> paired;
      if (has_windows(row)) {
        paired = against(row.results["windows"]["nll"], row, groups, method);
      }
      text +=
          paired ? fmt::format(",{},{}", number(paired->difference), number(paired->error)) : ",,";
    }
    for (const auto& time : times) {
      text += "," + (row.timing.contains(time) ? row.timing[time].dump() : "");
    }
    text += "\n";
  }
  return text;
}

// Plain mean: the spread of times says nothing about the method.
std::string plain_mean(const std::vector<double>& values, int digits) {
  return values.empty() ? "" : fmt::format("{:.{}f}", mean(values), digits);
}

// Seconds that the plan took, and those of rounding the weights by it.
std::string construction(const Group& group) {
  const auto plan = group.time("plan_seconds");
  const auto apply = group.time("apply_seconds");
  if (plan.empty() || apply.empty()) return "";
  return fmt::format("{:.1f} + {:.1f}", mean(plan), mean(apply));
}

std::string loss_cell(const Group& group) {
  const std::string loss = with_interval(group.metric("nll_over_float"), 3);
  return diverged_reason(group).empty() ? loss : loss + " diverged";
}

// Of a table in Markdown; a row is a group.
struct Column {
  std::string heading;
  std::function<std::string(const Group&)> cell;
};

Column interval_column(const std::string& heading, const std::string& metric, int digits) {
  return {heading, [=](const Group& group) { return with_interval(group.metric(metric), digits); }};
}

Column mean_column(const std::string& heading, const std::string& metric, int digits) {
  return {heading, [=](const Group& group) { return plain_mean(group.metric(metric), digits); }};
}

// A column that says nothing of any group is left out.
std::string markdown_table(const std::vector<Column>& columns,
                           const std::vector<const Group*>& groups) {
  std::string head = "|", line = "|";
  std::vector<std::string> rows(groups.size(), "|");
  for (const Column& column : columns) {
    std::vector<std::string> cells;
    for (const Group* group : groups) cells.push_back(column.cell(*group));
    if (std::ranges::all_of(cells, &std::string::empty)) continue;
    head += fmt::format(" {} |", column.heading);
    line += "---|";
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] += fmt::format(" {} |", cells[i]);
  }
  return fmt::format("{}\n{}\n{}\n", head, line, fmt::join(rows, "\n"));
}

// What learning gave in each group that learned.
std::string learning_table(const std::vector<Group>& groups) {
  std::vector<const Group*> learned;
  for (const Group& group : groups) {
    if (!group.metric("learning.steps").empty()) learned.push_back(&group);
  }
  if (learned.empty()) return "";
  return "\n## Learning\n\nAt the result over the start, as geometric mean over what was learned "
         "(blocks, sites or the model): the loss on the training tokens, and the error on "
         "sequences that nothing was learned from; and the share of these whose held-out error "
         "fell. The held-out error is the loss itself for blocks and for the model, the rounding "
         "error of the site's output where a rotation is learned site by site.\n\n" +
         markdown_table({{"method", &Group::label},
                         {"widths", &Group::widths},
                         mean_column("steps", "learning.steps", 0),
                         mean_column("tokens", "learning.tokens", 0),
                         interval_column("training ratio", "learning.loss_ratio", 3),
                         interval_column("held-out ratio", "learning.held_out_ratio", 3),
                         interval_column("improved", "learning.held_out_improved", 2)},
                        learned);
}

// `groups` must outlive the columns.
std::vector<Column> result_columns(const std::vector<Group>& groups) {
  const auto against = [&](const std::string& method) {
    return Column{fmt::format("minus {} (se)", method), [&groups, method](const Group& group) {
                    return group_against(group, groups, method);
                  }};
  };
  return {
      {"method", &Group::label},
      {"seeds", [](const Group& group) { return std::to_string(group.rows.size()); }},
      {"nll over float, nats", loss_cell},
      {"perplexity",
       [](const Group& group) { return with_interval(group.metric(perplexity_name(group)), 2); }},
      interval_column("KL, nats", "kl", 3),
      interval_column("agreement", "agreement", 3),
      interval_column("output error, dB", "tensor.output_error_db", 2),
      against("rtn"),
      against("quarot"),
      mean_column("bits a weight", "weight.effective_bits", 2),
      {"plan + weights, s", construction},
      {"peak memory, MiB",
       [](const Group& group) { return plain_mean(group.time("peak_memory_mib"), 0); }}};
}

std::string summary_markdown(const Sweep& sweep, const std::vector<SummaryRow>& rows) {
  std::string text = fmt::format("# {}\n\n{}\n\n{}\n", sweep.name, sweep.about, provenance(rows));
  std::vector<Group> groups = groups_of(rows);
  std::vector<std::string> settings;
  for (const Group& group : groups) {
    if (std::find(settings.begin(), settings.end(), group.widths) == settings.end()) {
      settings.push_back(group.widths);
    }
  }
  const std::vector<Column> columns = result_columns(groups);
  for (const std::string& widths : settings) {
    text += fmt::format("\n## {}\n\n", widths);
    std::vector<const Group*> here;
    for (const Group& group : groups) {
      if (group.widths == widths) here.push_back(&group);
    }
    const char* order = here.front()->metric("nll").empty() ? "tensor.output_error_db" : "nll";
    std::stable_sort(here.begin(), here.end(), [&](const Group* a, const Group* b) {
      const auto x = a->metric(order);
      const auto y = b->metric(order);
      return !x.empty() && (y.empty() || mean(x) < mean(y));
    });
    text += markdown_table(columns, here);
    for (const Group* group : here) {
      const std::string why = diverged_reason(*group);
      if (!why.empty()) text += fmt::format("\n{} diverged: {}.\n", group->label, why);
    }
  }
  text += learning_table(groups);
  text +=
      "\nIntervals are 95 % Student-t intervals over seeds. Paired differences are in nats over "
      "the same windows at equal quantizers, with the standard error over windows, against the "
      "variant of rtn or quarot with the lowest loss.\n";
  std::set<std::string> fallbacks;
  for (const SummaryRow& row : rows) {
    if (!done(row)) continue;
    for (const auto& fallback : row.results["fallbacks"]) {
      fallbacks.insert(fmt::format("{}: {}", row.results["method"].get<std::string>(),
                                   fallback.get<std::string>()));
    }
  }
  if (!fallbacks.empty()) text += "\n## Fallbacks\n\n";
  for (const std::string& fallback : fallbacks) text += fmt::format("- {}\n", fallback);
  const auto unfinished =
      std::count_if(rows.begin(), rows.end(), [](const SummaryRow& row) { return !done(row); });
  if (unfinished > 0) text += "\n## Not finished\n\n";
  for (const SummaryRow& row : rows) {
    if (done(row)) continue;
    text += fmt::format("- {} ({}): {}\n", row.results["about"].get<std::string>(), row.id,
                        row.status.empty() ? "not started" : row.status);
  }
  return text;
}

}  // namespace ruq
