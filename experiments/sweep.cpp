#include "experiments/sweep.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;

// A value and where it was written.
struct Setting {
  std::string key;
  std::string text;
  std::string origin;  // "configs/x.yaml:12", or "command line"
  bool is_list = false;
};

struct Axis {
  std::string key;
  std::vector<Setting> values;
};
using AxisGrid = std::vector<Axis>;

struct Document {
  std::string about;
  Check check;
  std::vector<Setting> settings;  // later ones win
  std::vector<AxisGrid> grids;
};

const std::vector<std::string> kSections = {"about", "check", "base", "sweep"};

std::string place(const fs::path& file, const YAML::Node& node) {
  return fmt::format("{}:{}", file.string(), node.Mark().line + 1);
}

// "method: {name: x}" means the same as "method: x".
std::string canonical(const std::string& key) { return key == "method.name" ? "method" : key; }

Setting setting_of(const fs::path& file, const std::string& key, const YAML::Node& node) {
  Setting setting{canonical(key), "", place(file, node), false};
  if (node.IsScalar()) {
    setting.text = node.Scalar();
    return setting;
  }
  if (!node.IsSequence()) fail("{}: {}: found nothing, expected a value", setting.origin, key);
  std::vector<std::string> parts;
  for (const YAML::Node& part : node) {
    if (!part.IsScalar()) fail("{}: {}: expected a list of plain values", place(file, part), key);
    parts.push_back(part.Scalar());
  }
  setting.text = fmt::format("{}", fmt::join(parts, ","));
  setting.is_list = true;
  return setting;
}

// Calls visit(key, node) for every entry of a map, dotted keys for nested maps; a key said twice is
// an error.
template <class Visit>
void for_each_leaf(const fs::path& file, const YAML::Node& map, const std::string& prefix,
                   const Visit& visit) {
  std::set<std::string> seen;
  for (const auto& entry : map) {
    const std::string key = prefix + entry.first.Scalar();
    if (!seen.insert(key).second) fail("{}: '{}' is set twice", place(file, entry.first), key);
    if (entry.second.IsMap()) {
      for_each_leaf(file, entry.second, key + ".", visit);
    } else {
      visit(key, entry.second);
    }
  }
}

AxisGrid read_grid(const fs::path& file, const YAML::Node& map) {
  if (!map.IsMap()) fail("{}: sweep: expected keys with lists of values", place(file, map));
  AxisGrid grid;
  for_each_leaf(file, map, "", [&](const std::string& key, const YAML::Node& node) {
    Axis axis{canonical(key), {}};
    if (node.IsSequence()) {
      for (const YAML::Node& value : node) axis.values.push_back(setting_of(file, key, value));
    } else {
      axis.values.push_back(setting_of(file, key, node));
    }
    if (axis.values.empty()) fail("{}: sweep: {}: found an empty list", place(file, node), key);
    grid.push_back(std::move(axis));
  });
  return grid;
}

double number_of(const fs::path& file, const YAML::Node& node, const std::string& what) {
  double value = 0;
  if (node && node.IsScalar()) {
    const std::string& text = node.Scalar();
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem == std::errc{} && end == text.data() + text.size()) return value;
  }
  fail("{}: check: {}: expected a number", place(file, node), what);
}

Check read_check(const fs::path& file, const YAML::Node& node) {
  Check check;
  if (node.IsScalar() && node.Scalar() == "parse") return check;
  if (!node.IsMap()) fail("{}: check: expected parse, or a map", place(file, node));
  const std::vector<std::string> known = {"trials", "with", "expect"};
  for (const auto& entry : node) {
    const std::string key = entry.first.Scalar();
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      fail("{}: unknown key 'check.{}'{}", place(file, entry.first), key, suggestion(key, known));
    }
  }
  if (node["trials"]) {
    check.trials = static_cast<Index>(number_of(file, node["trials"], "trials"));
  }
  if (node["with"]) {
    check.run = true;
    for_each_leaf(file, node["with"], "", [&](const std::string& key, const YAML::Node& value) {
      check.with.push_back(key + "=" + setting_of(file, key, value).text);
    });
  }
  for (const YAML::Node& item : node["expect"]) {
    Check::Expectation expectation;
    for_each_leaf(file, item["where"], "", [&](const std::string& key, const YAML::Node& value) {
      expectation.where.emplace_back(canonical(key), setting_of(file, key, value).text);
    });
    expectation.metric = item["metric"].as<std::string>("");
    expectation.value = number_of(file, item["value"], "expect.value");
    expectation.tolerance = number_of(file, item["tolerance"], "expect.tolerance");
    check.expect.push_back(std::move(expectation));
  }
  return check;
}

