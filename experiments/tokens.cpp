#include "experiments/tokens.hpp"

#include <algorithm>
#include <tuple>

#include "experiments/once.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq {

namespace fs = std::filesystem;

const TokenFile& known_tokens(const fs::path& file) { return once<TokenFile, load_tokens>(file); }

std::span<const std::int32_t> TokenFile::split(const std::string& name) const {
  const auto [begin, end] = splits.at(name);
  return std::span(ids).subspan(static_cast<std::size_t>(begin),
                                static_cast<std::size_t>(end - begin));
}

TokenFile load_tokens(const fs::path& path) {
  const TensorReader file(path);
  if (!file.has_attribute("", "format") || file.text_attribute("", "format") != "ruquant-tokens" ||
      file.integer_attribute("", "format_version") != 1) {
    fail("{}: expected a token file, format ruquant-tokens version 1", path.string());
  }
  TokenFile tokens{file.text_attribute("", "source"),
                   file.text_attribute("", "source_digest"),
                   file.text_attribute("", "note"),
                   file.integer_attribute("", "vocabulary"),
                   {},
                   {}};
  for (const Index id : file.integers("tokens/ids")) {
    if (id < 0 || id >= tokens.vocabulary) {
      fail("{}: tokens/ids: found {}, expected 0 to {}", path.string(), id, tokens.vocabulary - 1);
    }
    tokens.ids.push_back(static_cast<std::int32_t>(id));
  }
  std::vector<std::pair<Index, Index>> ranges;
  for (const char* name : {"calibration", "validation", "test"}) {
    const auto range = file.integers(fmt::format("splits/{}", name));
    if (range.size() != 2 || range[0] < 0 || range[0] > range[1] ||
        range[1] > std::ssize(tokens.ids)) {
      fail("{}: splits/{}: expected a range within the {} tokens", path.string(), name,
           tokens.ids.size());
    }
    tokens.splits[name] = {range[0], range[1]};
    ranges.emplace_back(range[0], range[1]);
  }
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) fail("{}: splits overlap", path.string());
  }
  return tokens;
}

std::span<const std::int32_t> calibration_tokens(const Config& config, const Inputs& inputs) {
  const TokenFile& text = known_tokens(inputs.tokens);
  if (!inputs.calibration_tokens.empty()) {
    return known_tokens(inputs.calibration_tokens).split("calibration");
  }
  const auto own = text.split("calibration");
  if (config.calibration_text.source != "random") return own;
  static std::map<std::tuple<Index, std::size_t, Index>, std::vector<std::int32_t>> known;
  std::vector<std::int32_t>& ids = known[{text.vocabulary, own.size(), config.calibration.seed}];
  if (ids.empty()) {
    const auto seed = static_cast<std::uint64_t>(config.calibration.seed);
    for (const double u : Stream(seed, "calibration/random tokens").uniform(std::ssize(own))) {
      ids.push_back(static_cast<std::int32_t>(u * static_cast<double>(text.vocabulary)));
    }
  }
  return ids;
}

std::vector<std::int32_t> evaluated_tokens(const Config& config, const TokenFile& tokens) {
  const auto split = tokens.split(config.evaluation.split);
  const Index windows = config.evaluation.windows;
  const Index length = config.evaluation.window_tokens;
  if (windows * length > std::ssize(split)) {
    fail(
        "evaluation.windows: found {} windows of {} tokens, expected at most the {} tokens of the "
        "{} split",
        windows, length, split.size(), config.evaluation.split);
  }
  std::vector<std::int32_t> ids;
  for (Index w = 0; w < windows; ++w) {
    const Index begin = config.evaluation.spread && windows > 1
                            ? (std::ssize(split) - length) * w / (windows - 1)
                            : w * length;
    const auto window =
        split.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(length));
    ids.insert(ids.end(), window.begin(), window.end());
  }
  return ids;
}

}  // namespace ruq
