#include "ruquant/eval/distortion.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "ruquant/base/rng.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

Matrix<double> rows(std::initializer_list<std::initializer_list<double>> values) {
  Matrix<double> x(std::ssize(values), std::ssize(*values.begin()));
  Index r = 0;
  for (const auto& row : values) std::copy(row.begin(), row.end(), x.row(r++).data());
  return x;
}

// n values i/(n − 1), i = 0..n−1.
Matrix<double> uniform_grid(Index n) {
  Matrix<double> x(1, n);
  for (Index i = 0; i < n; ++i) x(0, i) = double(i) / double(n - 1);
  return x;
}

TEST_CASE("kurtosis of known rows") {
  CHECK(mean_kurtosis(rows({{1, -1, 1, -1}})) == doctest::Approx(1));
  CHECK(mean_kurtosis(rows({{0, 0, 3, 0, 0}})) == doctest::Approx(5));
  CHECK(mean_kurtosis(rows({{1, -1}, {0, 7}})) == doctest::Approx((1 + 2) / 2.0));
  CHECK(mean_kurtosis(rows({{0, 0}, {0, 7}})) == doctest::Approx(2));  // zero rows do not count
  CHECK(mean_kurtosis((2 * uniform_grid(2001).array() - 1).matrix()) ==
        doctest::Approx(1.8).epsilon(1e-2));
  CHECK(mean_kurtosis(gaussian(50, 4000, "kurtosis")) == doctest::Approx(3).epsilon(0.02));
}

TEST_CASE("range over rms of known rows") {
  CHECK(mean_range_over_rms(rows({{5, -5}})) == doctest::Approx(2));
  CHECK(mean_range_over_rms(rows({{3, 4}})) == doctest::Approx(1 / std::sqrt(12.5)));
  CHECK(mean_range_over_rms(rows({{5, -5}, {0, 0}})) == doctest::Approx(2));
  CHECK(mean_range_over_rms((2 * uniform_grid(4001).array() - 1).matrix()) ==
        doctest::Approx(2 * std::sqrt(3.0)).epsilon(1e-3));
}

TEST_CASE("the distance to uniform: 1/n for a grid, nearly 1 for a spike, scale does not matter") {
  for (const Index n : {2, 5, 10, 100}) {
    CHECK(uniformity_distance(uniform_grid(n)) == doctest::Approx(1 / double(n)));
    CHECK(uniformity_distance((-7 * uniform_grid(n).array() + 3).matrix()) ==
          doctest::Approx(1 / double(n)));
  }
  Matrix<double> spike = Matrix<double>::Zero(1, 50);
  spike(0, 20) = 9;
  CHECK(uniformity_distance(spike) == doctest::Approx(49.0 / 50));
  CHECK(uniformity_distance(Matrix<double>::Constant(1, 4, 2.0)) == 1);
  const double gauss = uniformity_distance(gaussian(40, 2000, "uniformity"));
  CHECK(gauss > 0.2);
  CHECK(gauss < 0.4);
}

TEST_CASE("the centroid shift is zero for values symmetric about their bins") {
  // Two bits on 0..3: Δ = 1, codes at 0, 1, 2, 3; offsets ±0.3 and ±0.1 cancel in each bin.
  CHECK(centroid_shift(rows({{0, 3, 0.7, 1.3, 0.9, 1.1, 1.7, 2.3}}), {.bits = 2}) < 1e-15);
}

TEST_CASE("the centroid shift of a worked row") {
  // Bins: 0 {0}, 1 {1.2, 1.4} shifted by 0.3, 2 {1.8} by -0.2, 3 {3}: √((2·0.09 + 0.04)/5).
  const Matrix<double> x = rows({{0, 1.2, 1.4, 1.8, 3}});
  CHECK(centroid_shift(x, {.bits = 2}) == doctest::Approx(std::sqrt(0.22 / 5)));
  CHECK(centroid_shift(10 * x, {.bits = 2}) == doctest::Approx(std::sqrt(0.22 / 5)));
  // Rows have bins of their own.
  CHECK(centroid_shift(rows({{0, 1.2, 1.4, 1.8, 3}, {0, 0, 0, 3, 3}}), {.bits = 2}) ==
        doctest::Approx(std::sqrt(0.22 / 10)));
}

TEST_CASE("the centroid shift honours groups") {
  const Matrix<double> x = rows({{0, 1.2, 1.4, 3, 0, 12, 14, 30}});
  CHECK(centroid_shift(x, {.bits = 2, .group_size = 4}) ==
        doctest::Approx(std::sqrt(2 * 2 * 0.09 / 8)));
}

