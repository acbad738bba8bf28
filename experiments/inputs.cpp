#include "experiments/inputs.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tuple>

#include "experiments/document.hpp"
#include "experiments/process.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/io/tensor_store.hpp"
#include "ruquant/model/activations.hpp"
#include "ruquant/model/model.hpp"
#include "ruquant/quant/rounding.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? std::string(value) : fallback;
}

// Runs a program of the data room; its messages go to our standard error.
void start_data_program(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(),
                   {home().python, (home().root / "data" / "prepare.py").string()});
  const int code = run_process(
      {.file = home().python, .arguments = std::move(arguments), .output_to_errors = true});
  if (code == 0) return;
  if (code == kNotStarted) {
    fail("{} cannot be run; RUQ_PYTHON names the interpreter that has data/requirements.txt",
         home().python);
  }
  fail("data/prepare.py could not make the input (see the message above)");
}

// What failed for one trial is not tried again for the next.
void run_data_program(const std::vector<std::string>& arguments) {
  static std::map<std::vector<std::string>, std::string> failed;
  const auto found = failed.find(arguments);
  if (found != failed.end()) throw Error(found->second);
  try {
    start_data_program(arguments);
  } catch (const Error& problem) {
    failed[arguments] = problem.what();
    throw;
  }
}

fs::path prepare_model(const ModelSource& source) {
  if (!source.path.empty()) {
    if (!fs::exists(fs::path(source.path) / "config.json")) {
      fail("model.path: found no config.json in '{}', expected a Hugging Face directory",
           source.path);
    }
    return source.path;
  }
  const fs::path directory = cache_folder("models") / source.name;
  if (fs::exists(directory / "config.json")) return directory;
  logger().info("model.name: making {} (first use: fetched and converted once)", source.name);
  with_context("model.name", [&] {
    run_data_program({"model", source.name, "--out", directory.string()});
  });
  return directory;
}

std::uint64_t hash_file(const fs::path& file) { return hash_text(read_text(file)); }

// Of the files of a folder by name and content, notes apart, or of a file.
std::uint64_t hash_content(const fs::path& path) {
  if (!fs::is_directory(path)) return hash_file(path);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.is_regular_file() && entry.path().extension() != ".md") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::string text;
  for (const fs::path& file : files) {
    text += fmt::format("{} {:016x}\n", file.filename().string(), hash_file(file));
  }
  return hash_text(text);
}

// What `make` makes of a path, made once a process: every trial of a sweep asks again.
template <class T, T (*make)(const fs::path&)>
const T& once(const fs::path& path) {
  static std::map<fs::path, T> known;
  const auto found = known.find(path);
  return found != known.end() ? found->second : known.emplace(path, make(path)).first->second;
}

// What a prepared file of the cache depends on: the tokenizer, what it was made of where that is
// not fetched, and the programs that make it.
std::uint64_t prepared_key(const fs::path& tokenizer, const std::string& source) {
  std::string text = fmt::format("{:016x} {:016x}", once<std::uint64_t, hash_file>(tokenizer),
                                 once<std::uint64_t, hash_content>(home().root / "data"));
  if (!source.empty()) {
    text += fmt::format(" {:016x}", once<std::uint64_t, hash_content>(fs::path(source)));
  }
  return hash_text(text);
}

bool is_other_text(const TextSource& calibration) {
  return calibration.source != "same" && calibration.source != "random";
}

// Before the model is made, which may take minutes. `group`: text or calibration.
void check_text_path(const TextSource& text, const std::string& group) {
  if (text.source == "wikipedia" || !is_other_text(text)) {
    if (text.path.empty()) return;
    fail("{0}.path: found '{1}' with {0}.source {2}, expected nothing: {2} reads no file", group,
         text.path, text.source);
  }
  const char* expected = text.source == "tokens" ? "a token file (HDF5)"
                         : text.source == "file" ? "a UTF-8 file"
                                                 : "the folder of WikiText-2 raw";
  if (text.path.empty()) {
    fail("{0}.path: found nothing, expected {1} for {0}.source {2}", group, expected, text.source);
  }
  if (!fs::exists(text.path)) {
    fail("{}.path: '{}' does not exist, expected {}", group, text.path, expected);
  }
}

