#include "ruquant/transform/search_map.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("the base rotation is orthogonal and its first row is constant") {
  for (const Index block : {1, 2, 3, 5, 12, 20, 28, 96, 128}) {
    CAPTURE(block);
    const Matrix<double> r = duquant_base_rotation(block);
    CHECK(orthogonality_error(r) < 1e-13);
    CHECK((r.row(0).array() - 1 / std::sqrt(double(block))).abs().maxCoeff() < 1e-14);
  }
}

TEST_CASE("random factors are orthogonal, of any size") {
  Stream draws(1, "factor");
  for (const Index n : {0, 1, 2, 7, 64}) {
    CAPTURE(n);
    const Matrix<double> factor = random_orthogonal_factor(n, draws);
    REQUIRE(factor.rows() == n);
    if (n > 0) CHECK(orthogonality_error(factor) < 1e-13);
  }
}

// A search with its trace and the factors it was given.
struct Search {
  Matrix<double> before, after, map;
  std::vector<Matrix<double>> factors;
  SearchMapTrace trace;

  Search(Matrix<double> samples, const SearchMapOptions& options)
      : before(std::move(samples)), after(before) {
    Stream draws(4, "search");
    const FactorSource next = [&] {
      factors.push_back(random_orthogonal_factor(before.cols() - 1, draws));
      return factors.back();
    };
    map = build_search_map(after, options, next, &trace);
  }

  // R_1…R_n multiplied up from the traced swaps: E_j·R̃·diag(1, C')·E_j.
  Matrix<double> prefix(Index n) const {
    const Index block = before.cols();
    Matrix<double> product = Matrix<double>::Identity(block, block);
    for (Index k = 0; k < n; ++k) {
      Matrix<double> c = Matrix<double>::Identity(block, block);
      c.bottomRightCorner(block - 1, block - 1) =
          factors[std::min(std::size_t(k), factors.size() - 1)];
      Matrix<double> swap = Matrix<double>::Identity(block, block);
      const Index j = trace.swap_indices[std::size_t(k)];
      swap.row(0).swap(swap.row(j));
      product = product * swap * duquant_base_rotation(block) * c * swap;
    }
    return product;
  }
};

TEST_CASE("the search returns its best prefix") {
  for (const SwapIndex index : {SwapIndex::row, SwapIndex::channel}) {
    for (const Index block : {2, 5, 16}) {
      CAPTURE(block);
      const Search search(gaussian(600, block, "search", 1), {.steps = 12, .index = index});
      REQUIRE(search.trace.peaks.size() == 13);
      const auto best = std::min_element(search.trace.peaks.begin(), search.trace.peaks.end());
      CHECK(search.trace.prefix_length == best - search.trace.peaks.begin());
      CHECK(relative_error(search.map, search.prefix(search.trace.prefix_length)) < 1e-12);
      CHECK(relative_error(search.after, (search.before * search.map).eval()) < 1e-12);
      CHECK(orthogonality_error(search.map) < 1e-12);
      CHECK(search.factors.size() == (index == SwapIndex::row ? 1 : 12));
    }
  }
}

TEST_CASE("the score and the swap follow the reading: the code's row, the paper's channel") {
  Matrix<double> x = 0.1 * gaussian(40, 6, "swap");
  x(22, 4) = -7;
  x(3, 1) = 5;
  const Search by_row(x, {.steps = 1, .index = SwapIndex::row});
  CHECK(by_row.trace.swap_rows[0] == 22);
  CHECK(by_row.trace.swap_indices[0] == 22 % 6);
  CHECK(by_row.trace.peaks[0] == 12);
  const Search by_channel(x, {.steps = 1, .index = SwapIndex::channel});
  CHECK(by_channel.trace.swap_indices[0] == 4);
  CHECK(by_channel.trace.peaks[0] == 7);
}

TEST_CASE("the paper's step spreads the extreme entry over all channels") {
  Matrix<double> x = Matrix<double>::Zero(1, 9);
  x(0, 5) = 6;
  const Search search(x, {.steps = 1, .index = SwapIndex::channel});
  // Row 0 of R̃·diag(1, C') is R̃'s constant row with its tail turned by C', so channel 5 keeps
  // exactly 1/√9 of the spike.
  CHECK(search.after(0, 5) == doctest::Approx(2));
  CHECK(search.after.norm() == doctest::Approx(6));
  CHECK(search.trace.prefix_length == 1);
}

TEST_CASE("when no step helps the prefix is empty and the samples stay") {
  const Search flat(Matrix<double>::Ones(10, 8), {.steps = 5, .index = SwapIndex::row});
  CHECK(flat.trace.prefix_length == 0);
  CHECK(flat.map == Matrix<double>::Identity(8, 8));
  CHECK(flat.after == flat.before);

  Matrix<double> corner = Matrix<double>::Ones(1, 8);
  corner(0, 3) = corner(0, 6) = -1;
  const Search even(corner, {.steps = 5, .index = SwapIndex::channel});
  CHECK(even.trace.prefix_length == 0);
  CHECK(*std::max_element(even.trace.peaks.begin(), even.trace.peaks.end()) > 1.01);

  const Search none(gaussian(10, 4, "none"), {.steps = 0});
  CHECK(none.map == Matrix<double>::Identity(4, 4));
}

TEST_CASE("a block of one channel searches nothing and fails on nothing") {
  const Search one(gaussian(10, 1, "one"), {.steps = 3});
  CHECK(std::abs(one.map(0, 0)) == 1);
}

TEST_CASE("two threads find the map of one") {
  const Search one(gaussian(4000, 16, "threads", 1), {.steps = 8});
  set_threads(2);
  const Search two(gaussian(4000, 16, "threads", 1), {.steps = 8});
  set_threads(1);
  CHECK(one.map == two.map);
  CHECK(one.trace.prefix_length == two.trace.prefix_length);
}

}  // namespace
}  // namespace ruq::test
