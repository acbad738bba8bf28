#include "ruquant/transform/partition.hpp"

#include <algorithm>
#include <numeric>

#include "ruquant/base/error.hpp"
#include "ruquant/base/named.hpp"

namespace ruq {
namespace {

// The channels of every block, in the order in which it got them.
using Hands = std::vector<std::vector<Index>>;

std::vector<Index> joined(const Hands& hands) {
  std::vector<Index> order;
  for (const auto& hand : hands) order.insert(order.end(), hand.begin(), hand.end());
  return order;
}

// Channels from the largest value to the smallest, stable.
template <class S>
std::vector<Index> by_falling(const RowVector<S>& value) {
  std::vector<Index> sorted(static_cast<std::size_t>(value.size()));
  std::iota(sorted.begin(), sorted.end(), Index{0});
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](Index a, Index b) { return value(a) > value(b); });
  return sorted;
}

}  // namespace

BlockLayout block_layout(Index width, Index block, bool ragged) {
  if (block < 1) fail("block_size: found {}, expected at least 1", block);
  if (block > width) {
    fail("block_size: found {}, expected at most the width of the site, {}", block, width);
  }
  if (width % block != 0 && !ragged) {
    Index below = block;
    while (width % below != 0) --below;
    Index above = block;
    while (width % above != 0) ++above;
    fail(
        "block_size: {} does not divide the width {} and ragged blocks are off; nearest that do: "
        "{} and {}",
        block, width, below, above);
  }
  return {width, block};
}

template <class S>
std::vector<Index> zigzag_order(const Matrix<S>& tensor, const BlockLayout& layout) {
  const RowVector<S> largest = tensor.cwiseAbs().colwise().maxCoeff();
  const Index n = layout.blocks();
  Hands hands(static_cast<std::size_t>(n));
  Index turn = 0;
  for (const Index channel : by_falling(largest)) {
    const auto receiver = [&] {
      const Index r = turn++ % (2 * n);
      return r < n ? r : 2 * n - 1 - r;
    };
    Index block = receiver();
    while (std::ssize(hands[static_cast<std::size_t>(block)]) == layout.block_width(block)) {
      block = receiver();
    }
    hands[static_cast<std::size_t>(block)].push_back(channel);
  }

  return joined(hands);
}

template <class S>
std::vector<Index> mass_order(const Matrix<S>& tensor, const BlockLayout& layout) {
  const RowVector<double> mass = tensor.template cast<double>().cwiseAbs().colwise().sum();
  const Index n = layout.blocks();
  Hands hands(static_cast<std::size_t>(n));
  Vector<double> held = Vector<double>::Zero(n);
  for (const Index channel : by_falling(mass)) {
    Index poorest = -1;
    for (Index b = 0; b < n; ++b) {
      const bool full = std::ssize(hands[static_cast<std::size_t>(b)]) == layout.block_width(b);
      if (!full && (poorest < 0 || held(b) < held(poorest))) poorest = b;
    }
    held(poorest) += mass(channel);
    hands[static_cast<std::size_t>(poorest)].push_back(channel);
  }
  return joined(hands);
}

std::vector<std::string> partition_names() { return {"zigzag", "contiguous", "random", "mass"}; }

Partition partition(const std::string& name) {
  return named<Partition>("partition", partition_names(), name);
}

template <class S>
std::vector<Index> channel_order(const Matrix<S>& tensor, const BlockLayout& layout,
                                 Partition partition, Draws* draws) {
  switch (partition) {
    case Partition::zigzag:
      return zigzag_order(tensor, layout);
    case Partition::random:
      RUQ_CHECK(draws != nullptr, "a random partition without {}", "draws");
      return draws->permutation(layout.width);
    case Partition::mass:
      return mass_order(tensor, layout);
    default:
      return {};
  }
}

#define RUQ_INSTANTIATE(S)                                                                   \
  template std::vector<Index> zigzag_order(const Matrix<S>&, const BlockLayout&);            \
  template std::vector<Index> mass_order(const Matrix<S>&, const BlockLayout&);              \
  template std::vector<Index> channel_order(const Matrix<S>&, const BlockLayout&, Partition, \
                                            Draws*);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
