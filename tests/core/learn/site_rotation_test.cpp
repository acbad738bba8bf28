#include "ruquant/learn/site_rotation.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "ruquant/learn/reflection.hpp"
#include "support/errors.hpp"
#include "support/frozen_rounding.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

const std::vector<Index> kShared = {0, 0, 1};  // three runs of four channels, two maps

Matrix<double> orthogonal(Index n, const std::string& name) {
  Matrix<double> m = gaussian(n, n, name);
  for (Index r = 0; r < n; ++r) {
    for (Index k = 0; k < r; ++k) m.row(r) -= m.row(r).dot(m.row(k)) * m.row(k);
    m.row(r).normalize();
  }
  return m;
}

Maps two_maps() { return {orthogonal(4, "first"), orthogonal(4, "second")}; }

SiteRows site(Index rows) { return {2 * gaussian(rows, 12, "x", 2), kShared}; }

Matrix<double> weights() { return gaussian(7, 12, "w", 1); }

std::vector<Index> all_rows(Index count) {
  std::vector<Index> rows(static_cast<std::size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

QuantSettings four_bits() { return quant_settings("W4A4-Q16K16V16"); }

// The gradient is that of `loss` by every entry, the maps left free.
template <class Loss>
void check_gradient(const Maps& gradient, Maps maps, const Loss& loss) {
  const double h = 1e-6;
  double scale = 0;
  for (const Matrix<double>& g : gradient) scale = std::max(scale, g.cwiseAbs().maxCoeff());
  REQUIRE(scale > 0);
  for (std::size_t m = 0; m < maps.size(); ++m) {
    for (Index k = 0; k < maps[m].size(); ++k) {
      double& entry = maps[m].data()[k];
      const double kept = entry;
      entry = kept + h;
      const double ahead = loss(maps);
      entry = kept - h;
      const double behind = loss(maps);
      entry = kept;
      CHECK(std::abs(gradient[m].data()[k] - (ahead - behind) / (2 * h)) < 1e-5 * scale);
    }
  }
}

TEST_CASE("the smooth objectives have the gradient of their loss") {
  const Maps start = two_maps();
  const auto psot = psot_objective(site(6), {false, true, false, false, true, false});
  const auto range = smooth_range_objective(site(6), weights(), four_bits(), start);
  const std::vector<Index> rows = {4, 0, 1, 5};
  for (const RotationObjective* objective : {psot.get(), range.get()}) {
    CAPTURE(objective->name());
    CHECK(objective->rows() == 6);
    Maps gradient;
    const double loss = objective->evaluate(start, rows, &gradient);
    CHECK(loss == objective->evaluate(start, rows, nullptr));
    check_gradient(gradient, start,
                   [&](const Maps& maps) { return objective->evaluate(maps, rows, nullptr); });
  }
}

TEST_CASE("psot is the root mean square of rows, each with its own weight") {
  const Maps start = two_maps();
  const SiteRows rows = site(6);
  const auto objective = psot_objective(rows, {false, true, false, false, true, false});
  const Maps blocks = {start[0], start[0], start[1]};
  const std::vector<Index> some = {1, 2};
  const double loss = psot_loss(gathered(rows.x, some), blocks, {true, false}).loss;
  CHECK(objective->evaluate(start, some, nullptr) ==
        doctest::Approx(loss / std::sqrt(2.0)).epsilon(1e-13));
}

TEST_CASE("smooth_range is the sum of squared smooth ranges over the energy of the output") {
  const Maps start = two_maps();
  const SiteRows rows = site(6);
  const auto objective = smooth_range_objective(rows, weights(), four_bits(), start);
  const auto squares = [&](const Matrix<double>& x) {
    const Matrix<double> y = rotated({x, kShared}, start);
    double sum = 0;
    for (Index r = 0; r < y.rows(); ++r) {
      sum += std::pow(smooth_range(y.row(r), range_sharpness(y.row(r)), nullptr), 2);
    }
    return sum;
  };
  const double output = (rows.x * weights().transpose()).squaredNorm();
  const double expected =
      (weights().squaredNorm() * squares(rows.x) + rows.x.squaredNorm() * squares(weights())) /
      (12 * 15 * 15 * output);
  CHECK(objective->evaluate(start, all_rows(6), nullptr) ==
        doctest::Approx(expected).epsilon(1e-12));
}

TEST_CASE("straight_through is the rounding error, with the slope of frozen rounding") {
  const Maps start = two_maps();
  const SiteRows rows = site(6);
  const QuantSettings quant = four_bits();
  const Matrix<double> w = weights();
  const auto objective = straight_through_objective(rows, w, quant);
  Maps gradient;
  const double loss = objective->evaluate(start, all_rows(6), &gradient);
  CHECK(loss == doctest::Approx(quantized_output_error(rotated(rows, start),
                                                       rotated({w, kShared}, start), quant))
                    .epsilon(1e-12));
  CHECK(loss > 1e-4);

  const Matrix<double> exact = rows.x * w.transpose();
  const FrozenRounding round_x(rotated(rows, start), quant.activation, nullptr);
  const FrozenRounding round_w(rotated({w, kShared}, start), quant.weight, nullptr);
  check_gradient(gradient, start, [&](const Maps& maps) {
    const Matrix<double> y = round_x(rotated(rows, maps), nullptr);
    const Matrix<double> v = round_w(rotated({w, kShared}, maps), nullptr);
    return (y * v.transpose() - exact).squaredNorm() / exact.squaredNorm();
  });
}

TEST_CASE("nothing is learned from 16 bits, and nothing is lost at them") {
  const QuantSettings none = quant_settings("W16A16-Q16K16V16");
  check_error([&] { straight_through_objective(site(6), weights(), none); },
              {"straight_through", "16 bits"});
  check_error([&] { smooth_range_objective(site(6), weights(), none, two_maps()); },
              {"smooth_range", "16 bits"});
  CHECK(quantized_output_error(site(6).x, weights(), none) == 0);
}

RotationOptions small_options() {
  return {.steps = 60,
          .batch_rows = 16,
          .rate_start = 0.5,
          .rate_end = 0.005,
          .relative_rate = true,
          .noise_batches = 8};
}

TEST_CASE("learning lowers every objective and stays orthogonal") {
  const Maps start = {Matrix<double>::Identity(4, 4), Matrix<double>::Identity(4, 4)};
  const SiteRows rows = site(64);
  for (const std::string name : {"psot", "smooth_range", "straight_through"}) {
    CAPTURE(name);
    const auto objective = name == "psot" ? psot_objective(rows, {})
                           : name == "smooth_range"
                               ? smooth_range_objective(rows, weights(), four_bits(), start)
                               : straight_through_objective(rows, weights(), four_bits());
    Maps maps = start;
    const LearningRecord record = learn_rotation(*objective, small_options(), {1, "test"}, maps);
    CHECK(record.objective == name);
    CHECK(record.initial_loss == objective->evaluate(start, all_rows(64), nullptr));
    CHECK(record.final_loss == objective->evaluate(maps, all_rows(64), nullptr));
    CHECK(record.final_loss < 0.95 * record.initial_loss);
    CHECK(record.losses.size() == 60);
    CHECK(record.steps == 60);
    CHECK(record.evaluations == 60 + 16);
    CHECK(record.tokens == 60 * 16);
    for (const Matrix<double>& map : maps) CHECK(orthogonality_error(map) < 1e-13);
    CHECK(record.details.at("gradient_noise_start") > 0);
    CHECK(record.details.at("loss_total_variation_over_drop") >= 1);

    Maps again = start;
    CHECK(learn_rotation(*objective, small_options(), {1, "test"}, again) == record);
    CHECK(again[0] == maps[0]);
    Maps other = start;
    CHECK_FALSE(learn_rotation(*objective, small_options(), {2, "test"}, other) == record);
  }
}

TEST_CASE("a smooth objective keeps what its gradient promises; all rows at once have no noise") {
  const Maps start = two_maps();
  RotationOptions options = small_options();
  options.steps = 5;
  options.rate_start = options.rate_end = 1e-3;
  options.batch_rows = 64;
  for (const bool psot : {true, false}) {
    const auto objective = psot ? psot_objective(site(64), {})
                                : smooth_range_objective(site(64), weights(), four_bits(), start);
    Maps maps = start;
    const LearningRecord record = learn_rotation(*objective, options, {1, "test"}, maps);
    CHECK(record.details.at("gradient_noise_start") < 1e-20);
    CHECK(record.details.at("kept_promise_start") == doctest::Approx(1).epsilon(0.1));
    CHECK(record.details.at("kept_promise_end") == doctest::Approx(1).epsilon(0.1));
    CHECK(record.details.at("loss_total_variation_over_drop") == doctest::Approx(1));
    CHECK(record.details.at("rate_limited_steps") == 1);
  }
}

// The loss ⟨A + B_r, Q⟩ of row r: linear, so that its gradients are known.
class LinearLoss final : public RotationObjective {
 public:
  LinearLoss(double steady, double noise) : steady_(steady), noise_(noise) {}
  std::string name() const override { return "linear"; }
  Index rows() const override { return 400; }
  Matrix<double> slope(Index row) const {
    return steady_ * gaussian(6, 6, "steady") +
           noise_ * gaussian(6, 6, "row" + std::to_string(row));
  }
  double evaluate(const Maps& maps, std::span<const Index> rows, Maps* gradient) const override {
    Matrix<double> mean = Matrix<double>::Zero(6, 6);
    for (const Index row : rows) mean += slope(row) / static_cast<double>(rows.size());
    if (gradient != nullptr) *gradient = {mean};
    return mean.cwiseProduct(maps[0]).sum();
  }

 private:
  double steady_, noise_;
};

double linear_noise(double steady, double noise, Index batch) {
  Maps maps = {orthogonal(6, "start")};
  return learn_rotation(LinearLoss(steady, noise),
                        {.steps = 0, .batch_rows = batch, .noise_batches = 16}, {1, "test"}, maps)
      .details.at("gradient_noise_start");
}

TEST_CASE("the gradient's noise is its covariance over its mean, in tangents") {
  // Of independent normal entries the tangent ½(G·Qᵀ − Q·Gᵀ) has n(n−1)/2 free entries of variance
  // σ²/2, each of them twice: a trace of n(n−1)σ²/2.
  const Matrix<double> start = orthogonal(6, "start");
  const Matrix<double> moved = gaussian(6, 6, "steady") * start.transpose();
  const double mean = (0.5 * (moved - moved.transpose())).squaredNorm();
  const double expected = 0.25 / 8 * 6 * 5 / 2 / mean;
  CHECK(linear_noise(1, 0.5, 8) == doctest::Approx(expected).epsilon(0.25));
  CHECK(linear_noise(1, 0, 8) < 1e-20);
  CHECK(linear_noise(0, 1, 8) == doctest::Approx(16).epsilon(0.25));  // all is noise
}

TEST_CASE("held-out rows give the rounding error and the loss at both ends") {
  const Maps start = two_maps();
  const Maps learned = {start[1], start[0]};
  const SiteRows rows = site(9);
  const auto objective = psot_objective(rows, {});
  LearningRecord record;
  judge_held_out(rows, weights(), four_bits(), objective.get(), start, learned, record);
  CHECK(record.held_out_initial.value() ==
        quantized_output_error(rotated(rows, start), rotated({weights(), kShared}, start),
                               four_bits()));
  CHECK(record.held_out_final.value() != record.held_out_initial.value());
  CHECK(record.details.at("held_out_loss_end") ==
        objective->evaluate(learned, all_rows(9), nullptr));
  LearningRecord empty;
  judge_held_out({Matrix<double>(0, 12), kShared}, weights(), four_bits(), nullptr, start, learned,
                 empty);
  CHECK(empty == LearningRecord());
}

TEST_CASE("every fifth sequence is held out, or every fifth of twenty runs") {
  const auto held_out = [](Index rows, Index sequence) {
    return split_rows(rows, sequence).held_out;
  };
  CHECK(held_out(60, 6) == std::vector<Index>{24, 25, 26, 27, 28, 29, 54, 55, 56, 57, 58, 59});
  CHECK(held_out(40, 10) == std::vector<Index>{8, 9, 18, 19, 28, 29, 38, 39});
  CHECK(held_out(40, 0) == held_out(40, 10));
  CHECK(held_out(4, 0).empty());
  CHECK(split_rows(40, 0).train.size() == 32);
}

TEST_CASE("no rows are refused") {
  Maps maps = two_maps();
  const auto objective = psot_objective({Matrix<double>(0, 12), kShared}, {});
  check_error([&] { learn_rotation(*objective, {}, {1, "test"}, maps); }, {"rotation", "no rows"});
}

}  // namespace
}  // namespace ruq::test
