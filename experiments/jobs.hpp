// How the trials of a sweep are carried out: one after another in this process, or in worker
// processes that do one trial each.
#pragma once

#include <optional>
#include <vector>

#include "experiments/record.hpp"
#include "experiments/request.hpp"

namespace ruq {

/// Error unless the request's jobs and threads are from 0, left open, to 1024.
void check_parallelism(const Request& request);

/// Fills in what the request leaves open: jobs, as many as processors and memory hold, and the
/// threads of each. `todo`: trials that are to be run.
void divide_processors(const std::vector<PlannedTrial>& trials, std::size_t todo, Request& request);

/// Runs the trials of `all` that `todo` numbers, reports after each how long the rest takes, and
/// leaves in the folder what came of each, failures included. Workers have benches of their own:
/// `bench` makes what they share and is given up before they start.
void run_trials(const Request& request, const RunFolder& folder,
                const std::vector<PlannedTrial>& all, const std::vector<std::size_t>& todo,
                std::optional<Workbench>& bench);

}  // namespace ruq
