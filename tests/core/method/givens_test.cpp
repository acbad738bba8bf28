#include <doctest/doctest.h>

#include "support/walked.hpp"

namespace ruq::test {
namespace {

TEST_CASE("givens obeys the laws of methods") { check_method_laws("givens"); }

TEST_CASE("one round is a permutation with rotations of pairs, and the extreme block is positive") {
  TinyBench<double> bench(tiny_config("grouped"));
  const auto method =
      small_method("givens", {{"smoothing", "none"}, {"steps", "1"}, {"givens_per_step", "1"}});
  const Plan plan = bench.plan(*method, quant_settings());
  const auto& blocks =
      std::get<BlockDiagonal<double>>(plan.layers[0][SiteKind::attn_in].online.steps().at(0));
  REQUIRE(blocks.maps.size() == 2);  // 36 = 4·8 + 4
  const Matrix<double>& map = blocks.maps[0].map;
  for (Index j = 0; j < 8; ++j) {
    CHECK((map.row(j).array() != 0).count() <= 2);
    CHECK((map.col(j).array() != 0).count() <= 2);
  }

  Matrix<double> tensor;
  Plan nothing = Plan::identity("none", 2, quant_settings());
  bench.session.walk(CalibrationStream::mean_prefix, nothing,
                     [&](const Site& site, const Matrix<double>& seen, Plan&) {
                       if (site == Site{0, SiteKind::attn_in}) tensor = seen;
                     });
  const Matrix<double> before = in_blocks(Matrix<double>(tensor.leftCols(32)), 8);
  CHECK((before.row(extreme_row(before)) * map).minCoeff() >= -1e-12);
}

}  // namespace
}  // namespace ruq::test
