#include "experiments/trial.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <set>
#include <string>
#include <vector>

#include "experiments/home.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/io/tensor_store.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

namespace fs = std::filesystem;

// The cache of this program, in the place of the installation's.
void use_own_cache() {
  static const TemporaryFolder folder;
  setenv("RUQ_CACHE", folder.path().c_str(), 1);
  REQUIRE(home().cache == folder.path());
}

Inputs fixture_inputs() {
  use_own_cache();
  Inputs inputs;
  inputs.model = fs::path(RUQ_FIXTURES) / "tiny-llama";
  inputs.tokens = fs::path(RUQ_FIXTURES) / "tiny-tokens.h5";
  return inputs;
}

Config short_config(const std::string& split = "test") {
  Config config("rtn");
  config.activations.measure = false;
  config.calibration = {.windows = 2, .mean_windows = 2, .window_tokens = 32};
  config.evaluation.split = split;
  config.evaluation.windows = 2;
  config.evaluation.window_tokens = 32;
  return config;
}

TrialResult run(Workbench& bench, const Config& config, const Inputs& inputs) {
  return bench.run(config, inputs, [](const std::string&, double) {});
}

std::set<fs::path> kept_references() {
  std::set<fs::path> found;
  for (const auto& entry : fs::directory_iterator(cache_folder("shared"))) {
    if (entry.path().filename().string().starts_with("float-")) found.insert(entry.path());
  }
  return found;
}

TEST_CASE("a float reference that cannot be kept is not taken for that of another split") {
  const Inputs inputs = fixture_inputs();
  const Config config = short_config(), other = short_config("validation");
  Workbench bench;
  const auto expected = run(bench, config, inputs).windows;
  const std::set<fs::path> before = kept_references();
  Workbench().prepare(other, inputs);
  for (const fs::path& file : kept_references()) {
    if (before.contains(file)) continue;
    fs::remove(file);
    fs::create_directory(file.string() + ".tmp-" + process_name());  // where a writer begins
  }
  check_error([&] { bench.prepare(other, inputs); }, {"float-", "cannot create the file"});
  CHECK(run(bench, config, inputs).windows == expected);
}

TEST_CASE("a model whose tokens could not be read is not taken for the one before") {
  const TemporaryFolder folder;
  const Inputs inputs = fixture_inputs();
  Inputs broken = inputs;
  broken.model = folder / "other";
  broken.tokens = folder / "none.h5";
  fs::copy(inputs.model, broken.model);
  std::string bytes = read_bytes(broken.model / "model.safetensors");
  for (std::size_t i = bytes.size() - 4096; i < bytes.size(); ++i) bytes[i] = 0;
  write_bytes(broken.model / "model.safetensors", bytes);

  Workbench bench;
  const auto expected = run(bench, short_config(), inputs).windows;
  check_error([&] { bench.load(short_config(), broken); }, {"none.h5: no such file"});
  CHECK(run(bench, short_config(), inputs).windows == expected);
}

// A task of one item: the word 7 behind this context.
fs::path last_word(const fs::path& path, const std::vector<Index>& context) {
  TensorWriter file(path);
  file.attribute("", "format", std::string("ruquant-choices"));
  file.attribute("", "format_version", std::int64_t{1});
  for (const char* name : {"task", "source", "digest"}) file.attribute("", name, std::string(name));
  file.attribute("", "kind", std::string("last_word"));
  file.attribute("", "normalized", std::int64_t{0});
  file.attribute("", "vocabulary", std::int64_t{256});
  for (const char* name : {"gold", "choice_context"}) file.write(name, std::vector<Index>{0});
  for (const char* name : {"item_contexts", "item_choices", "choice_offsets"}) {
    file.write(name, std::vector<Index>{0, 1});
  }
  file.write("context_offsets", std::vector<Index>{0, std::ssize(context)});
  file.write("context_ids", context);
  file.write("choice_characters", std::vector<Index>{3});
  file.write("choice_ids", std::vector<Index>{7});
  file.commit();
  return path;
}

TEST_CASE("the float model's likelihoods are those of the tokens, whatever the digest says") {
  const TemporaryFolder folder;
  Inputs inputs = fixture_inputs();
  Workbench bench;
  std::set<double> found;
  for (const Index first : {5, 9}) {
    inputs.tasks = {{"lambada", last_word(folder / fmt::format("{}.h5", first), {first, 6, 8})}};
    const auto metrics = run(bench, short_config(), inputs).metrics;  // at 16 bits
    CHECK(metrics.at("task.task.ppl") == doctest::Approx(metrics.at("task.task.ppl_float")));
    found.insert(metrics.at("task.task.ppl"));
  }
  REQUIRE(found.size() == 2);
  CHECK(*found.begin() != doctest::Approx(*found.rbegin()));
}

}  // namespace
}  // namespace ruq::test
