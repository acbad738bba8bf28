#include "ruquant/eval/choices.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq {
namespace {

constexpr Index kPositions = 128;  // predictions whose logits exist at once

// One token that a choice predicts, and the row of the batch that predicts it.
struct Prediction {
  Index row = 0;
  std::int32_t next = 0;
  Index item = 0, choice = 0;
};

struct Batch {
  std::vector<std::int32_t> ids;
  Layout layout;
  std::vector<Prediction> predictions;

  void add(const ChoiceItem& item, Index number, Index longest);
};

// Contexts first, each with its choices behind it. The last token of a choice is only predicted, so
// it has no row.
void Batch::add(const ChoiceItem& item, Index number, Index longest) {
  for (std::size_t c = 0; c < item.contexts.size(); ++c) {
    Index behind = 0;
    for (const Choice& choice : item.choices) {
      if (choice.context == static_cast<Index>(c)) {
        behind = std::max(behind, std::ssize(choice.ids) - 1);
      }
    }
    const std::vector<std::int32_t>& context = item.contexts[c];
    const Index rows = std::clamp<Index>(longest - behind, 1, std::ssize(context));
    const Index begin = std::ssize(ids);
    ids.insert(ids.end(), context.end() - rows, context.end());
    layout.push_back({.begin = begin, .rows = rows});
    for (std::size_t k = 0; k < item.choices.size(); ++k) {
      const Choice& choice = item.choices[k];
      if (choice.context != static_cast<Index>(c)) continue;
      const Index own = std::ssize(ids);
      ids.insert(ids.end(), choice.ids.begin(), choice.ids.end() - 1);
      layout.push_back({own, std::ssize(choice.ids) - 1, begin, rows});
      for (Index t = 0; t < std::ssize(choice.ids); ++t) {
        predictions.push_back({t == 0 ? begin + rows - 1 : own + t - 1,
                               choice.ids[static_cast<std::size_t>(t)], number,
                               static_cast<Index>(k)});
      }
    }
  }
}

// Log probability of `next` after a row of logits, and whether it is the most likely.
template <class S>
std::pair<double, bool> judge(const Eigen::Ref<const RowVector<S>>& logits, std::int32_t next) {
  const S top = logits.maxCoeff();
  double sum = 0;
  for (Index v = 0; v < logits.size(); v += 1024) {  // short runs in S, their sums in double
    const Index width = std::min<Index>(1024, logits.size() - v);
    sum += static_cast<double>((logits.segment(v, width).array() - top).exp().sum());
  }
  return {static_cast<double>(logits(next) - top) - std::log(sum), logits(next) == top};
}

template <class S>
void score_batch(const Model<S>& model, const SiteHook<S>& hook, const Batch& batch,
                 ChoiceScores& scores) {
  const Matrix<S> states = final_hidden(model, batch.ids, batch.layout, hook);
  for (std::size_t begin = 0; begin < batch.predictions.size(); begin += kPositions) {
    const std::size_t count = std::min<std::size_t>(kPositions, batch.predictions.size() - begin);
    Matrix<S> rows(static_cast<Index>(count), states.cols());
    for (std::size_t i = 0; i < count; ++i) {
      rows.row(static_cast<Index>(i)) = states.row(batch.predictions[begin + i].row);
    }
    const Matrix<S> logits = product_transposed<S>(rows, model.head_weight());
    std::vector<std::pair<double, bool>> judged(count);
    parallel_for(static_cast<Index>(count), [&](Index i) {
      const auto at = static_cast<std::size_t>(i);
      judged[at] = judge<S>(logits.row(i), batch.predictions[begin + at].next);
    });
    for (std::size_t i = 0; i < count; ++i) {
      const Prediction& p = batch.predictions[begin + i];
      const auto item = static_cast<std::size_t>(p.item);
      const auto choice = static_cast<std::size_t>(p.choice);
      scores.log_likelihood[item][choice] += judged[i].first;
      if (!judged[i].second) scores.greedy[item][choice] = false;
    }
  }
}

// Runs of a flat list of ids, by offsets.
std::vector<std::int32_t> run_of(const std::vector<Index>& ids, const std::vector<Index>& offsets,
                                 Index i) {
  const auto at = static_cast<std::size_t>(i);
  return {ids.begin() + offsets[at], ids.begin() + offsets[at + 1]};
}

void check_offsets(const std::string& where, const std::vector<Index>& offsets, Index total) {
  const bool good = !offsets.empty() && offsets.front() == 0 && offsets.back() == total &&
                    std::is_sorted(offsets.begin(), offsets.end());
  if (!good) fail("{}: expected offsets rising from 0 to {}", where, total);
}

void check_item(const std::string& where, const ChoiceItem& item) {
  if (item.contexts.empty() || item.choices.empty()) fail("{}: found no choices", where);
  if (item.gold < 0 || item.gold >= std::ssize(item.choices)) {
    fail("{}: found gold {}, expected 0 to {}", where, item.gold, item.choices.size() - 1);
  }
  for (const auto& context : item.contexts) {
    if (context.empty()) fail("{}: found an empty context, expected a token or more", where);
  }
  for (const Choice& choice : item.choices) {
    if (choice.ids.empty() || choice.characters < 1) fail("{}: found an empty choice", where);
    if (choice.context < 0 || choice.context >= std::ssize(item.contexts)) {
      fail("{}: found a choice of context {}, expected 0 to {}", where, choice.context,
           item.contexts.size() - 1);
    }
  }
}

}  // namespace

