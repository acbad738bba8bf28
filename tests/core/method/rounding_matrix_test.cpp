// Every weight rounding that is listed behind every method that is listed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ruquant/learn/learned_rounding.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

constexpr Index kWindow = 16;

// Data for the roundings that ask for it: four windows, of which the learned ones keep one.
RoundingHelp<double> rounding_help(const ModelConfig& config) {
  return {tiny_tokens(4 * kWindow, config, 5), kWindow, learned_rounding<double>};
}

Matrix<double> logits_of(const PlannedModel<double>& planned,
                         const std::vector<std::int32_t>& ids) {
  return product_transposed<double>(final_hidden(planned.model(), ids, kWindow, planned.hook()),
                                    planned.model().head_weight());
}

// How many values of all rows together are more than one a code.
Index values_beyond_codes(const Matrix<double>& weight, Index bits) {
  Index beyond = 0;
  for (Index r = 0; r < weight.rows(); ++r) {
    const std::set<double> values(weight.row(r).begin(), weight.row(r).end());
    beyond += std::max(Index{0}, static_cast<Index>(values.size()) - (Index{1} << bits));
  }
  return beyond;
}

// Every row has moved, onto as many levels as it has codes; only what a rounding says that it keeps
// in floating point may be anywhere.
void check_rounded(const RoundedLinear& report, const Matrix<double>& before,
                   const Matrix<double>& after, Index bits) {
  INFO("layers." << report.layer << "." << to_string(report.linear));
  CHECK((after.array() != before.array()).rowwise().any().all());
  CHECK(report.size == after.size());
  const auto share = report.details.find("kept_share");
  const double kept =
      share == report.details.end() ? 0 : share->second * static_cast<double>(report.size);
  REQUIRE(after.cols() > (Index{1} << bits));  // or any values would do
  CHECK(static_cast<double>(values_beyond_codes(before, bits)) > kept);
  CHECK(static_cast<double>(values_beyond_codes(after, bits)) <= kept + 0.5);
}

void check_rounding(const Model<double>& model, const Plan& plan) {
  const ModelConfig& config = model.config;
  const RoundingHelp<double> help = rounding_help(config);
  Model<double> unrounded;
  const PlannedModel<double> planned(
      model, plan, [&](const Model<double>& folded) { unrounded = folded; }, help);
  const Model<double>& rounded = planned.model();
  REQUIRE(planned.rounded().size() == kLinears.size() * rounded.layers.size());
  std::set<std::pair<Index, Linear>> seen;
  for (const RoundedLinear& report : planned.rounded()) {
    seen.emplace(report.layer, report.linear);
    const auto layer = static_cast<std::size_t>(report.layer);
    check_rounded(report, unrounded.layers[layer][report.linear].weight,
                  rounded.layers[layer][report.linear].weight, plan.quant.weight.bits);
  }
  CHECK(seen.size() == planned.rounded().size());
  const bool learns = rounding_needs(plan.quant.rounding) == RoundingNeeds::block;
  CHECK(std::ssize(planned.learning()) == (learns ? config.layers : 0));

  const std::vector<std::int32_t> ids = tiny_tokens(2 * kWindow, config, 2);
  const Matrix<double> logits = logits_of(planned, ids);
  CHECK(logits.allFinite());
  const PlannedModel<double> again(model, plan, {}, help);
  for (std::size_t l = 0; l < rounded.layers.size(); ++l) {
    for (const Linear linear : kLinears) {
      CHECK(again.model().layers[l][linear].weight == rounded.layers[l][linear].weight);
    }
  }
  CHECK(logits_of(again, ids) == logits);
}

TEST_CASE("every weight rounding works behind every method, twice with the same numbers") {
  const ModelConfig config = tiny_config("biases");
  for (const MethodInfo& info : methods()) {
    const auto method = small_method(info.name);
    TinyBench<double> bench(config);
    Plan plan = bench.plan(*method, quant_settings());
    plan.quant.rounding_options.learning.epochs = 1;
    plan.quant.rounding_options.learning.held_out = 1;
    for (const std::string& rounding : rounding_names()) {
      INFO(info.name << " and " << rounding);
      plan.quant.rounding = rounding;
      check_rounding(bench.model, plan);
    }
  }
}

}  // namespace
}  // namespace ruq::test
