#include "ruquant/base/rng.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "support/errors.hpp"

namespace ruq::test {
namespace {

TEST_CASE("the numbers of a stream are fixed for all time") {
  // Worked out apart from the library: Philox 4x64-10 keyed by (1, FNV-1a of "layer3/attn_in").
  Stream stream(1, "layer3/attn_in");
  const Vector<double> u = stream.uniform(5);
  const std::array<double, 5> expected = {0.5384033960321372, 0.5372411186347921,
                                          0.05317528796794779, 0.48835647676391036,
                                          0.06802979215954674};
  for (Index i = 0; i < 5; ++i) CHECK(u(i) == expected[std::size_t(i)]);
}

TEST_CASE("FNV-1a of known texts") {
  CHECK(hash_text("") == 0xcbf29ce484222325ULL);
  CHECK(hash_text("a") == 0xaf63dc4c8601ec8cULL);
  CHECK(hash_text("foobar") == 0x85944171f73967e8ULL);
  const std::string text = "foobar";
  CHECK(hash_bytes(text.data() + 3, 3, hash_bytes(text.data(), 3)) == hash_text("foobar"));
}

TEST_CASE("a stream depends on seed and name, and on nothing drawn elsewhere") {
  const auto first = [](std::uint64_t seed, const char* name) {
    return Stream(seed, name).uniform(4);
  };
  CHECK(first(1, "a") == first(1, "a"));
  CHECK(first(1, "a") != first(2, "a"));
  CHECK(first(1, "a") != first(1, "b"));

  Stream parent(1, "a");
  const Vector<double> before = parent.child("x").uniform(3);
  parent.uniform(100);
  CHECK(parent.child("x").uniform(3) == before);
  CHECK(parent.child("x").name() == "a/x");
  CHECK(before == Stream(1, "a/x").uniform(3));
  CHECK(parent.child("y").uniform(3) != before);
}

TEST_CASE("draws in pieces continue the stream") {
  Stream whole(5, "pieces"), pieces(5, "pieces");
  const Vector<double> all = whole.uniform(11);
  Vector<double> joined(11);
  joined << pieces.uniform(3), pieces.uniform(1), pieces.uniform(7);
  CHECK(joined == all);
  CHECK(pieces.uniform(2) != all.head(2));
}

TEST_CASE("uniform numbers fill [0, 1) evenly") {
  const Index n = 100000;
  const Vector<double> u = Stream(1, "uniform").uniform(n);
  CHECK(u.minCoeff() >= 0);
  CHECK(u.maxCoeff() < 1);
  std::array<int, 20> bins = {};
  for (const double x : u) ++bins[std::size_t(x * 20)];
  for (const int count : bins) CHECK(std::abs(count - 5000) < 5 * std::sqrt(5000.0));
  // Neighbours are uncorrelated.
  const auto centred = u.array() - 0.5;
  const double correlation = (centred.head(n - 1) * centred.tail(n - 1)).mean() * 12;
  CHECK(std::abs(correlation) < 5 / std::sqrt(double(n)));
}

TEST_CASE("normal numbers have the moments of the normal distribution") {
  const Matrix<double> z = Stream(2, "normal").normal(301, 333);
  const double n = double(z.size());
  CHECK(std::abs(z.mean()) < 5 / std::sqrt(n));
  CHECK(std::abs(z.squaredNorm() / n - 1) < 5 * std::sqrt(2 / n));
  CHECK(std::abs(z.array().cube().mean()) < 5 * std::sqrt(15 / n));
  CHECK(std::abs(z.array().square().square().mean() - 3) < 5 * std::sqrt(96 / n));
  CHECK(z.allFinite());
  const double inside = double((z.array().abs() < 1).count()) / n;
  CHECK(std::abs(inside - 0.682689) < 5 * std::sqrt(0.22 / n));
}

TEST_CASE("permutations hold every index once, and all orders are equally likely") {
  Stream stream(3, "permutation");
  for (const Index n : {0, 1, 2, 17, 1000}) {
    auto order = stream.permutation(n);
    REQUIRE(std::ssize(order) == n);
    std::sort(order.begin(), order.end());
    for (Index i = 0; i < n; ++i) REQUIRE(order[std::size_t(i)] == i);
  }
  std::map<std::vector<Index>, int> counts;
  for (int i = 0; i < 24000; ++i) ++counts[stream.permutation(4)];
  CHECK(counts.size() == 24);
  for (const auto& [order, count] : counts) CHECK(std::abs(count - 1000) < 5 * std::sqrt(1000.0));
}

TEST_CASE("signs are ±1, evenly") {
  const Vector<double> signs = Stream(4, "signs").signs(10000);
  CHECK((signs.array().abs() == 1).all());
  CHECK(std::abs(signs.sum()) < 5 * std::sqrt(10000.0));
}

}  // namespace
}  // namespace ruq::test
