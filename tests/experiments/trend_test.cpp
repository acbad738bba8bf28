#include "experiments/trend.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

using Json = nlohmann::ordered_json;

// As many windows as an order takes: `values` over and over.
std::vector<double> many(const std::vector<double>& values) {
  std::vector<double> all;
  while (std::ssize(all) < kFewestForOrder) all.insert(all.end(), values.begin(), values.end());
  return all;
}

// A finished trial of a method that draws, with one option of its own and scores of its windows.
SummaryRow finished(const std::string& method, const std::string& option, int seed,
                    const std::vector<double>& nll) {
  SummaryRow row{method + option + std::to_string(seed), "done", {}, {}};
  double mean = 0;
  for (const double value : nll) mean += value / static_cast<double>(nll.size());
  row.results = {{"method", method},
                 {"random", true},
                 {"config",
                  {{"method", method},
                   {"quant.widths", "W4A4-Q4K4V4"},
                   {"seed", std::to_string(seed)},
                   {"method.partition", option}}},
                 {"metrics", {{"nll_over_float", mean}, {"other", 10 * mean}}},
                 {"windows", {{"nll", nll}}}};
  return row;
}

Sweep with_trend(const std::string& metric = "nll_over_float") {
  Sweep sweep;
  sweep.trends = {{"zigzag helps",
                   metric,
                   {{"method.partition", "zigzag"}},
                   {{"method.partition", "contiguous"}},
                   {"method.shrug"},
                   "some.yaml:3"}};
  return sweep;
}

TrendVerdict verdict(const std::vector<SummaryRow>& rows,
                     const std::string& metric = "nll_over_float") {
  return judge_trends(with_trend(metric), rows).at(0);
}

TEST_CASE("a difference that both intervals leave on one side is confirmed, or the contrary is") {
  const auto rows = [](double shift) {
    return std::vector<SummaryRow>{
        finished("ruquant", "zigzag", 1, many({1.0 + shift, 1.1 + shift})),
        finished("ruquant", "zigzag", 2, many({1.2 + shift, 1.31 + shift})),
        finished("ruquant", "contiguous", 1, many({2.0, 2.12})),
        finished("ruquant", "contiguous", 2, many({2.2, 2.3}))};
  };
  const TrendVerdict good = verdict(rows(0));
  CHECK(good.verdict == "confirmed");
  CHECK(good.pairs == 2);
  CHECK(good.difference == doctest::Approx(-1.0025));
  // Over pairs: -1.01 and -0.995; over windows: -1 and -1.005. The pairs are wider apart.
  CHECK(good.half_width == doctest::Approx(interval95({-1.01, -0.995})));
  CHECK(verdict(rows(2)).verdict == "contradicted");
  CHECK(verdict(rows(1)).verdict == "unresolved");
}

TEST_CASE("a setting with other seeds is held against all of the other") {
  std::vector<SummaryRow> rows;
  for (int seed = 1; seed <= 2; ++seed) {
    rows.push_back(finished("ruquant", "zigzag", seed, many({1.0 + 0.1 * seed, 1.2 + 0.1 * seed})));
  }
  for (int seed = 1; seed <= 4; ++seed) {
    rows.push_back(
        finished("ruquant", "contiguous", seed, many({2.0 + 0.2 * seed, 2.2 + 0.2 * seed})));
  }
  const TrendVerdict judged = verdict(rows);
  CHECK(judged.pairs == 2);
  CHECK_FALSE(judged.paired);
  CHECK(judged.difference == doctest::Approx(1.25 - 2.6));
  CHECK(judged.half_width ==
        doctest::Approx(unpaired_interval95({1.2, 1.3}, {2.3, 2.5, 2.7, 2.9})));
  CHECK(judged.verdict == "confirmed");
  rows.resize(4);  // the same seeds on both sides
  CHECK(verdict(rows).half_width == doctest::Approx(interval95({1.2 - 2.3, 1.3 - 2.5})));
}

TEST_CASE("a margin is what the first set may be worse by") {
  const std::vector<SummaryRow> rows = {finished("ruquant", "zigzag", 1, many({1.1, 2.12, 3.1})),
                                        finished("ruquant", "contiguous", 1, many({1, 2, 3}))};
  const auto judged = [&](double margin) {
    Sweep sweep = with_trend();
    sweep.trends[0].margin = margin;
    return judge_trends(sweep, rows).at(0);
  };
  CHECK(judged(0).verdict == "contradicted");
  CHECK(judged(0.11).verdict == "unresolved");
  CHECK(judged(0.2).verdict == "confirmed");
  CHECK(judged(0.2).difference == judged(0).difference);
  CHECK(trends_json({judged(0.2)})[0]["margin"] == 0.2);
  CHECK(trends_markdown({judged(0.2)}).find("| 0.2 |") != std::string::npos);
}

