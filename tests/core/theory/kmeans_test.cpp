#include "ruquant/theory/kmeans.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "ruquant/base/rng.hpp"
#include "support/errors.hpp"

namespace ruq::test {
namespace {

struct Problem {
  std::vector<double> values, weights;
};

Problem problem(Index n, const std::string& name, bool weighted) {
  Stream stream(1, name);
  const Vector<double> x = stream.normal(n, 1).col(0).array().cube();
  const Vector<double> w = stream.uniform(n);
  Problem p{{x.begin(), x.end()}, {w.begin(), w.end()}};
  if (!weighted) p.weights.clear();
  return p;
}

// The least mean error over all ways to cut the sorted samples into k runs.
double brute_force(Problem p, std::size_t k) {
  const std::size_t n = p.values.size();
  if (p.weights.empty()) p.weights.assign(n, 1);
  std::vector<std::size_t> order(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return p.values[a] < p.values[b]; });
  const auto run = [&](std::size_t begin, std::size_t end) {
    double w = 0, wx = 0, error = 0;
    for (std::size_t i = begin; i < end; ++i) {
      w += p.weights[order[i]];
      wx += p.weights[order[i]] * p.values[order[i]];
    }
    for (std::size_t i = begin; i < end; ++i) {
      error += p.weights[order[i]] * std::pow(p.values[order[i]] - wx / w, 2);
    }
    return error;
  };
  const std::function<double(std::size_t, std::size_t)> best = [&](std::size_t begin,
                                                                   std::size_t runs) {
    if (runs == 1) return run(begin, n);
    double least = 1e300;
    for (std::size_t end = begin + 1; end + runs <= n + 1; ++end) {
      least = std::min(least, run(begin, end) + best(end, runs - 1));
    }
    return least;
  };
  double total = 0;
  for (const double w : p.weights) total += w;
  return best(0, k) / total;
}

TEST_CASE("clusters are as good as the best of all cuts") {
  for (const bool weighted : {false, true}) {
    for (const Index n : {1, 2, 5, 9, 14}) {
      const Problem p = problem(n, "cuts" + std::to_string(n), weighted);
      for (Index k = 1; k <= std::min<Index>(n, 5); ++k) {
        CAPTURE(n);
        CAPTURE(k);
        const Clusters found = kmeans(p.values, k, p.weights);
        const double least = brute_force(p, static_cast<std::size_t>(k));
        CHECK(found.codebook.size() == k);
        CHECK(std::abs(found.error - least) <= 1e-14 + 1e-12 * least);
      }
    }
  }
}

TEST_CASE("the reported error, starts and levels belong together") {
  const Problem p = problem(400, "together", true);
  const Density density = Density::empirical(p.values, p.weights);
  const Clusters found = kmeans(*density.atoms(), 12);
  CHECK(found.error == doctest::Approx(distortion(density, found.codebook)).epsilon(1e-10));
  REQUIRE(found.first.size() == 12);
  CHECK(found.first[0] == 0);
  for (std::size_t c = 1; c < 12; ++c) {
    const double value = density.atoms()->values[static_cast<std::size_t>(found.first[c])];
    CHECK(found.codebook.nearest(value) == found.codebook.levels[c]);
  }
  CHECK(lloyd_max(density, 12).levels == found.codebook.levels);
}

TEST_CASE("a weight stands for that many samples") {
  const Clusters weighted = kmeans({1, 2, 5, 9}, 2, {3, 1, 2, 2});
  const Clusters repeated = kmeans({1, 1, 1, 2, 5, 5, 9, 9}, 2);
  CHECK(weighted.error == doctest::Approx(repeated.error));
  CHECK(weighted.first == repeated.first);
}

TEST_CASE("more clusters never hurt, and as many as distinct values leave no error") {
  const Problem p = problem(60, "more", false);
  double before = 1e300;
  for (Index k = 1; k <= 60; ++k) {
    const double error = kmeans(p.values, k).error;
    CHECK(error <= before);
    before = error;
  }
  CHECK(before == 0);
  CHECK(kmeans({2, 1, 2, 1, 1}, 5).codebook.levels == std::vector<double>{1, 2});
}

TEST_CASE("clusters of evenly spaced quantiles come to the Lloyd-Max codebook of the density") {
  const Density gaussian = Density::gaussian();
  std::vector<double> quantiles;
  for (int i = 0; i < 8000; ++i) quantiles.push_back(gaussian.quantile((i + 0.5) / 8000));
  const Codebook found = kmeans(quantiles, 8).codebook;
  const Codebook limit = lloyd_max(gaussian, 8);
  for (std::size_t i = 0; i < 8; ++i) CHECK(std::abs(found.levels[i] - limit.levels[i]) < 3e-3);
}

TEST_CASE("wrong requests are refused") {
  check_error([] { kmeans({1, 2}, 0); }, {"at least one cluster", "0"});
  check_error([] { kmeans(std::vector<double>{}, 2); }, {"positive weight"});
}

}  // namespace
}  // namespace ruq::test
