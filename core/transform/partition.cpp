#include "ruquant/transform/partition.hpp"

#include <algorithm>
#include <numeric>

#include "ruquant/base/error.hpp"

namespace ruq {

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
  std::vector<Index> sorted(static_cast<std::size_t>(layout.width));
  std::iota(sorted.begin(), sorted.end(), Index{0});
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](Index a, Index b) { return largest(a) > largest(b); });

  const Index n = layout.blocks();
  std::vector<std::vector<Index>> hands(static_cast<std::size_t>(n));
  Index turn = 0;
  for (const Index channel : sorted) {
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

  std::vector<Index> order;
  order.reserve(sorted.size());
  for (const auto& hand : hands) order.insert(order.end(), hand.begin(), hand.end());
  return order;
}

template std::vector<Index> zigzag_order(const Matrix<float>&, const BlockLayout&);
template std::vector<Index> zigzag_order(const Matrix<double>&, const BlockLayout&);

}  // namespace ruq
