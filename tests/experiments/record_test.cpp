#include "experiments/record.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "ruquant/io/tensor_store.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

namespace fs = std::filesystem;

Sweep sweep_of(const TemporaryFolder& folder, const std::string& more) {
  const fs::path fixtures = RUQ_FIXTURES;
  const fs::path file = folder / "some.yaml";
  write_bytes(file, "model.path: " + (fixtures / "tiny-llama").string() +
                        "\ntext: {source: tokens, path: " + (fixtures / "tiny-tokens.h5").string() +
                        "}\ncalibration.window_tokens: 64\nevaluation.window_tokens: 64\n" + more);
  return load_sweep(file, {});
}

PlannedTrial planned(const TemporaryFolder& folder, const std::string& more = "") {
  return plan_trial(sweep_of(folder, "method: hadamard\n" + more).trials.at(0));
}

TrialResult some_result() {
  TrialResult result;
  result.metrics = {{"nll", 2.5}, {"tensor.output_error_db", -20.25}};
  result.windows = {{"nll", {2, 3}}};
  result.sites = {{"layers.1.mlp_out", {{"range_ratio", 0.5}}}};
  result.fallbacks = {"attn_out: something else"};
  result.samples["1.mlp_out/before"] = Matrix<float>::Constant(2, 3, 1.5F);
  result.plan = Plan::identity("hadamard", 3, QuantSettings{});
  result.plan.learning.push_back({.where = "layers.1",
                                  .optimizer = "adamw",
                                  .losses = {4, 2},
                                  .initial_loss = 4,
                                  .held_out_final = 3,
                                  .termination = "Took all 2 steps."});
  result.diverged = "a loss of 12 nats";
  return result;
}

