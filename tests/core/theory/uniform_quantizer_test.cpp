#include "ruquant/theory/uniform_quantizer.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "ruquant/base/rng.hpp"
#include "support/errors.hpp"

namespace ruq::test {
namespace {

struct Row {
  double step, db;
};

// Rows for first, first + 1, ... bits, of unit deviation; the density may be scaled.
void check_table(const Density& density, UniformKind kind, Index first,
                 const std::vector<Row>& rows) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Index bits = first + static_cast<Index>(i);
    CAPTURE(bits);
    const UniformQuantizer quantizer = optimal_uniform(density, bits, kind);
    CHECK(std::abs(quantizer.step / density.deviation() - rows[i].step) < 6e-6);
    CHECK(std::abs(uniform_error(density, quantizer).sqnr_db - rows[i].db) < 1e-3);
  }
}

TEST_CASE("the best midrise steps are the tabulated ones") {
  check_table(Density::gaussian(2.5), UniformKind::midrise, 1,
              {{1.59577, 4.396},
               {.99569, 9.250},
               {.58602, 14.267},
               {.33520, 19.377},
               {.18814, 24.565},
               {.10406, 29.829},
               {.05687, 35.167},
               {.03076, 40.571}});
  check_table(Density::laplace(), UniformKind::midrise, 1,
              {{1.41421, 3.010},
               {1.08739, 7.071},
               {.73093, 11.442},
               {.46100, 15.960},
               {.27999, 20.598},
               {.16568, 25.356},
               {.09610, 30.229},
               {.05484, 35.208}});
  check_table(Density::student_t(5, 0.1), UniformKind::midrise, 1,
              {{1.47021, 3.376},
               {1.07704, 7.158},
               {.73232, 10.900},
               {.48913, 14.581},
               {.32500, 18.223},
               {.21542, 21.845},
               {.14257, 25.457},
               {.09425, 29.067}});
  check_table(Density::student_t(3), UniformKind::midrise, 1,
              {{1.27324, 2.257},
               {1.08202, 4.708},
               {.87082, 7.007},
               {.69062, 9.171},
               {.54594, 11.259},
               {.43190, 13.306},
               {.34214, 15.334},
               {.27127, 17.352}});
}

TEST_CASE("the best midtread steps are the tabulated ones") {
  check_table(Density::gaussian(), UniformKind::midtread, 2,
              {{1.22401, 7.208},
               {.65077, 13.292},
               {.35341, 18.898},
               {.19325, 24.326},
               {.10549, 29.709},
               {.05726, 35.106},
               {.03087, 40.540}});
  check_table(Density::laplace(), UniformKind::midtread, 2,
              {{1.41421, 5.780},
               {.82175, 10.805},
               {.48688, 15.623},
               {.28746, 20.417},
               {.16785, 25.259},
               {.09673, 30.178},
               {.05502, 35.181}});
}

TEST_CASE("two's complement loses little to its missing level") {
  const std::vector<double> table = {8.256, 13.911, 19.258, 24.527, 29.818, 35.163, 40.570};
  for (std::size_t i = 0; i < table.size(); ++i) {
    const Density gaussian = Density::gaussian();
    const auto quantizer = optimal_uniform(gaussian, static_cast<Index>(i) + 2, UniformKind::twos);
    CHECK(std::abs(uniform_error(gaussian, quantizer).sqnr_db - table[i]) < 1e-3);
  }
}

TEST_CASE("a uniform source fills all its levels") {
  const Density flat = Density::uniform(-1, 1);
  for (Index bits = 2; bits <= 8; ++bits) {
    const double n = std::ldexp(1.0, static_cast<int>(bits));
    const auto rise = optimal_uniform(flat, bits, UniformKind::midrise);
    CHECK(rise.step == doctest::Approx(2 / n).epsilon(1e-10));
    const UniformError error = uniform_error(flat, rise);
    CHECK(error.sqnr_db == doctest::Approx(20 * std::log10(n)).epsilon(1e-10));
    CHECK(error.centroid_gain < 1e-20);
    CHECK(error.tail_probability < 1e-9);
    const auto tread = optimal_uniform(flat, bits, UniformKind::midtread);
    CHECK(uniform_error(flat, tread).sqnr_db ==
          doctest::Approx(20 * std::log10(n - 1)).epsilon(1e-10));
  }
}