// Made once per text and tokenizer.
fs::path prepare_tokens(const TextSource& text, const fs::path& model) {
  if (text.source == "tokens") return text.path;
  const fs::path tokenizer = model / "tokenizer.json";
  if (!fs::exists(tokenizer)) {
    fail("text.source: {} needs {}; with text.source=tokens a token file is read instead",
         text.source, tokenizer.string());
  }
  const std::uint64_t key = prepared_key(tokenizer, text.path);
  const fs::path file = cache_folder("texts") / fmt::format("{}-{:016x}.h5", text.source, key);
  if (fs::exists(file)) return file;
  logger().info("text.source: tokenizing {} (once)", text.source);
  std::vector<std::string> arguments = {"text",  text.source,  "--tokenizer", tokenizer.string(),
                                        "--out", file.string()};
  if (!text.path.empty()) arguments.insert(arguments.end(), {"--path", text.path});
  with_context("text.source", [&] { run_data_program(arguments); });
  return file;
}

// Made once per task, source and tokenizer.
fs::path prepare_task(const TaskSettings& tasks, const std::string& name, const fs::path& model) {
  const fs::path tokenizer = model / "tokenizer.json";
  if (!fs::exists(tokenizer)) {
    fail("tasks.names: {} needs {}", name, tokenizer.string());
  }
  const std::uint64_t key = prepared_key(tokenizer, tasks.path);
  const fs::path file = cache_folder("tasks") / fmt::format("{}-{:016x}.h5", name, key);
  if (fs::exists(file)) return file;
  logger().info("tasks.names: making {} (once)", name);
  std::vector<std::string> arguments = {"tasks", name,         "--tokenizer", tokenizer.string(),
                                        "--out", file.string()};
  if (!tasks.path.empty()) arguments.insert(arguments.end(), {"--path", tasks.path});
  with_context("tasks.names", [&] { run_data_program(arguments); });
  return file;
}

std::string model_note(const fs::path& directory) {
  std::ifstream in(directory / "provenance.json");
  if (!in) return "weights as stored";
  const auto provenance = nlohmann::json::parse(in, nullptr, false);
  return provenance.is_object() ? provenance.value("note", "weights as stored")
                                : "weights as stored";
}

void check_vocabulary(const char* group, const TokenFile& tokens, const ModelConfig& model) {
  if (tokens.vocabulary > model.vocabulary) {
    fail("{}: tokens of a vocabulary of {}, the model has {}", group, tokens.vocabulary,
         model.vocabulary);
  }
}

void check_tokens(const Config& config, const Inputs& inputs, const ModelConfig& model) {
  const TokenFile& tokens = known_tokens(inputs.tokens);
  check_vocabulary("text", tokens, model);
  if (!inputs.calibration_tokens.empty()) {
    check_vocabulary("calibration.source", known_tokens(inputs.calibration_tokens), model);
  }
  if (config.measures_language()) evaluated_tokens(config, tokens);
  for (const auto& [name, length] :
       {std::pair("evaluation.window_tokens", config.evaluation.window_tokens),
        std::pair("calibration.window_tokens", config.calibration.window_tokens)}) {
    if (length > model.context) {
      fail("{}: found {}, expected at most the {} positions of the model", name, length,
           model.context);
    }
  }
  const Index scored = std::ssize(tokens.split(config.evaluation.split));
  if (config.evaluation.window_tokens > scored) {
    fail("evaluation.window_tokens: found {}, expected at most the {} tokens of the {} split",
         config.evaluation.window_tokens, scored, config.evaluation.split);
  }
  const Index room = std::ssize(calibration_tokens(config, inputs));
  if (config.calibration.window_tokens > room) {
    fail("calibration.window_tokens: found {}, expected at most the {} tokens of the split",
         config.calibration.window_tokens, room);
  }
}

}  // namespace

const Home& home() {
  static const Home instance = [] {
    const fs::path root = environment("RUQ_HOME", RUQ_SOURCE_DIR);
    return Home{root, environment("RUQ_CACHE", (root / ".cache").string()),
                environment("RUQ_PYTHON", "python3")};
  }();
  return instance;
}

fs::path cache_folder(const std::string& name) {
  const fs::path folder = home().cache / name;
  std::error_code problem;
  fs::create_directories(folder, problem);
  if (problem) {
    fail("RUQ_CACHE: found '{}', expected a folder that can be written to", home().cache.string());
  }
  return folder;
}

