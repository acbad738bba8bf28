// Models, texts and dumps that a trial reads: what identifies them, and whether they fit together.
//
// Named models and texts are made on first use (prepare.hpp) and kept in the cache folder; after
// that no network and no Python is needed to run.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>

#include "experiments/config.hpp"
#include "ruquant/base/matrix.hpp"
#include "ruquant/eval/choices.hpp"

namespace ruq {

/// Prepared inputs; empty paths are inputs that the configuration does not need.
struct Inputs {
  std::filesystem::path model;               ///< Hugging Face directory
  std::filesystem::path tokens;              ///< HDF5 of token ids
  std::filesystem::path calibration_tokens;  ///< the same, of a text for calibration alone
  std::filesystem::path activations;         ///< HDF5 dump for the tensor-level part
  std::map<std::string, std::filesystem::path> tasks;  ///< name → task file
};

/// Digests and ranges that identify the inputs; part of the trial id and of every result.
struct InputIdentity {
  std::map<std::string, std::string>
      text;  ///< model, model_digest, model_note, text, text_digest, ...
  std::map<std::string, std::pair<Index, Index>> token_ranges;  ///< calibration, <evaluated split>
};
InputIdentity identify(const Config& config, const Inputs& inputs);

/// Name and digest of a configured model; the digest of a directory is computed once a process.
std::string model_name(const Config& config);
const std::string& known_model_digest(const std::filesystem::path& directory);

/// Checks everything about a trial that can be checked without loading weights: shapes against
/// config.json or the dump, window lengths against token ranges. Error says what does not fit.
void check_trial(const Config& config, const Inputs& inputs);

/// A task file, read once a process.
const ChoiceTask& known_task(const std::filesystem::path& file);

}  // namespace ruq