ChoiceTask load_choice_task(const std::filesystem::path& path) {
  const TensorReader file(path);
  if (!file.has_attribute("", "format") || file.text_attribute("", "format") != "ruquant-choices" ||
      file.integer_attribute("", "format_version") != 1) {
    fail("{}: expected a task file, format ruquant-choices version 1", path.string());
  }
  ChoiceTask task;
  task.name = file.text_attribute("", "task");
  task.source = file.text_attribute("", "source");
  task.digest = file.text_attribute("", "digest");
  task.normalized = file.integer_attribute("", "normalized") != 0;
  const std::string kind = file.text_attribute("", "kind");
  if (kind != "choices" && kind != "last_word" && kind != "answer") {
    fail("{}: found kind '{}', expected choices, last_word or answer", path.string(), kind);
  }
  task.kind = kind;
  task.vocabulary = file.integer_attribute("", "vocabulary");
  const auto where = [&](const char* name) { return fmt::format("{}: {}", path.string(), name); };

  const auto gold = file.integers("gold");
  const auto choice_context = file.integers("choice_context");
  const auto context_ids = file.integers("context_ids"), choice_ids = file.integers("choice_ids");
  const auto context_offsets = file.integers("context_offsets");
  const auto choice_offsets = file.integers("choice_offsets");
  const auto item_contexts = file.integers("item_contexts");
  const auto item_choices = file.integers("item_choices");
  const auto characters = file.integers("choice_characters");
  check_offsets(where("context_offsets"), context_offsets, std::ssize(context_ids));
  check_offsets(where("choice_offsets"), choice_offsets, std::ssize(choice_ids));
  check_offsets(where("item_contexts"), item_contexts, std::ssize(context_offsets) - 1);
  check_offsets(where("item_choices"), item_choices, std::ssize(choice_offsets) - 1);
  for (const auto* ids : {&context_ids, &choice_ids}) {
    for (const Index id : *ids) {
      if (id < 0 || id >= task.vocabulary) {
        fail("{}: found id {}, expected 0 to {}", path.string(), id, task.vocabulary - 1);
      }
    }
  }
  if (gold.size() + 1 != item_choices.size() || gold.size() + 1 != item_contexts.size() ||
      characters.size() + 1 != choice_offsets.size() ||
      choice_context.size() != characters.size()) {
    fail("{}: expected one gold an item, one context and one length a choice", path.string());
  }
  for (std::size_t i = 0; i < gold.size(); ++i) {
    ChoiceItem item;
    item.gold = gold[i];
    for (Index c = item_contexts[i]; c < item_contexts[i + 1]; ++c) {
      item.contexts.push_back(run_of(context_ids, context_offsets, c));
    }
    for (Index c = item_choices[i]; c < item_choices[i + 1]; ++c) {
      item.choices.push_back({choice_context[static_cast<std::size_t>(c)],
                              run_of(choice_ids, choice_offsets, c),
                              characters[static_cast<std::size_t>(c)]});
    }
    check_item(fmt::format("{}: item {}", path.string(), i), item);
    task.items.push_back(std::move(item));
  }
  return task;
}

template <class S>
ChoiceScores score_choices(const Model<S>& model, const SiteHook<S>& hook, const ChoiceTask& task,
                           Index limit, Index longest, Index batch_tokens,
                           const std::function<void(double)>& progress) {
  if (task.vocabulary > model.config.vocabulary) {
    fail("{}: tokens of a vocabulary of {}, the model has {}", task.name, task.vocabulary,
         model.config.vocabulary);
  }
  const Index all = std::ssize(task.items);
  const Index count = limit == 0 ? all : std::min(limit, all);
  ChoiceScores scores;
  for (Index i = 0; i < count; ++i) {
    const std::size_t choices = task.items[static_cast<std::size_t>(i)].choices.size();
    scores.log_likelihood.emplace_back(choices, 0.0);
    scores.greedy.emplace_back(choices, true);
  }
  Batch batch;
  for (Index i = 0; i < count; ++i) {
    batch.add(task.items[static_cast<std::size_t>(i)], i, longest);
    if (std::ssize(batch.ids) < batch_tokens && i + 1 < count) continue;
    score_batch(model, hook, batch, scores);
    batch = {};
    if (progress) progress(static_cast<double>(i + 1) / static_cast<double>(count));
  }
  return scores;
}

std::vector<double> correct_items(const ChoiceTask& task, const ChoiceScores& scores,
                                  bool normalized) {
  std::vector<double> correct;
  for (std::size_t i = 0; i < scores.log_likelihood.size(); ++i) {
    const ChoiceItem& item = task.items[i];
    if (task.kind != "choices") {
      correct.push_back(scores.greedy[i].front() ? 1 : 0);
      continue;
    }
    std::vector<double> values = scores.log_likelihood[i];
    for (std::size_t c = 0; normalized && c < values.size(); ++c) {
      values[c] /= static_cast<double>(item.choices[c].characters);
    }
    const auto best = std::max_element(values.begin(), values.end()) - values.begin();
    correct.push_back(best == item.gold ? 1 : 0);
  }
  return correct;
}

double chance_accuracy(const ChoiceTask& task, Index count) {
  if (task.kind != "choices" || count == 0) return 0;
  double sum = 0;
  for (Index i = 0; i < count; ++i) {
    sum += 1 / static_cast<double>(task.items[static_cast<std::size_t>(i)].choices.size());
  }
  return sum / static_cast<double>(count);
}

#define RUQ_INSTANTIATE(S)                                                                    \
  template ChoiceScores score_choices(const Model<S>&, const SiteHook<S>&, const ChoiceTask&, \
                                      Index, Index, Index, const std::function<void(double)>&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
