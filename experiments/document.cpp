#include "experiments/document.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <set>

#include "ruquant/base/error.hpp"
#include "ruquant/base/rng.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kSections = {"about", "check", "base", "sweep", "trends"};

std::string place(const fs::path& file, const YAML::Node& node) {
  return fmt::format("{}:{}", file.string(), node.Mark().line + 1);
}

Setting setting_of(const fs::path& file, const std::string& key, const YAML::Node& node) {
  Setting setting{canonical(key), "", place(file, node), false};
  if (node.IsScalar()) {
    setting.text = node.Scalar();
    return setting;
  }
  if (!node.IsSequence()) fail("{}: {}: expected a plain value", setting.origin, key);
  std::vector<std::string> parts;
  for (const YAML::Node& part : node) {
    if (!part.IsScalar()) fail("{}: {}: expected a list of plain values", place(file, part), key);
    parts.push_back(part.Scalar());
  }
  setting.text = fmt::format("{}", fmt::join(parts, ","));
  setting.is_list = true;
  return setting;
}

// Calls visit(key, node) for every entry of a map, dotted keys for nested maps. A key said twice is
// an error, however it is spelled: `seen` is shared by a map and those nested in it.
template <class Visit>
void for_each_leaf(const fs::path& file, const YAML::Node& map, const std::string& prefix,
                   const Visit& visit, std::set<std::string>& seen) {
  for (const auto& entry : map) {
    if (!entry.first.IsScalar()) fail("{}: expected a word as key", place(file, entry.first));
    const std::string key = prefix + entry.first.Scalar();
    if (entry.second.IsMap()) {
      for_each_leaf(file, entry.second, key + ".", visit, seen);
      continue;
    }
    if (!seen.insert(canonical(key)).second) {
      fail("{}: '{}' is set twice", place(file, entry.first), key);
    }
    if (entry.second.IsNull()) {
      fail("{}: {}: found nothing, expected a value", place(file, entry.first), key);
    }
    visit(key, entry.second);
  }
}

template <class Visit>
void for_each_leaf(const fs::path& file, const YAML::Node& map, const Visit& visit) {
  std::set<std::string> seen;
  for_each_leaf(file, map, "", visit, seen);
}

