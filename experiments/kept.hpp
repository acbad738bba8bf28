// What takes long and is the same for many trials is kept in the cache folder, in files named by a
// hash of all that they depend on: worker processes and later runs find it there.
#pragma once

#include <filesystem>
#include <string>

#include "ruquant/eval/choices.hpp"
#include "ruquant/model/calibration.hpp"

namespace ruq {

/// The file of this kind for something that depends on exactly this text.
std::filesystem::path kept_file(const std::string& kind, const std::string& key);

void write_maxima(const ChannelMaxima& maxima, const std::filesystem::path& file);
ChannelMaxima read_maxima(const std::filesystem::path& file);

void write_choices(const ChoiceScores& scores, const std::filesystem::path& file);
ChoiceScores read_choices(const std::filesystem::path& file);

}  // namespace ruq
