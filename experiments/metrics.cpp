#include "experiments/metrics.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "ruquant/base/error.hpp"
#include "ruquant/eval/language.hpp"

namespace ruq {
namespace {

// The share of what was to be learned that was: blocks of the model, or steps of the schedule where
// the model is learned as a whole and the record tells how many there were to be.
double learned_share(const Plan& plan) {
  std::set<std::string> blocks;
  double share = 1;
  for (const LearningRecord& record : plan.learning) {
    const auto scheduled = record.details.find("scheduled_steps");
    if (scheduled != record.details.end()) {
      share = std::min(share, static_cast<double>(record.steps) / scheduled->second);
    }
    const std::string prefix = "layers.";
    if (record.steps == 0 || !record.where.starts_with(prefix)) continue;
    blocks.insert(record.where.substr(0, record.where.find('.', prefix.size())));
  }
  if (blocks.empty()) return share;
  return static_cast<double>(blocks.size()) / static_cast<double>(plan.layers.size());
}

// Scores of a task, one for each choice of its first items.
void check_scores(const ChoiceTask& task, const ChoiceScores& scores, std::size_t items) {
  const auto& found = scores.log_likelihood;
  RUQ_CHECK(found.size() == items && items <= task.items.size(),
            "{}: scores of {} items beside those of {}, of {} in the task", task.name, found.size(),
            items, task.items.size());
  for (std::size_t i = 0; i < items; ++i) {
    RUQ_CHECK(found[i].size() == task.items[i].choices.size(),
              "{}: item {}: {} scores for {} choices", task.name, i, found[i].size(),
              task.items[i].choices.size());
  }
}

}  // namespace

void measure_weights(const std::vector<RoundedLinear>& rounded, TrialResult& result) {
  if (rounded.empty()) return;
  double entries = 0, bits = 0;
  std::map<std::string, std::vector<double>> details;
  for (const RoundedLinear& linear : rounded) {
    entries += static_cast<double>(linear.size);
    bits += static_cast<double>(linear.size) * linear.bits.total();
    result.timing.rounding_seconds += linear.seconds;
    result.timing.rounding_cpu_seconds += linear.cpu_seconds;
    for (const auto& [name, value] : linear.details) details[name].push_back(value);
  }
  result.metrics["weight.effective_bits"] = bits / entries;
  result.metrics["weight.mib"] = bits / 8 / (1 << 20);
  for (const auto& [name, values] : details) result.metrics["weight." + name] = mean(values);
}

void measure_learning(const Plan& plan, TrialResult& result) {
  if (plan.learning.empty()) return;
  std::vector<double> logs, held_out, improved;
  double steps = 0, tokens = 0;
  for (const LearningRecord& record : plan.learning) {
    if (record.steps == 0) continue;  // a start is no result of learning
    // A loss of nothing (16 bits) has no ratio.
    if (record.initial_loss > 0 && record.final_loss > 0) {
      logs.push_back(std::log(record.final_loss / record.initial_loss));
    }
    if (record.held_out_initial.value_or(0) > 0 && record.held_out_final.value_or(0) > 0) {
      held_out.push_back(std::log(*record.held_out_final / *record.held_out_initial));
      improved.push_back(*record.held_out_final < *record.held_out_initial ? 1 : 0);
    }
    steps += static_cast<double>(record.steps);
    tokens += static_cast<double>(record.tokens);
  }
  if (!logs.empty()) result.metrics["learning.loss_ratio"] = std::exp(mean(logs));
  if (!held_out.empty()) {
    result.metrics["learning.held_out_ratio"] = std::exp(mean(held_out));
    result.metrics["learning.held_out_improved"] = mean(improved);
  }
  result.metrics["learning.steps"] = steps;
  result.metrics["learning.tokens"] = tokens;
  if (steps > 0) result.metrics["learning.share"] = learned_share(plan);
}

void measure_task(const ChoiceTask& task, const ChoiceScores& scores, const ChoiceScores& floats,
                  TrialResult& result) {
  const std::string prefix = "task." + task.name + ".";
  for (const ChoiceScores* each : {&scores, &floats}) {
    check_scores(task, *each, scores.log_likelihood.size());
  }
  const auto count = static_cast<double>(scores.log_likelihood.size());
  if (task.kind != "choices") {
    double sum = 0, float_sum = 0, tokens = 0;
    std::vector<double>& each = result.items[task.name + ".log_likelihood"];
    for (std::size_t i = 0; i < scores.log_likelihood.size(); ++i) {
      each.push_back(scores.log_likelihood[i][0]);
      sum += scores.log_likelihood[i][0];
      float_sum += floats.log_likelihood[i][0];
      tokens += static_cast<double>(task.items[i].choices[0].ids.size());
    }
    const double units = task.kind == "last_word" ? count : tokens;
    result.metrics[prefix + "ppl"] = std::exp(-sum / units);
    result.metrics[prefix + "ppl_float"] = std::exp(-float_sum / units);
    if (task.kind == "answer") return;
  }
  const double chance = chance_accuracy(task, static_cast<Index>(count));
  result.metrics[prefix + "chance"] = chance;
  for (const bool normalized : {false, true}) {
    if (normalized && !task.normalized) continue;
    const std::string name = normalized ? "acc_norm" : "acc";
    const auto correct = correct_items(task, scores, normalized);
    const auto float_correct = correct_items(task, floats, normalized);
    const double accuracy = mean(correct);
    const double reference = mean(float_correct);
    result.metrics[prefix + name] = accuracy;
    result.metrics[prefix + name + "_stderr"] =
        std::sqrt(accuracy * (1 - accuracy) / std::max(1.0, count - 1));
    result.metrics[prefix + name + "_float"] = reference;
    if (reference > 0) result.metrics[prefix + name + "_kept"] = accuracy / reference;
    if (reference > chance) {
      result.metrics[prefix + name + "_kept_above_chance"] =
          (accuracy - chance) / (reference - chance);
    }
    result.items[task.name + "." + name] = correct;
    result.items[task.name + "." + name + "_float"] = float_correct;
  }
}

std::string lost_words(double nll, double nll_float, Index vocabulary) {
  const double chance = std::log(static_cast<double>(vocabulary));
  if (nll <= chance || !(nll_float <= chance)) return "";
  return fmt::format("a loss of {:.2f} nats, worse than guessing among {} tokens ({:.2f})", nll,
                     vocabulary, chance);
}

}  // namespace ruq
