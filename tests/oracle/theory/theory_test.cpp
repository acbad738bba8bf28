// The theory room against numbers worked out with 40 digits.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/theory/clipping.hpp"
#include "ruquant/theory/density.hpp"
#include "ruquant/theory/lloyd_max.hpp"
#include "ruquant/theory/uniform_quantizer.hpp"
#include "support/oracle.hpp"

namespace ruq::test {
namespace {

// The fixtures' numbering; only the first three have a deviation to choose.
Density fixture_density(Index kind, double deviation) {
  switch (kind) {
    case 0:
      return Density::gaussian(deviation);
    case 1:
      return Density::laplace(deviation);
    case 2:
      return Density::student_t(5, deviation);
    case 3:
      return Density::exponential(1);
    default:
      fail("the fixture names a density {}", kind);
  }
}

Vector<double> as_vector(const std::vector<double>& values) {
  return Eigen::Map<const Vector<double>>(values.data(), std::ssize(values));
}

void check_number(double found, double reference, double scale, const std::string& what) {
  const Vector<double> a = Vector<double>::Constant(1, found);
  const Vector<double> b = Vector<double>::Constant(1, reference);
  check_close_at(a, b, 1e-9, scale, what);
}

void check_uniform(const OracleCase& c, const Density& density, const std::string& name,
                   UniformKind kind) {
  const auto reference = [&](const char* part) { return c.real(name + part); };
  const UniformQuantizer quantizer = optimal_uniform(density, c.integer("bits"), kind);
  const UniformError error = uniform_error(density, quantizer);
  const auto check = [&](double found, const char* part) {
    check_number(found, reference(part), reference(part), name + part);
  };
  check(quantizer.step, "_step");
  check(error.squared_error, "_mse");
  check(error.sqnr_db, "_sqnr_db");
  check(error.overload_share, "_overload_share");
  check(error.tail_probability, "_tail_prob");
  // Two or three levels are at their centroids: a gain of zero, to be seen beside the error.
  const double gain = reference("_centroid_gain");
  const double scale = gain > 1e-12 * error.squared_error ? gain : error.squared_error;
  check_number(error.centroid_gain, gain, scale, name + "_centroid_gain");
}

TEST_CASE("optimal scalar quantizers") {
  for_each_case("theory_scalar_quantizers", [](const OracleCase& c) {
    const Density density = fixture_density(c.integer("density"), c.real("sigma"));
    const Index bits = c.integer("bits");
    INFO("density " << c.integer("density") << ", " << bits << " bits");

    const Codebook best = lloyd_max(density, Index{1} << bits);
    check_close(as_vector(best.levels), c.vector("levels"), 1e-9, "levels");
    const Vector<double> thresholds = c.vector("thresholds");
    // The single threshold of one bit is zero and has no scale of its own: that of the levels.
    const double scale = bits == 1 ? best.levels.back() : thresholds.cwiseAbs().maxCoeff();
    check_close_at(as_vector(best.thresholds), thresholds, 1e-9, scale, "thresholds");
    const double error = distortion(density, best);
    check_number(error, c.real("lloyd_mse"), c.real("lloyd_mse"), "lloyd_mse");
    check_number(sqnr_db(density, error), c.real("lloyd_sqnr_db"), c.real("lloyd_sqnr_db"),
                 "lloyd_sqnr_db");

    check_uniform(c, density, "midrise", UniformKind::midrise);
    if (bits == 1) return;
    check_uniform(c, density, "midtread", UniformKind::midtread);
    check_uniform(c, density, "twos", UniformKind::twos);
  });
}

TEST_CASE("centroid shift of a cell and its expansion") {
  for_each_case("theory_centroid_shift", [](const OracleCase& c) {
    const std::vector<Index> kinds = c.integers("density");
    const Vector<double> midpoint = c.vector("midpoint");
    const Vector<double> width = c.vector("width");
    Vector<double> shift(midpoint.size()), lead1(midpoint.size()), lead2(midpoint.size()),
        probability(midpoint.size());
    REQUIRE(std::ssize(kinds) == midpoint.size());
    for (Index i = 0; i < midpoint.size(); ++i) {
      const Density density = fixture_density(kinds[static_cast<std::size_t>(i)], 1);
      const double m = midpoint[i];
      const double w = width[i];
      shift[i] = centroid_shift(density, m, w);
      lead1[i] = centroid_shift_expansion(density, m, w, 1);
      lead2[i] = centroid_shift_expansion(density, m, w, 2);
      probability[i] = density.probability(m - w / 2, m + w / 2);
    }
    check_close(shift, c.vector("shift"), 1e-10, "shift");
    check_close(lead1, c.vector("lead1"), 1e-10, "lead1");
    check_close(lead2, c.vector("lead2"), 1e-10, "lead2");
    check_close(probability, c.vector("probability"), 1e-10, "probability");
  });
}

TEST_CASE("clip points and Panter-Dite constants") {
  for_each_case("theory_clipping", [](const OracleCase& c) {
    const std::vector<Index> bits = c.integers("bits");
    Vector<double> gauss(std::ssize(bits)), laplace(std::ssize(bits));
    for (Index i = 0; i < std::ssize(bits); ++i) {
      const Index b = bits[static_cast<std::size_t>(i)];
      gauss[i] = aciq_clip(Density::gaussian(), b);
      laplace[i] = aciq_clip(Density::laplace(std::sqrt(2.0)), b);
    }
    check_close(gauss, c.vector("aciq_gauss"), 1e-9, "aciq_gauss");
    check_close(laplace, c.vector("aciq_laplace_over_beta"), 1e-9, "aciq_laplace_over_beta");

    const Vector<double> degrees = c.vector("panter_dite_nu");
    Vector<double> constants(degrees.size());
    for (Index i = 0; i < degrees.size(); ++i) {
      constants[i] = Density::student_t(degrees[i], 3).panter_dite();
    }
    check_close(constants, c.vector("panter_dite_c"), 1e-9, "panter_dite_c");
    const Vector<double> three =
        as_vector({Density::gaussian(2).panter_dite(), Density::laplace(2).panter_dite(),
                   Density::uniform(-1, 4).panter_dite()});
    check_close(three, c.vector("panter_dite_gauss_laplace_uniform"), 1e-9,
                "panter_dite_gauss_laplace_uniform");
  });
}

}  // namespace
}  // namespace ruq::test
