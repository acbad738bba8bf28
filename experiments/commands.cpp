#include "experiments/commands.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "experiments/process.hpp"
#include "experiments/record.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/machine.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string duration(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", seconds);
  if (seconds < 5400) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

fs::path run_root(const Request& request, const Sweep& sweep) {
  return request.out.empty() ? home().root / "runs" / sweep.name : request.out;
}

// All trials, each checked; every fault of every trial in one message, a fault that several trials
// share said once.
std::vector<PlannedTrial> plan_trials(const Sweep& sweep) {
  std::vector<PlannedTrial> planned;
  std::vector<std::pair<std::string, std::vector<std::string>>> faults;  // message, labels
  for (const Trial& trial : sweep.trials) {
    try {
      planned.push_back(plan_trial(trial));
    } catch (const Error& problem) {
      const std::string what = problem.what();
      auto found = std::find_if(faults.begin(), faults.end(),
                                [&](const auto& fault) { return fault.first == what; });
      if (found == faults.end()) found = faults.insert(found, {what, {}});
      found->second.push_back(trial.label);
    }
  }
  if (faults.empty()) return planned;
  std::string text;
  for (const auto& [what, labels] : faults) {
    if (!text.empty()) text += "\n";
    if (labels.size() == sweep.trials.size()) {
      text += what;
    } else if (labels.size() == 1) {
      text += fmt::format("{}: {}", labels.front(), what);
    } else {
      text += fmt::format("{}: {} ({} trials)", labels.front(), what, labels.size());
    }
  }
  throw Error(text);
}

std::size_t index_of(const Request& request, std::size_t count) {
  const Index n = *request.trial;
  if (n < 0 || n >= static_cast<Index>(count)) {
    fail("--trial: found {}, expected 0 to {}", n, count - 1);
  }
  return static_cast<std::size_t>(n);
}

// Tells how far the sweep is; trials that were done before do not enter the estimate.
class Countdown {
 public:
  explicit Countdown(std::size_t total) : total_(total), start_(now_seconds()) {}

  void report(const std::string& label, const std::string& outcome) {
    ++done_;
    const double spent = now_seconds() - start_;
    const double left = spent / static_cast<double>(done_) * static_cast<double>(total_ - done_);
    logger().info("[{}/{}] {}: {}; {} left", done_, total_, label, outcome,
                  done_ == total_ ? "nothing" : "about " + duration(left));
  }