TEST_CASE("the profile of a worked row's bins") {
  // Positions: bin 1 holds 0.2 and 0.4, bin 2 holds -0.2; the ends are not inner bins.
  const BinProfile bins = bin_profile(rows({{0, 1.2, 1.4, 1.8, 3}}), {.bits = 2});
  CHECK(bins.code == Vector<double>{{0, 1, 2, 3}});
  CHECK(bins.share.isApprox(Vector<double>{{0.2, 0.4, 0.2, 0.2}}));
  CHECK(bins.shift.isApprox(Vector<double>{{0, 0.3, -0.2, 0}}));
  Vector<double> within = Vector<double>::Zero(16);
  within(11) = within(14) = within(4) = 16.0 / 3;  // ⌊16·(position + ½)⌋
  CHECK(bins.within.isApprox(within));
  // Every row by its own step and zero point.
  const BinProfile scaled = bin_profile(rows({{10, 22, 24, 28, 40}}), {.bits = 2});
  CHECK(scaled.shift.isApprox(bins.shift));
}

TEST_CASE("uniform entries fill bins evenly, those of a spike do not") {
  const Vector<double> draws = Stream(1, "bins").uniform(200 * 512);
  const Matrix<double> uniform = Eigen::Map<const Matrix<double>>(draws.data(), 200, 512);
  const BinProfile even = bin_profile(uniform, {.bits = 4});
  CHECK(even.within.mean() == doctest::Approx(1));
  CHECK((even.within.array() - 1).abs().maxCoeff() < 0.05);
  CHECK(even.shift.segment(1, 14).cwiseAbs().maxCoeff() < 0.02);
  const BinProfile peaked = bin_profile(uniform.array().pow(5).matrix(), {.bits = 4});
  CHECK(peaked.shift(1) < -0.02);  // the density falls across the bin
}

struct SiteCase {
  ModelConfig config = tiny_config("multi-head");
  Site site{1, SiteKind::mlp_in};
  Plan plan = Plan::identity("site", 2, quant_settings());
  Matrix<float> x = gaussian(30, 32, "site/x", 2).cast<float>();
  std::map<Linear, Matrix<float>> weights = {
      {Linear::gate_proj, gaussian(48, 32, "site/gate").cast<float>()},
      {Linear::up_proj, gaussian(48, 32, "site/up").cast<float>()}};

  std::map<std::string, double> measure() const {
    return site_distortion(plan, config, site, x, weights);
  }
  void rotate() {
    Transform<double>& online = plan.layers[1][SiteKind::mlp_in].online;
    online.append(Scale<double>{Stream(1, "rotate").signs(32)});
    online.append(HadamardStep{32});
  }
};

TEST_CASE("a uniform token is near the uniform source, a Gaussian one as far as it should be") {
  ModelConfig config;
  config.layers = config.heads = config.kv_heads = 1;
  config.width = config.mlp_width = config.head_width = 4001;
  const Plan plan = Plan::identity("x", 1, quant_settings("W16A4-Q16K16V16"));
  const auto gap = [&](const Matrix<double>& x) {
    const std::map<Linear, Matrix<float>> weights = {
        {Linear::down_proj, Matrix<float>::Ones(1, x.cols())}};
    return site_distortion(plan, config, {0, SiteKind::mlp_out}, x.cast<float>(), weights)
        .at("uniform_gap_db");
  };
  // Fifteen steps over the range where the uniform source has sixteen.
  CHECK(gap((2 * uniform_grid(4001).array() - 1).matrix()) ==
        doctest::Approx(20 * std::log10(16.0 / 15)).epsilon(0.02));
  CHECK(gap(gaussian(20, 4001, "gap")) > 4);
  CHECK(gap(gaussian(20, 4001, "gap")) < 12);
}

TEST_CASE("Lloyd-Max levels of every token reach what theory says") {
  const Matrix<float> x = gaussian(4, 20000, "levels").cast<float>();
  CHECK(lloyd_max_error_db(x, 4) == doctest::Approx(-20.22).epsilon(0.005));
  CHECK(lloyd_max_error_db(x, 2) == doctest::Approx(-9.30).epsilon(0.01));
  check_error([&] { lloyd_max_error_db(x, 9); }, {"1 to 8 bits"});
}

TEST_CASE("at 16 bits there are no errors to report") {
  SiteCase bench;
  bench.plan = without_rounding(bench.plan);
  const auto measures = bench.measure();
  for (const char* name :
       {"output_error_db", "activation_error_db", "weight_error_db", "centroid_shift"}) {
    CAPTURE(std::string(name));
    CHECK_FALSE(measures.contains(name));
  }
  CHECK(measures.size() == 3);
  CHECK(measures.at("kurtosis") == doctest::Approx(mean_kurtosis(bench.x.cast<double>())));
}

