#include <doctest/doctest.h>

#include <Eigen/LU>

#include "support/walked.hpp"

namespace ruq::test {
namespace {

TEST_CASE("householder obeys the laws of methods") { check_method_laws("householder"); }

TEST_CASE("one step makes the extreme block all positive by a reflection") {
  // The walk asks for a calibration stream that `householder` has no option for.
  TinyBench<double> bench(tiny_config("multi-head"));
  const auto method = small_method("householder", {{"smoothing", "none"}, {"steps", "1"}});
  const Plan plan = bench.plan(*method, quant_settings());
  const auto& steps = plan.layers[0][SiteKind::attn_in].online.steps();
  REQUIRE(steps.size() == 1);
  const auto& blocks = std::get<BlockDiagonal<double>>(steps[0]);
  REQUIRE(blocks.maps.size() == 1);
  CHECK(blocks.which == std::vector<Index>(4, 0));
  const Matrix<double>& map = blocks.maps[0].map;
  CHECK((map - Matrix<double>(map.transpose())).cwiseAbs().maxCoeff() < 1e-14);
  CHECK(map.determinant() == doctest::Approx(-1));

  // On the mean sequence attn_in of layer 0 has no quantized prefix yet.
  Matrix<double> tensor;
  Plan nothing = Plan::identity("none", 2, quant_settings());
  bench.session.walk(CalibrationStream::mean_prefix, nothing,
                     [&](const Site& site, const Matrix<double>& seen, Plan&) {
                       if (site == Site{0, SiteKind::attn_in}) tensor = seen;
                     });
  const Matrix<double> before = in_blocks(tensor, 8);
  const RowVector<double> reached = before.row(extreme_row(before)) * map;
  CHECK(reached.minCoeff() >= -1e-12);
  CHECK(reached.norm() == doctest::Approx(before.row(extreme_row(before)).norm()));
}

TEST_CASE("no steps: no rotation") {
  TinyBench<double> bench(tiny_config("multi-head"));
  const Plan plan = bench.plan(
      *small_method("householder", {{"smoothing", "none"}, {"steps", "0"}}), quant_settings());
  for (const SiteKind kind : kLinearSites) {
    const Index width = bench.model.config.site_width(kind);
    CHECK(plan.layers[0][kind].online.to_matrix(width) == Matrix<double>::Identity(width, width));
  }
}

}  // namespace
}  // namespace ruq::test
