// What runexp does, one function a verb. All throw Error for a request that cannot be carried out.
#pragma once

#include <string>

#include "experiments/request.hpp"

namespace ruq {

/// Runs what is not done yet, writes the summary and draws the figures. Returns 0 when all trials
/// are done and 1 when one failed.
int run(const Request& request);

/// Writes the activations that the first trial's options name. Returns 0.
int dump(const Request& request);

/// Does what the file's `check` says. Returns 0, or 1 when a value is not what was expected.
int verify(const Request& request);

/// Prints the numbered trials.
int list(const Request& request);

/// Prints the numbered trials (one with --trial) with what their folders say: status, and minutes
/// of processors.
int print_status(const Request& request);

/// Prints the resolved options of every trial (of one with --trial) as YAML.
int print_config(const Request& request);

/// Prints a job array script, one task a trial; submits it when `submit`.
int slurm(const Request& request, bool submit);

/// Every option with type, default and help: the common ones, then those of each method.
std::string options_reference();

}  // namespace ruq
