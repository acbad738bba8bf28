// A YAML file to an ordered list of trials.
//
//   about: one line for people
//   check: parse                       or a map, see Check
//   trends:                            what is expected
//     - claim: zigzag helps
//       lower: {method.partition: zigzag}
//       than: {method.partition: contiguous}
//       margin: 0.05                   for a claim of "no worse than": by how much it may be worse
//   base: [common.yaml]                files laid under this one, relative to it
//   text: {source: wikitext2}          options, nested or dotted ("text.source")
//   sweep:                             a grid, or a list of grids that are put one after another
//     - method: [rtn, quarot]          an axis: every value is tried with every value of the others
//       quant.widths: [W4A4-Q4K4V4, W6A6-Q6K6V6]
//     - method: ruquant
//       seed: [1, 2, 3]
//
// An option of a method (method.block_size) given for several methods applies to those that have
// it; one that none of them has is an error, unless the command line chose other methods. Trials
// that resolve to the same options are one trial: an axis that a method does not have, or the seed
// of a method that draws nothing, does not multiply.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "experiments/config.hpp"
#include "experiments/document.hpp"

namespace ruq {

struct Trial {
  std::shared_ptr<Config> config;
  std::vector<std::pair<std::string, std::string>> axes;  ///< swept keys and their values here
  std::string label;  ///< "ruquant quant.widths=W4A4-Q4K4V4 seed=2"
};

struct Sweep {
  std::string name;  ///< file name without extension
  std::string about;
  Check check;
  std::string text;               ///< the file itself, for the run folder
  std::vector<std::string> axes;  ///< every swept key, in order of appearance
  std::vector<Trial> trials;
  std::vector<Trend> trends;  ///< those that trials of this sweep can answer
};

/// Whether a trial with these options is among those that are meant.
bool is_meant(const Config& config,
              const std::vector<std::pair<std::string, std::string>>& options);

/// Reads a file and applies overrides "key=value" or "key=a,b" (an axis, unless the option itself
/// is a list). Error names file and line, the key, what was found, what was expected and the
/// nearest known name; all faulty settings are reported in one message.
///
/// Each word "key=a,b" of `only` leaves the trials that have one of the values; trials of methods
/// without this option stay. Error when a value is that of no trial.
Sweep load_sweep(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                 const std::vector<std::string>& only = {});

}  // namespace ruq
