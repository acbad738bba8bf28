#include "ruquant/learn/reflection.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "ruquant/base/rng.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

constexpr Index kWidth = 24;

Matrix<double> tokens() { return gaussian(70, kWidth, "tokens", 1); }
Matrix<double> weights() { return gaussian(40, kWidth, "weights") / 5; }
Vector<double> unit(const char* name) {
  return Stream(3, name).normal(kWidth, 1).col(0).normalized();
}

Matrix<double> reflected(const Matrix<double>& rows, const Vector<double>& v) {
  return rows - 2 * (rows * v) * v.transpose();
}

// Σ of squared ranges of the reflected rows.
double squared_ranges(const Matrix<double>& rows, const Vector<double>& v) {
  const Matrix<double> z = reflected(rows, v);
  return (z.rowwise().maxCoeff() - z.rowwise().minCoeff()).squaredNorm();
}

// J with the smooth range replaced by the range.
double hard_objective(const Matrix<double>& y, const Matrix<double>& w, const Vector<double>& v,
                      const ReflectionOptions& options) {
  const auto levels = [](Index bits) { return std::pow(2.0, double(bits)) - 1; };
  const double tokens = double(y.rows());
  double cost = 0;
  if (options.activation_bits < 16) {
    cost += w.squaredNorm() / (12 * std::pow(levels(options.activation_bits), 2) * tokens) *
            squared_ranges(y, v);
  }
  if (options.weight_bits < 16) {
    cost += y.squaredNorm() / (12 * std::pow(levels(options.weight_bits), 2) * tokens) *
            squared_ranges(w, v);
  }
  return cost;
}

TEST_CASE("the gradient equals central differences, on the sphere and off it") {
  const Matrix<double> y = tokens();
  const Matrix<double> w = weights();
  for (const auto& [activation_bits, weight_bits] :
       {std::pair<Index, Index>{4, 4}, {16, 3}, {6, 16}, {2, 8}}) {
    const SmoothRangeObjective objective(
        y, w, unit("start"), {.activation_bits = activation_bits, .weight_bits = weight_bits});
    for (const Vector<double>& v :
         {unit("start"), unit("other"), Vector<double>(1.3 * unit("third"))}) {
      Vector<double> gradient;
      const double cost = objective.evaluate(v, &gradient);
      CHECK(objective.evaluate(v, nullptr) == cost);
      Vector<double> slopes(kWidth);
      const double h = 1e-5;
      for (Index j = 0; j < kWidth; ++j) {
        const Vector<double> step = h * Vector<double>::Unit(kWidth, j);
        slopes(j) =
            (objective.evaluate(v + step, nullptr) - objective.evaluate(v - step, nullptr)) /
            (2 * h);
      }
      CHECK(relative_error(gradient, slopes) < 1e-6);
    }
  }
}

TEST_CASE("the smooth objective bounds the true one from above, by what theory allows") {
  const Matrix<double> y = tokens();
  const Matrix<double> w = weights();
  const ReflectionOptions options;
  const Vector<double> v = unit("start");
  const double smooth = SmoothRangeObjective(y, w, v, options).evaluate(v, nullptr);
  const double hard = hard_objective(y, w, v, options);
  // At the start every β is 20/range, so r ≤ range·(1 + 2·log(d)/20).
  const double most = std::pow(1 + 2 * std::log(double(kWidth)) / 20, 2);
  CHECK(smooth > hard);
  CHECK(smooth < hard * most);
}

TEST_CASE("where one entry a side stands out the smooth range is the range") {
  // With entries ±a and zeros, β·range = 20: r = range·(1 + 2·log(1 + (d-2)e^{-10} + e^{-20})/20).
  Matrix<double> y = Matrix<double>::Zero(1, 6);
  y(0, 1) = 3;
  y(0, 4) = -3;
  const Vector<double> v = Vector<double>::Unit(6, 0);  // leaves y as it is
  const Matrix<double> w = Matrix<double>::Identity(6, 6);
  const ReflectionOptions options{.activation_bits = 4, .weight_bits = 16};
  const double r = 6 * (1 + 2 * std::log(1 + 4 * std::exp(-10.0) + std::exp(-20.0)) / 20);
  const double expected = 6.0 / (12 * 15 * 15) * r * r;
  CHECK(SmoothRangeObjective(y, w, v, options).evaluate(v, nullptr) ==
        doctest::Approx(expected).epsilon(1e-13));
}

