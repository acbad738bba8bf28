#include <doctest/doctest.h>

#include <algorithm>

#include "ruquant/transform/kronecker.hpp"
#include "ruquant/transform/target_rotation.hpp"
#include "support/errors.hpp"
#include "support/walked.hpp"

namespace ruq::test {
namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;

MethodClaims claims(const std::vector<std::string>& derived, bool kronecker = true) {
  MethodClaims result;
  result.random = false;
  result.fallbacks = singlequant_fallbacks(derived, kronecker);
  return result;
}

const std::string kUrtReflection = "URT: one reflection to an equal-norm ramp is derived";
const std::string kArtSeveral =
    "ART of several tokens: quartimax turns are derived, not the paper's";
const std::string kUrtSeveral = "URT of several tokens: Procrustes steps to ramps are derived";
const std::string kFactorsSeveral =
    "factors: the right one from the rows of all grids, then the left one from the columns, is "
    "derived";
const std::string kInBlocks = "layout block: the reported one is kronecker";
const std::string kUrtRepresentative = "URT: the representative is derived";
const std::string kOnes = "the reflection of the mean to ones is ours";

TEST_CASE("singlequant obeys the laws of methods") { check_method_laws("singlequant"); }

TEST_CASE("in blocks, through the quantized prefix") {
  check_method_laws("singlequant", claims({kArtDerived, kInBlocks}, false),
                    {{"layout", "block"}, {"urt", "false"}, {"calibration", "samples"}});
}

TEST_CASE("one map a site, of a mean, by a reflection, and the mean to ones") {
  check_method_laws("singlequant",
                    claims({kUrtReflection, "layout full: the reported one is kronecker",
                            kUrtRepresentative, kOnes},
                           false),
                    {{"layout", "full"},
                     {"art", "false"},
                     {"urt_form", "reflection"},
                     {"representative", "mean"},
                     {"mean_to_ones", "true"}});
}

TEST_CASE("from several tokens, as factors and in shared blocks") {
  check_method_laws("singlequant", claims({kArtSeveral, kUrtSeveral, kFactorsSeveral}),
                    {{"fit", "tokens"}});
  check_method_laws("singlequant", claims({kArtSeveral, kUrtSeveral, kInBlocks}, false),
                    {{"fit", "tokens"}, {"layout", "block"}, {"share_blocks", "true"}});
}

// The row of a block with the largest |entry|, before and after the transform of the site.
template <class Body>
void for_each_block(const Settings& settings, const Body& body) {
  Settings all = {{"layout", "block"}};
  all.insert(all.end(), settings.begin(), settings.end());
  const WalkedSite walked = walk_one_site("singlequant", "multi-head", all);
  REQUIRE(walked.online.describe() == "blocks(4x8)");
  const Matrix<double> after = after_steps(walked, 1);
  for (Index b = 0; b < 4; ++b) {
    const Matrix<double> before = walked.tensor.middleCols(8 * b, 8);
    body(before, Matrix<double>(after.middleCols(8 * b, 8)));
  }
}

void check_is_ramp(const Vector<double>& y) {
  CHECK((y - ramp_target(y)).norm() < 1e-11 * y.norm());
}

TEST_CASE("URT makes the representative of every block a ramp, whatever ART did before") {
  for (const std::string form : {"chain", "reflection"}) {
    for (const std::string art : {"false", "true"}) {
      for_each_block({{"urt_form", form}, {"art", art}},
                     [&](const Matrix<double>& before, const Matrix<double>& after) {
                       check_is_ramp(after.row(extreme_row(before)).transpose());
                     });
    }
  }
  for_each_block({{"representative", "mean"}},
                 [&](const Matrix<double>&, const Matrix<double>& after) {
                   check_is_ramp(after.colwise().mean().transpose());
                 });
}

TEST_CASE("ART lowers the peak of the representative, more so with more steps") {
  std::vector<double> peaks;
  for (const std::string steps : {"0", "1", "7"}) {
    double sum = 0;
    for_each_block({{"urt", "false"}, {"steps", steps}, {"crest", "1"}},
                   [&](const Matrix<double>& before, const Matrix<double>& after) {
                     const Index row = extreme_row(before);
                     sum += after.row(row).cwiseAbs().maxCoeff() / before.cwiseAbs().maxCoeff();
                   });
    peaks.push_back(sum / 4);
  }
  CHECK(peaks[0] == 1);
  CHECK(peaks[1] < 0.95);
  CHECK(peaks[2] < 0.9 * peaks[1]);
}

TEST_CASE("the factors are those of FlatQuant's sizes, ART flattens the extreme token") {
  const WalkedSite walked = walk_one_site("singlequant", "multi-head", {{"urt", "false"}});
  REQUIRE(walked.online.describe() == "kronecker(4x8)");
  CHECK(orthogonality_error(walked.online.to_matrix(32)) < 1e-12);
  const Index row = extreme_row(walked.tensor);
  const Matrix<double> after = after_steps(walked, 1);
  CHECK(after.row(row).cwiseAbs().maxCoeff() < 0.7 * walked.tensor.cwiseAbs().maxCoeff());
}

double fourth_powers(const Matrix<double>& x) {
  return x.rowwise().normalized().array().square().square().sum();
}

TEST_CASE("from all tokens, ART lowers the fourth powers of all together") {
  for (const std::string layout : {"kronecker", "block", "full"}) {
    CAPTURE(layout);
    const WalkedSite walked = walk_one_site(
        "singlequant", "multi-head", {{"fit", "tokens"}, {"urt", "false"}, {"layout", layout}});
    CHECK(fourth_powers(after_steps(walked, 1)) < 0.8 * fourth_powers(walked.tensor));
  }
}

TEST_CASE("the mean becomes the same in every channel") {
  for (const std::string layout : {"kronecker", "block"}) {
    const WalkedSite walked =
        walk_one_site("singlequant", "multi-head", {{"layout", layout}, {"mean_to_ones", "true"}});
    REQUIRE(walked.online.steps().size() == 2);
    const RowVector<double> mean = after_steps(walked, 2).colwise().mean();
    CHECK((mean.array() - mean.mean()).abs().maxCoeff() < 1e-12 * mean.norm());
  }
}

std::string split_line(const std::string& tokens, const std::string& ratio) {
  return "ART of " + tokens + " tokens: the split at " + ratio +
         " times the median peak is derived";
}

TEST_CASE("ART of massive or of ordinary tokens is one more step, and the laws hold") {
  // On these tensors every second token lies above the median peak.
  for (const std::string tokens : {"massive", "ordinary"}) {
    check_method_laws("singlequant",
                      claims({kArtDerived, split_line(tokens, "1"), kUrtDerived, kFactorsDerived}),
                      {{"art_tokens", tokens}, {"massive_ratio", "1"}});
    const WalkedSite walked = walk_one_site("singlequant", "multi-head",
                                            {{"art_tokens", tokens}, {"massive_ratio", "1"}});
    CHECK(walked.online.describe() == "kronecker(4x8), kronecker(4x8)");
  }
}

TEST_CASE("ART flattens the largest token of those it is fitted to") {
  const auto peak = [](const std::string& tokens, bool of_massive) {
    const WalkedSite walked =
        walk_one_site("singlequant", "multi-head",
                      {{"urt", "false"}, {"art_tokens", tokens}, {"massive_ratio", "1.3"}});
    const Vector<double> peaks = walked.tensor.cwiseAbs().rowwise().maxCoeff();
    std::vector<double> sorted(peaks.begin(), peaks.end());
    std::sort(sorted.begin(), sorted.end());
    const double limit = 1.3 * sorted[sorted.size() / 2];
    Index row = -1;
    for (Index t = 0; t < peaks.size(); ++t) {
      if ((peaks(t) > limit) != of_massive) continue;
      if (row < 0 || peaks(t) > peaks(row)) row = t;
    }
    REQUIRE(row >= 0);
    return after_steps(walked, 1).row(row).cwiseAbs().maxCoeff() / peaks(row);
  };
  CHECK(peak("massive", true) < 0.7);
  CHECK(peak("ordinary", false) < 0.7);
  CHECK(peak("massive", true) < peak("ordinary", true));
  CHECK(peak("ordinary", false) < peak("massive", false));
}

TEST_CASE("without massive tokens ART sees all, and the plan names the sites") {
  TinyBench<double> bench(tiny_config("multi-head"));
  const auto method =
      small_method("singlequant", {{"art_tokens", "massive"}, {"massive_ratio", "1000"}});
  const Plan plan = bench.plan(*method, quant_settings());
  CHECK(std::count(plan.fallbacks.begin(), plan.fallbacks.end(),
                   "layers.1.mlp_out: no massive tokens, ART of all") == 1);
  CHECK(std::count(plan.fallbacks.begin(), plan.fallbacks.end(), split_line("massive", "1000")) ==
        1);
  CHECK(plan.fallbacks.size() == 4 + 8);
}

TEST_CASE("with neither rotation nothing is turned, and nothing is said to be derived") {
  const WalkedSite walked =
      walk_one_site("singlequant", "multi-head", {{"art", "false"}, {"urt", "false"}});
  CHECK(walked.online.to_matrix(32) == Matrix<double>::Identity(32, 32));
  TinyBench<double> bench(tiny_config("multi-head"));
  const auto method = small_method("singlequant", {{"art", "false"}, {"urt", "false"}});
  CHECK(bench.plan(*method, quant_settings()).fallbacks.empty());
}

TEST_CASE("a block wider than a site is refused in the block layout alone") {
  const ModelConfig config = tiny_config("multi-head");
  const QuantSettings quant = quant_settings();
  small_method("singlequant", {{"block_size", "512"}})->check(config, quant);
  small_method("singlequant", {{"block_size", "512"}, {"layout", "full"}})->check(config, quant);
  check_error(
      [&] {
        small_method("singlequant", {{"block_size", "512"}, {"layout", "block"}})
            ->check(config, quant);
      },
      {"method.block_size", "512"});
}

}  // namespace
}  // namespace ruq::test