TEST_CASE("overload at the optimum, and what centroids would save") {
  struct Share {
    Index bits;
    double overload, tail, inner, outer;
  };
  const auto check = [](const Density& density, const std::vector<Share>& shares) {
    for (const Share& share : shares) {
      CAPTURE(share.bits);
      const auto quantizer = optimal_uniform(density, share.bits, UniformKind::midrise);
      const UniformError error = uniform_error(density, quantizer);
      CHECK(std::abs(error.overload_share - share.overload) < 6e-4);
      CHECK(std::abs(error.tail_probability / share.tail - 1) < 0.2);
      CHECK(std::abs(error.centroid_gain / error.squared_error - share.inner - share.outer) < 2e-4);
    }
  };
  check(Density::gaussian(), {{4, .195, .0073, .0065, .0471},
                              {6, .133, .0009, .0008, .0563},
                              {8, .101, .0001, .00007, .0492}});
  check(Density::laplace(), {{4, .296, .0054, .0241, .0934},
                             {6, .214, .0006, .0036, .0937},
                             {8, .168, .00005, .0004, .0809}});
}

TEST_CASE("the gain of centroids is the error they save on the same thresholds") {
  const Density density = Density::student_t(4);
  const auto quantizer = optimal_uniform(density, 3, UniformKind::twos);
  double saved = 0;
  for (Index i = 0; i < quantizer.codebook.size(); ++i) {
    const double a = quantizer.codebook.lower(i);
    const double b = quantizer.codebook.upper(i);
    saved += density.moments(a, b, quantizer.codebook.levels[static_cast<std::size_t>(i)]).m2 -
             density.moments(a, b, density.centroid(a, b).value()).m2;
  }
  CHECK(uniform_error(density, quantizer).centroid_gain == doctest::Approx(saved).epsilon(1e-10));
}

TEST_CASE("no other step is better, for a density and for samples") {
  Stream stream(8, "steps");
  const Vector<double> draws = stream.normal(300, 1).col(0).array().cube();
  for (const Density& density : {Density::student_t(2.1), Density::exponential(3),
                                 Density::empirical({draws.begin(), draws.end()})}) {
    for (const UniformKind kind :
         {UniformKind::midrise, UniformKind::midtread, UniformKind::twos}) {
      const auto quantizer = optimal_uniform(density, 4, kind);
      const double least = distortion(density, quantizer.codebook);
      for (double factor = 0.02; factor < 50; factor *= 1.003) {
        const Codebook other = uniform_codebook(factor * quantizer.step, 4, kind);
        CHECK(distortion(density, other) >= least * (1 - 1e-12));
      }
    }
  }
}

TEST_CASE("levels of each kind") {
  CHECK(uniform_codebook(2, 1, UniformKind::midrise).levels == std::vector<double>{-1, 1});
  CHECK(uniform_codebook(2, 2, UniformKind::midrise).levels == std::vector<double>{-3, -1, 1, 3});
  CHECK(uniform_codebook(2, 2, UniformKind::midtread).levels == std::vector<double>{-2, 0, 2});
  CHECK(uniform_codebook(2, 2, UniformKind::twos).levels == std::vector<double>{-4, -2, 0, 2});
}

TEST_CASE("wrong requests are refused") {
  const Density gaussian = Density::gaussian();
  check_error([&] { optimal_uniform(gaussian, 0, UniformKind::midrise); }, {"1 to 16", "0"});
  check_error([&] { optimal_uniform(gaussian, 1, UniformKind::twos); }, {"only as midrise"});
  check_error([] { uniform_codebook(0, 4, UniformKind::twos); }, {"above zero"});
  check_error(
      [] {
        optimal_uniform(Density::empirical({2, 2}), 4, UniformKind::twos);
      },
      {"all alike"});
}

}  // namespace
}  // namespace ruq::test