TEST_CASE("terms weigh as the error of each operand does") {
  const Matrix<double> y = tokens();
  const Matrix<double> w = weights();
  const Vector<double> v = unit("start");
  const auto cost = [&](Index activation_bits, Index weight_bits) {
    return SmoothRangeObjective(y, w, v,
                                {.activation_bits = activation_bits, .weight_bits = weight_bits})
        .evaluate(v, nullptr);
  };
  CHECK(cost(4, 4) == doctest::Approx(cost(4, 16) + cost(16, 4)));
  CHECK(cost(4, 16) / cost(8, 16) == doctest::Approx(std::pow(255.0 / 15, 2)));
}

TEST_CASE("the objective predicts the error of quantizing activations") {
  const Matrix<double> y = gaussian(400, kWidth, "predict");
  const Matrix<double> w = weights();
  Matrix<double> rounded = y;
  fake_quantize(rounded, {.bits = 6});
  const double error = ((rounded - y) * w.transpose()).squaredNorm() / 400;
  const Vector<double> nowhere = Vector<double>::Zero(kWidth);
  const ReflectionOptions options{.activation_bits = 6, .weight_bits = 16};
  CHECK(hard_objective(y, w, nowhere, options) == doctest::Approx(error).epsilon(0.1));
}

TEST_CASE("optimizing lowers the cost on outliers, smooth and true, and stays on the sphere") {
  const Matrix<double> y = tokens();
  const Matrix<double> w = weights();
  const ReflectionOptions options{.max_iterations = 40};
  for (const char* name : {"start", "other", "third"}) {
    const Vector<double> start = unit(name);
    const ReflectionFit fit = optimize_reflection(y, w, start, options);
    CHECK(std::abs(fit.v.norm() - 1) < 1e-12);
    const SmoothRangeObjective objective(y, w, start, options);
    CHECK(objective.evaluate(fit.v, nullptr) == doctest::Approx(fit.report.final_cost));
    CHECK(objective.evaluate(start, nullptr) == doctest::Approx(fit.report.initial_cost));
    CHECK(fit.report.final_cost < 0.8 * fit.report.initial_cost);
    CHECK(hard_objective(y, w, fit.v, options) < hard_objective(y, w, start, options));
    CHECK(fit.report.iterations > 1);
    CHECK(fit.report.iterations <= 40);
    CHECK(fit.report.evaluations >= fit.report.iterations);
    CHECK_FALSE(fit.report.termination.empty());
  }
}

TEST_CASE("the result is never worse than the start, even from a minimum or with one iteration") {
  const Matrix<double> y = tokens();
  const Matrix<double> w = weights();
  Vector<double> v = unit("start");
  for (int round = 0; round < 4; ++round) {
    const ReflectionFit fit = optimize_reflection(y, w, v, {.max_iterations = round < 3 ? 60 : 1});
    const SmoothRangeObjective objective(y, w, v, {});
    CHECK(objective.evaluate(fit.v, nullptr) <= objective.evaluate(v, nullptr) * (1 + 1e-12));
    v = fit.v;
  }
}

TEST_CASE("two threads find the reflection of one, to the last bit") {
  const Matrix<double> y = tokens();
  const Matrix<double> w = weights();
  const ReflectionFit one = optimize_reflection(y, w, unit("start"), {});
  set_threads(2);
  const ReflectionFit two = optimize_reflection(y, w, unit("start"), {});
  set_threads(1);
  CHECK(one.v == two.v);
  CHECK(one.report.final_cost == two.report.final_cost);
}

TEST_CASE("nothing to optimize is refused") {
  const Matrix<double> none(0, kWidth);
  check_error([&] { optimize_reflection(none, weights(), unit("start"), {}); }, {"no activations"});
  check_error(
      [&] {
        optimize_reflection(tokens(), weights(), unit("start"),
                            {.activation_bits = 16, .weight_bits = 16});
      },
      {"16 bits"});
  check_error([&] { optimize_reflection(tokens(), gaussian(3, 9, "w"), unit("start"), {}); },
              {"9 channels", "24"});
}

}  // namespace
}  // namespace ruq::test
