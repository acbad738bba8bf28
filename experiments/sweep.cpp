#include "experiments/sweep.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;

const std::string kCommandLine = "command line";  // origin of an override

// Every option of every method.
const std::set<std::string>& all_options() {
  static const std::set<std::string> names = [] {
    std::set<std::string> all = {"method"};
    for (const MethodInfo& info : methods()) {
      for (const std::string& name : Config(info.name).fields().names()) all.insert(name);
    }
    return all;
  }();
  return names;
}

// Why nobody took a setting of this name.
std::string unknown_key(const std::string& key) {
  const std::set<std::string>& all = all_options();
  if (all.contains(key)) return fmt::format("'{}': no method of this file has this option", key);
  const auto within = all.lower_bound(key + ".");
  if (within != all.end() && within->starts_with(key + ".")) {
    return fmt::format("'{}': found a value, expected options such as '{}'", key, *within);
  }
  const std::string nearest = nearest_name(key, {all.begin(), all.end()});
  return fmt::format("unknown key '{}'{}", key,
                     nearest.empty() ? "; runexp --help lists all keys"
                                     : fmt::format(", did you mean '{}'?", nearest));
}

bool is_list_option(const std::string& key) {
  Config config("rtn");
  const Fields fields = config.fields();
  const Field* field = fields.find(key);
  return field != nullptr && field->type.rfind("a list", 0) == 0;
}

// "key=a,b" as written on the command line. The value of an option that is a list stays whole.
Axis axis_of_word(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail("command line: found '{}', expected key=value", text);
  }
  const std::string key = canonical(text.substr(0, equals));
  const std::string value = text.substr(equals + 1);
  Axis axis{key, {}};
  if (is_list_option(key)) {
    axis.values.push_back({key, value, kCommandLine, true});
  } else {
    std::istringstream parts(value);
    for (std::string part; std::getline(parts, part, ',');) {
      axis.values.push_back({key, part, kCommandLine, false});
    }
    if (axis.values.empty()) axis.values.push_back({key, "", kCommandLine, false});
  }
  return axis;
}

// An override replaces the key wherever it stands, in the settings and as an axis, and holds for
// the grids that do not name it.
void apply_override(const std::string& text, Document& document) {
  const Axis axis = axis_of_word(text);
  const std::string& key = axis.key;
  if (document.grids.empty()) document.grids.emplace_back();
  for (AxisGrid& grid : document.grids) {
    const auto existing =
        std::find_if(grid.begin(), grid.end(), [&](const Axis& one) { return one.key == key; });
    if (existing != grid.end()) {
      *existing = axis;
    } else if (axis.values.size() > 1) {
      grid.push_back(axis);
    }
  }
  if (axis.values.size() == 1) document.settings.push_back(axis.values.front());
}

// Every combination of the axes of a grid, the last axis turning fastest.
std::vector<std::vector<Setting>> combinations(const AxisGrid& grid) {
  std::vector<std::vector<Setting>> all = {{}};
  for (const Axis& axis : grid) {
    std::vector<std::vector<Setting>> longer;
    for (const auto& prefix : all) {
      for (const Setting& value : axis.values) {
        longer.push_back(prefix);
        longer.back().push_back(value);
      }
    }
    all = std::move(longer);
  }
  return all;
}

// Resolves settings into trials, collecting every fault instead of stopping at the first.
class Resolver {
 public:
  Resolver(const fs::path& file, const Document& document) : file_(file), document_(document) {}

  void add(const std::vector<Setting>& swept, const std::set<std::string>& axis_keys) {
    std::map<std::string, Setting> chosen;
    for (const Setting& setting : document_.settings) chosen[setting.key] = setting;
    for (const Setting& setting : swept) chosen[setting.key] = setting;
    for (const auto& [key, setting] : chosen) all_[key] = setting;

    const auto named = chosen.find("method");
    if (named == chosen.end()) {
      unknown_method_ = true;
      return report(
          fmt::format("{}: method: found nothing, expected the name of a method", file_.string()));
    }
    Trial trial;
    try {
      trial.config = std::make_shared<Config>(named->second.text);
    } catch (const Error& problem) {
      unknown_method_ = true;
      return report(
          fmt::format("{}: {}{}", named->second.origin, problem.what(),
                      named->second.is_list ? "; a list to try belongs under sweep:" : ""));
    }
    if (!apply(chosen, *trial.config)) return;
    if (!trial.config->is_random()) trial.config->seed = 0;
    finish(std::move(trial), swept, axis_keys);
  }

