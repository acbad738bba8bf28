#include "ruquant/theory/density.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "support/errors.hpp"

namespace ruq::test {
namespace {

struct Named {
  std::string name;
  Density density;
};

std::vector<Named> curves() {
  return {{"uniform", Density::uniform(-1, 3)},     {"gaussian", Density::gaussian(1.5)},
          {"laplace", Density::laplace(0.7)},       {"student 2.5", Density::student_t(2.5)},
          {"student 5", Density::student_t(5, 2)},  {"student 60", Density::student_t(60)},
          {"student 400", Density::student_t(400)}, {"exponential", Density::exponential(2)}};
}

// Midpoint sums with Richardson's correction, between the places where the curves bend or jump.
Moments summed(const Density& density, double a, double b, double centre) {
  const auto once = [&](int n) {
    Moments sum;
    const double h = (b - a) / n;
    for (int i = 0; i < n; ++i) {
      const double x = a + (i + 0.5) * h;
      const double mass = density.pdf(x) * h;
      sum += {mass, mass * (x - centre), mass * (x - centre) * (x - centre)};
    }
    return sum;
  };
  const Moments coarse = once(20000);
  const Moments fine = once(40000);
  const auto better = [](double c, double f) { return f + (f - c) / 3; };
  return {better(coarse.m0, fine.m0), better(coarse.m1, fine.m1), better(coarse.m2, fine.m2)};
}

void check_moments(const Moments& found, const Moments& expected, double tolerance) {
  CHECK(std::abs(found.m0 - expected.m0) <= tolerance * std::abs(expected.m0));
  // The first moment may be zero by symmetry; its scale is that of its parts.
  CHECK(std::abs(found.m1 - expected.m1) <= tolerance * std::sqrt(expected.m0 * expected.m2));
  CHECK(std::abs(found.m2 - expected.m2) <= tolerance * expected.m2);
}

TEST_CASE("moments over everything are one, the mean and the variance") {
  for (const Named& d : curves()) {
    CAPTURE(d.name);
    const Moments all = d.density.moments(-kInfinity, kInfinity, d.density.mean());
    check_moments(all, {1, 0, d.density.variance()}, 1e-14);
    CHECK(d.density.deviation() == std::sqrt(d.density.variance()));
  }
}

TEST_CASE("moments of any interval are integrals of the pdf") {
  for (const Named& d : curves()) {
    CAPTURE(d.name);
    const double pieces[] = {-3.1, -1, 0, 0.02, 0.9, 3, 25};
    for (std::size_t i = 0; i + 1 < std::size(pieces); ++i) {
      const double a = pieces[i];
      const double b = pieces[i + 1];
      CAPTURE(a);
      const double centre = a + 0.3 * (b - a);
      const Moments found = d.density.moments(a, b, centre);
      if (d.density.probability(a, b) == 0) {
        CHECK((b <= d.density.low() || a >= d.density.high()));
        continue;
      }
      check_moments(found, summed(d.density, a, b, centre), 2e-9);
    }
  }
}

TEST_CASE("moments of two neighbours add up, across zero and out to infinity") {
  for (const Named& d : curves()) {
    CAPTURE(d.name);
    for (const auto& [a, b, c] : {std::array{-kInfinity, -0.4, 1.1},
                                  {-7.0, -2.0, 0.5},
                                  {-0.3, 0.2, kInfinity},
                                  {0.1, 6.0, 90.0},
                                  {0.5, 2.0, kInfinity}}) {
      Moments parts = d.density.moments(a, b, 0.25);
      parts += d.density.moments(b, c, 0.25);
      if (parts.m0 > 0) check_moments(d.density.moments(a, c, 0.25), parts, 1e-13);
    }
    CHECK(d.density.moments(2, 2).m0 == 0);
    CHECK(d.density.moments(2, 1).m0 == 0);
  }
}

TEST_CASE("narrow cells in the tail keep their relative accuracy") {
  // ∫_{a}^{a+h} (x − a)^k e^{−x/β}/(2β): power series of the incomplete gamma function.
  const double beta = 1 / std::numbers::sqrt2;
  const Density laplace = Density::laplace();
  const double a = 9;
  const double h = 0.01;
  const double scale = std::exp(-a / beta) / (2 * beta);
  const auto part = [&](int k) {
    double sum = 0;
    double term = std::pow(h, k + 1);
    for (int j = 0; j < 12; ++j, term *= -h / beta / j) sum += term / (k + 1 + j);
    return scale * sum;
  };
  const Moments m = laplace.moments(a, a + h, a);
  CHECK(m.m0 == doctest::Approx(part(0)).epsilon(1e-13));
  CHECK(m.m1 == doctest::Approx(part(1)).epsilon(1e-13));
  CHECK(m.m2 == doctest::Approx(part(2)).epsilon(1e-13));
}

TEST_CASE("tails of Student-t have the closed first moment") {
  for (const double degrees : {2.2, 3.0, 5.0, 30.0}) {
    const Density t = Density::student_t(degrees, 1.7);
    const double s2 = 1.7 * 1.7 * (degrees - 2);  // ν·scale²
    for (const double a : {0.0, 0.5, 4.0, 11.0, 60.0, 3000.0}) {
      CAPTURE(degrees);
      CAPTURE(a);
      const double closed =
          t.pdf(0) * s2 / (degrees - 1) * std::pow(1 + a * a / s2, (1 - degrees) / 2);
      CHECK(t.moments(a, kInfinity).m1 == doctest::Approx(closed).epsilon(1e-13));
      CHECK(t.moments(-kInfinity, -a).m1 == doctest::Approx(-closed).epsilon(1e-13));
      CHECK(t.moments(a, 2 * a + 1).m1 ==
            doctest::Approx(closed - t.moments(2 * a + 1, kInfinity).m1).epsilon(1e-13));
    }
  }
}

TEST_CASE("scores and their kin are derivatives of the pdf") {
  for (const Named& d : curves()) {
    for (const double x : {-0.8, 0.31, 1.4, 2.6}) {
      CAPTURE(d.name);
      CAPTURE(x);
      if (x < d.density.low()) continue;
      const double h = 2e-3;
      const auto f = [&](double k) { return d.density.pdf(x + k * h) / d.density.pdf(x); };
      const DerivativeRatios r = d.density.ratios(x);
      CHECK(d.density.score(x) == r.first);
      const double first = (8 * (f(1) - f(-1)) - (f(2) - f(-2))) / (12 * h);
      const double second = (16 * (f(1) + f(-1)) - (f(2) + f(-2)) - 30) / (12 * h * h);
      const double third =
          (-(f(3) - f(-3)) + 8 * (f(2) - f(-2)) - 13 * (f(1) - f(-1))) / (8 * h * h * h);
      CHECK(r.first == doctest::Approx(first).epsilon(1e-7));
      CHECK(r.second == doctest::Approx(second).epsilon(1e-6));
      CHECK(r.third == doctest::Approx(third).epsilon(1e-5));
    }
  }
  CHECK(Density::laplace().score(0) == 0);
}

TEST_CASE("quantiles undo probabilities") {
  for (const Named& d : curves()) {
    CAPTURE(d.name);
    for (const double p : {1e-9, 0.01, 0.5, 0.7, 0.999, 1 - 1e-9}) {
      const double x = d.density.quantile(p);
      CHECK(d.density.probability(-kInfinity, x) == doctest::Approx(p).epsilon(1e-12));
    }
  }
  CHECK(Density::gaussian().quantile(0.5) == 0);
  const Density atoms = Density::empirical({3, 1, 2, 2});
  CHECK(atoms.quantile(0.25) == 1);
  CHECK(atoms.quantile(0.26) == 2);
  CHECK(atoms.quantile(0.75) == 2);
  CHECK(atoms.quantile(0.99) == 3);
}

TEST_CASE("centroids lie in their cells") {
  for (const Named& d : curves()) {
    CAPTURE(d.name);
    CHECK(*d.density.centroid(-kInfinity, kInfinity) ==
          doctest::Approx(d.density.mean()).epsilon(1e-13));
    const double inner = d.density.centroid(0.2, 0.3).value();
    CHECK(inner > 0.2);
    CHECK(inner < 0.3);
  }
  CHECK_FALSE(Density::uniform(0, 1).centroid(2, 3).has_value());
}

TEST_CASE("point densities are cube roots, and Panter and Dite's constant is their integral") {
  for (const Named& d : curves()) {
    CAPTURE(d.name);
    const Density points = d.density.point_density();
    // One constant of proportionality everywhere: (∫ f^(1/3))^−1.
    const double integral = std::cbrt(d.density.pdf(0.1)) / points.pdf(0.1);
    for (const double x : {0.0, 0.6, 2.9}) {
      CHECK(std::cbrt(d.density.pdf(x)) / points.pdf(x) ==
            doctest::Approx(integral).epsilon(1e-12));
    }
    CHECK(points.probability(-kInfinity, kInfinity) == doctest::Approx(1).epsilon(1e-12));
    CHECK(d.density.panter_dite() ==
          doctest::Approx(integral * integral * integral / (12 * d.density.variance()))
              .epsilon(1e-12));
  }
  const std::pair<double, double> student[] = {{3, 20.52}, {4, 9.304},  {5, 6.580}, {6, 5.411},
                                               {8, 4.375}, {10, 3.908}, {20, 3.208}};
  for (const auto& [degrees, constant] : student) {
    CHECK(std::abs(Density::student_t(degrees).panter_dite() / constant - 1) < 3e-4);
  }
}

TEST_CASE("samples are a density of atoms") {
  const std::vector<double> x = {0.5, -2, 7, 0.5, 3};
  const std::vector<double> w = {1, 2, 0.5, 3, 0};
  const Density d = Density::empirical(x, w);
  REQUIRE(d.atoms() != nullptr);
  CHECK(d.atoms()->values == std::vector<double>{-2, 0.5, 7});
  CHECK(d.low() == -2);
  CHECK(d.high() == 7);
  CHECK(d.mean() == doctest::Approx((4 * 0.5 - 4 + 3.5) / 6.5));
  const auto direct = [&](double a, double b, double c) {
    Moments sum;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double p = w[i] / 6.5;
      if (x[i] > a && x[i] <= b) sum += {p, p * (x[i] - c), p * (x[i] - c) * (x[i] - c)};
    }
    return sum;
  };
  for (const auto& [a, b] :
       {std::pair{-kInfinity, kInfinity}, {-2.0, 0.5}, {-2.1, 0.4}, {0.5, 9.0}}) {
    check_moments(d.moments(a, b, 0.1), direct(a, b, 0.1), 1e-13);
  }
  CHECK(d.variance() == doctest::Approx(direct(-9, 9, d.mean()).m2));
  CHECK(Density::gaussian().atoms() == nullptr);
}

TEST_CASE("impossible densities are refused") {
  check_error([] { Density::uniform(1, 1); }, {"low < high", "1"});
  check_error([] { Density::gaussian(0); }, {"standard deviation", "0"});
  check_error([] { Density::laplace(NAN); }, {"standard deviation"});
  check_error([] { Density::student_t(2); }, {"2 degrees"});
  check_error([] { Density::exponential(-1); }, {"rate", "-1"});
  check_error([] { Density::empirical({}); }, {"positive weight"});
  check_error([] { Density::empirical({1, 2}, {1}); }, {"2 samples with 1 weights"});
  check_error([] { Density::empirical({1, NAN}); }, {"sample 1"});
  check_error([] { Density::empirical({1, 2}, {1, -1}); }, {"sample 1", "-1"});
  const Density atoms = Density::empirical({1, 2});
  check_error([&] { atoms.pdf(1); }, {"no pdf"});
  check_error([&] { atoms.score(1); }, {"no pdf"});
  check_error([&] { atoms.panter_dite(); }, {"no pdf"});
  check_error([&] { atoms.quantile(1); }, {"between 0 and 1"});
}

}  // namespace
}  // namespace ruq::test
