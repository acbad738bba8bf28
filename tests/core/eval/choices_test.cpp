#include "ruquant/eval/choices.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "ruquant/eval/language.hpp"
#include "ruquant/io/tensor_store.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::int32_t> some_ids(Index count, const ModelConfig& config, std::uint64_t seed) {
  return tiny_tokens(count, config, seed);
}

// Two contexts in one item, choices of one token and of several, and an item with one choice.
ChoiceTask some_task(const ModelConfig& config) {
  ChoiceTask task;
  task.name = "made up";
  task.vocabulary = config.vocabulary;
  task.items.push_back({{some_ids(5, config, 1)},
                        {{0, some_ids(3, config, 2), 9},
                         {0, some_ids(1, config, 3), 2},
                         {0, some_ids(4, config, 4), 30}},
                        2});
  task.items.push_back({{some_ids(2, config, 5), some_ids(7, config, 6)},
                        {{0, some_ids(2, config, 7), 4}, {1, some_ids(2, config, 7), 4}},
                        0});
  task.items.push_back({{some_ids(1, config, 8)}, {{0, some_ids(2, config, 9), 3}}, 0});
  return task;
}

double alone(const Model<double>& model, std::vector<std::int32_t> ids, Index context) {
  const Matrix<double> states = final_hidden<double>(model, ids, std::ssize(ids), {});
  const Hidden<double> hidden{states, model.head_weight()};
  return next_token_log_probabilities(hidden, ids).tail(std::ssize(ids) - context).sum();
}

