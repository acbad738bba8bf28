// Log likelihoods of choices against lm-evaluation-harness, in float: RUQ_MODEL_DIR names the
// default model's directory, RUQ_TOKENS_DIR the folder of the task files. RUQ_CHOICE_ITEMS sets how
// many items of each task are scored (32; 0 all).
#include "ruquant/eval/choices.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>

#include "ruquant/eval/language.hpp"
#include "ruquant/io/tensor_store.hpp"
#include "support/oracle.hpp"

namespace ruq::test {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 2e-3;  // absolute, nats

// What one item is decided by: log likelihoods, normalized over their characters, and how far each
// may be off.
struct Decision {
  Decision(const ChoiceItem& item, const std::vector<double>& likelihood, bool normalized) {
    for (std::size_t c = 0; c < likelihood.size(); ++c) {
      const double unit = normalized ? static_cast<double>(item.choices[c].characters) : 1;
      values.push_back(likelihood[c] / unit);
      slack.push_back(kTolerance / unit);
    }
    const auto largest = std::max_element(values.begin(), values.end());
    best = static_cast<std::size_t>(largest - values.begin());
  }
  std::vector<double> values, slack;
  std::size_t best = 0;
};

// Correct items follow the reference's but where it scores our choice as high as its own, within
// what both may be off.
void check_accuracy(const ChoiceTask& task, const ChoiceScores& mine, const ChoiceScores& theirs) {
  for (const bool normalized : {false, true}) {
    if (normalized && !task.normalized) continue;
    const auto ours = correct_items(task, mine, normalized);
    const auto expected = correct_items(task, theirs, normalized);
    Index differ = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      if (ours[i] == expected[i]) continue;
      ++differ;
      INFO(task.name << ", item " << i);
      CHECK(task.kind == "choices");  // else nothing was chosen
      const ChoiceItem& item = task.items[i];
      const Decision reference(item, theirs.log_likelihood[i], normalized);
      const std::size_t chosen = Decision(item, mine.log_likelihood[i], normalized).best;
      CHECK(reference.values[reference.best] - reference.values[chosen] <=
            reference.slack[reference.best] + reference.slack[chosen]);
    }
    std::cout << task.name << (normalized ? " acc_norm: " : " acc: ") << differ << " of "
              << ours.size() << " items differ\n";
  }
}

// The harness's own accuracies over all of its items, from its likelihoods by our rules.
void check_rules(const ChoiceTask& task, const TensorReader& reference,
                 const ChoiceScores& theirs) {
  ChoiceTask scored = task;
  scored.items.resize(theirs.log_likelihood.size());
  const auto share = [&](bool normalized) {
    const std::vector<double> right = correct_items(scored, theirs, normalized);
    return mean(right);
  };
  INFO("accuracies of the reference");
  CHECK(share(false) == doctest::Approx(reference.real_attribute("", "acc")).epsilon(1e-12));
  REQUIRE(task.normalized == reference.has_attribute("", "acc_norm"));
  if (task.normalized) {
    CHECK(share(true) == doctest::Approx(reference.real_attribute("", "acc_norm")).epsilon(1e-12));
  }
  if (!reference.has_attribute("", "perplexity")) return;
  double sum = 0;
  for (const auto& choices : theirs.log_likelihood) sum += choices.at(0);
  const double perplexity = std::exp(-sum / static_cast<double>(theirs.log_likelihood.size()));
  CHECK(perplexity == doctest::Approx(reference.real_attribute("", "perplexity")).epsilon(1e-6));
}

// Every item of the reference.
ChoiceScores scores_of(const TensorReader& reference) {
  const auto offset = reference.integers("offset");
  const auto likelihood = reference.vector<double>("loglikelihood");
  const auto greedy = reference.integers("is_greedy");
  ChoiceScores scores;
  for (std::size_t i = 0; i + 1 < offset.size(); ++i) {
    scores.log_likelihood.emplace_back();
    scores.greedy.emplace_back();
    for (Index c = offset[i]; c < offset[i + 1]; ++c) {
      scores.log_likelihood[i].push_back(likelihood(c));
      scores.greedy[i].push_back(greedy[static_cast<std::size_t>(c)] != 0);
    }
  }
  return scores;
}

void compare(const std::string& name, const Model<float>& model, const fs::path& tokens,
             const fs::path& oracle) {
  INFO("task " << name);
  const ChoiceTask task = load_choice_task(tokens / (name + ".h5"));
  const TensorReader reference(oracle / ("smollm2/choices_" + name + ".h5"));
  const ChoiceScores theirs = scores_of(reference);
  check_rules(task, reference, theirs);
  const Index all = std::ssize(theirs.log_likelihood);
  const Index count = asked_count("RUQ_CHOICE_ITEMS", 32, all);
  const auto gold = reference.integers("gold");
  const ChoiceScores scores = score_choices<float>(model, {}, task, count, model.config.context);
  double worst = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    INFO("item " << i);
    CHECK(task.items[i].gold == gold[i]);
    REQUIRE(task.items[i].choices.size() == theirs.log_likelihood[i].size());
    for (std::size_t c = 0; c < theirs.log_likelihood[i].size(); ++c) {
      const double difference = std::abs(scores.log_likelihood[i][c] - theirs.log_likelihood[i][c]);
      worst = std::max(worst, difference);
      INFO("choice " << c);
      CHECK(difference <= kTolerance);
    }
  }
  check_accuracy(task, scores, theirs);
  std::cout << "smollm2/choices_" << name << ": worst " << worst / kTolerance
            << " of the tolerance over " << count << " items\n";
}

TEST_CASE("the default model's log likelihoods of choices") {
  const auto oracle = oracle_directory();
  if (!oracle) return skip_without_oracle();
  const auto model = folder_or_skip("RUQ_MODEL_DIR");
  const auto tokens = folder_or_skip("RUQ_TOKENS_DIR");
  if (!model || !tokens) return;
  const auto loaded = load_model<float>(*model);
  for (const char* name : {"piqa", "arc_easy", "hellaswag", "lambada"}) {
    compare(name, loaded, *tokens, *oracle);
  }
}

}  // namespace
}  // namespace ruq::test
