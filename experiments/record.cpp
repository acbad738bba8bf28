#include "experiments/record.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "experiments/prepare.hpp"
#include "experiments/summary.hpp"
#include "experiments/trend.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "ruquant-results";
constexpr std::int64_t kFormatVersion = 1;

// Texts of these alone mean themselves in YAML, whatever their first letter.
constexpr const char* kPlainLetters =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./";

std::string read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

[[noreturn]] void refuse_folder(const fs::path& folder) {
  fail("--out: found '{}', expected a folder that can be written to", folder.string());
}

std::string revision() {
  const char* value = std::getenv("RUQ_REVISION");
  return value != nullptr ? value : "unknown";
}

// Resolved options as YAML, one dotted key a line; runexp reads it again.
std::string config_yaml(const Trial& trial) {
  std::string text = fmt::format("about: {}\ncheck: parse\n", Json(trial.label).dump());
  for (const auto& [key, value] : trial.config->flat()) {
    // Given for other trials of the sweep; alone it would be refused.
    if (key == "calibration.path" && !trial.config->calibration_text.reads_path()) continue;
    text += fmt::format("{}: {}\n", key, yaml_text(value));
  }
  return text;
}

[[noreturn]] void refuse_record(const fs::path& file, const std::string& found,
                                const std::string& expected) {
  fail("{}: found {}, expected {}; remove the folder to run the trial again", file.string(), found,
       expected);
}

// A file of a finished trial. Error naming it if it is missing or cut short.
Json recorded_json(const fs::path& file) {
  Json json = Json::parse(read_file(file), nullptr, false);
  if (!json.is_object()) {
    refuse_record(file, json.is_discarded() ? "no whole JSON" : json.type_name(),
                  "the object that runexp wrote there");
  }
  return json;
}

void check_member(const fs::path& file, const Json& json, const char* pointer, Json::value_t type) {
  const Json::json_pointer at(pointer);
  const bool exists = json.contains(at);
  if (exists && json[at].type() == type) return;
  refuse_record(file, fmt::format("{} at {}", exists ? json[at].type_name() : "nothing", pointer),
                Json(type).type_name());
}

// results.json of a finished trial, with all that tables and trends take for granted.
Json recorded_results(const fs::path& file) {
  using Type = Json::value_t;
  Json json = recorded_json(file);
  const Json format = json.value("format", Json());
  const Json version = json.value("format_version", Json());
  if (format != kFormat || version != kFormatVersion) {
    refuse_record(file, fmt::format("format {} version {}", format.dump(), version.dump()),
                  fmt::format("{} version {}", kFormat, kFormatVersion));
  }
  for (const char* object : {"/config", "/inputs", "/token_ranges", "/metrics"}) {
    check_member(file, json, object, Type::object);
  }
  for (const char* text : {"/about", "/method", "/widths", "/math_backend"}) {
    check_member(file, json, text, Type::string);
  }
  check_member(file, json, "/random", Type::boolean);
  check_member(file, json, "/fallbacks", Type::array);
  const Json& metrics = json["metrics"];
  if (metrics.contains("nll") || metrics.contains("nll_over_float")) {
    check_member(file, json, "/windows/nll", Type::array);
  }
  return json;
}

// The options of a finished trial. One that is younger than the trial had its default there, or the
// id would differ; paths are those of today.
Json options_of(const Trial& trial) {
  Json options = Json::object();
  for (const auto& [name, value] : trial.config->flat()) options[name] = value;
  return options;
}

Json axes_of(const Trial& trial) {
  Json axes = Json::object();
  for (const auto& [key, value] : trial.axes) axes[key] = value;
  return axes;
}

// For a curve; results.h5 has them as they are.
std::vector<double> rounded_losses(const LearningRecord& record) {
  std::vector<double> losses = record.losses;
  for (double& loss : losses) loss = std::stod(fmt::format("{:.6g}", loss));
  return losses;
}

