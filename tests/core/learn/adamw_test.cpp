#include "ruquant/learn/adamw.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

// AdamW on one number, from the equations with the moments written out as sums over all gradients.
double plain_adamw(double x, const std::vector<double>& gradients, const AdamWOptions& o) {
  for (std::size_t t = 1; t <= gradients.size(); ++t) {
    double first = 0;
    double second = 0;
    for (std::size_t i = 0; i < t; ++i) {
      const double age = static_cast<double>(t - 1 - i);
      first += (1 - o.beta1) * std::pow(o.beta1, age) * gradients[i];
      second += (1 - o.beta2) * std::pow(o.beta2, age) * gradients[i] * gradients[i];
    }
    const double n = static_cast<double>(t);
    const double mean = first / (1 - std::pow(o.beta1, n));
    const double spread = second / (1 - std::pow(o.beta2, n));
    x = x - o.learning_rate * o.weight_decay * x -
        o.learning_rate * mean / (std::sqrt(spread) + o.epsilon);
  }
  return x;
}

TEST_CASE("AdamW follows its equations, each slot by itself") {
  const AdamWOptions options{
      .learning_rate = 0.05, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.2};
  AdamW optimizer(options);
  const Matrix<double> gradients = gaussian(6, 3, "gradients");
  Vector<double> x = gaussian(3, 1, "x").col(0);
  const Vector<double> start = x;
  Vector<double> late = start;
  for (Index t = 0; t < gradients.rows(); ++t) {
    optimizer.step(0, x, gradients.row(t).transpose());
    if (t >= 2) optimizer.step(3, late, gradients.row(t).transpose());
  }
  for (Index j = 0; j < 3; ++j) {
    std::vector<double> all;
    for (Index t = 0; t < gradients.rows(); ++t) all.push_back(gradients(t, j));
    CHECK(x(j) == doctest::Approx(plain_adamw(start(j), all, options)).epsilon(1e-12));
    all.erase(all.begin(), all.begin() + 2);
    CHECK(late(j) == doctest::Approx(plain_adamw(start(j), all, options)).epsilon(1e-12));
  }
}

TEST_CASE("the first step of AdamW is the learning rate, whatever the gradient's size") {
  for (const double size : {1e-4, 1.0, 1e6}) {
    AdamW optimizer({.learning_rate = 0.1, .epsilon = 0});
    Vector<double> x = Vector<double>::Zero(2);
    optimizer.step(0, x, (Vector<double>(2) << size, -size).finished());
    CHECK(x(0) == doctest::Approx(-0.1));
    CHECK(x(1) == doctest::Approx(0.1));
  }
}

TEST_CASE("a gradient that is not finite is refused") {
  AdamW optimizer({});
  Vector<double> x = Vector<double>::Zero(2);
  const Vector<double> bad = (Vector<double>(2) << 1, std::nan("")).finished();
  CHECK_THROWS_WITH_AS(optimizer.step(0, x, bad),
                       "AdamW: NaN or infinity in the gradient of parameter 0", Error);
  CHECK(x.norm() == 0);
}

TEST_CASE("learning rates: constant, and half a cosine from start to end") {
  const LearningRate constant{.start = 0.3, .steps = 10};
  CHECK(constant.at(0) == 0.3);
  CHECK(constant.at(7) == 0.3);
  const LearningRate cosine{
      .shape = LearningRate::Shape::cosine, .start = 0.3, .end = 0.1, .steps = 10};
  CHECK(cosine.at(0) == doctest::Approx(0.3));
  CHECK(cosine.at(5) == doctest::Approx(0.2));
  CHECK(cosine.at(10) == doctest::Approx(0.1));
  CHECK(cosine.at(11) == doctest::Approx(0.1));
  CHECK(cosine.at(2) > cosine.at(3));
}

}  // namespace
}  // namespace ruq::test