AxisGrid read_grid(const fs::path& file, const YAML::Node& map) {
  if (!map.IsMap()) fail("{}: sweep: expected keys with lists of values", place(file, map));
  AxisGrid grid;
  for_each_leaf(file, map, [&](const std::string& key, const YAML::Node& node) {
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

double number_of(const fs::path& file, const YAML::Node& map, const std::string& key) {
  const YAML::Node node = map[key];
  double value = 0;
  if (node && node.IsScalar()) {
    const std::string& text = node.Scalar();
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem == std::errc{} && end == text.data() + text.size() && std::isfinite(value)) {
      return value;
    }
  }
  fail("{}: check: {}: found {}, expected a number", place(file, node ? node : map), key,
       node ? "something else" : "nothing");
}

void check_keys(const fs::path& file, const YAML::Node& map, const std::string& where,
                const std::vector<std::string>& known) {
  if (!map.IsMap()) {
    fail("{}: {}: expected a map of {}", place(file, map), where, fmt::join(known, ", "));
  }
  for (const auto& entry : map) {
    const std::string key = entry.first.Scalar();
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    fail("{}: unknown key '{}.{}'{}", place(file, entry.first), where, key, suggestion(key, known));
  }
}

std::vector<std::pair<std::string, std::string>> read_options(const fs::path& file,
                                                              const YAML::Node& map,
                                                              const std::string& where) {
  if (!map.IsMap()) fail("{}: {}: expected a map of options", place(file, map), where);
  std::vector<std::pair<std::string, std::string>> options;
  for_each_leaf(file, map, [&](const std::string& key, const YAML::Node& value) {
    options.emplace_back(canonical(key), setting_of(file, key, value).text);
  });
  return options;
}

Index count_of(const fs::path& file, const YAML::Node& map, const std::string& key) {
  const double value = number_of(file, map, key);
  if (!(value >= 0 && value <= 1e6) || value != std::floor(value)) {
    fail("{}: check: {}: found {}, expected a count", place(file, map[key]), key, value);
  }
  return static_cast<Index>(value);
}

Check::Expectation read_expectation(const fs::path& file, const YAML::Node& item) {
  check_keys(file, item, "check.expect", {"where", "metric", "value", "tolerance"});
  Check::Expectation expectation;
  if (const YAML::Node where = item["where"]) {
    expectation.where = read_options(file, where, "check.expect: where");
  }
  if (!item["metric"] || !item["metric"].IsScalar()) {
    fail("{}: check: metric: expected the name of a metric", place(file, item));
  }
  expectation.metric = item["metric"].Scalar();
  expectation.value = number_of(file, item, "value");
  expectation.tolerance = number_of(file, item, "tolerance");
  return expectation;
}

Check read_check(const fs::path& file, const YAML::Node& node) {
  Check check;
  check.given = true;
  if (node.IsScalar() && node.Scalar() == "parse") return check;
  if (!node.IsMap()) fail("{}: check: expected parse, or a map", place(file, node));
  check_keys(file, node, "check", {"trials", "with", "expect"});
  if (node["trials"]) check.trials = count_of(file, node, "trials");
  if (const YAML::Node with = node["with"]) {
    if (!with.IsMap()) fail("{}: check: with: expected a map of options", place(file, with));
    check.run = true;
    for_each_leaf(file, with, [&](const std::string& key, const YAML::Node& value) {
      check.with.push_back(key + "=" + setting_of(file, key, value).text);
    });
  }
  if (const YAML::Node expect = node["expect"]) {
    if (!expect.IsSequence()) fail("{}: check: expect: expected a list", place(file, expect));
    check.run = true;
    for (const YAML::Node& item : expect) check.expect.push_back(read_expectation(file, item));
  }
  return check;
}

Trend read_trend(const fs::path& file, const YAML::Node& item) {
  check_keys(file, item, "trends", {"claim", "metric", "lower", "than", "ignoring", "margin"});
  for (const char* key : {"claim", "lower", "than"}) {
    if (!item[key]) fail("{}: trends: {}: found nothing", place(file, item), key);
  }
  Trend trend;
  trend.origin = place(file, item);
  trend.claim = item["claim"].as<std::string>();
  trend.metric = item["metric"] ? item["metric"].as<std::string>() : "nll_over_float";
  if (const YAML::Node ignoring = item["ignoring"]) {
    if (!ignoring.IsSequence()) fail("{}: trends: ignoring: expected a list", trend.origin);
    for (const YAML::Node& name : ignoring) trend.ignoring.push_back(name.as<std::string>());
  }
  if (const YAML::Node margin = item["margin"]) {
    if (!YAML::convert<double>::decode(margin, trend.margin) || !(trend.margin >= 0) ||
        !std::isfinite(trend.margin)) {
      fail("{}: trends: margin: expected a finite number that is not negative", trend.origin);
    }
  }
  trend.lower = read_options(file, item["lower"], "trends: lower");
  trend.than = read_options(file, item["than"], "trends: than");
  return trend;
}

std::vector<std::string> base_files(const fs::path& file, const YAML::Node& base) {
  std::vector<std::string> names;
  if (!base) return names;
  if (base.IsScalar()) return {base.Scalar()};
  if (!base.IsSequence()) fail("{}: base: expected a list of files", place(file, base));
  for (const YAML::Node& name : base) {
    if (!name.IsScalar()) fail("{}: base: expected the name of a file", place(file, name));
    names.push_back(name.Scalar());
  }
  return names;
}

Document read_at_depth(const fs::path& file, int depth) {
  if (depth > 8) fail("{}: base: files include each other", file.string());
  YAML::Node root;
  try {
    root = YAML::Load(read_text(file));
  } catch (const YAML::Exception& problem) {
    fail("{}:{}: not valid YAML: {}", file.string(), problem.mark.line + 1, problem.msg);
  }
  if (!root.IsMap()) fail("{}: expected a map of options", file.string());

  Document document;
  for (const std::string& name : base_files(file, root["base"])) {
    Document below = read_at_depth(file.parent_path() / name, depth + 1);
    document.settings.insert(document.settings.end(), below.settings.begin(), below.settings.end());
    if (!below.grids.empty()) document.grids = std::move(below.grids);
  }
  if (const YAML::Node about = root["about"]) {
    if (!about.IsScalar()) fail("{}: about: expected one line of text", place(file, about));
    document.about = about.Scalar();
  }
  if (root["check"]) document.check = read_check(file, root["check"]);
  if (const YAML::Node trends = root["trends"]) {
    if (!trends.IsSequence()) fail("{}: trends: expected a list", place(file, trends));
    for (const YAML::Node& item : trends) document.trends.push_back(read_trend(file, item));
  }
  if (const YAML::Node sweep = root["sweep"]) {
    document.grids.clear();
    if (sweep.IsSequence()) {
      for (const YAML::Node& grid : sweep) document.grids.push_back(read_grid(file, grid));
    } else {
      document.grids.push_back(read_grid(file, sweep));
    }
  }
  for_each_leaf(file, root, [&](const std::string& key, const YAML::Node& node) {
    const std::string section = key.substr(0, key.find('.'));
    if (std::find(kSections.begin(), kSections.end(), section) != kSections.end()) return;
    document.settings.push_back(setting_of(file, key, node));
  });
  return document;
}

}  // namespace

std::string canonical(const std::string& key) { return key == "method.name" ? "method" : key; }

std::string read_text(const fs::path& file) {
  if (fs::is_directory(file)) fail("{}: found a folder, expected a file", file.string());
  std::ifstream in(file, std::ios::binary);
  if (!in) fail("{}: cannot be read", file.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

std::uint64_t hash_file(const fs::path& file) { return hash_text(read_text(file)); }

Document read_document(const fs::path& file) { return read_at_depth(file, 0); }

}  // namespace ruq