// What a reader of results wants of an optimization.
Json record_json(const LearningRecord& record) {
  Json json = {{"where", record.where},
               {"optimizer", record.optimizer},
               {"objective", record.objective},
               {"initial_loss", record.initial_loss},
               {"final_loss", record.final_loss},
               {"steps", record.steps},
               {"evaluations", record.evaluations},
               {"tokens", record.tokens},
               {"termination", record.termination},
               {"losses", rounded_losses(record)},
               {"details", record.details}};
  if (record.held_out_initial) json["held_out_initial"] = *record.held_out_initial;
  if (record.held_out_final) json["held_out_final"] = *record.held_out_final;
  return json;
}

Json results_json(const PlannedTrial& planned, const TrialResult& result) {
  const Config& config = *planned.trial.config;
  Json json = {{"format", kFormat},
               {"format_version", kFormatVersion},
               {"trial", planned.id},
               {"about", planned.trial.label},
               {"method", config.method_name},
               {"widths", to_string(config.quant.widths())},
               {"seed", config.seed},
               {"random", config.is_random()}};
  json["config"] = options_of(planned.trial);
  json["axes"] = axes_of(planned.trial);
  for (const auto& [key, value] : planned.identity.text) json["inputs"][key] = value;
  json["token_ranges"] = Json::object();
  for (const auto& [name, range] : planned.identity.token_ranges) {
    json["token_ranges"][name] = {range.first, range.second};
  }
  json["math_backend"] = math_backend();
  json["build_preset"] = RUQ_PRESET;
  json["metrics"] = result.metrics;
  json["windows"] = result.windows;
  json["sites"] = result.sites;
  json["fallbacks"] = result.fallbacks;
  json["diverged"] = result.diverged;
  json["learning"] = Json::array();
  for (const LearningRecord& record : result.plan.learning) {
    json["learning"].push_back(record_json(record));
  }
  return json;
}

Json timing_json(const Timing& timing) {
  return {{"plan_seconds", timing.plan_seconds},
          {"plan_cpu_seconds", timing.plan_cpu_seconds},
          {"apply_seconds", timing.apply_seconds},
          {"rounding_seconds", timing.rounding_seconds},
          {"rounding_cpu_seconds", timing.rounding_cpu_seconds},
          {"evaluate_seconds", timing.evaluate_seconds},
          {"task_seconds", timing.task_seconds},
          {"tensor_seconds", timing.tensor_seconds},
          {"total_seconds", timing.total_seconds},
          {"peak_memory_mib", timing.peak_memory_mib},
          {"threads", threads()},
          {"processor", processor_name()}};
}

void write_results_h5(const fs::path& path, const Json& json, const TrialResult& result) {
  TensorWriter file(path);
  file.attribute("", "format", std::string(kFormat));
  file.attribute("", "format_version", kFormatVersion);
  for (const char* key : {"trial", "about", "method", "widths", "math_backend", "build_preset"}) {
    file.attribute("", key, json[key].get<std::string>());
  }
  file.attribute("", "seed", json["seed"].get<std::int64_t>());
  file.attribute("", "revision", revision());
  for (const char* key : {"config", "inputs", "token_ranges", "axes"}) {
    file.attribute("", key, json[key].dump());
  }
  const auto scalar = [&](const std::string& name, double value) { file.write(name, &value, {}); };
  for (const auto& [name, value] : result.metrics) scalar("metrics/" + name, value);
  for (const auto& [name, values] : result.windows) {
    file.write("windows/" + name, values.data(), {std::ssize(values)});
  }
  for (const auto& [name, values] : result.items) {
    file.write("items/" + name, values.data(), {std::ssize(values)});
  }
  for (const auto& [site, measures] : result.sites) {
    std::string group = site.substr(std::string("layers.").size());
    std::replace(group.begin(), group.end(), '.', '/');
    for (const auto& [name, value] : measures) {
      scalar(fmt::format("sites/{}/{}", group, name), value);
    }
  }
  for (std::size_t i = 0; i < result.plan.learning.size(); ++i) {
    const LearningRecord& record = result.plan.learning[i];
    const std::string name = fmt::format("learning/{:03}.{}", i, record.where);
    file.write(name, record.losses.data(), {std::ssize(record.losses)});
  }
  for (const auto& [name, sample] : result.samples) file.write("samples/" + name, sample);
  for (const auto& [name, values] : result.bins) file.write("bins/" + name, values);
  file.commit();
}

}  // namespace

