// One trial: load → calibrate → plan → apply → measure.
//
// A Workbench holds what the trials of one process share: the model, the tokens, the float
// reference of the evaluation windows, channel maxima and captured activations. Each is made on
// first use and kept while the settings it depends on stay the same; what takes long is also kept
// in the cache folder, so that worker processes find it there.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "experiments/config.hpp"
#include "experiments/inputs.hpp"
#include "ruquant/base/matrix.hpp"

namespace ruq {

/// Seconds, less those spent waiting for what another process was making (file_lock.hpp).
struct Timing {
  /// Calibration and construction of the plan; of a plan found in the cache, what it once took.
  double plan_seconds = 0;
  double plan_cpu_seconds = 0;  ///< of processors, all threads; other load does not lengthen it
  double apply_seconds = 0;     ///< folding and rounding the weights
  double rounding_seconds = 0;  ///< rounding alone, summed over the weights (they run side by side)
  double rounding_cpu_seconds = 0;  ///< the same, of processors
  double evaluate_seconds = 0;      ///< language metrics
  double task_seconds = 0;          ///< zero-shot tasks
  double tensor_seconds = 0;        ///< tensor-level part, its own plan included
  double total_seconds = 0;
  /// Of the process in this trial; where the plan was found in the cache, at least what its
  /// construction once took.
  double peak_memory_mib = 0;
};

struct TrialResult {
  std::map<std::string, double> metrics;
  std::map<std::string, std::vector<double>> windows;          ///< metric → value of every window
  std::map<std::string, std::map<std::string, double>> sites;  ///< site → measure → value
  /// "piqa.acc" → 1 or 0 for every item; "lambada.log_likelihood" → that of every item.
  std::map<std::string, std::vector<double>> items;
  std::vector<std::string> fallbacks;
  std::string diverged;  ///< why the loss says nothing any more; empty unless it does
  std::map<std::string, Matrix<float>> samples;  ///< dataset under /samples → values
  std::map<std::string, Vector<double>> bins;    ///< dataset under /bins → values
  Plan plan;                                     ///< with the records of roundings that learn
  Timing timing;
};

/// Progress of one trial: what is being done, and the share done of the whole trial in [0, 1].
using Progress = std::function<void(const std::string& what, double share)>;

class Workbench {
 public:
  Workbench();
  ~Workbench();

  /// Error if the plan's transforms change the float model by more than rounding explains, if an
  /// activation is NaN or infinite (naming the site), or if the inputs do not fit.
  TrialResult run(const Config& config, const Inputs& inputs, const Progress& progress);

  /// Reads the model and the tokens if the configuration needs them and they are not there yet.
  /// Error naming file and tensor for what is missing, cut short, of another shape, NaN or
  /// infinite.
  void load(const Config& config, const Inputs& inputs);

  /// `runexp dump`: captures the activations that config.activations names and writes them.
  void dump(const Config& config, const Inputs& inputs, const std::filesystem::path& file);

  /// Makes what all trials of these settings share and stores it in the cache folder, so that
  /// worker processes started afterwards only read it.
  void prepare(const Config& config, const Inputs& inputs);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ruq
