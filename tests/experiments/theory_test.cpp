#include "experiments/theory.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "support/errors.hpp"

namespace ruq::test {
namespace {

using Json = nlohmann::json;

TEST_CASE("a uniform density has midpoints for centroids, and 6.02 dB a bit") {
  const Json json = Json::parse(theory_json({.density = "uniform", .bits = 4}));
  const auto best = json["lloyd_max"];
  CHECK(best["sqnr_db"].get<double>() == doctest::Approx(24.0824).epsilon(1e-5));
  CHECK(json["panter_dite_db"].get<double>() == doctest::Approx(24.0824).epsilon(1e-5));
  // Levels at both ends: the inner cells have their centroids at the levels, the end cells are cut.
  const auto grid = json["uniform"];
  REQUIRE(grid["levels"].size() == 16);
  CHECK(grid["levels"][0] == 0);
  CHECK(grid["levels"][15].get<double>() == doctest::Approx(1));
  for (std::size_t i = 1; i < 15; ++i) CHECK(std::abs(grid["shift"][i].get<double>()) < 1e-9);
  CHECK(grid["shift"][0].get<double>() == doctest::Approx(0.25));
}

TEST_CASE("a falling density pulls centroids below midpoints, and Lloyd-Max does better") {
  const Json json = Json::parse(theory_json({.density = "exponential", .bits = 3}));
  for (std::size_t i = 1; i < 7; ++i) CHECK(json["uniform"]["shift"][i].get<double>() < -0.05);
  CHECK(json["lloyd_max"]["sqnr_db"].get<double>() > json["uniform"]["sqnr_db"].get<double>());
  CHECK_FALSE(json.contains("optimal_uniform"));
}

TEST_CASE("the quantizers of a Gaussian are the textbook ones") {
  const Json json = Json::parse(theory_json({.density = "gaussian", .bits = 4}));
  CHECK(json["lloyd_max"]["sqnr_db"].get<double>() == doctest::Approx(20.22).epsilon(1e-3));
  CHECK(json["optimal_uniform"]["step"].get<double>() == doctest::Approx(0.3352).epsilon(1e-3));
}

TEST_CASE("requests without an answer are refused") {
  check_error([] { theory_json({.density = "gausian"}); }, {"gausian", "did you mean 'gaussian'"});
  check_error([] { theory_json({.bits = 9}); }, {"--bits", "9", "1 to 8"});
  check_error([] { theory_json({.density = "student_t", .degrees = 2}); }, {"--degrees", "2"});
}

}  // namespace
}  // namespace ruq::test