std::string yaml_text(const std::string& value) {
  const bool plain = !value.empty() &&
                     value.find_first_not_of(kPlainLetters) == std::string::npos &&
                     value != "null" && value != "Null" && value != "NULL";
  return plain ? value : Json(value).dump();
}

void write_file(const fs::path& file, const std::string& text) {
  const fs::path beside = file.string() + ".tmp-" + process_name();
  {
    std::ofstream out(beside, std::ios::binary);
    out << text;
    out.flush();
    if (!out) fail("{}: cannot be written", file.string());
  }
  fs::rename(beside, file);
}

std::string trial_id(const PlannedTrial& planned, const std::string& arithmetic) {
  const Config& config = *planned.trial.config;
  std::string text =
      fmt::format("executor {}\nmethod {}\nbackend {}\npreset {}\n", kExecutorVersion,
                  method_info(config.method_name).result_version, arithmetic, RUQ_PRESET);
  if (const int version = rounding_version(config.quant.rounding); version > 1) {
    text += fmt::format("rounding {}\n", version);
  }
  if (const int revision = config.method->revision(config.quant); revision > 0) {
    text += fmt::format("revision {}\n", revision);
  }
  // A path is not part of the identity: the digests of what it leads to are.
  for (const auto& [key, value] : config.flat_changes()) {
    if (key.ends_with(".path")) continue;
    text += fmt::format("{}={}\n", key, value);
  }
  for (const auto& [key, value] : planned.identity.text) text += fmt::format("{}={}\n", key, value);
  for (const auto& [name, range] : planned.identity.token_ranges) {
    text += fmt::format("{}={}-{}\n", name, range.first, range.second);
  }
  return fmt::format("{:016x}", hash_text(text));
}

PlannedTrial plan_trial(const Trial& trial) {
  PlannedTrial planned{trial, prepare_inputs(*trial.config), {}, {}};
  check_trial(*trial.config, planned.inputs);
  planned.identity = identify(*trial.config, planned.inputs);
  planned.id = trial_id(planned, math_backend());
  return planned;
}

std::vector<std::string> recorded_arithmetic(const fs::path& root) {
  std::set<std::string> found;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(root, none)) {
    const std::string id = entry.path().filename().string();
    if (!entry.is_directory() || recorded_status(root, id) != "done") continue;
    found.insert(recorded_results(entry.path() / "results.json")["math_backend"]);
  }
  return {found.begin(), found.end()};
}

PlannedTrial as_recorded(PlannedTrial planned, const fs::path& root,
                         const std::vector<std::string>& arithmetics) {
  if (recorded_status(root, planned.id) == "done") return planned;
  for (const std::string& arithmetic : arithmetics) {
    const std::string id = trial_id(planned, arithmetic);
    if (recorded_status(root, id) != "done") continue;
    planned.id = id;
    break;
  }
  return planned;
}

void make_folder(const fs::path& folder) {
  std::error_code problem;
  fs::create_directories(folder, problem);
  if (problem || access(folder.c_str(), W_OK) != 0) refuse_folder(folder);
}

void check_writable(const fs::path& folder) {
  std::error_code ignored;
  fs::path above = fs::absolute(folder);
  while (above.has_relative_path() && !fs::exists(above, ignored)) above = above.parent_path();
  if (!fs::is_directory(above, ignored) || access(above.c_str(), W_OK) != 0) refuse_folder(folder);
}

