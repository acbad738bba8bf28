// Token files, and which of their tokens calibrate and are scored.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "experiments/inputs.hpp"

namespace ruq {

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

/// The tokens that calibrate: the calibration range of the text, of another text, or as many random
/// ones as the text's range has, drawn by calibration.seed. Kept for the life of the process.
std::span<const std::int32_t> calibration_tokens(const Config& config, const Inputs& inputs);

/// The tokens that are scored, window after window: the first of the configured split, or windows
/// at equal distances over all of it. Error if the split has fewer.
std::vector<std::int32_t> evaluated_tokens(const Config& config, const TokenFile& tokens);

}  // namespace ruq
