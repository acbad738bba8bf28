// Log likelihoods of choices against lm-evaluation-harness, in float: RUQ_MODEL_DIR names the
// default model's directory, RUQ_TOKENS_DIR the folder of the task files. RUQ_CHOICE_ITEMS sets how
// many items of each task are scored (32; 0 all).
#include "ruquant/eval/choices.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>

#include "ruquant/io/tensor_store.hpp"
#include "support/oracle.hpp"

namespace ruq::test {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 2e-3;  // absolute, nats

std::string variable(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : fallback;
}

// Correct items follow the reference's but for ties inside the tolerance.
void check_accuracy(const ChoiceTask& task, const ChoiceScores& mine, const ChoiceScores& theirs) {
  for (const bool normalized : {false, true}) {
    if (normalized && !task.normalized) continue;
    const auto ours = correct_items(task, mine, normalized);
    const auto expected = correct_items(task, theirs, normalized);
    Index differ = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      if (ours[i] == expected[i]) continue;
      ++differ;
      std::vector<double> values = theirs.log_likelihood[i];
      for (std::size_t c = 0; normalized && c < values.size(); ++c) {
        values[c] /= static_cast<double>(task.items[i].choices[c].characters);
      }
      std::sort(values.rbegin(), values.rend());
      INFO(task.name << ", item " << i);
      CHECK(values.size() > 1);
      if (values.size() > 1) CHECK(values[0] - values[1] <= 2 * kTolerance);
    }
    std::cout << task.name << (normalized ? " acc_norm: " : " acc: ") << differ << " of "
              << ours.size() << " items differ\n";
  }
}

void compare(const std::string& name, const Model<float>& model, const fs::path& tokens,
             const fs::path& oracle) {
  INFO("task " << name);
  const ChoiceTask task = load_choice_task(tokens / (name + ".h5"));
  const TensorReader reference(oracle / ("smollm2/choices_" + name + ".h5"));
  const auto offset = reference.integers("offset");
  const Index all = std::ssize(offset) - 1;
  const Index asked = std::stoll(variable("RUQ_CHOICE_ITEMS", "32"));
  const Index count = asked == 0 ? all : std::min(asked, all);
  const auto likelihood = reference.vector<double>("loglikelihood");
  const auto greedy = reference.integers("is_greedy");
  const auto gold = reference.integers("gold");
  const ChoiceScores scores = score_choices<float>(model, {}, task, count, model.config.context);
  ChoiceScores expected;
  double worst = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    CHECK(task.items[i].gold == gold[i]);
    const auto choices = static_cast<std::size_t>(offset[i + 1] - offset[i]);
    REQUIRE(task.items[i].choices.size() == choices);
    expected.log_likelihood.emplace_back();
    expected.greedy.emplace_back();
    for (std::size_t c = 0; c < choices; ++c) {
      const auto at = static_cast<std::size_t>(offset[i]) + c;
      expected.log_likelihood[i].push_back(likelihood(static_cast<Index>(at)));
      expected.greedy[i].push_back(greedy[at] != 0);
      const double difference =
          std::abs(scores.log_likelihood[i][c] - likelihood(static_cast<Index>(at)));
      worst = std::max(worst, difference);
      INFO("item " << i << ", choice " << c);
      CHECK(difference <= kTolerance);
    }
  }
  check_accuracy(task, scores, expected);
  std::cout << "smollm2/choices_" << name << ": worst " << worst / kTolerance
            << " of the tolerance over " << count << " items\n";
}

TEST_CASE("the default model's log likelihoods of choices") {
  const auto oracle = oracle_directory();
  if (!oracle) return skip_without_oracle();
  const std::string model = variable("RUQ_MODEL_DIR", "");
  const std::string tokens = variable("RUQ_TOKENS_DIR", "");
  if (model.empty() || tokens.empty()) {
    std::cout << "skipped: RUQ_MODEL_DIR and RUQ_TOKENS_DIR are not both set\n";
    return;
  }
  const auto loaded = load_model<float>(model);
  for (const char* name : {"piqa", "arc_easy", "hellaswag", "lambada"}) {
    compare(name, loaded, tokens, *oracle);
  }
}

}  // namespace
}  // namespace ruq::test
