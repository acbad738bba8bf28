#include <doctest/doctest.h>

#include "ruquant/transform/partition.hpp"
#include "support/learned_block.hpp"
#include "support/walked.hpp"

namespace ruq::test {
namespace {

TEST_CASE("duquant obeys the laws of methods") { check_method_laws("duquant"); }

TEST_CASE("the paper's index obeys them too") {
  check_method_laws("duquant", method_claims("duquant"),
                    {{"index", "channel"}, {"share_blocks", "false"}});
}

TEST_CASE("learned weight clipping obeys them too") {
  check_method_laws("duquant", claims(), {{"lwc", "true"}});
}

TEST_CASE("lwc sets the smoothing of the published runs, learns every block, and needs a model") {
  const auto method = small_method("duquant", {{"lwc", "true"}});
  Fields fields;
  method->bind(fields);
  CHECK(fields.find("smoothing")->get() == "0.5");
  CHECK(method->needs_model());
  CHECK_FALSE(small_method("duquant")->needs_model());
  check_learned_blocks(*method, quant_settings(), {.train = 2, .held_out = 1, .tokens = 8},
                       tiny_config("grouped"), false);
  // The rotations are those of a run without it at the same smoothing.
  TinyBench<double> bench(tiny_config("grouped"));
  const Plan learned = bench.plan(*method, quant_settings());
  const Plan plain = bench.plan(*small_method("duquant", {{"smoothing", "0.5"}}), quant_settings());
  CHECK(same_transform(learned.layers[1][SiteKind::mlp_out].online,
                       plain.layers[1][SiteKind::mlp_out].online));
  CHECK_FALSE(plain.layers[1].weight_clips[0].has_value());
}

double spread(const Matrix<double>& x) { return x.maxCoeff() - x.minCoeff(); }

TEST_CASE("maps narrow the range or stay away, and the deal between them is the zigzag") {
  const WalkedSite walked = walk_one_site("duquant", "multi-head", {{"search_steps", "20"}});
  REQUIRE(walked.online.describe() == "blocks(4x8), permutation, blocks(4x8)");
  const Matrix<double> first = after_steps(walked, 1);
  const Matrix<double> dealt = after_steps(walked, 2);
  const Matrix<double> second = after_steps(walked, 3);
  CHECK(spread(first) < 0.8 * spread(walked.tensor));
  CHECK(spread(second) <= spread(dealt));
  CHECK(spread(dealt) == spread(first));
  CHECK(std::get<Permutation>(walked.online.steps()[1]).index ==
        zigzag_order(first, block_layout(32, 8, true)));
}

TEST_CASE("without search steps only the deal is left") {
  const WalkedSite walked = walk_one_site("duquant", "multi-head", {{"search_steps", "0"}});
  REQUIRE(walked.online.steps().size() == 3);
  CHECK(std::get<BlockDiagonal<double>>(walked.online.steps()[0]).maps[0].map ==
        Matrix<double>::Identity(8, 8));
  CHECK(after_steps(walked, 3) == after_steps(walked, 2));
}

TEST_CASE("a last block of a single channel is no obstacle") {
  // 46 = 5·9 + 1.
  const WalkedSite walked = walk_one_site("duquant", "odd factors", {{"block_size", "9"}});
  const auto& blocks = std::get<BlockDiagonal<double>>(walked.online.steps().at(0));
  REQUIRE(blocks.maps.size() == 2);
  CHECK(blocks.maps[1].map.rows() == 1);
  CHECK(orthogonality_error(walked.online.to_matrix(46)) < 1e-12);
}

}  // namespace
}  // namespace ruq::test