TEST_CASE("a trial's name follows its options and its inputs, not where they lie") {
  const TemporaryFolder folder;
  const std::string id = planned(folder).id;
  CHECK(id.size() == 16);
  CHECK(planned(folder).id == id);
  CHECK(planned(folder, "seed: 2\n").id != id);
  CHECK(planned(folder, "evaluation.windows: 7\n").id != id);
  CHECK(planned(folder, "method.smoothing: 0.25\n").id != id);
  CHECK(planned(folder, "evaluation.windows: 8\n").id == id);  // the default, said aloud
  // A preset changes options, and saying what it would have said changes nothing more.
  const std::string preset = "quant.preset: ruquant\nquant.widths: W4A4-Q4K4V4\n";
  CHECK(planned(folder, preset).id != planned(folder, "quant.widths: W4A4-Q4K4V4\n").id);
  CHECK(planned(folder, preset + "quant.weight.clip_ratio: 0.8\n").id ==
        planned(folder, preset).id);

  fs::copy(fs::path(RUQ_FIXTURES) / "tiny-llama", folder / "tiny-llama");
  const std::string copy = "method: hadamard\n";
  Sweep moved = sweep_of(folder, copy);
  moved.trials[0].config->model.path = (folder / "tiny-llama").string();
  CHECK(plan_trial(moved.trials[0]).id == id);
  // Other weights under the same name are another trial.
  fs::path weights = folder / "other";
  fs::create_directory(weights);
  weights /= "tiny-llama";
  fs::copy(folder / "tiny-llama", weights);
  std::string bytes = read_bytes(weights / "model.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_bytes(weights / "model.safetensors", bytes);
  moved.trials[0].config->model.path = weights.string();
  CHECK(plan_trial(moved.trials[0]).id != id);
}

TEST_CASE("a trial's folder goes from nothing to running to done") {
  const TemporaryFolder folder;
  const PlannedTrial trial = planned(folder);
  const RunFolder run(folder / "runs/some", sweep_of(folder, "method: hadamard\n"));
  CHECK(run.status(trial.id).empty());
  run.begin(trial);
  CHECK(run.status(trial.id) == "running");
  run.finish(trial, some_result());
  CHECK(run.status(trial.id) == "done");
  CHECK(recorded_metric(run, trial.id, "nll") == 2.5);
  check_error([&] { recorded_metric(run, trial.id, "nl"); }, {"unknown metric 'nl'", "'nll'"});
  CHECK(read_bytes(run.root() / "sweep.yaml").find("method: hadamard") != std::string::npos);

  run.begin(trial);  // done again: the old results are gone
  CHECK_FALSE(fs::exists(run.of(trial.id) / "results.json"));
  run.fail(trial, "first line\nsecond line");
  CHECK(run.status(trial.id) == "failed: first line second line");
}

TEST_CASE("a trial that other arithmetic has done is found under its name there") {
  const TemporaryFolder folder;
  const PlannedTrial own = planned(folder);
  const RunFolder run(folder / "runs", sweep_of(folder, "method: hadamard\n"));
  CHECK(recorded_arithmetic(run.root()).empty());
  CHECK(recorded_arithmetic(folder / "nothing").empty());
  PlannedTrial other = own;
  other.id = trial_id(own, "of another processor");
  CHECK(other.id != own.id);
  run.begin(other);
  run.finish(other, some_result());
  auto json = nlohmann::json::parse(read_bytes(run.of(other.id) / "results.json"));
  json["math_backend"] = "of another processor";
  write_bytes(run.of(other.id) / "results.json", json.dump());

  const auto arithmetics = recorded_arithmetic(run.root());
  CHECK(arithmetics == std::vector<std::string>{"of another processor"});
  CHECK(as_recorded(own, run.root(), arithmetics).id == other.id);
  CHECK(as_recorded(own, run.root(), {"of a third"}).id == own.id);
  const PlannedTrial further = planned(folder, "seed: 2\n");
  CHECK(as_recorded(further, run.root(), arithmetics).id == further.id);

  run.begin(own);  // what is not finished does not count, what is comes first
  CHECK(as_recorded(own, run.root(), arithmetics).id == other.id);
  run.finish(own, some_result());
  CHECK(as_recorded(own, run.root(), arithmetics).id == own.id);
  CHECK(recorded_arithmetic(run.root()).size() == 2);
}

TEST_CASE("a failure is recorded even before the trial began") {
  const TemporaryFolder folder;
  const PlannedTrial trial = planned(folder);
  const RunFolder run(folder / "runs", sweep_of(folder, "method: hadamard\n"));
  run.fail(trial, "the worker died");
  CHECK(run.status(trial.id) == "failed: the worker died");
}

TEST_CASE("results.json and results.h5 hold the same, in the layout of the reader") {
  const TemporaryFolder folder;
  const PlannedTrial trial = planned(folder);
  const RunFolder run(folder / "runs", sweep_of(folder, "method: hadamard\n"));
  run.begin(trial);
  run.finish(trial, some_result());
  const auto json = nlohmann::json::parse(read_bytes(run.of(trial.id) / "results.json"));
  CHECK(json["format"] == "ruquant-results");
  CHECK(json["trial"] == trial.id);
  CHECK(json["random"] == true);
  CHECK(json["config"]["evaluation.window_tokens"] == "64");
  CHECK(json["inputs"]["model"] == "tiny-llama");
  CHECK(json["token_ranges"]["test"] == std::vector<int>{4500, 4500 + 8 * 64});
  CHECK(json["windows"]["nll"] == std::vector<double>{2, 3});
  CHECK(json["sites"]["layers.1.mlp_out"]["range_ratio"] == 0.5);
  CHECK_FALSE(json.contains("timing"));
  CHECK(json["diverged"] == "a loss of 12 nats");
  CHECK(json["learning"][0]["where"] == "layers.1");
  CHECK(json["learning"][0]["held_out_final"] == 3);
  CHECK_FALSE(json["learning"][0].contains("held_out_initial"));

  const TensorReader file(run.of(trial.id) / "results.h5");
  CHECK(file.vector<double>("windows/nll") == Vector<double>{{2, 3}});
  CHECK(file.matrix<float>("samples/1.mlp_out/before")(1, 2) == 1.5F);
  CHECK(file.has("sites/1/mlp_out/range_ratio"));
  CHECK(file.vector<double>("learning/000.layers.1") == Vector<double>{{4, 2}});
  CHECK(file.has("metrics/tensor.output_error_db"));
  CHECK(nlohmann::json::parse(file.text_attribute("", "config")) == json["config"]);
}

// The error of the tables and that of a metric, for a trial whose results.json is `text`.
void refuse_results(const std::string& text, std::initializer_list<std::string> words) {
  const TemporaryFolder folder;
  const PlannedTrial trial = planned(folder);
  const Sweep sweep = sweep_of(folder, "method: hadamard\n");
  const RunFolder run(folder / "runs", sweep);
  run.begin(trial);
  run.finish(trial, some_result());
  run.summarize(sweep, {trial});
  const fs::path file = run.of(trial.id) / "results.json";
  write_bytes(file, text);
  for (const std::string& message : {error_of([&] { run.summarize(sweep, {trial}); }),
                                     error_of([&] { recorded_metric(run, trial.id, "nll"); })}) {
    INFO(message);
    CHECK(message.starts_with(file.string() + ": found "));
    CHECK(message.ends_with("; remove the folder to run the trial again"));
    for (const std::string& word : words) CHECK(message.find(word) != std::string::npos);
  }
}

TEST_CASE("results that are not those of a trial are refused, by name") {
  refuse_results("", {"no whole JSON", "object"});
  refuse_results("{ \"format\": ", {"no whole JSON", "object"});
  refuse_results("[]", {"found array, expected the object"});
  refuse_results("{}", {"found format null version null", "ruquant-results version 1"});
  refuse_results(R"({"format": "other", "format_version": 1})", {R"(format "other" version 1)"});
  refuse_results(R"({"format": "ruquant-results", "format_version": 2})", {"version 2, expected"});
  refuse_results(R"({"format": "ruquant-results", "format_version": 1})",
                 {"nothing at /config, expected object"});
}

TEST_CASE("results that lack what tables read are refused, by its name") {
  const TemporaryFolder folder;
  const PlannedTrial trial = planned(folder);
  const RunFolder run(folder / "runs", sweep_of(folder, "method: hadamard\n"));
  run.begin(trial);
  run.finish(trial, some_result());
  const auto whole = nlohmann::json::parse(read_bytes(run.of(trial.id) / "results.json"));
  for (const char* name : {"config", "inputs", "token_ranges", "metrics", "about", "method",
                           "widths", "math_backend", "random", "fallbacks"}) {
    auto without = whole;
    without.erase(name);
    refuse_results(without.dump(), {fmt::format("found nothing at /{}, expected", name)});
    auto other = whole;
    other[name] = 3;
    refuse_results(other.dump(), {fmt::format("found number at /{}, expected", name)});
  }
  auto without = whole;
  without["windows"].erase("nll");
  refuse_results(without.dump(), {"found nothing at /windows/nll, expected array"});
  without["metrics"].erase("nll");
  write_bytes(run.of(trial.id) / "results.json", without.dump());
  CHECK(recorded_metric(run, trial.id, "tensor.output_error_db") == -20.25);
}

TEST_CASE("the recorded configuration is the same trial") {
  const TemporaryFolder folder;
  const PlannedTrial trial = planned(folder, "seed: 3\nactivations.layers: [0, 2]\n");
  const RunFolder run(folder / "runs", sweep_of(folder, "method: hadamard\n"));
  run.begin(trial);
  const Sweep again = load_sweep(run.of(trial.id) / "config.yaml", {});
  REQUIRE(again.trials.size() == 1);
  CHECK(again.trials[0].config->flat() == trial.trial.config->flat());
  CHECK(plan_trial(again.trials[0]).id == trial.id);
}

TEST_CASE("values are written so that YAML gives them back") {
  const TemporaryFolder folder;
  for (const char* text : {"plain", "", "null", "a: b", "it's", "say \"x\"", "#1", "- a", "1,2",
                           "back\\slash", "~", "naïve", "[x]", "*a", "%d", " space "}) {
    INFO(text);
    const fs::path file = folder / "text.yaml";
    write_bytes(file, fmt::format("method: rtn\ntext.path: {}\n", yaml_text(text)));
    CHECK(load_sweep(file, {}).trials.at(0).config->text.path == text);
  }
}

TEST_CASE("folders that cannot be made are refused, by name") {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "x");
  const fs::path below = folder / "file/runs";
  check_error([&] { check_writable(below); }, {"--out: found '" + below.string() + "'"});
  check_error([&] { make_folder(below); }, {"--out: found '" + below.string() + "'"});
  check_writable(folder / "new/runs");
  CHECK_FALSE(fs::exists(folder / "new"));
  make_folder(folder / "new/runs");
  CHECK(fs::is_directory(folder / "new/runs"));
}

}  // namespace
}  // namespace ruq::test
