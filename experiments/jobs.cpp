#include "experiments/jobs.hpp"

#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <thread>

#include "experiments/process.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/machine.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;

// Tells how far the sweep is; trials that were done before do not enter the estimate.
class Countdown {
 public:
  explicit Countdown(Index total) : total_(total), start_(now_seconds()) {}

  void report(const std::string& label, const std::string& outcome) {
    ++done_;
    logger().info("[{}/{}] {}: {}; {} left", done_, total_, label, outcome,
                  time_left(now_seconds() - start_, done_, total_));
  }

 private:
  Index total_;
  Index done_ = 0;
  double start_;
};

std::string outcome_of(const TrialResult& result) {
  const auto metric = [&](const char* name) {
    const auto found = result.metrics.find(name);
    return found == result.metrics.end() ? std::nan("") : found->second;
  };
  if (std::isfinite(metric("nll"))) {
    return fmt::format("perplexity {:.2f}, {:+.3f} nats over float, {}", std::exp(metric("nll")),
                       metric("nll_over_float"), duration(result.timing.total_seconds));
  }
  return fmt::format("output error {:.2f} dB, {}", metric("tensor.output_error_db"),
                     duration(result.timing.total_seconds));
}

// Runs one trial in this process and records what happened; false when it failed.
bool run_here(const RunFolder& folder, const PlannedTrial& planned, Workbench& bench,
              Countdown& countdown) {
  folder.begin(planned);
  const LogFile log(folder.of(planned.id) / "log.txt");
  try {
    const Progress progress = [&](const std::string& what, double share) {
      logger().debug("{}: {} ({:.0f} %)", planned.trial.label, what, 100 * share);
    };
    const TrialResult result = bench.run(*planned.trial.config, planned.inputs, progress);
    folder.finish(planned, result);
    countdown.report(planned.trial.label, outcome_of(result));
    return true;
  } catch (const std::exception& problem) {
    folder.fail(planned, problem.what());
    countdown.report(planned.trial.label, fmt::format("failed: {}", problem.what()));
    return false;
  }
}

constexpr int kRefused = 2;  // exit code of a worker that was asked for what cannot be done

pid_t start_worker(const Request& request, std::size_t number, const std::string& id) {
  std::vector<std::string> arguments = {request.program, "run", request.config.string()};
  arguments.insert(arguments.end(), request.overrides.begin(), request.overrides.end());
  for (const std::string& word : request.only) {
    arguments.insert(arguments.end(), {"--only", word});
  }
  for (const std::string& part :
       {std::string("--trial"), std::to_string(number), std::string("--id"), id,
        std::string("--threads"), std::to_string(request.threads), std::string("--out"),
        request.out.string(), std::string("--force"), std::string("--no-figures"),
        std::string("--quiet")}) {
    arguments.push_back(part);
  }
  return start_process(
      {.file = "/proc/self/exe", .arguments = std::move(arguments), .ends_with_parent = true});
}

constexpr Index kMostThreads = 1024;  // and processes

// Makes what workers share, with all their threads. A trial that this fails for meets the same in
// its worker, which records it.
void prepare_trials(const Request& request, const std::vector<PlannedTrial>& all,
                    const std::vector<std::size_t>& todo, Workbench& bench) {
  set_threads(static_cast<int>(std::min(request.jobs * request.threads, kMostThreads)));
  for (const std::size_t number : todo) {
    const PlannedTrial& planned = all[number];
    try {
      bench.prepare(*planned.trial.config, planned.inputs);
    } catch (const std::exception& problem) {
      logger().debug("{}: not prepared: {}", planned.trial.label, problem.what());
    }
  }
}

