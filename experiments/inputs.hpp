// Where models, texts and dumps come from, and what identifies them.
//
// Named models and texts are made on first use by the Python programs of the data room and kept in
// the cache folder; after that no network and no Python is needed to run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "experiments/config.hpp"
#include "ruquant/base/matrix.hpp"
#include "ruquant/eval/choices.hpp"

namespace ruq {

/// Folders and programs of this installation: RUQ_HOME (the checkout, else where it was built),
/// RUQ_CACHE (else <home>/.cache), RUQ_PYTHON (else python3).
struct Home {
  std::filesystem::path root;
  std::filesystem::path cache;
  std::string python;
};
const Home& home();

/// A folder in the cache, made if it is not there. Error naming RUQ_CACHE if it cannot be.
std::filesystem::path cache_folder(const std::string& name);

/// Prepared inputs; empty paths are inputs that the configuration does not need.
struct Inputs {
  std::filesystem::path model;               ///< Hugging Face directory
  std::filesystem::path tokens;              ///< HDF5 of token ids
  std::filesystem::path calibration_tokens;  ///< the same, of a text for calibration alone
  std::filesystem::path activations;         ///< HDF5 dump for the tensor-level part
  std::map<std::string, std::filesystem::path> tasks;  ///< name → task file
};

/// Makes what is missing (may fetch and convert a model, which takes minutes the first time). Error
/// names the option that led to the input.
Inputs prepare_inputs(const Config& config);

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

/// Token ids of a text with its splits.
struct TokenFile {
  std::string source, digest, note;
  Index vocabulary = 0;
  std::vector<std::int32_t> ids;
  std::map<std::string, std::pair<Index, Index>> splits;  ///< half-open ranges of ids

  std::span<const std::int32_t> split(const std::string& name) const;
};
/// Error naming the file for a wrong format, a range outside the ids, or splits that overlap.
TokenFile load_tokens(const std::filesystem::path& file);
/// The same, read once a process.
const TokenFile& known_tokens(const std::filesystem::path& file);

/// A task file, read once a process.
const ChoiceTask& known_task(const std::filesystem::path& file);

/// The tokens that calibrate: the calibration range of the text, of another text, or as many random
/// ones as the text's range has, drawn by calibration.seed. Kept for the life of the process.
std::span<const std::int32_t> calibration_tokens(const Config& config, const Inputs& inputs);

/// The tokens that are scored: the first windows of the configured split.
std::vector<std::int32_t> evaluated_tokens(const Config& config, const TokenFile& tokens);

}  // namespace ruq
