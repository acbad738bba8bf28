// A configuration file as it is written: settings, grids and the check, each with its file and
// line. What the keys mean is not known here; sweep.hpp resolves them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

/// A value and where it was written.
struct Setting {
  std::string key;
  std::string text;    ///< of a list: its entries joined by commas
  std::string origin;  ///< "configs/x.yaml:12", or "command line"
  bool is_list = false;
};

struct Axis {
  std::string key;
  std::vector<Setting> values;
};
using AxisGrid = std::vector<Axis>;

/// What `runexp verify` does beyond reading the file: a run with some options changed, and what it
/// must give.
struct Check {
  struct Expectation {
    std::vector<std::pair<std::string, std::string>> where;  ///< options a trial must have
    std::string metric;
    double value = 0;
    double tolerance = 0;  ///< absolute
  };
  bool given = false;
  bool run = false;
  std::optional<Index> trials;    ///< how many trials the file must give
  std::vector<std::string> with;  ///< overrides "key=value" of the checking run
  std::vector<Expectation> expect;
};

/// What is expected of a sweep, written down before it is run: a metric is lower in one set of
/// trials than in another (experiments/trend.hpp).
struct Trend {
  std::string claim;   ///< for people
  std::string metric;  ///< nll_over_float unless said otherwise
  std::vector<std::pair<std::string, std::string>> lower, than;  ///< options of the trials meant
  std::vector<std::string> ignoring;  ///< options in which paired trials may differ
  std::string origin;                 ///< file and line
  double margin = 0;                  ///< by so much `lower` may exceed `than`
};

struct Document {
  std::string about;
  std::vector<Trend> trends;
  Check check;
  std::vector<Setting> settings;  ///< later ones win
  std::vector<AxisGrid> grids;
};

/// Reads a file and those that its `base` names. Error with file and line for what is not valid
/// YAML, a key that is set twice, or a section that is not what sweep.hpp describes.
Document read_document(const std::filesystem::path& file);

/// The bytes of a file, and a hash of them. Error if it cannot be read.
std::string read_text(const std::filesystem::path& file);
std::uint64_t hash_file(const std::filesystem::path& file);

/// "method: {name: x}" means the same as "method: x".
std::string canonical(const std::string& key);

}  // namespace ruq
