// Multiple-choice and last-word tasks, scored as lm-evaluation-harness does: the model is not asked
// to write, each continuation of a context gets its log likelihood.
//
//   log likelihood of a choice   Σ log q(token | context, tokens before), nats
//   acc                          share of items whose gold choice has the largest; the first of
//                                equals is taken
//   acc_norm                     the same with each log likelihood over the choice's length in
//                                characters
//   greedy                       share of items whose only choice is what the model would write
// Standard errors are those of a mean over items, with n − 1.
//
// A context that several choices share is computed once (Segment), and items are batched.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ruquant/model/forward.hpp"
#include "ruquant/model/model.hpp"

namespace ruq {

struct Choice {
  Index context = 0;              ///< which of the item's contexts it continues
  std::vector<std::int32_t> ids;  ///< at least one token
  Index characters = 0;           ///< of the text that acc_norm divides by
};

struct ChoiceItem {
  std::vector<std::vector<std::int32_t>> contexts;  ///< at least one token each
  std::vector<Choice> choices;
  Index gold = 0;
};

struct ChoiceTask {
  std::string name;
  std::string source;  ///< where the items come from
  std::string digest;
  bool normalized = false;  ///< whether acc_norm is reported
  /// choices; last_word: one choice an item, greedy and perplexity are reported; answer: one
  /// reference answer an item, of which only the likelihood means something
  std::string kind = "choices";
  Index vocabulary = 0;
  std::vector<ChoiceItem> items;
};

/// Reads a task file (format "ruquant-choices", version 1; data/tasks.py writes it). Error naming
/// file and dataset for another format, offsets that do not fit, or ids outside the vocabulary.
ChoiceTask load_choice_task(const std::filesystem::path& file);

/// One entry a choice, in order of items.
struct ChoiceScores {
  std::vector<std::vector<double>> log_likelihood;
  std::vector<std::vector<bool>> greedy;  ///< every token of it is the most likely one
};

/// Scores the first `limit` items (all if 0) in batches of about `batch_tokens`. A context and
/// choice longer than `longest` tokens lose the beginning of the context. `progress` hears the
/// share done.
template <class S>
ChoiceScores score_choices(const Model<S>& model, const SiteHook<S>& hook, const ChoiceTask& task,
                           Index limit, Index longest, Index batch_tokens = 1024,
                           const std::function<void(double)>& progress = {});

/// Whether each item is right: by acc (or greedy for a last-word task), or by acc_norm.
std::vector<double> correct_items(const ChoiceTask& task, const ChoiceScores& scores,
                                  bool normalized);

/// What guessing gives: the mean over the first `count` items of 1 / number of choices; 0 for a
/// last word.
double chance_accuracy(const ChoiceTask& task, Index count);

}  // namespace ruq