  std::vector<Trial> take() {
    for (const auto& [key, setting] : all_) {
      if (key == "method" || used_.contains(key)) continue;
      // An option of a method is not judged when the name of the method was the fault, nor one of
      // the file when the command line chose other methods than the file was written for.
      const bool foreign = chosen_elsewhere() && setting.origin != kCommandLine;
      if ((unknown_method_ || foreign) && all_options().contains(key)) continue;
      report(fmt::format("{}: {}", setting.origin, unknown_key(key)));
    }
    if (!faults_.empty()) throw Error(fmt::format("{}", fmt::join(faults_, "\n")));
    return std::move(trials_);
  }

 private:
  bool chosen_elsewhere() const {
    const auto method = all_.find("method");
    return method != all_.end() && method->second.origin == kCommandLine;
  }

  void report(std::string fault) {
    if (std::find(faults_.begin(), faults_.end(), fault) == faults_.end()) {
      faults_.push_back(std::move(fault));
    }
  }

  // Sets the chosen values in the order of the fields.
  bool apply(const std::map<std::string, Setting>& chosen, Config& config) {
    bool good = true;
    const Fields fields = config.fields();
    for (const Field& field : fields.all()) {
      const auto found = chosen.find(field.name);
      if (found == chosen.end()) continue;
      used_.insert(field.name);
      const Setting& setting = found->second;
      try {
        if (setting.is_list && field.type.rfind("a list", 0) != 0) {
          fail("found a list, expected {} (lists of values to try belong under 'sweep')",
               field.type);
        }
        field.set(setting.text);
      } catch (const Error& problem) {
        report(fmt::format("{}: {}: {}", setting.origin, field.name, problem.what()));
        good = false;
      }
    }
    // Options of other methods of the sweep are no fault here; take() reports what nobody has.
    return good;
  }

  void finish(Trial trial, const std::vector<Setting>& swept,
              const std::set<std::string>& axis_keys) {
    const auto flat = trial.config->flat();
    std::string identity;
    for (const auto& [key, value] : flat) identity += key + "=" + value + "\n";
    if (!identities_.insert(identity).second) return;
    for (const auto& [key, value] : flat) {
      if (!axis_keys.contains(key)) continue;
      if (key == "seed" && !trial.config->is_random()) continue;
      trial.axes.emplace_back(key, value);
    }
    // The label says what this trial's own grid varies; the axes hold every swept option.
    std::vector<std::string> words = {trial.config->method_name};
    for (const Setting& setting : swept) {
      const auto axis = std::find_if(trial.axes.begin(), trial.axes.end(), [&](const auto& pair) {
        return pair.first == setting.key && pair.first != "method";
      });
      if (axis != trial.axes.end()) words.push_back(axis->first + "=" + axis->second);
    }
    trial.label = fmt::format("{}", fmt::join(words, " "));
    trials_.push_back(std::move(trial));
  }

  const fs::path& file_;
  const Document& document_;
  std::map<std::string, Setting> all_;
  std::set<std::string> used_, identities_;
  bool unknown_method_ = false;
  std::vector<std::string> faults_;
  std::vector<Trial> trials_;
};

// A path that no trial reads was meant for a source that was not asked for.
void check_calibration_path(const std::vector<Trial>& trials) {
  const auto is_unread = [](const Trial& trial) {
    const TextSource& text = trial.config->calibration_text;
    return !text.path.empty() && !text.reads_path();
  };
  if (trials.empty() || !std::all_of(trials.begin(), trials.end(), is_unread)) return;
  const TextSource& first = trials.front().config->calibration_text;
  fail(
      "calibration.path: found '{0}' with calibration.source {1}, expected nothing: {1} reads no "
      "file",
      first.path, first.source);
}

