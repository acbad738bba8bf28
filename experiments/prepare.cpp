#include "experiments/prepare.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "experiments/document.hpp"
#include "experiments/home.hpp"
#include "experiments/once.hpp"
#include "experiments/process.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/rng.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;

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

// An input that is not there: the option that led to it, what is said of making it, and the data
// program's arguments.
struct Missing {
  std::string option, making;
  std::vector<std::string> arguments;
};

// What happens to it.
using Maker = std::function<void(const Missing&)>;

void make_missing(const Missing& missing) {
  logger().info("{}: {}", missing.option, missing.making);
  with_context(missing.option, [&] { run_data_program(missing.arguments); });
}

fs::path prepare_model(const ModelSource& source, const Maker& make) {
  if (!source.path.empty()) {
    if (!fs::exists(fs::path(source.path) / "config.json")) {
      fail("model.path: found no config.json in '{}', expected a Hugging Face directory",
           source.path);
    }
    return source.path;
  }
  const fs::path directory = cache_folder("models") / source.name;
  if (fs::exists(directory / "config.json")) return directory;
  make({"model.name",
        fmt::format("making {} (first use: fetched and converted once)", source.name),
        {"model", source.name, "--out", directory.string()}});
  return directory;
}

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

// Before the model is made, which may take minutes. `group`: text or calibration.
void check_text_path(const TextSource& text, const std::string& group) {
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
fs::path prepare_tokens(const TextSource& text, const fs::path& model, const Maker& make) {
  if (text.source == "tokens") return text.path;
  const fs::path tokenizer = model / "tokenizer.json";
  if (!fs::exists(tokenizer)) {
    fail("text.source: {} needs {}; with text.source=tokens a token file is read instead",
         text.source, tokenizer.string());
  }
  const std::uint64_t key = prepared_key(tokenizer, text.path);
  const fs::path file = cache_folder("texts") / fmt::format("{}-{:016x}.h5", text.source, key);
  if (fs::exists(file)) return file;
  std::vector<std::string> arguments = {"text",  text.source,  "--tokenizer", tokenizer.string(),
                                        "--out", file.string()};
  if (!text.path.empty()) arguments.insert(arguments.end(), {"--path", text.path});
  make({"text.source", fmt::format("tokenizing {} (once)", text.source), std::move(arguments)});
  return file;
}

// Made once per task, source and tokenizer.
fs::path prepare_task(const TaskSettings& tasks, const std::string& name, const fs::path& model,
                      const Maker& make) {
  const fs::path tokenizer = model / "tokenizer.json";
  if (!fs::exists(tokenizer)) {
    fail("tasks.names: {} needs {}", name, tokenizer.string());
  }
  const std::uint64_t key = prepared_key(tokenizer, tasks.path);
  const fs::path file = cache_folder("tasks") / fmt::format("{}-{:016x}.h5", name, key);
  if (fs::exists(file)) return file;
  std::vector<std::string> arguments = {"tasks", name,         "--tokenizer", tokenizer.string(),
                                        "--out", file.string()};
  if (!tasks.path.empty()) arguments.insert(arguments.end(), {"--path", tasks.path});
  make({"tasks.names", fmt::format("making {} (once)", name), std::move(arguments)});
  return file;
}

Inputs find_inputs(const Config& config, const Maker& make) {
  Inputs inputs;
  if (!config.activations.path.empty() && config.measures_tensors()) {
    if (!fs::exists(config.activations.path)) {
      fail("activations.path: '{}' does not exist", config.activations.path);
    }
    inputs.activations = config.activations.path;
  }
  if (!config.needs_model()) return inputs;
  if (config.text.reads_path()) check_text_path(config.text, "text");
  const bool other = config.calibration_text.is_other();
  if (config.calibration_text.reads_path()) check_text_path(config.calibration_text, "calibration");
  inputs.model = prepare_model(config.model, make);
  inputs.tokens = prepare_tokens(config.text, inputs.model, make);
  if (other) {
    inputs.calibration_tokens = prepare_tokens(config.calibration_text, inputs.model, make);
  }
  if (!config.tasks.path.empty() && !fs::is_directory(config.tasks.path)) {
    fail("tasks.path: '{}' does not exist, expected a folder of JSON lines", config.tasks.path);
  }
  if (config.measures_language()) {
    for (const std::string& name : config.tasks.names) {
      inputs.tasks[name] = prepare_task(config.tasks, name, inputs.model, make);
    }
  }
  return inputs;
}

}  // namespace

Inputs prepare_inputs(const Config& config) { return find_inputs(config, make_missing); }

bool inputs_are_there(const Config& config) {
  try {
    find_inputs(config, [](const Missing& missing) { fail("{}: not made", missing.option); });
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace ruq
