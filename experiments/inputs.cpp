#include "experiments/inputs.hpp"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/document.hpp"
#include "experiments/once.hpp"
#include "experiments/tokens.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/model/activations.hpp"
#include "ruquant/model/model.hpp"
#include "ruquant/quant/rounding.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;

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

void check_blocks(const std::string& name, Index blocks, const ModelConfig& model) {
  if (blocks > model.layers) {
    fail("{}: found {}, expected at most the {} blocks of the model", name, blocks, model.layers);
  }
}

void check_tokens(const Config& config, const Inputs& inputs, const ModelConfig& model) {
  const TokenFile& tokens = known_tokens(inputs.tokens);
  check_vocabulary("text", tokens, model);
  if (!inputs.calibration_tokens.empty()) {
    check_vocabulary("calibration.source", known_tokens(inputs.calibration_tokens), model);
  }
  if (config.measures_language()) evaluated_tokens(config, tokens);
  const Index scored = std::ssize(tokens.split(config.evaluation.split));
  if (config.evaluation.window_tokens > scored) {
    fail("evaluation.window_tokens: found {}, expected at most the {} tokens of the {} split",
         config.evaluation.window_tokens, scored, config.evaluation.split);
  }
  const Index room = std::ssize(calibration_tokens(config, inputs));
  const auto check_length = [&](const std::string& name, Index length, bool calibrates) {
    if (calibrates && length > room) {
      fail("{}: found {}, expected at most the {} tokens of the split", name, length, room);
    }
    if (length > model.context) {
      fail("{}: found {}, expected at most the {} positions of the model", name, length,
           model.context);
    }
  };
  check_length("evaluation.window_tokens", config.evaluation.window_tokens, false);
  check_length("calibration.window_tokens", config.calibration.window_tokens, true);
  check_blocks("quant.learning.blocks", config.quant.rounding_options.learning.blocks, model);
  if (!config.method->cuts_windows()) return;
  // What methods call the length of the windows that they cut for themselves.
  for (const auto& [name, value] : config.flat()) {
    if (name == "method.learning_tokens") check_length(name, std::stoll(value), true);
    if (name == "method.learning_blocks") check_blocks(name, std::stoll(value), model);
  }
}

}  // namespace

std::string model_name(const Config& config) {
  if (config.model.path.empty()) return config.model.name;
  const fs::path path = fs::path(config.model.path).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

const std::string& known_model_digest(const fs::path& directory) {
  return once<std::string, model_digest>(directory);
}

const ChoiceTask& known_task(const fs::path& file) {
  return once<ChoiceTask, load_choice_task>(file);
}

InputIdentity identify(const Config& config, const Inputs& inputs) {
  InputIdentity identity;
  if (!inputs.model.empty()) {
    identity.text["model"] = model_name(config);
    identity.text["model_digest"] = known_model_digest(inputs.model);
    identity.text["model_note"] = model_note(inputs.model);
    const TokenFile& tokens = known_tokens(inputs.tokens);
    identity.text["text"] = tokens.source;
    // What a file of tokens says of its source may be said of other tokens too.
    identity.text["text_digest"] =
        config.text.source == "tokens"
            ? fmt::format("{:016x}", once<std::uint64_t, hash_file>(inputs.tokens))
            : tokens.digest;
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
  identity.text["stream"] = inputs.activations.empty()
                                ? config.activations.stream
                                : once<ActivationSet, load_activations>(inputs.activations).stream;
  return identity;
}

void check_same_shapes(const ModelConfig& dumped, const ModelConfig& model) {
  const auto check_one = [](const char* what, Index found, Index expected) {
    if (found != expected) {
      fail("activations.path: found {} {}, expected {} as in the model", what, found, expected);
    }
  };
  check_one("layers", dumped.layers, model.layers);
  check_one("width", dumped.width, model.width);
  check_one("mlp_width", dumped.mlp_width, model.mlp_width);
  check_one("heads", dumped.heads, model.heads);
  check_one("kv_heads", dumped.kv_heads, model.kv_heads);
  check_one("head_width", dumped.head_width, model.head_width);
}

void check_learned_rounding(const Config& config) {
  const QuantSettings& quant = config.quant;
  if (!quant.weight.rounds() || rounding_needs(quant.rounding) != RoundingNeeds::block) return;
  const Index held_out = quant.rounding_options.learning.held_out;
  if (held_out >= config.calibration.windows) {
    fail("quant.learning.held_out: found {}, expected fewer than the {} calibration windows",
         held_out, config.calibration.windows);
  }
  if (quant.activation_levels != "midpoint") {
    fail(
        "quant.activation_levels: found {}, expected midpoint, since weight rounding '{}' learns "
        "with activations on the uniform grid",
        quant.activation_levels, quant.rounding);
  }
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
  check_learned_rounding(config);
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
  if (inputs.activations.empty()) return;
  const ModelConfig& dumped = once<ActivationSet, load_activations>(inputs.activations).config;
  check_shapes(dumped);
  if (!inputs.model.empty()) {
    check_same_shapes(dumped, read_model_config(inputs.model / "config.json"));
  }
}

}  // namespace ruq