// The value of an option of a trial; none where its method does not have it.
std::optional<std::string> option_of(const Trial& trial, const std::string& key) {
  for (const auto& [name, value] : trial.config->flat()) {
    if (name == key) return value;
  }
  return std::nullopt;
}

// Leaves the trials that "key=a,b" means.
void select(const std::string& word, std::vector<Trial>& trials) {
  const Axis wanted = axis_of_word(word);
  if (!all_options().contains(wanted.key)) fail("--only: {}", unknown_key(wanted.key));
  std::set<std::string> found;
  std::vector<Trial> kept;
  for (const Trial& trial : trials) {
    const std::optional<std::string> own = option_of(trial, wanted.key);
    if (own) found.insert(*own);
    const bool meant = !own || std::any_of(wanted.values.begin(), wanted.values.end(),
                                           [&](const Setting& one) { return one.text == *own; });
    if (meant) kept.push_back(trial);
  }
  for (const Setting& value : wanted.values) {
    if (found.contains(value.text)) continue;
    if (found.empty()) fail("--only: {}: no method of these trials has it", wanted.key);
    fail("--only: {}: found '{}', expected one of {}", wanted.key, value.text,
         fmt::join(found, ", "));
  }
  trials = std::move(kept);
}

}  // namespace

bool is_meant(const Config& config,
              const std::vector<std::pair<std::string, std::string>>& options) {
  const auto flat = config.flat();
  return std::all_of(options.begin(), options.end(), [&](const auto& option) {
    return std::find(flat.begin(), flat.end(), option) != flat.end();
  });
}

// A misspelt option would match no trial, which with overrides is no fault.
void check_trend_keys(const Trend& trend) {
  std::vector<std::string> keys = trend.ignoring;
  for (const auto* options : {&trend.lower, &trend.than}) {
    for (const auto& [key, value] : *options) keys.push_back(key);
  }
  for (const std::string& key : keys) {
    if (all_options().contains(key)) continue;
    fail("{}: trends: '{}': {}", trend.origin, trend.claim, unknown_key(key));
  }
}

Sweep load_sweep(const fs::path& file, const std::vector<std::string>& overrides,
                 const std::vector<std::string>& only) {
  Document document = read_document(file);
  for (const std::string& text : overrides) apply_override(text, document);
  if (document.grids.empty()) document.grids.emplace_back();

  Sweep sweep{file.stem().string(), document.about, document.check, read_text(file), {}, {}, {}};
  std::set<std::string> axis_keys = {"method"};
  for (const AxisGrid& grid : document.grids) {
    for (const Axis& axis : grid) {
      axis_keys.insert(axis.key);
      if (std::find(sweep.axes.begin(), sweep.axes.end(), axis.key) == sweep.axes.end()) {
        sweep.axes.push_back(axis.key);
      }
    }
  }
  Resolver resolver(file, document);
  for (const AxisGrid& grid : document.grids) {
    for (const auto& swept : combinations(grid)) resolver.add(swept, axis_keys);
  }
  sweep.trials = resolver.take();
  check_calibration_path(sweep.trials);
  for (const std::string& word : only) select(word, sweep.trials);
  for (const Trend& trend : document.trends) {
    check_trend_keys(trend);
    const auto meant = [&](const auto& options) {
      return std::any_of(sweep.trials.begin(), sweep.trials.end(),
                         [&](const Trial& trial) { return is_meant(*trial.config, options); });
    };
    if (meant(trend.lower) && meant(trend.than)) {
      sweep.trends.push_back(trend);
    } else if (overrides.empty() && only.empty()) {
      fail("{}: trends: '{}': no trial of this file has the options of {}", trend.origin,
           trend.claim, meant(trend.lower) ? "'than'" : "'lower'");
    }
  }
  return sweep;
}

}  // namespace ruq