TEST_CASE("windows decide where there is one pair, and where they are wider") {
  const std::vector<SummaryRow> one = {finished("ruquant", "zigzag", 1, many({1, 2, 3})),
                                       finished("ruquant", "contiguous", 1, many({1.5, 2.6, 3.4}))};
  CHECK(verdict(one).half_width == doctest::Approx(interval95(many({-0.5, -0.6, -0.4}))));
  CHECK(verdict(one).verdict == "confirmed");
  // Another metric has no windows, so one pair says nothing.
  CHECK(verdict(one, "other").verdict == "no data");
  CHECK(std::isnan(verdict(one, "other").half_width));
}

TEST_CASE("fewer than ten windows and trials confirm nothing") {
  const auto rows = [](std::vector<double> windows) {
    std::vector<double> better = windows;
    for (double& value : better) value -= 1;
    better[0] -= 0.01;
    return std::vector<SummaryRow>{finished("ruquant", "zigzag", 1, better),
                                   finished("ruquant", "contiguous", 1, std::move(windows))};
  };
  std::vector<double> windows(kFewestForOrder - 1, 2.0);
  const TrendVerdict few = verdict(rows(windows));
  CHECK(few.difference + few.half_width < 0);
  CHECK(few.verdict == "unresolved");
  windows.push_back(2);
  CHECK(verdict(rows(windows)).verdict == "confirmed");
}

TEST_CASE("pairs have the same seed, and agree in all that the trend does not name") {
  std::vector<SummaryRow> rows = {finished("ruquant", "zigzag", 1, {1, 2}),
                                  finished("ruquant", "contiguous", 2, {1.5, 2.6})};
  CHECK(verdict(rows).verdict == "no data");
  CHECK(verdict(rows).pairs == 0);
  rows[1].results["random"] = false;  // a method that draws nothing goes with every seed
  CHECK(verdict(rows).pairs == 1);
  rows[1].results["config"]["quant.widths"] = "W6A6-Q6K6V6";
  CHECK(verdict(rows).pairs == 0);
  rows[1].results["config"]["quant.widths"] = "W4A4-Q4K4V4";
  rows[1].results["config"]["method.steps"] = "16";  // an option that only one of them has
  CHECK(verdict(rows).pairs == 1);
  for (SummaryRow& row : rows) row.results["config"]["method.shrug"] = row.id;
  CHECK(verdict(rows).pairs == 1);
  rows[1].status = "failed: somehow";
  CHECK(verdict(rows).pairs == 0);
}

TEST_CASE("methods are compared with each other only where a trend names them") {
  const std::vector<SummaryRow> rows = {finished("ruquant", "zigzag", 1, {1, 2}),
                                        finished("duquant", "contiguous", 1, {1.5, 2.6})};
  CHECK(verdict(rows).pairs == 0);
  Sweep sweep = with_trend();
  sweep.trends[0].lower.emplace_back("method", "ruquant");
  CHECK(judge_trends(sweep, rows).at(0).pairs == 1);
}

TEST_CASE("verdicts are written for people and for programs") {
  const std::vector<SummaryRow> rows = {
      finished("ruquant", "zigzag", 1, many({1, 2, 3})),
      finished("ruquant", "contiguous", 1, many({1.5, 2.6, 3.4}))};
  const auto verdicts = judge_trends(with_trend(), rows);
  CHECK(trends_markdown(verdicts).find(
            "| zigzag helps | nll_over_float | -0.5000 ± 0.0542 |  | 1 | confirmed |\n") !=
        std::string::npos);
  CHECK(trends_json(verdicts)[0]["verdict"] == "confirmed");
  CHECK(trends_json(judge_trends(with_trend(), {}))[0]["verdict"] == "no data");
  CHECK(trends_markdown({}).empty());
}

TEST_CASE("trends are read with the file, and must be about its trials") {
  const TemporaryFolder folder;
  const auto file = folder / "some.yaml";
  const std::string sweep =
      "method: ruquant\nsweep: {method.partition: [zigzag, contiguous], seed: [1, 2]}\n";
  const auto read = [&](const std::string& trends, const std::vector<std::string>& overrides = {}) {
    write_bytes(file, sweep + "trends:\n" + trends);
    return load_sweep(file, overrides);
  };
  const std::string good =
      "- {claim: c, lower: {method.partition: zigzag}, than: {method.partition: contiguous}}\n";
  const Sweep found = read(good);
  REQUIRE(found.trends.size() == 1);
  CHECK(found.trends[0].metric == "nll_over_float");
  CHECK(read(good, {"method.partition=zigzag"}).trends.empty());  // nothing to compare any more
  check_error([&] { read("- {claim: c, lower: {method.partition: mass}, than: {seed: 1}}\n"); },
              {"some.yaml:4", "'c'", "'lower'"});
  check_error([&] { read("- {claim: c, lower: {seed: 1}}\n"); }, {"some.yaml:4", "than"});
  check_error([&] { read("- {claim: c, lover: {seed: 1}, than: {seed: 2}}\n"); },
              {"unknown key 'trends.lover'", "lower"});
}

}  // namespace
}  // namespace ruq::test
