#include "experiments/summary.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <sstream>

namespace ruq::test {
namespace {

using Json = nlohmann::ordered_json;

// A finished trial with made-up scores of two windows or more.
SummaryRow finished(const std::string& id, const std::string& method, int seed,
                    const std::vector<double>& nll, const std::string& smoothing = "") {
  SummaryRow row{id, "done", {}, {}};
  double mean = 0;
  for (const double value : nll) mean += value / static_cast<double>(nll.size());
  row.results = {
      {"method", method},
      {"about", method + " seed=" + std::to_string(seed)},
      {"widths", "W4A4-Q4K4V4"},
      {"seed", seed},
      {"config",
       {{"method", method}, {"quant.widths", "W4A4-Q4K4V4"}, {"seed", std::to_string(seed)}}},
      {"axes", {{"method", method}, {"seed", std::to_string(seed)}}},
      {"inputs", {{"model", "tiny"}, {"model_note", "made up"}}},
      {"token_ranges", {{"test", {0, 8}}}},
      {"math_backend", "none"},
      {"metrics", {{"nll", mean}}},
      {"windows", {{"nll", nll}}},
      {"sites", Json::object()},
      {"fallbacks", Json::array()}};
  if (!smoothing.empty()) row.results["config"]["method.smoothing"] = smoothing;
  row.timing = {{"plan_seconds", 1.5}, {"total_seconds", 2.5}, {"peak_memory_mib", 100.0}};
  return row;
}

Sweep swept(const std::vector<std::string>& axes) {
  Sweep sweep;
  sweep.name = "made_up";
  sweep.about = "numbers by hand";
  sweep.axes = axes;
  return sweep;
}

// Cells of summary.csv; no cell of these tests holds a comma.
std::vector<std::vector<std::string>> cells(const std::vector<SummaryRow>& rows) {
  std::istringstream lines(summary_csv(swept({"method", "seed"}), rows));
  std::vector<std::vector<std::string>> table;
  for (std::string line; std::getline(lines, line);) {
    table.emplace_back();
    std::size_t begin = 0;
    while (begin <= line.size()) {
      const std::size_t end = std::min(line.find(',', begin), line.size());
      table.back().push_back(line.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return table;
}

std::string cell(const std::vector<std::vector<std::string>>& table, std::size_t row,
                 const std::string& column) {
  for (std::size_t c = 0; c < table[0].size(); ++c) {
    if (table[0][c] == column) return table[row].at(c);
  }
  FAIL("no column " << column);
  return {};
}

TEST_CASE("half widths of 95 % intervals use Student's t") {
  // t_{0.975} for 1, 2, 4 and 9 degrees of freedom, from published tables.
  CHECK(interval95({1, 3}) == doctest::Approx(12.7062047 * 1).epsilon(1e-7));
  CHECK(interval95({1, 2, 3}) == doctest::Approx(4.30265273 / std::sqrt(3.0)).epsilon(1e-7));
  CHECK(interval95({2, 4, 6, 8, 10}) ==
        doctest::Approx(2.77644511 * std::sqrt(10.0) / std::sqrt(5.0)).epsilon(1e-7));
  std::vector<double> ten;
  for (int i = 0; i < 10; ++i) ten.push_back(i);
  CHECK(interval95(ten) ==
        doctest::Approx(2.26215716 * std::sqrt(82.5 / 9) / std::sqrt(10.0)).epsilon(1e-7));
  CHECK(interval95({5, 5, 5}) == 0);
  CHECK(std::isnan(interval95({1})));
  CHECK(std::isnan(interval95({})));
}

TEST_CASE("the difference of two means has Welch's interval") {
  // s²/n = 1/3 and 10/5 · ½ = 2: ν = (7/3)² / ((1/3)²/2 + 2²/4) = 5.1579, t from published tables
  // between 2.5706 (5) and 2.4469 (6).
  const double half = unpaired_interval95({1, 2, 3}, {2, 4, 6, 8, 10});
  CHECK(half / std::sqrt(7.0 / 3) > 2.54);
  CHECK(half / std::sqrt(7.0 / 3) < 2.5706);
  CHECK(unpaired_interval95({5, 5}, {5, 5, 5}) == 0);
  CHECK(std::isnan(unpaired_interval95({1}, {1, 2})));
  // Equal variances and sizes: Student's with n + n' − 2.
  CHECK(unpaired_interval95({1, 3}, {11, 13}) == doctest::Approx(4.30265273 * std::sqrt(2.0)));
}

TEST_CASE("paired differences are taken window by window against the mean over seeds") {
  // Reference: mean of {4, 5, 6} and {2, 3, 10} is {3, 4, 8}. Differences of {4, 6, 8}: {1, 2, 0},
  // mean 1, s = 1, se = 1/sqrt(3). Those of {4, 5, 6}: {1, 1, -2}, mean 0, s = sqrt 3, se = 1.
  const auto table =
      cells({finished("a", "ruquant", 1, {4, 6, 8}), finished("b", "quarot", 1, {4, 5, 6}),
             finished("c", "quarot", 2, {2, 3, 10})});
  REQUIRE(table.size() == 4);
  CHECK(std::stod(cell(table, 1, "nll_minus_quarot")) == doctest::Approx(1));
  CHECK(std::stod(cell(table, 1, "nll_minus_quarot_se")) == doctest::Approx(1 / std::sqrt(3.0)));
  CHECK(std::abs(std::stod(cell(table, 2, "nll_minus_quarot"))) < 1e-12);
  CHECK(std::stod(cell(table, 2, "nll_minus_quarot_se")) == doctest::Approx(1));
  CHECK(cell(table, 1, "nll_minus_rtn").empty());
  CHECK(cell(table, 1, "seed") == "1");
  CHECK(cell(table, 3, "nll") == "5.0");
  CHECK(cell(table, 3, "total_seconds") == "2.5");
}

TEST_CASE("trials are paired only at equal quantizers, windows and inputs") {
  SummaryRow wider = finished("b", "rtn", 0, {1, 2});
  wider.results["config"]["quant.widths"] = "W6A6-Q6K6V6";
  SummaryRow elsewhere = finished("c", "rtn", 0, {1, 2});
  elsewhere.results["token_ranges"]["test"] = {8, 16};
  SummaryRow another = finished("d", "rtn", 0, {1, 2});
  another.results["inputs"]["model"] = "large";
  const auto table = cells({finished("a", "ruquant", 1, {4, 6}), wider, elsewhere, another});
  CHECK(cell(table, 1, "nll_minus_rtn").empty());
  CHECK(cell(table, 2, "nll_minus_rtn") == "0");
}

TEST_CASE("the reference is the variant with the lowest loss that did not diverge") {
  SummaryRow broken = finished("e", "quarot", 1, {0, 0}, "0.9");
  broken.results["diverged"] = "by hand";
  const std::vector<SummaryRow> rows = {finished("a", "ruquant", 1, {4, 6}, "0.6"),
                                        finished("b", "quarot", 1, {1, 1}, "none"),
                                        finished("c", "quarot", 1, {3, 3}, "0.6"), broken};
  const auto table = cells(rows);
  CHECK(std::stod(cell(table, 1, "nll_minus_quarot")) == doctest::Approx(4));
  CHECK(std::stod(cell(table, 2, "nll_minus_quarot")) == 0);
  CHECK(std::stod(cell(table, 3, "nll_minus_quarot")) == doctest::Approx(2));
  CHECK(summary_markdown(swept({"method"}), rows).find("+4.000 (1.000)") != std::string::npos);
}

TEST_CASE("what is not done has a row without numbers, and is no reference") {
  SummaryRow failed{"f", "failed: NaN at layers.0.attn_in", {}, {}};
  failed.results = {{"method", "rtn"}, {"widths", "W4A4-Q4K4V4"}, {"about", "rtn"}};
  const auto table = cells({finished("a", "ruquant", 1, {4, 6}), failed});
  CHECK(cell(table, 2, "status") == "failed: NaN at layers.0.attn_in");
  CHECK(cell(table, 2, "nll").empty());
  CHECK(cell(table, 1, "nll_minus_rtn").empty());
  const std::string text =
      summary_markdown(swept({"method"}), {finished("a", "ruquant", 1, {4, 6}), failed});
  CHECK(text.find("## Not finished\n\n- rtn (f): failed: NaN at layers.0.attn_in\n") !=
        std::string::npos);
}

TEST_CASE("texts with commas and quotes are quoted") {
  SummaryRow failed{"f", "failed: found \"a\", expected b", {}, {}};
  failed.results = {{"method", "rtn"}, {"widths", "W4A4-Q4K4V4"}, {"about", "rtn"}};
  const std::string text = summary_csv(swept({}), {failed});
  CHECK(text.find("f,\"failed: found \"\"a\"\", expected b\",rtn") != std::string::npos);
}

TEST_CASE("the table has a row a group of seeds, best first, with intervals") {
  std::vector<SummaryRow> rows = {
      finished("a", "quarot", 1, {4, 6}), finished("b", "quarot", 2, {6, 8}),
      finished("c", "ruquant", 1, {1, 2}), finished("d", "rtn", 0, {9, 9})};
  for (SummaryRow& row : rows)
    row.results["metrics"]["nll_over_float"] = row.results["metrics"]["nll"];
  rows[0].results["fallbacks"] = {"attn_out: something else"};
  const std::string text = summary_markdown(swept({"method", "seed"}), rows);
  const std::size_t ruquant = text.find("| ruquant | 1 | 1.500 |");
  const std::size_t quarot = text.find("| quarot | 2 | 6.000 ± 12.706 |");
  const std::size_t rtn = text.find("| rtn | 1 | 9.000 |");
  REQUIRE(ruquant != std::string::npos);
  REQUIRE(quarot != std::string::npos);
  REQUIRE(rtn != std::string::npos);
  CHECK(ruquant < quarot);
  CHECK(quarot < rtn);
  // {5, 7} - {9, 9}: mean -3, s = sqrt 2, se = 1.
  CHECK(text.find("| -3.000 (1.000) |") != std::string::npos);
  // Nobody looked at single sites.
  CHECK(text.find("| nll over float, nats |") != std::string::npos);
  CHECK(text.find("output error, dB") == std::string::npos);
  rows[1].results["metrics"]["tensor.output_error_db"] = -12.5;
  const std::string with_sites = summary_markdown(swept({"method", "seed"}), rows);
  CHECK(with_sites.find("| output error, dB |") != std::string::npos);
  CHECK(with_sites.find("| -12.50 |") != std::string::npos);
  CHECK(text.find("## Fallbacks\n\n- quarot: attn_out: something else\n") != std::string::npos);
}

TEST_CASE("a row says what it cost, and that and why it diverged") {
  std::vector<SummaryRow> rows = {finished("a", "rtn", 1, {20, 22}),
                                  finished("b", "quarot", 1, {4, 6})};
  rows[0].results["diverged"] = "a loss of 21.00 nats, worse than guessing";
  rows[1].results["diverged"] = "";
  for (SummaryRow& row : rows) {
    row.results["metrics"]["nll_over_float"] = row.results["metrics"]["nll"];
    row.results["metrics"]["weight.effective_bits"] = 4.046875;
    row.timing["apply_seconds"] = 0.25;
  }
  const std::string text = summary_markdown(swept({"method"}), rows);
  CHECK(text.find("| rtn | 1 | 21.000 diverged |") != std::string::npos);
  CHECK(text.find("| quarot | 1 | 5.000 |") != std::string::npos);
  CHECK(text.find("| 4.05 | 1.5 + 0.2 | 100 |\n") != std::string::npos);
  CHECK(text.find("\nrtn diverged: a loss of 21.00 nats, worse than guessing.\n") !=
        std::string::npos);
  CHECK(text.find("quarot diverged") == std::string::npos);
  CHECK(text.find("## Learning") == std::string::npos);
}

TEST_CASE("methods that learned tell what it gave") {
  SummaryRow row = finished("a", "flatquant", 1, {4, 6});
  row.results["metrics"]["learning.steps"] = 240;
  row.results["metrics"]["learning.tokens"] = 61440;
  row.results["metrics"]["learning.loss_ratio"] = 0.5;
  row.results["metrics"]["learning.held_out_ratio"] = 0.75;
  row.results["metrics"]["learning.held_out_improved"] = 0.9;
  const std::string text = summary_markdown(swept({"method"}), {row});
  CHECK(text.find("| flatquant | W4A4-Q4K4V4 | 240 | 61440 | 0.500 | 0.750 | 0.90 |\n") !=
        std::string::npos);
}

}  // namespace
}  // namespace ruq::test