std::string model_name(const Config& config) {
  if (config.model.path.empty()) return config.model.name;
  const fs::path path = fs::path(config.model.path).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

const std::string& known_model_digest(const fs::path& directory) {
  return once<std::string, model_digest>(directory);
}

const TokenFile& known_tokens(const fs::path& file) { return once<TokenFile, load_tokens>(file); }
const ChoiceTask& known_task(const fs::path& file) {
  return once<ChoiceTask, load_choice_task>(file);
}

Inputs prepare_inputs(const Config& config) {
  Inputs inputs;
  if (!config.activations.path.empty() && config.measures_tensors()) {
    if (!fs::exists(config.activations.path)) {
      fail("activations.path: '{}' does not exist", config.activations.path);
    }
    inputs.activations = config.activations.path;
  }
  if (!config.needs_model()) return inputs;
  check_text_path(config.text, "text");
  const bool other = is_other_text(config.calibration_text);
  check_text_path(config.calibration_text, "calibration");
  inputs.model = prepare_model(config.model);
  inputs.tokens = prepare_tokens(config.text, inputs.model);
  if (other) inputs.calibration_tokens = prepare_tokens(config.calibration_text, inputs.model);
  if (!config.tasks.path.empty() && !fs::is_directory(config.tasks.path)) {
    fail("tasks.path: '{}' does not exist, expected a folder of JSON lines", config.tasks.path);
  }
  if (config.measures_language()) {
    for (const std::string& name : config.tasks.names) {
      inputs.tasks[name] = prepare_task(config.tasks, name, inputs.model);
    }
  }
  return inputs;
}

InputIdentity identify(const Config& config, const Inputs& inputs) {
  InputIdentity identity;
  if (!inputs.model.empty()) {
    identity.text["model"] = model_name(config);
    identity.text["model_digest"] = known_model_digest(inputs.model);
    identity.text["model_note"] = model_note(inputs.model);
    const TokenFile& tokens = known_tokens(inputs.tokens);
    identity.text["text"] = tokens.source;
    identity.text["text_digest"] = tokens.digest;
    identity.text["text_note"] = tokens.note;
    identity.token_ranges["calibration"] = tokens.splits.at("calibration");
    if (config.calibration_text.source == "random") {
      identity.text["calibration_text"] = "random tokens";
      identity.token_ranges["calibration"] = {0, std::ssize(tokens.split("calibration"))};
    } else if (!inputs.calibration_tokens.empty()) {
      const TokenFile& other = known_tokens(inputs.calibration_tokens);
      identity.text["calibration_text"] = other.source;
      identity.text["calibration_text_digest"] = other.digest;
      identity.token_ranges["calibration"] = other.splits.at("calibration");
    }
    const auto [begin, end] = tokens.splits.at(config.evaluation.split);
    const Index scored = config.evaluation.windows * config.evaluation.window_tokens;
    identity.token_ranges[config.evaluation.split] = {
        begin, config.evaluation.spread ? end : begin + scored};
  }
  for (const auto& [name, file] : inputs.tasks) {
    identity.text["task_" + name] = known_task(file).digest;
  }
  if (!inputs.activations.empty()) {
    identity.text["activations_digest"] =
        fmt::format("{:016x}", once<std::uint64_t, hash_file>(inputs.activations));
    if (inputs.model.empty()) {
      identity.text["model"] = once<ActivationSet, load_activations>(inputs.activations).model;
      identity.text["model_note"] = "activations and weights of a dump";
    }
  }
  identity.text["stream"] = config.activations.stream;
  return identity;
}

template <class T>
void check_list(const std::string& name, std::vector<T> values) {
  std::sort(values.begin(), values.end());
  const auto twice = std::adjacent_find(values.begin(), values.end());
  if (twice != values.end()) fail("{}: found {} twice, expected each once", name, *twice);
}

void check_trial(const Config& config, const Inputs& inputs) {
  check_list("activations.layers", config.activations.layers);
  check_list("activations.kinds", config.activations.kinds);
  check_list("tasks.names", config.tasks.names);
  if (config.measures_tensors() && config.activations.kinds.empty()) {
    fail("activations.kinds: found nothing, expected at least one kind of site");
  }
  if (!config.measures_language() && !config.measures_tensors()) {
    fail("nothing to do: evaluation.language and activations.measure are both false");
  }
  if (config.method->needs_model() && !config.needs_model()) {
    fail(
        "method: {} learns from whole blocks, and activations.path gives single sites only; "
        "give a model too (evaluation.language=true)",
        config.method_name);
  }
  const auto check_shapes = [&](const ModelConfig& shapes) {
    for (const Index layer : config.activations.layers) {
      if (layer >= shapes.layers) {
        fail("activations.layers: found {}, expected 0 to {}", layer, shapes.layers - 1);
      }
    }
    config.method->check(shapes, config.quant);
  };
  if (!inputs.model.empty()) {
    const ModelConfig model = read_model_config(inputs.model / "config.json");
    check_tokens(config, inputs, model);
    check_shapes(model);
  }
  if (!inputs.activations.empty())
    check_shapes(once<ActivationSet, load_activations>(inputs.activations).config);
}

std::span<const std::int32_t> TokenFile::split(const std::string& name) const {
  const auto [begin, end] = splits.at(name);
  return std::span(ids).subspan(static_cast<std::size_t>(begin),
                                static_cast<std::size_t>(end - begin));
}

TokenFile load_tokens(const fs::path& path) {
  const TensorReader file(path);
  if (!file.has_attribute("", "format") || file.text_attribute("", "format") != "ruquant-tokens" ||
      file.integer_attribute("", "format_version") != 1) {
    fail("{}: expected a token file, format ruquant-tokens version 1", path.string());
  }
  TokenFile tokens{file.text_attribute("", "source"),
                   file.text_attribute("", "source_digest"),
                   file.text_attribute("", "note"),
                   file.integer_attribute("", "vocabulary"),
                   {},
                   {}};
  for (const Index id : file.integers("tokens/ids")) {
    if (id < 0 || id >= tokens.vocabulary) {
      fail("{}: tokens/ids: found {}, expected 0 to {}", path.string(), id, tokens.vocabulary - 1);
    }
    tokens.ids.push_back(static_cast<std::int32_t>(id));
  }
  std::vector<std::pair<Index, Index>> ranges;
  for (const char* name : {"calibration", "validation", "test"}) {
    const auto range = file.integers(fmt::format("splits/{}", name));
    if (range.size() != 2 || range[0] < 0 || range[0] > range[1] ||
        range[1] > std::ssize(tokens.ids)) {
      fail("{}: splits/{}: expected a range within the {} tokens", path.string(), name,
           tokens.ids.size());
    }
    tokens.splits[name] = {range[0], range[1]};
    ranges.emplace_back(range[0], range[1]);
  }
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) fail("{}: splits overlap", path.string());
  }
  return tokens;
}