std::string recorded_status(const fs::path& root, const std::string& id) {
  std::string text = read_file(root / id / "status");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

double recorded_processor_seconds(const fs::path& root, const std::string& id) {
  const Json timing = recorded_json(root / id / "timing.json");
  return timing.value("total_seconds", 0.0) * timing.value("threads", 0.0);
}

RunFolder::RunFolder(fs::path root, const Sweep& sweep) : root_(std::move(root)) {
  make_folder(root_);
  write_file(root_ / "sweep.yaml", sweep.text);
}

void RunFolder::begin(const PlannedTrial& planned) const {
  fs::remove_all(of(planned.id));
  fs::create_directories(of(planned.id));
  write_file(of(planned.id) / "config.yaml", config_yaml(planned.trial));
  write_file(of(planned.id) / "status", "running\n");
}

void RunFolder::finish(const PlannedTrial& planned, const TrialResult& result) const {
  const fs::path folder = of(planned.id);
  const Json json = results_json(planned, result);
  if (planned.trial.config->record.plans) save_plan(result.plan, folder / "plan.h5");
  write_results_h5(folder / "results.h5", json, result);
  write_file(folder / "results.json", json.dump(1) + "\n");
  write_file(folder / "timing.json", timing_json(result.timing).dump(1) + "\n");
  write_file(folder / "status", "done\n");
}

void RunFolder::fail(const PlannedTrial& planned, const std::string& why) const {
  fs::create_directories(of(planned.id));  // a worker may have died before it came to that
  std::string line = why;
  std::replace(line.begin(), line.end(), '\n', ' ');
  write_file(of(planned.id) / "status", fmt::format("failed: {}\n", line));
}

namespace {

// What the trial's folder says; adds a finished trial to resolved.json.
SummaryRow row_of(const RunFolder& folder, const PlannedTrial& planned, Json& resolved) {
  SummaryRow row{planned.id, folder.status(planned.id), {}, {}};
  if (row.status != "done") {
    row.results = {{"method", planned.trial.config->method_name},
                   {"widths", to_string(planned.trial.config->quant.widths())},
                   {"about", planned.trial.label}};
    return row;
  }
  row.results = recorded_results(folder.of(planned.id) / "results.json");
  row.timing = recorded_json(folder.of(planned.id) / "timing.json");
  const Json recorded = std::exchange(row.results["config"], options_of(planned.trial));
  row.results["axes"] = axes_of(planned.trial);
  Json later = Json::object();
  for (const auto& [name, value] : row.results["config"].items()) {
    if (!recorded.contains(name)) later[name] = value;
  }
  resolved[planned.id] = {{"axes", row.results["axes"]}, {"config", later}};
  return row;
}

// Writes the file, or removes what an earlier run left where there is nothing to say.
void write_or_remove(const fs::path& file, const Json& content) {
  if (content.empty()) {
    fs::remove(file);
  } else {
    write_file(file, content.dump(1) + "\n");
  }
}

}  // namespace

void RunFolder::summarize(const Sweep& sweep, const std::vector<PlannedTrial>& trials) const {
  std::vector<SummaryRow> rows;
  Json resolved = Json::object();
  for (const PlannedTrial& planned : trials) {
    rows.push_back(row_of(*this, planned, resolved));
  }
  write_file(root_ / "summary.csv", summary_csv(sweep, rows));
  const std::vector<TrendVerdict> verdicts = judge_trends(sweep, rows);
  write_file(root_ / "summary.md", summary_markdown(sweep, rows) + trends_markdown(verdicts));
  write_or_remove(root_ / "trends.json", trends_json(verdicts));
  write_or_remove(root_ / "resolved.json", resolved);
}

double recorded_metric(const RunFolder& folder, const std::string& id, const std::string& metric) {
  const Json json = recorded_results(folder.of(id) / "results.json");
  const auto found = json["metrics"].find(metric);
  if (found != json["metrics"].end()) return found->get<double>();
  std::vector<std::string> known;
  for (const auto& [name, value] : json["metrics"].items()) known.push_back(name);
  fail("trial {}: unknown metric '{}'{}", id, metric, suggestion(metric, known));
}

}  // namespace ruq
