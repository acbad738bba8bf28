// The folder of a run: what was asked, what happened, and what came out.
//
//   runs/<config>/sweep.yaml summary.csv summary.md resolved.json
//   runs/<config>/trends.json (where trends are expected)
//   runs/<config>/<trial id>/config.yaml status log.txt plan.h5 results.h5 results.json timing.json
//
// A trial id is a hash of the options that differ from their defaults, the digests of the inputs,
// the math backend, the build preset and the result versions of method, weight rounding and
// executor, never of the clock: running again skips what is done. Every file is written beside and
// renamed; `status` is `running`, `done` or `failed: <why>`, and is written last. results.json
// holds no time and no machine, so the same trial gives the same bytes whatever the number of
// threads or jobs.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "experiments/inputs.hpp"
#include "experiments/sweep.hpp"
#include "experiments/trial.hpp"

namespace ruq {

/// Raised when a fix of the executor or of a measure changes numbers.
inline constexpr int kExecutorVersion = 2;

/// What the folder of a trial says: "done", "running", "failed: ..." or "" when there is nothing
/// yet.
std::string recorded_status(const std::filesystem::path& root, const std::string& id);

/// What a finished trial took, in seconds of its threads; less a plan that it found in the cache.
double recorded_processor_seconds(const std::filesystem::path& root, const std::string& id);

/// Makes a folder and those above it. Error if it cannot be made or written to.
void make_folder(const std::filesystem::path& folder);

/// Error if make_folder would fail, as far as that can be told without making anything.
void check_writable(const std::filesystem::path& folder);

/// A value as YAML that reads back as the same text.
std::string yaml_text(const std::string& value);

/// A trial with everything that identifies it.
struct PlannedTrial {
  Trial trial;
  Inputs inputs;
  InputIdentity identity;
  std::string id;
};

/// What a trial is called where it is computed with this arithmetic.
std::string trial_id(const PlannedTrial& planned, const std::string& arithmetic);

/// Prepares the inputs of a trial, checks all that can be checked, and names it by the arithmetic
/// of this machine (math_backend()).
PlannedTrial plan_trial(const Trial& trial);

/// What the finished trials of a folder were computed with, each once.
std::vector<std::string> recorded_arithmetic(const std::filesystem::path& root);

/// A trial that is not done, but was recorded with one of these arithmetics, under the id that it
/// has there; any other as it is.
PlannedTrial as_recorded(PlannedTrial planned, const std::filesystem::path& root,
                         const std::vector<std::string>& arithmetics);

class RunFolder {
 public:
  /// Makes the folder and writes sweep.yaml.
  RunFolder(std::filesystem::path root, const Sweep& sweep);

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path of(const std::string& id) const { return root_ / id; }

  std::string status(const std::string& id) const { return recorded_status(root_, id); }
  /// Empties the folder of a trial: what an interrupted run left there is gone.
  void begin(const PlannedTrial& planned) const;
  void finish(const PlannedTrial& planned, const TrialResult& result) const;
  void fail(const PlannedTrial& planned, const std::string& why) const;

  /// summary.csv (one row a trial, in the order given), summary.md, trends.json where there are
  /// trends, and resolved.json: of every finished trial its axes, and the options that are younger
  /// than its results with the values they had. Error naming a file of a trial that cannot be read
  /// or lacks what runexp writes there.
  void summarize(const Sweep& sweep, const std::vector<PlannedTrial>& trials) const;

 private:
  std::filesystem::path root_;
};

/// Value of one metric of a finished trial. Error naming the trial and the nearest known metric, or
/// its results where they are none.
double recorded_metric(const RunFolder& folder, const std::string& id, const std::string& metric);

/// Writes a text file beside and renames it. Error if the disk refuses.
void write_file(const std::filesystem::path& file, const std::string& text);

}  // namespace ruq
