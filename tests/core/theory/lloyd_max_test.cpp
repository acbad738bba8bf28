#include "ruquant/theory/lloyd_max.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "ruquant/base/rng.hpp"
#include "support/errors.hpp"

namespace ruq::test {
namespace {

struct Statement {
  double mean = 0;    // E[Q]
  double square = 0;  // E[Q²]
  double cross = 0;   // E[Q·(X − Q)]
};

Statement statement(const Density& density, const Codebook& codebook) {
  Statement s;
  for (Index i = 0; i < codebook.size(); ++i) {
    const double level = codebook.levels[static_cast<std::size_t>(i)];
    const Moments m = density.moments(codebook.lower(i), codebook.upper(i), level);
    s.mean += level * m.m0;
    s.square += level * level * m.m0;
    s.cross += level * m.m1;
  }
  return s;
}

double best_db(const Density& density, Index levels) {
  return sqnr_db(density, distortion(density, lloyd_max(density, levels)));
}

TEST_CASE("Lloyd-Max codebooks reach the tabulated ratios") {
  const std::vector<double> gaussian = {4.396,  9.300,  14.616, 20.222,
                                        26.012, 31.910, 37.865, 43.853};
  const std::vector<double> laplace = {3.010,  7.540,  12.638, 18.133,
                                       23.870, 29.743, 35.688, 41.671};
  const std::vector<double> student5 = {3.376,  7.337,  11.910, 17.017,
                                        22.510, 28.245, 34.116, 40.060};
  const std::vector<double> student3 = {2.257, 5.086, 8.702, 13.105, 18.142};
  const auto check = [](const Density& density, const std::vector<double>& table) {
    for (std::size_t b = 1; b <= table.size(); ++b) {
      CAPTURE(b);
      CHECK(std::abs(best_db(density, Index{1} << b) - table[b - 1]) < 1e-3);
    }
  };
  check(Density::gaussian(3), gaussian);
  check(Density::laplace(0.2), laplace);
  check(Density::student_t(5), student5);
  check(Density::student_t(3), student3);
}

TEST_CASE("errors agree with Max's own table to its accuracy, and with exact ones to 1e-5") {
  const std::vector<double> book = {0.3634, 0.1175, 0.03454, 0.009497, 0.002499};
  const std::vector<double> exact = {0.363380,   0.117482,   0.0345478,  0.00950101,
                                     0.00250467, 6.44240e-4, 1.63478e-4, 4.11851e-5};
  for (std::size_t b = 1; b <= exact.size(); ++b) {
    CAPTURE(b);
    const double error = distortion(Density::gaussian(), lloyd_max(Density::gaussian(), 1 << b));
    if (b <= book.size()) CHECK(std::abs(error / book[b - 1] - 1) < 3e-3);
    CHECK(std::abs(error / exact[b - 1] - 1) < 1e-5);
  }
}

TEST_CASE("sixteen levels and their thresholds, positive half") {
  const auto check = [](const Density& density, const std::vector<double>& levels,
                        const std::vector<double>& thresholds) {
    const Codebook best = lloyd_max(density, 16);
    for (std::size_t i = 0; i < 8; ++i) {
      CHECK(std::abs(best.levels[8 + i] - levels[i]) < 6e-6);
      CHECK(std::abs(best.levels[7 - i] + levels[i]) < 6e-6);
    }
    for (std::size_t i = 0; i < 7; ++i) {
      CHECK(std::abs(best.thresholds[8 + i] - thresholds[i]) < 6e-6);
    }
    CHECK(best.thresholds[7] == 0);
  };
  check(Density::gaussian(), {.12840, .38805, .65676, .94234, 1.25623, 1.61805, 2.06902, 2.73259},
        {.25822, .52240, .79955, 1.09929, 1.43714, 1.84353, 2.40080});
  check(Density::laplace(), {.12399, .40484, .72865, 1.11098, 1.57779, 2.17735, 3.01686, 4.43107},
        {.26441, .56674, .91982, 1.34438, 1.87757, 2.59710, 3.72397});
}

TEST_CASE("every level is a centroid, hence the identities of such codebooks") {
  const std::vector<Density> densities = {
      Density::uniform(-2, 3),
      Density::gaussian(0.3),
      Density::laplace(5),
      Density::student_t(2.3),
      Density::student_t(40),
      Density::exponential(0.5),
      Density::empirical({1, 2, 4, 4, 7, 11, -3, 0.5, 0.25, -8}, {1, 2, 3, 1, 1, 2, 2, 1, 1, 1})};
  for (const Density& density : densities) {
    for (const Index n : {1, 2, 3, 7, 64}) {
      CAPTURE(n);
      const Codebook best = lloyd_max(density, n);
      if (density.atoms() == nullptr) REQUIRE(best.size() == n);
      for (Index i = 0; i < best.size(); ++i) {
        const double level = best.levels[static_cast<std::size_t>(i)];
        const double centroid = density.centroid(best.lower(i), best.upper(i)).value();
        CHECK(std::abs(centroid - level) < 1e-11 * (std::abs(level) + density.deviation()));
      }
      const Statement s = statement(density, best);
      const double scale = density.variance() + density.mean() * density.mean();
      CHECK(std::abs(s.mean - density.mean()) < 1e-12 * std::sqrt(scale));
      CHECK(std::abs(s.cross) < 1e-12 * scale);
      CHECK(std::abs(distortion(density, best) - (scale - s.square)) < 1e-12 * scale);
      CHECK(s.square <= scale * (1 + 1e-14));
    }
  }
}

TEST_CASE("closed forms: equal steps for uniform, memory-less cells for exponential") {
  const Codebook flat = lloyd_max(Density::uniform(-1, 1), 8);
  for (std::size_t i = 0; i < 8; ++i) {
    CHECK(flat.levels[i] == doctest::Approx(-0.875 + 0.25 * double(i)).epsilon(1e-12));
  }
  // The last level lies 1/rate above its threshold, whatever the number of levels.
  for (const Index n : {2, 5, 128}) {
    const Codebook best = lloyd_max(Density::exponential(4), n);
    CHECK(best.levels.back() - best.thresholds.back() == doctest::Approx(0.25).epsilon(1e-10));
  }
  // Both halves of a Laplace codebook are the exponential one with a wall at zero (N even).
  const Codebook laplace = lloyd_max(Density::laplace(std::numbers::sqrt2), 14);
  const Codebook half = lloyd_max(Density::exponential(1), 7);
  for (std::size_t i = 0; i < 7; ++i) {
    CHECK(laplace.levels[7 + i] == doctest::Approx(half.levels[i]).epsilon(1e-10));
  }
}

TEST_CASE("many levels come near Panter and Dite's law from below") {
  for (const auto& [density, limit] :
       {std::pair{Density::gaussian(), 43.818}, std::pair{Density::laplace(), 41.633}}) {
    const double asymptote = 10 * std::log10(256 * 256 / density.panter_dite());
    CHECK(std::abs(asymptote - limit) < 1e-3);
    double gap = 1;
    for (const Index n : {32, 64, 128, 256, 512}) {
      const double law = density.panter_dite() * density.variance() / double(n * n);
      const double now = 1 - distortion(density, lloyd_max(density, n)) / law;
      CHECK(now > 0);
      CHECK(now < 0.6 * gap);
      gap = now;
    }
    CHECK(gap < 0.006);
  }
}

TEST_CASE("shift of the centroid from the midpoint of a cell") {
  const Density exponential = Density::exponential();
  CHECK(std::abs(centroid_shift(exponential, 3, 0.5) + .020747) < 1e-6);
  CHECK(std::abs(centroid_shift(exponential, 3, 1) + .081977) < 1e-6);
  CHECK(std::abs(centroid_shift(exponential, 3, 2) + .313035) < 1e-6);
  CHECK(std::abs(centroid_shift_expansion(exponential, 3, 0.5, 1) + .020833) < 1e-6);
  for (const double width : {1e-3, 0.1, 1.0, 5.0, 8.0}) {
    const double closed = 1 - width / 2 / std::tanh(width / 2);
    CHECK(centroid_shift(exponential, 4, width) == doctest::Approx(closed).epsilon(1e-9));
    CHECK(centroid_shift(Density::laplace(std::numbers::sqrt2), -4, width) ==
          doctest::Approx(-closed).epsilon(1e-9));
  }
  const Density gaussian = Density::gaussian();
  CHECK(std::abs(centroid_shift(gaussian, 1, .3352) + .0093109) < 1e-6);
  CHECK(std::abs(centroid_shift_expansion(gaussian, 1, .3352, 1) + .0093633) < 1e-6);
  CHECK(std::abs(centroid_shift_expansion(gaussian, 1, .3352, 2) + .0093107) < 1e-6);
  CHECK(std::abs(centroid_shift(gaussian, 2, .3352) + .0185191) < 1e-6);
  CHECK(std::abs(centroid_shift(gaussian, 1, 1) + .0793554) < 1e-6);
  CHECK(std::abs(centroid_shift_expansion(gaussian, 1, 1, 2) + .0791667) < 1e-6);
  CHECK(std::abs(centroid_shift(Density::uniform(0, 1), 0.3, 0.2)) < 1e-16);
  CHECK(centroid_shift_expansion(Density::uniform(0, 1), 0.3, 0.2, 2) == 0);
}

TEST_CASE("the remainder of the expansion falls with the sixth power of the width") {
  for (const Density& density :
       {Density::gaussian(), Density::student_t(5, 2), Density::exponential(0.7)}) {
    const auto remainder = [&](double width) {
      return std::abs(centroid_shift(density, 1.3, width) -
                      centroid_shift_expansion(density, 1.3, width, 2));
    };
    const double order = std::log2(remainder(0.4) / remainder(0.2));
    CHECK(order > 5.8);
    CHECK(order < 6.2);
  }
}

TEST_CASE("bins of a density and of its samples") {
  const Density gaussian = Density::gaussian();
  const std::vector<Bin> exact = uniform_bins(gaussian, -3, 5, 20);
  Stream stream(3, "bins");
  const Vector<double> draws = stream.normal(40000, 1).col(0);
  const std::vector<Bin> drawn =
      uniform_bins(Density::empirical({draws.begin(), draws.end()}), -3, 5, 20);
  REQUIRE(exact.size() == 20);
  REQUIRE(drawn.size() == 20);
  double total = 0;
  for (std::size_t i = 0; i < 20; ++i) {
    CHECK(exact[i].midpoint == doctest::Approx(-2.8 + 0.4 * double(i)));
    CHECK(exact[i].centroid - exact[i].midpoint ==
          doctest::Approx(centroid_shift(gaussian, exact[i].midpoint, 0.4)).epsilon(1e-9));
    CHECK(std::abs(drawn[i].probability - exact[i].probability) < 0.01);
    if (exact[i].probability > 0.05) {
      CHECK(std::abs(drawn[i].centroid - exact[i].centroid) < 0.015);
    }
    total += exact[i].probability;
  }
  CHECK(total == doctest::Approx(gaussian.probability(-3, 5)).epsilon(1e-13));
  CHECK(uniform_bins(Density::uniform(0, 1), 2, 3, 1)[0].centroid == 2.5);
}

TEST_CASE("a codebook sends numbers to the nearest level") {
  const Codebook codebook = Codebook::of_levels({-1, 0, 4});
  CHECK(codebook.thresholds == std::vector<double>{-0.5, 2});
  CHECK(codebook.nearest(-100) == -1);
  CHECK(codebook.nearest(-0.4) == 0);
  CHECK(codebook.nearest(2) == 0);
  CHECK(codebook.nearest(2.1) == 4);
  CHECK(codebook.lower(0) == -kInfinity);
  CHECK(codebook.upper(2) == kInfinity);
}

TEST_CASE("wrong requests are refused") {
  check_error([] { Codebook::of_levels({}); }, {"at least one level"});
  check_error([] { Codebook::of_levels({1, 1}); }, {"ascend", "1"});
  check_error([] { lloyd_max(Density::gaussian(), 0); }, {"at least one level", "0"});
  check_error([] { centroid_shift(Density::uniform(0, 1), 3, 1); }, {"no probability", "3"});
  check_error([] { centroid_shift_expansion(Density::gaussian(), 0, 1, 3); }, {"1 or 2", "3"});
  check_error([] { uniform_bins(Density::gaussian(), 0, 0, 4); }, {"low < high"});
  check_error([] { uniform_bins(Density::gaussian(), 0, 1, 0); }, {"at least 1"});
}

}  // namespace
}  // namespace ruq::test