std::span<const std::int32_t> calibration_tokens(const Config& config, const Inputs& inputs) {
  const TokenFile& text = known_tokens(inputs.tokens);
  if (!inputs.calibration_tokens.empty()) {
    return known_tokens(inputs.calibration_tokens).split("calibration");
  }
  const auto own = text.split("calibration");
  if (config.calibration_text.source != "random") return own;
  static std::map<std::tuple<Index, std::size_t, Index>, std::vector<std::int32_t>> known;
  std::vector<std::int32_t>& ids = known[{text.vocabulary, own.size(), config.calibration.seed}];
  if (ids.empty()) {
    const auto seed = static_cast<std::uint64_t>(config.calibration.seed);
    for (const double u : Stream(seed, "calibration/random tokens").uniform(std::ssize(own))) {
      ids.push_back(static_cast<std::int32_t>(u * static_cast<double>(text.vocabulary)));
    }
  }
  return ids;
}

std::vector<std::int32_t> evaluated_tokens(const Config& config, const TokenFile& tokens) {
  const auto split = tokens.split(config.evaluation.split);
  const Index windows = config.evaluation.windows;
  const Index length = config.evaluation.window_tokens;
  if (windows * length > std::ssize(split)) {
    fail(
        "evaluation.windows: found {} windows of {} tokens, expected at most the {} tokens of the "
        "{} split",
        windows, length, split.size(), config.evaluation.split);
  }
  std::vector<std::int32_t> ids;
  for (Index w = 0; w < windows; ++w) {
    const Index begin = config.evaluation.spread && windows > 1
                            ? (std::ssize(split) - length) * w / (windows - 1)
                            : w * length;
    const auto window =
        split.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(length));
    ids.insert(ids.end(), window.begin(), window.end());
  }
  return ids;
}

}  // namespace ruq