std::vector<std::int32_t> joined(std::vector<std::int32_t> a, const std::vector<std::int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST_CASE("every choice has the likelihood that it has alone, whatever the batches") {
  for (const TinyShape& shape : tiny_shapes()) {
    CAPTURE(shape.name);
    const Model<double> model = tiny_model(shape.config);
    const ChoiceTask task = some_task(shape.config);
    for (const Index batch : {1, 1000}) {
      const ChoiceScores scores = score_choices<double>(model, {}, task, 0, 100, batch);
      REQUIRE(scores.log_likelihood.size() == 3);
      for (std::size_t i = 0; i < 3; ++i) {
        const ChoiceItem& item = task.items[i];
        for (std::size_t c = 0; c < item.choices.size(); ++c) {
          const auto& context = item.contexts[static_cast<std::size_t>(item.choices[c].context)];
          const double expected =
              alone(model, joined(context, item.choices[c].ids), std::ssize(context));
          CHECK(scores.log_likelihood[i][c] == doctest::Approx(expected).epsilon(1e-10));
        }
      }
    }
    CHECK(score_choices<double>(model, {}, task, 2, 100).log_likelihood.size() == 2);
  }
}

TEST_CASE("a choice is greedy when the model would write it") {
  const ModelConfig config = tiny_config("grouped");
  const Model<double> model = tiny_model(config);
  std::vector<std::int32_t> ids = some_ids(4, config, 1);
  for (int t = 0; t < 3; ++t) {
    const Matrix<double> states = final_hidden<double>(model, ids, std::ssize(ids), {});
    Index top = 0;
    (states.bottomRows(1) * model.head_weight().transpose()).row(0).maxCoeff(&top);
    ids.push_back(static_cast<std::int32_t>(top));
  }
  const std::vector<std::int32_t> context(ids.begin(), ids.begin() + 4);
  const std::vector<std::int32_t> written(ids.begin() + 4, ids.end());
  std::vector<std::int32_t> other = written;
  other[1] = (other[1] + 1) % static_cast<std::int32_t>(config.vocabulary);
  ChoiceTask task;
  task.kind = "last_word";
  task.vocabulary = config.vocabulary;
  task.items = {{{context}, {{0, written, 1}}, 0}, {{context}, {{0, other, 1}}, 0}};
  const ChoiceScores scores = score_choices<double>(model, {}, task, 0, 100);
  CHECK(correct_items(task, scores, false) == std::vector<double>{1, 0});
  CHECK(chance_accuracy(task, 2) == 0);
}

TEST_CASE("a context that is too long loses its beginning") {
  const ModelConfig config = tiny_config("grouped");
  const Model<double> model = tiny_model(config);
  const auto context = some_ids(9, config, 1);
  const auto choice = some_ids(3, config, 2);
  ChoiceTask task;
  task.vocabulary = config.vocabulary;
  task.items = {{{context}, {{0, choice, 1}}, 0}};
  const auto cut = std::vector<std::int32_t>(context.end() - 5, context.end());
  CHECK(score_choices<double>(model, {}, task, 0, 7).log_likelihood[0][0] ==
        doctest::Approx(alone(model, joined(cut, choice), 5)).epsilon(1e-10));
}

TEST_CASE("accuracy by the likelihood, and by the likelihood a character") {
  ChoiceTask task;
  task.items = {{{{1}}, {{0, {1}, 10}, {0, {1}, 2}}, 0}, {{{1}}, {{0, {1}, 1}, {0, {1}, 1}}, 0}};
  ChoiceScores scores;
  scores.log_likelihood = {{-5, -2}, {-3, -3}};
  scores.greedy = {{false, false}, {false, false}};
  CHECK(correct_items(task, scores, false) == std::vector<double>{0, 1});  // the first of equals
  CHECK(correct_items(task, scores, true) == std::vector<double>{1, 1});   // -0.5 against -1
  CHECK(chance_accuracy(task, 2) == 0.5);
}

// A task file with one item of two choices; `change` may spoil it.
fs::path task_file(const TemporaryFolder& folder, const std::string& skip = "",
                   const std::vector<Index>& gold = {1},
                   const std::vector<Index>& ids = {4, 2, 3}) {
  const fs::path path = folder / "task.h5";
  TensorWriter file(path);
  file.attribute("", "format", skip == "format" ? "else" : "ruquant-choices");
  file.attribute("", "format_version", std::int64_t{1});
  for (const char* name : {"task", "source", "digest"}) file.attribute("", name, std::string(name));
  file.attribute("", "kind", std::string(skip == "kind" ? "riddle" : "choices"));
  file.attribute("", "normalized", std::int64_t{1});
  file.attribute("", "vocabulary", std::int64_t{5});
  file.write("gold", gold);
  file.write("item_contexts", std::vector<Index>{0, 1});
  file.write("item_choices", std::vector<Index>{0, 2});
  file.write("context_offsets", std::vector<Index>{0, 2});
  file.write("context_ids", std::vector<Index>{0, 1});
  file.write("choice_context", std::vector<Index>{0, skip == "context" ? 1 : 0});
  file.write("choice_characters", std::vector<Index>{3, 4});
  file.write("choice_offsets", std::vector<Index>{0, skip == "offsets" ? 4 : 1, 3});
  file.write("choice_ids", ids);
  file.commit();
  return path;
}

TEST_CASE("a task file is read as it was written, and refused where it does not fit") {
  const TemporaryFolder folder;
  const ChoiceTask task = load_choice_task(task_file(folder));
  REQUIRE(task.items.size() == 1);
  CHECK(task.items[0].gold == 1);
  CHECK(task.items[0].contexts[0] == std::vector<std::int32_t>{0, 1});
  CHECK(task.items[0].choices[1].ids == std::vector<std::int32_t>{2, 3});
  CHECK(task.items[0].choices[1].characters == 4);
  CHECK(task.normalized);
  check_error([&] { load_choice_task(task_file(folder, "format")); }, {"format ruquant-choices"});
  check_error([&] { load_choice_task(task_file(folder, "kind")); }, {"riddle"});
  check_error([&] { load_choice_task(task_file(folder, "offsets")); }, {"choice_offsets"});
  check_error([&] { load_choice_task(task_file(folder, "context")); }, {"item 0", "context 1"});
  check_error([&] { load_choice_task(task_file(folder, "", {2})); }, {"item 0", "gold 2"});
  check_error([&] { load_choice_task(task_file(folder, "", {0}, {4, 2, 5})); }, {"found id 5"});
}

}  // namespace
}  // namespace ruq::test