TEST_CASE("errors are left out operand by operand") {
  SiteCase bench;
  bench.plan.quant.set_widths(bit_widths("W4A16-Q4K4V4"));
  CHECK_FALSE(bench.measure().contains("activation_error_db"));
  CHECK(bench.measure().contains("weight_error_db"));
  CHECK(bench.measure().contains("output_error_db"));
  bench.plan.quant.set_widths(bit_widths("W16A4-Q4K4V4"));
  CHECK(bench.measure().contains("activation_error_db"));
  CHECK(bench.measure().contains("centroid_shift"));
  CHECK_FALSE(bench.measure().contains("weight_error_db"));
}

TEST_CASE("the errors of a small worked example") {
  // One token (-1, 0.4, 2) at 2 bits: Δ = 1, rounded to (-1, 0, 2). One weight row (3, 1, 0.3) at 2
  // bits: Δ = 0.9, z = rint(-1/3) = 0, codes 3 1 0, rounded to (2.7, 0.9, 0).
  SiteCase bench;
  bench.config.width = 3;
  bench.plan.quant.set_widths(bit_widths("W2A2-Q2K2V2"));
  bench.x = rows({{-1, 0.4, 2}}).cast<float>();
  bench.weights = {{Linear::gate_proj, rows({{3, 1, 0.3}}).cast<float>()}};
  const auto measures = bench.measure();
  const auto db = [](double ratio) { return 10 * std::log10(ratio); };
  const double exact = -3 + 0.4 + 0.6;
  CHECK(measures.at("output_error_db") ==
        doctest::Approx(db(std::pow(-2.7 - exact, 2) / (exact * exact))).epsilon(1e-6));
  CHECK(measures.at("activation_error_db") == doctest::Approx(db(0.16 / 5.16)).epsilon(1e-6));
  CHECK(measures.at("weight_error_db") ==
        doctest::Approx(db((0.09 + 0.01 + 0.09) / 10.09)).epsilon(1e-6));
}

TEST_CASE("several linears of a site are one output") {
  SiteCase both;
  SiteCase gate, up;
  gate.weights.erase(Linear::up_proj);
  up.weights.erase(Linear::gate_proj);
  const auto power = [](const SiteCase& bench) {
    double sum = 0;
    for (const auto& [linear, w] : bench.weights) {
      sum += (bench.x.cast<double>() * w.cast<double>().transpose()).squaredNorm();
    }
    return sum;
  };
  const auto error = [&](const SiteCase& bench) {
    return power(bench) * std::pow(10, bench.measure().at("output_error_db") / 10);
  };
  CHECK(error(both) == doctest::Approx(error(gate) + error(up)));
}

TEST_CASE("a rotation changes what is rounded, not what is computed") {
  SiteCase bench;
  const auto before = bench.measure();
  bench.rotate();
  const auto after = bench.measure();
  CHECK(after.at("kurtosis") < 0.6 * before.at("kurtosis"));
  CHECK(after.at("range_over_rms") < before.at("range_over_rms"));
  CHECK(after.at("activation_error_db") < before.at("activation_error_db") - 3);
  CHECK(after.at("output_error_db") < before.at("output_error_db") - 1);
  bench.plan.quant.set_widths(bit_widths("W8A8-Q8K8V8"));
  CHECK(bench.measure().at("output_error_db") < after.at("output_error_db") - 15);
}

TEST_CASE("the measures are those of the transformed tensor") {
  SiteCase bench;
  bench.rotate();
  bench.plan.layers[1][SiteKind::mlp_in].folded.append(
      Scale<double>{(Stream(2, "scale").uniform(32).array() + 0.5).matrix()});
  Matrix<double> moved = bench.x.cast<double>();
  site_transform(bench.plan, bench.config, bench.site).apply(moved);
  const auto measures = bench.measure();
  CHECK(measures.at("kurtosis") == doctest::Approx(mean_kurtosis(moved)));
  CHECK(measures.at("range_over_rms") == doctest::Approx(mean_range_over_rms(moved)));
  CHECK(measures.at("uniformity_ks") == doctest::Approx(uniformity_distance(moved)));
  CHECK(measures.at("centroid_shift") ==
        doctest::Approx(centroid_shift(moved, bench.plan.quant.activation)));
}

}  // namespace
}  // namespace ruq::test
