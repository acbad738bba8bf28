#include "experiments/commands.hpp"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <set>
#include <thread>
#include <utility>

#include "experiments/home.hpp"
#include "experiments/jobs.hpp"
#include "experiments/prepare.hpp"
#include "experiments/process.hpp"
#include "experiments/record.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/model/activations.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;

Sweep sweep_of(const Request& request) {
  return load_sweep(request.config, request.overrides, request.only);
}

fs::path run_root(const Request& request, const Sweep& sweep) {
  return request.out.empty() ? home().root / "runs" / sweep.name : request.out;
}

// Under the ids that the run folder has them by where the request takes any arithmetic.
class Naming {
 public:
  Naming(const Request& request, fs::path root) : root_(std::move(root)) {
    if (request.any_arithmetic && !request.force) others_ = recorded_arithmetic(root_);
  }
  PlannedTrial plan(const Trial& trial) const {
    return as_recorded(plan_trial(trial), root_, others_);
  }

 private:
  fs::path root_;
  std::vector<std::string> others_;
};

// All trials, each checked; every fault of every trial in one message, a fault that several trials
// share said once.
std::vector<PlannedTrial> plan_trials(const Sweep& sweep, const Naming& naming) {
  std::vector<PlannedTrial> planned;
  std::vector<std::pair<std::string, std::vector<std::string>>> faults;  // message, labels
  for (const Trial& trial : sweep.trials) {
    try {
      planned.push_back(naming.plan(trial));
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

// With --trial that trial alone.
void select_trial(const Request& request, Sweep& sweep) {
  if (request.trial) sweep.trials = {sweep.trials[index_of(request, sweep.trials.size())]};
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

// The trials that are not done. Their weights are read here, before anything is written: a file
// that cannot be used is a fault of the request, not of a trial.
std::vector<std::size_t> what_to_do(const Request& request, const std::vector<PlannedTrial>& trials,
                                    Workbench& bench) {
  std::vector<std::size_t> todo;
  for (std::size_t i = 0; i < trials.size(); ++i) {
    if (request.force || recorded_status(request.out, trials[i].id) != "done") todo.push_back(i);
  }
  for (const std::size_t i : todo) bench.load(*trials[i].trial.config, trials[i].inputs);
  return todo;
}

// A summary of a selection keeps what the rest of the sweep has done before: adds these trials, in
// the order of the sweep, and brings back the trends that they answer. Nothing is made for them: a
// trial whose inputs are not there is left out.
void add_done(const Request& request, const Naming& naming, Sweep& sweep,
              std::vector<PlannedTrial>& trials) {
  std::set<std::string> selected;
  for (const PlannedTrial& planned : trials) selected.insert(planned.id);
  sweep = load_sweep(request.config, request.overrides);
  const std::vector<Trial> all = std::exchange(sweep.trials, {});
  trials.clear();
  for (const Trial& trial : all) {
    if (!inputs_are_there(*trial.config)) continue;
    try {
      PlannedTrial planned = naming.plan(trial);
      if (!selected.contains(planned.id) && recorded_status(request.out, planned.id) != "done") {
        continue;
      }
      sweep.trials.push_back(trial);
      trials.push_back(std::move(planned));
    } catch (const Error& problem) {  // not selected, so nothing was asked of it
      logger().debug("{}: not in the summary: {}", trial.label, problem.what());
    }
  }
}

void print_failures(const RunFolder& folder, const std::vector<PlannedTrial>& trials) {
  for (const PlannedTrial& planned : trials) {
    const std::string status = folder.status(planned.id);
    if (status != "done") fmt::print("{}  {}  {}\n", planned.id, planned.trial.label, status);
  }
}

}  // namespace

int run(const Request& original) {
  check_parallelism(original);
  Request request = original;
  Sweep sweep = sweep_of(request);
  request.out = run_root(request, sweep);
  select_trial(request, sweep);
  check_writable(request.out);
  const Naming naming(request, request.out);
  std::vector<PlannedTrial> trials = plan_trials(sweep, naming);
  if (!request.id.empty() && trials.front().id != request.id) {
    fail("{}: changed since the sweep began: trial {} was {} and is {}", request.config.string(),
         *request.trial, request.id, trials.front().id);
  }
  std::optional<Workbench> bench(std::in_place);
  const std::vector<std::size_t> todo = what_to_do(request, trials, *bench);
  const RunFolder folder(request.out, sweep);
  divide_processors(trials, todo.size(), request);
  logger().info("{}: {} trials, {} to do, in {}", sweep.name, trials.size(), todo.size(),
                request.out.string());
  run_trials(request, folder, trials, todo, bench);
  if (request.trial) return folder.status(trials.front().id) == "done" ? 0 : 1;

  if (!request.only.empty()) add_done(request, naming, sweep, trials);
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
  check_parallelism(request);
  const Sweep sweep = sweep_of(request);
  const Trial& trial = sweep.trials.at(request.trial ? index_of(request, sweep.trials.size()) : 0);
  if (!trial.config->activations.path.empty()) {
    fail("activations.path: is set, but a dump is captured from a model");
  }
  const fs::path file =
      request.out.empty() ? home().root / "runs" / sweep.name / "activations.h5" : request.out;
  const fs::path folder = fs::absolute(file).parent_path();
  check_writable(folder);
  if (fs::exists(file) && !request.force && !is_activation_dump(file)) {
    fail("--out: '{}' exists and is no dump of activations; --force overwrites it", file.string());
  }
  const PlannedTrial planned = plan_trial(trial);
  make_folder(folder);
  const auto all = static_cast<Index>(std::max(1U, std::thread::hardware_concurrency()));
  set_threads(static_cast<int>(request.threads > 0 ? request.threads : all));
  Workbench().dump(*trial.config, planned.inputs, file);
  fmt::print("{}\n", file.string());
  return 0;
}

int verify(const Request& original) {
  Request request = original;
  Sweep sweep = sweep_of(request);
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
  sweep = sweep_of(request);
  const RunFolder folder(run_root(request, sweep), sweep);
  const Naming naming(request, folder.root());
  int bad = 0;
  for (const auto& expectation : sweep.check.expect) {
    Index matched = 0;
    for (const PlannedTrial& planned : plan_trials(sweep, naming)) {
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
  const Sweep sweep = sweep_of(request);
  for (std::size_t i = 0; i < sweep.trials.size(); ++i) {
    fmt::print("{:4}  {}\n", i, sweep.trials[i].label);
  }
  return 0;
}

int print_status(const Request& request) {
  Sweep sweep = sweep_of(request);
  select_trial(request, sweep);
  const fs::path root = run_root(request, sweep);
  Index number = request.trial.value_or(0), done = 0;
  double seconds = 0;
  for (const PlannedTrial& planned : plan_trials(sweep, Naming(request, root))) {
    const std::string status = recorded_status(root, planned.id);
    std::string took, rest;
    if (status == "done") {
      const double own = recorded_processor_seconds(root, planned.id);
      took = fmt::format("{:.1f} min", own / 60);
      seconds += own;
      ++done;
    } else {
      // A process that was killed leaves the word of one that runs.
      rest = ": " + (status.empty()        ? "not run"
                     : status == "running" ? "begun, not finished"
                                           : status);
    }
    fmt::print("{:4}  {}  {:>9}  {}{}\n", number++, planned.id, took, planned.trial.label, rest);
  }
  fmt::print("{} of {} trials done, in {:.2f} processor hours\n", done, sweep.trials.size(),
             seconds / 3600);
  return 0;
}

int print_config(const Request& request) {
  const Sweep sweep = sweep_of(request);
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
  const Sweep sweep = sweep_of(request);
  // Faults are told here, and the inputs are made once.
  plan_trials(sweep, Naming(request, run_root(request, sweep)));
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
  if (request.any_arithmetic) script += " --any-arithmetic";
  script += fmt::format(" --out {} --trial \"$SLURM_ARRAY_TASK_ID\" --threads 2\n",
                        quoted(fs::absolute(run_root(request, sweep)).string()));
  if (!submit) {
    fmt::print("{}", script);
    return 0;
  }
  std::signal(SIGPIPE, SIG_IGN);  // of an sbatch that is not there
  FILE* pipe = popen("sbatch", "w");
  if (pipe == nullptr) fail("--slurm: sbatch cannot be started");
  std::fputs(script.c_str(), pipe);
  if (pclose(pipe) != 0) {
    fail("--slurm: sbatch is not there or refused the job; --slurm=print shows it");
  }
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