std::string read_text(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) fail("{}: cannot be read", file.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

Document read_document(const fs::path& file, int depth = 0) {
  if (depth > 8) fail("{}: base: files include each other", file.string());
  YAML::Node root;
  try {
    root = YAML::Load(read_text(file));
  } catch (const YAML::Exception& problem) {
    fail("{}:{}: not valid YAML: {}", file.string(), problem.mark.line + 1, problem.msg);
  }
  if (!root.IsMap()) fail("{}: expected a map of options", file.string());

  Document document;
  if (const YAML::Node base = root["base"]) {
    std::vector<std::string> names;
    if (base.IsScalar()) names.push_back(base.Scalar());
    for (const YAML::Node& name : base) names.push_back(name.Scalar());
    for (const std::string& name : names) {
      Document below = read_document(file.parent_path() / name, depth + 1);
      document.settings.insert(document.settings.end(), below.settings.begin(),
                               below.settings.end());
      if (!below.grids.empty()) document.grids = std::move(below.grids);
    }
  }
  if (root["about"]) document.about = root["about"].as<std::string>("");
  if (root["check"]) document.check = read_check(file, root["check"]);
  if (const YAML::Node sweep = root["sweep"]) {
    document.grids.clear();
    if (sweep.IsSequence()) {
      for (const YAML::Node& grid : sweep) document.grids.push_back(read_grid(file, grid));
    } else {
      document.grids.push_back(read_grid(file, sweep));
    }
  }
  for_each_leaf(file, root, "", [&](const std::string& key, const YAML::Node& node) {
    const std::string section = key.substr(0, key.find('.'));
    if (std::find(kSections.begin(), kSections.end(), section) != kSections.end()) return;
    document.settings.push_back(setting_of(file, key, node));
  });
  return document;
}

bool is_list_option(const std::string& key) {
  Config config("rtn");
  const Fields fields = config.fields();
  const Field* field = fields.find(key);
  return field != nullptr && field->type.rfind("a list", 0) == 0;
}

// An override replaces the key wherever it stands: in the settings, and as an axis of every grid.
void apply_override(const std::string& text, Document& document) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail("command line: found '{}', expected key=value", text);
  }
  const std::string key = canonical(text.substr(0, equals));
  const std::string value = text.substr(equals + 1);
  Axis axis{key, {}};
  if (is_list_option(key)) {
    axis.values.push_back({key, value, "command line", true});
  } else {
    std::istringstream parts(value);
    for (std::string part; std::getline(parts, part, ',');) {
      axis.values.push_back({key, part, "command line", false});
    }
    if (axis.values.empty()) axis.values.push_back({key, "", "command line", false});
  }
  if (document.grids.empty()) document.grids.emplace_back();
  bool replaced = false;
  for (AxisGrid& grid : document.grids) {
    for (Axis& existing : grid) {
      if (existing.key != key) continue;
      existing = axis;
      replaced = true;
    }
  }
  if (replaced) return;
  if (axis.values.size() == 1) {
    document.settings.push_back(axis.values.front());
  } else {
    for (AxisGrid& grid : document.grids) grid.push_back(axis);
  }
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
  explicit Resolver(const Document& document) : document_(document) {}

  void add(const std::vector<Setting>& swept, const std::set<std::string>& axis_keys) {
    std::map<std::string, Setting> chosen;
    for (const Setting& setting : document_.settings) chosen[setting.key] = setting;
    for (const Setting& setting : swept) chosen[setting.key] = setting;
    for (const auto& [key, setting] : chosen) all_[key] = setting;

    const auto named = chosen.find("method");
    if (named == chosen.end())
      return report("method: found nothing, expected the name of a method");
    Trial trial;
    try {
      trial.config = std::make_shared<Config>(named->second.text);
    } catch (const Error& problem) {
      return report(fmt::format("{}: {}", named->second.origin, problem.what()));
    }
    if (!apply(chosen, *trial.config)) return;
    if (!trial.config->method->is_random()) trial.config->seed = 0;
    finish(std::move(trial), axis_keys);
  }

  std::vector<Trial> take() {
    const bool method_failed = trials_.empty();
    for (const auto& [key, setting] : all_) {
      if (key == "method" || used_.contains(key)) continue;
      if (method_failed && key.rfind("method.", 0) == 0) continue;  // nobody was there to know it
      report(fmt::format("{}: unknown key '{}'{}", setting.origin, key,
                         suggestion(key, {known_.begin(), known_.end()})));
    }
    if (!faults_.empty()) throw Error(fmt::format("{}", fmt::join(faults_, "\n")));
    return std::move(trials_);
  }

 private:
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
      known_.insert(field.name);
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

  void finish(Trial trial, const std::set<std::string>& axis_keys) {
    const auto flat = trial.config->flat();
    std::string identity;
    for (const auto& [key, value] : flat) identity += key + "=" + value + "\n";
    if (!identities_.insert(identity).second) return;
    for (const auto& [key, value] : flat) {
      if (!axis_keys.contains(key)) continue;
      if (key == "seed" && !trial.config->method->is_random()) continue;
      trial.axes.emplace_back(key, value);
    }
    std::vector<std::string> words = {trial.config->method_name};
    for (const auto& [key, value] : trial.axes) {
      if (key != "method") words.push_back(key + "=" + value);
    }
    trial.label = fmt::format("{}", fmt::join(words, " "));
    trials_.push_back(std::move(trial));
  }

  const Document& document_;
  std::map<std::string, Setting> all_;
  std::set<std::string> used_, known_, identities_;
  std::vector<std::string> faults_;
  std::vector<Trial> trials_;
};

}  // namespace

Sweep load_sweep(const fs::path& file, const std::vector<std::string>& overrides) {
  Document document = read_document(file);
  for (const std::string& text : overrides) apply_override(text, document);
  if (document.grids.empty()) document.grids.emplace_back();

  Sweep sweep{file.stem().string(), document.about, document.check, read_text(file), {}, {}};
  std::set<std::string> axis_keys = {"method"};
  for (const AxisGrid& grid : document.grids) {
    for (const Axis& axis : grid) {
      axis_keys.insert(axis.key);
      if (std::find(sweep.axes.begin(), sweep.axes.end(), axis.key) == sweep.axes.end()) {
        sweep.axes.push_back(axis.key);
      }
    }
  }
  Resolver resolver(document);
  for (const AxisGrid& grid : document.grids) {
    for (const auto& swept : combinations(grid)) resolver.add(swept, axis_keys);
  }
  sweep.trials = resolver.take();
  return sweep;
}

}  // namespace ruq
