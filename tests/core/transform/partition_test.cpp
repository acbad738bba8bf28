#include "ruquant/transform/partition.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

using Order = std::vector<Index>;

// A token whose channels have the given sizes.
Matrix<double> sizes(std::initializer_list<double> values) {
  Matrix<double> x(1, std::ssize(values));
  std::copy(values.begin(), values.end(), x.data());
  return x;
}

TEST_CASE("a layout counts full blocks and the remainder") {
  const BlockLayout even = block_layout(12, 4, false);
  CHECK(even.blocks() == 3);
  CHECK(even.remainder() == 0);
  CHECK(even.block_width(2) == 4);
  const BlockLayout ragged = block_layout(576, 128, true);
  CHECK(ragged.full_blocks() == 4);
  CHECK(ragged.blocks() == 5);
  CHECK(ragged.block_width(3) == 128);
  CHECK(ragged.block_width(4) == 64);
  CHECK(block_layout(5, 5, false).blocks() == 1);
}

TEST_CASE("blocks that do not fit are refused with the nearest widths that do") {
  check_error([] { block_layout(576, 128, false); }, {"128", "576", "96", "144"});
  check_error([] { block_layout(28, 8, false); }, {"7 and 14"});
  check_error([] { block_layout(23, 2, false); }, {"1 and 23"});
  check_error([] { block_layout(12, 13, true); }, {"13", "12"});
  check_error([] { block_layout(12, 0, true); }, {"0", "at least 1"});
}

TEST_CASE("zigzag deals as in the worked example of the specification") {
  Matrix<double> x(1, 16);
  for (Index j = 0; j < 16; ++j) x(0, j) = double(16 - j);
  CHECK(zigzag_order(x, block_layout(16, 4, false)) ==
        Order{0, 7, 8, 15, 1, 6, 9, 14, 2, 5, 10, 13, 3, 4, 11, 12});
}

TEST_CASE("zigzag ranks channels by their largest entry of any sign over all tokens") {
  Matrix<double> x(2, 4);
  x << 1, -9, 2, 0.5,  //
      3, 1, -2, 5;
  CHECK(zigzag_order(x, block_layout(4, 4, false)) == Order{1, 3, 0, 2});
  CHECK(zigzag_order(x, block_layout(4, 2, false)) == Order{1, 2, 3, 0});
  CHECK(zigzag_order(x.cast<float>().eval(), block_layout(4, 2, false)) == Order{1, 2, 3, 0});
}

TEST_CASE("equal channels keep their order") {
  CHECK(zigzag_order(sizes({1, 1, 2, 1, 2, 1}), block_layout(6, 6, false)) ==
        Order{2, 4, 0, 1, 3, 5});
}

TEST_CASE("one block is a plain descending sort") {
  CHECK(zigzag_order(sizes({3, 1, 4, 2}), block_layout(4, 4, false)) == Order{2, 0, 3, 1});
}

TEST_CASE("a full block is skipped") {
  // Blocks of 4, 4 and 2 channels; the deal goes 0 1 2 2 1 0 0 1 (2 2 full) 1 0.
  CHECK(zigzag_order(sizes({10, 9, 8, 7, 6, 5, 4, 3, 2, 1}), block_layout(10, 4, true)) ==
        Order{0, 5, 6, 9, 1, 4, 7, 8, 2, 3});
}

TEST_CASE("a zigzag order is a permutation, and balances the blocks") {
  for (const Index width : {1, 2, 3, 5, 12, 20, 28, 96, 172, 344}) {
    for (const Index block : {1, 2, 8, 64}) {
      if (block > width) continue;
      CAPTURE(width);
      CAPTURE(block);
      const BlockLayout layout = block_layout(width, block, true);
      const Matrix<double> x = gaussian(6, width, "zigzag");
      Order order = zigzag_order(x, layout);
      const RowVector<double> peaks = x.cwiseAbs().colwise().maxCoeff();
      // Within a block the deal is descending.
      for (Index b = 0, begin = 0; b < layout.blocks(); begin += layout.block_width(b++)) {
        for (Index j = begin + 1; j < begin + layout.block_width(b); ++j) {
          CHECK(peaks(order[std::size_t(j - 1)]) >= peaks(order[std::size_t(j)]));
        }
      }
      std::sort(order.begin(), order.end());
      for (Index j = 0; j < width; ++j) REQUIRE(order[std::size_t(j)] == j);
    }
  }
}

TEST_CASE("mass is dealt evenly: the richest channel first, each to the poorest block") {
  // Masses 9, 7, 6, 5, 4, 2 in two blocks of three: 9 | 7 6 | 9+5 | 7+6+... full at three.
  Matrix<double> x(1, 6);
  x << 2, -9, 5, 4, 7, -6;
  const BlockLayout layout = block_layout(6, 3, false);
  CHECK(mass_order(x, layout) == std::vector<Index>{1, 2, 0, 4, 5, 3});
  // {9, 5, 2} and {7, 6, 4}: 16 and 17.
}

TEST_CASE("mass counts all tokens, and is more even than blocks as they come") {
  for (const Index width : {24, 22}) {
    const Matrix<double> x = gaussian(9, width, "mass", 3);
    const BlockLayout layout = block_layout(width, 4, true);
    const std::vector<Index> order = mass_order(x, layout);
    std::vector<Index> sorted = order;
    std::sort(sorted.begin(), sorted.end());
    for (Index i = 0; i < width; ++i) CHECK(sorted[static_cast<std::size_t>(i)] == i);
    const auto spread = [&](const std::vector<Index>& channels) {
      double least = 1e300, most = 0;
      for (Index b = 0; b < layout.full_blocks(); ++b) {
        double mass = 0;
        for (Index j = 0; j < 4; ++j) {
          mass += x.col(channels[static_cast<std::size_t>(4 * b + j)]).cwiseAbs().sum();
        }
        least = std::min(least, mass);
        most = std::max(most, mass);
      }
      return most - least;
    };
    std::vector<Index> as_they_come(static_cast<std::size_t>(width));
    std::iota(as_they_come.begin(), as_they_come.end(), Index{0});
    CHECK(spread(order) < spread(as_they_come));
  }
}

TEST_CASE("partitions by name") {
  const Matrix<double> x = gaussian(5, 12, "x", 1);
  const BlockLayout layout = block_layout(12, 4, true);
  Stream draws(1, "random"), again(1, "random");
  for (const std::string& name : partition_names()) {
    const std::vector<Index> order = channel_order(x, layout, partition(name), &draws);
    CHECK(order.size() == (name == "contiguous" ? 0 : 12));
    if (name == "random") CHECK(order == again.permutation(12));
    if (name == "zigzag") CHECK(order == zigzag_order(x, layout));
  }
  check_error([] { partition("zigzac"); }, {"unknown partition 'zigzac'", "zigzag"});
}

}  // namespace
}  // namespace ruq::test