 private:
  std::size_t total_;
  std::size_t done_ = 0;
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

pid_t start_worker(const Request& request, std::size_t number) {
  std::vector<std::string> arguments = {request.program, "run", request.config.string()};
  arguments.insert(arguments.end(), request.overrides.begin(), request.overrides.end());
  for (const std::string& word : request.only) {
    arguments.insert(arguments.end(), {"--only", word});
  }
  for (const std::string& part :
       {std::string("--trial"), std::to_string(number), std::string("--threads"),
        std::to_string(request.threads), std::string("--out"), request.out.string(),
        std::string("--force"), std::string("--no-figures"), std::string("--quiet")}) {
    arguments.push_back(part);
  }
  return start_process(
      {.file = "/proc/self/exe", .arguments = std::move(arguments), .ends_with_parent = true});
}

// Keeps `jobs` worker processes busy, one trial each. A worker that dies takes its trial with it
// and nothing else.
void run_in_workers(const Request& request, const RunFolder& folder,
                    const std::vector<PlannedTrial>& all, const std::vector<std::size_t>& todo,
                    std::optional<Workbench>& bench) {
  set_threads(static_cast<int>(request.jobs * request.threads));
  try {
    for (const std::size_t number : todo) {
      bench->prepare(*all[number].trial.config, all[number].inputs);
    }
  } catch (const Error& problem) {  // the trials that need it meet the same and record it
    logger().debug("not prepared: {}", problem.what());
  }
  bench.reset();  // the workers have their own
  Countdown countdown(todo.size());
  std::map<pid_t, std::size_t> running;
  std::size_t next = 0;
  while (next < todo.size() || !running.empty()) {
    while (next < todo.size() && std::ssize(running) < request.jobs) {
      running[start_worker(request, todo[next])] = todo[next];
      ++next;
    }
    int status = 0;
    const pid_t child = wait(&status);
    if (child < 0 && errno != EINTR) fail("lost the worker processes: {}", std::strerror(errno));
    const auto found = running.find(child);
    if (found == running.end()) continue;
    const PlannedTrial& planned = all[found->second];
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
}

void draw_figures(const fs::path& folder) {
  const std::string script = (home().root / "analysis" / "draw.py").string();
  const int code = run_process({.file = home().python,
                                .arguments = {home().python, script, folder.string()},
                                .output_to_errors = true});
  if (code != 0) {
    logger().warn("figures were not drawn; {} {} draws them", script, folder.string());
  }
}

// The trials that are not done. Their weights are read here, before anything is
// written: a file that cannot be used is a fault of the request, not of a trial.
std::vector<std::size_t> what_to_do(const Request& request, const std::vector<PlannedTrial>& trials,
                                    Workbench& bench) {
  std::vector<std::size_t> todo;
  for (std::size_t i = 0; i < trials.size(); ++i) {
    if (request.force || recorded_status(request.out, trials[i].id) != "done") todo.push_back(i);
  }
  for (const std::size_t i : todo) bench.load(*trials[i].trial.config, trials[i].inputs);
  return todo;
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

// Fills in what was left open: jobs, and the threads of each.
void divide_processors(const std::vector<PlannedTrial>& trials, std::size_t todo,
                       Request& request) {
  const auto processors = static_cast<Index>(std::max(1U, std::thread::hardware_concurrency()));
  if (request.jobs == 0) {
    const bool several = todo >= 4 && !request.trial;
    request.jobs = several ? std::min(processors, jobs_in_memory(trials)) : 1;
  }
  request.jobs = std::clamp<Index>(request.jobs, 1, std::max<Index>(1, static_cast<Index>(todo)));
  if (request.threads == 0) request.threads = std::max<Index>(1, processors / request.jobs);
  set_threads(static_cast<int>(request.threads));
}

void print_failures(const RunFolder& folder, const std::vector<PlannedTrial>& trials) {
  for (const PlannedTrial& planned : trials) {
    const std::string status = folder.status(planned.id);
    if (status != "done") fmt::print("{}  {}  {}\n", planned.id, planned.trial.label, status);
  }
}

}  // namespace

int run(const Request& original) {
  Request request = original;
  Sweep sweep = load_sweep(request.config, request.overrides, request.only);
  request.out = run_root(request, sweep);
  if (request.trial) sweep.trials = {sweep.trials[index_of(request, sweep.trials.size())]};
  check_writable(request.out);
  const std::vector<PlannedTrial> trials = plan_trials(sweep);
  std::optional<Workbench> bench(std::in_place);
  const std::vector<std::size_t> todo = what_to_do(request, trials, *bench);
  const RunFolder folder(request.out, sweep);
  divide_processors(trials, todo.size(), request);
  logger().info("{}: {} trials, {} to do, in {}", sweep.name, trials.size(), todo.size(),
                request.out.string());
  if (request.jobs > 1 && todo.size() > 1) {
    run_in_workers(request, folder, trials, todo, bench);
  } else {
    Countdown countdown(todo.size());
    for (const std::size_t i : todo) run_here(folder, trials[i], *bench, countdown);
  }
  if (request.trial) return folder.status(trials.front().id) == "done" ? 0 : 1;

  folder.summarize(sweep, trials);
  const bool all_done = std::all_of(trials.begin(), trials.end(), [&](const auto& planned) {
    return folder.status(planned.id) == "done";
  });
  if (!all_done) print_failures(folder, trials);
  fmt::print("{}\n", (folder.root() / "summary.md").string());
  if (request.figures) draw_figures(folder.root());
  return all_done ? 0 : 1;
}

int dump(const Request& request) {
  const Sweep sweep = load_sweep(request.config, request.overrides, request.only);
  const Trial& trial = sweep.trials.at(request.trial ? index_of(request, sweep.trials.size()) : 0);
  if (!trial.config->activations.path.empty()) {
    fail("activations.path: is set, but a dump is captured from a model");
  }
  const fs::path file =
      request.out.empty() ? home().root / "runs" / sweep.name / "activations.h5" : request.out;
  const fs::path folder = fs::absolute(file).parent_path();
  check_writable(folder);
  const PlannedTrial planned = plan_trial(trial);
  make_folder(folder);
  set_threads(static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  Workbench().dump(*trial.config, planned.inputs, file);
  fmt::print("{}\n", file.string());
  return 0;
}

int verify(const Request& original) {
  Request request = original;
  Sweep sweep = load_sweep(request.config, request.overrides, request.only);
  if (sweep.check.trials && *sweep.check.trials != std::ssize(sweep.trials)) {
    fail("{}: check.trials: found {} trials, expected {}", request.config.string(),
         sweep.trials.size(), *sweep.check.trials);
  }
  if (sweep.about.empty())
    fail("{}: about: found nothing, expected a line that says what it is", request.config.string());
  if (!sweep.check.given) {
    fail("{}: check: found nothing, expected parse or a map", request.config.string());
  }
  if (!sweep.check.run) {
    fmt::print("{}: {} trials, read and checked\n", request.config.string(), sweep.trials.size());
    return 0;
  }
  request.overrides.insert(request.overrides.end(), sweep.check.with.begin(),
                           sweep.check.with.end());
  request.figures = false;
  if (run(request) != 0) return 1;
  sweep = load_sweep(request.config, request.overrides, request.only);
  const RunFolder folder(run_root(request, sweep), sweep);
  int bad = 0;
  for (const auto& expectation : sweep.check.expect) {
    Index matched = 0;
    for (const PlannedTrial& planned : plan_trials(sweep)) {
      if (!is_meant(*planned.trial.config, expectation.where)) continue;
      ++matched;
      const double value = recorded_metric(folder, planned.id, expectation.metric);
      if (std::abs(value - expectation.value) <= expectation.tolerance) continue;
      ++bad;
      fmt::print("{}: {}: found {}, expected {} ± {}\n", planned.trial.label, expectation.metric,
                 value, expectation.value, expectation.tolerance);
    }
    if (matched == 0) fail("check.expect: no trial is meant by one of the expectations");
  }
  return bad == 0 ? 0 : 1;
}

int list(const Request& request) {
  const Sweep sweep = load_sweep(request.config, request.overrides, request.only);
  for (std::size_t i = 0; i < sweep.trials.size(); ++i) {
    fmt::print("{:4}  {}\n", i, sweep.trials[i].label);
  }
  return 0;
}

int print_config(const Request& request) {
  const Sweep sweep = load_sweep(request.config, request.overrides, request.only);
  for (std::size_t i = 0; i < sweep.trials.size(); ++i) {
    if (request.trial && index_of(request, sweep.trials.size()) != i) continue;
    fmt::print("---\n# trial {}: {}\n", i, sweep.trials[i].label);
    for (const auto& [key, value] : sweep.trials[i].config->flat()) {
      fmt::print("{}: {}\n", key, yaml_text(value));
    }
  }
  return 0;
}

int slurm(const Request& request, bool submit) {
  const Sweep sweep = load_sweep(request.config, request.overrides, request.only);
  const auto quoted = [](const std::string& text) {
    std::string inside;
    for (const char c : text) inside += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return "'" + inside + "'";
  };
  std::string script = fmt::format(
      "#!/bin/bash\n#SBATCH --job-name={}\n#SBATCH --array=0-{}\n#SBATCH --cpus-per-task=2\n{} run "
      "{}",
      sweep.name, sweep.trials.size() - 1, quoted(fs::read_symlink("/proc/self/exe").string()),
      quoted(fs::absolute(request.config).string()));
  for (const std::string& text : request.overrides) script += " " + quoted(text);
  for (const std::string& word : request.only) script += " --only " + quoted(word);
  script += fmt::format(" --out {} --trial \"$SLURM_ARRAY_TASK_ID\" --threads 2\n",
                        quoted(fs::absolute(run_root(request, sweep)).string()));
  if (!submit) {
    fmt::print("{}", script);
    return 0;
  }
  FILE* pipe = popen("sbatch", "w");
  if (pipe == nullptr) fail("--slurm: sbatch cannot be started");
  std::fputs(script.c_str(), pipe);
  if (pclose(pipe) != 0) fail("--slurm: sbatch refused the job; --slurm=print shows it");
  return 0;
}

std::string options_reference() {
  const auto row = [](const Field& field) {
    return fmt::format("  {} = {}\n      {}; {}\n", field.name,
                       field.initial.empty() ? "\"\"" : field.initial, field.help, field.type);
  };
  std::string text = "Options of every trial:\n";
  Config common("rtn");
  std::set<std::string> shared;
  const Fields fields = common.fields();
  for (const Field& field : fields.all()) {
    text += row(field);
    shared.insert(field.name);
  }
  for (const MethodInfo& info : methods()) {
    text += fmt::format("\nmethod = {}: {}\n", info.name, info.about);
    Config config(info.name);
    const Fields own = config.fields();
    for (const Field& field : own.all()) {
      if (!shared.contains(field.name)) text += row(field);
    }
  }
  return text;
}

}  // namespace ruq