// Keeps `jobs` worker processes busy, one trial each. A worker that dies takes its trial with it
// and nothing else.
void run_in_workers(const Request& request, const RunFolder& folder,
                    const std::vector<PlannedTrial>& all, const std::vector<std::size_t>& todo,
                    std::optional<Workbench>& bench) {
  prepare_trials(request, all, todo, *bench);
  bench.reset();  // the workers have their own
  Countdown countdown(std::ssize(todo));
  std::map<pid_t, std::size_t> running;
  std::size_t next = 0;
  bool refused = false;
  while (next < todo.size() || !running.empty()) {
    while (next < todo.size() && std::ssize(running) < request.jobs) {
      running[start_worker(request, todo[next], all[todo[next]].id)] = todo[next];
      ++next;
    }
    int status = 0;
    const pid_t child = wait(&status);
    if (child < 0 && errno != EINTR) fail("lost the worker processes: {}", std::strerror(errno));
    const auto found = running.find(child);
    if (found == running.end()) continue;
    const PlannedTrial& planned = all[found->second];
    if (WIFEXITED(status) && WEXITSTATUS(status) == kRefused) {
      refused = true;  // the worker has said why; no other is started
      next = todo.size();
      running.erase(found);
      continue;
    }
    std::string outcome = folder.status(planned.id);
    const bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (outcome == "done" ? !ended_well : !outcome.starts_with("failed")) {
      const std::string how = WIFSIGNALED(status)
                                  ? fmt::format("signal {}", WTERMSIG(status))
                                  : fmt::format("exit code {}", WEXITSTATUS(status));
      folder.fail(planned, fmt::format("the worker process ended early ({})", how));
      outcome = folder.status(planned.id);
    }
    countdown.report(planned.trial.label, outcome);
    running.erase(found);
  }
  if (refused) {
    fail(
        "{}: a worker found its trial changed or impossible (see above); the sweep stops, and what "
        "is done is kept",
        request.config.string());
  }
}

// Jobs that fit into memory beside each other. A job holds the model in float, a copy with the plan
// folded in, and room to work: four times the files cover it, in half precision too.
Index jobs_in_memory(const std::vector<PlannedTrial>& trials) {
  std::uintmax_t largest = 0;
  for (const PlannedTrial& planned : trials) {
    if (planned.inputs.model.empty()) continue;
    std::uintmax_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(planned.inputs.model)) {
      if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
    }
    largest = std::max(largest, bytes);
  }
  const double available = available_memory_mib();
  if (largest == 0 || available == 0) return std::numeric_limits<Index>::max();
  const double each = 4 * static_cast<double>(largest) / (1 << 20);
  return std::max<Index>(1, static_cast<Index>(available / each));
}

void check_count(const char* option, Index found) {
  if (found < 0 || found > kMostThreads) {
    fail("{}: found {}, expected an integer from 0 to {}", option, found, kMostThreads);
  }
}

}  // namespace

void check_parallelism(const Request& request) {
  check_count("--jobs", request.jobs);
  check_count("--threads", request.threads);
}

void divide_processors(const std::vector<PlannedTrial>& trials, std::size_t todo,
                       Request& request) {
  const Index processors = std::clamp<Index>(std::thread::hardware_concurrency(), 1, kMostThreads);
  if (request.jobs == 0) {
    const bool several = todo >= 4 && !request.trial;
    request.jobs = several ? std::min(processors, jobs_in_memory(trials)) : 1;
  }
  request.jobs = std::clamp<Index>(request.jobs, 1, std::max<Index>(1, static_cast<Index>(todo)));
  if (request.threads == 0) request.threads = std::max<Index>(1, processors / request.jobs);
  set_threads(static_cast<int>(request.threads));
}

void run_trials(const Request& request, const RunFolder& folder,
                const std::vector<PlannedTrial>& all, const std::vector<std::size_t>& todo,
                std::optional<Workbench>& bench) {
  if (request.jobs > 1 && todo.size() > 1) {
    run_in_workers(request, folder, all, todo, bench);
  } else {
    Countdown countdown(std::ssize(todo));
    for (const std::size_t i : todo) run_here(folder, all[i], *bench, countdown);
  }
}

}  // namespace ruq
