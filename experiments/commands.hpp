// What runexp does, one function a verb. All throw Error for a request that cannot be carried out.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

struct Request {
  std::string program;  ///< how to start a worker process
  std::filesystem::path config;
  std::vector<std::string> overrides;
  std::vector<std::string> only;  ///< leave the trials that have these values, "key=a,b"
  std::filesystem::path out;   ///< run folder, or file of a dump; empty: runs/<config>
  std::optional<Index> trial;  ///< this trial alone
  Index jobs = 1;
  Index threads = 0;  ///< of each job; 0: all processors divided among the jobs
  bool force = false;
  bool figures = true;
};

/// Runs what is not done yet, writes the summary and draws the figures. Returns 0 when all trials
/// are done and 1 when one failed.
int run(const Request& request);

/// Writes the activations that the first trial's options name. Returns 0.
int dump(const Request& request);

/// Does what the file's `check` says. Returns 0, or 1 when a value is not what was expected.
int verify(const Request& request);

/// Prints the numbered trials.
int list(const Request& request);

/// Prints the resolved options of every trial (of one with --trial) as YAML.
int print_config(const Request& request);

/// Prints a job array script, one task a trial; submits it when `submit`.
int slurm(const Request& request, bool submit);

/// Every option with type, default and help: the common ones, then those of each method.
std::string options_reference();

}  // namespace ruq
