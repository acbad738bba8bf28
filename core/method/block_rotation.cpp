#include "ruquant/method/block_rotation.hpp"

#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

// The columns [begin, begin + count·width) of every token, cut into rows of one block each: row
// token·count + block, as the official codes pool them.
template <class S>
Matrix<S> pooled_blocks(const Matrix<S>& tensor, Index begin, Index count, Index width) {
  Matrix<S> samples(tensor.rows() * count, width);
  for (Index t = 0; t < tensor.rows(); ++t) {
    for (Index b = 0; b < count; ++b) {
      samples.row(t * count + b) = tensor.row(t).segment(begin + b * width, width);
    }
  }
  return samples;
}

template <class S>
void put_back(const Matrix<S>& samples, Index begin, Index count, Matrix<S>& tensor) {
  const Index width = samples.cols();
  for (Index t = 0; t < tensor.rows(); ++t) {
    for (Index b = 0; b < count; ++b) {
      tensor.row(t).segment(begin + b * width, width) = samples.row(t * count + b);
    }
  }
}

template <class S>
BlockDiagonal<double> map_blocks(Matrix<S>& tensor, const BlockLayout& layout, bool share,
                                 const MapBuilder<S>& build) {
  BlockDiagonal<double> step;
  const auto add_map = [&](Index first_block, Index count) {
    const Index begin = first_block * layout.block;
    Matrix<S> samples = pooled_blocks(tensor, begin, count, layout.block_width(first_block));
    step.maps.push_back({build(samples), {}});
    step.which.insert(step.which.end(), static_cast<std::size_t>(count), std::ssize(step.maps) - 1);
    put_back(samples, begin, count, tensor);
  };
  if (share && layout.full_blocks() > 0) {
    add_map(0, layout.full_blocks());
  } else {
    for (Index b = 0; b < layout.full_blocks(); ++b) add_map(b, 1);
  }
  if (layout.remainder() > 0) add_map(layout.full_blocks(), 1);
  return step;
}

}  // namespace

template <class S>
Transform<double> block_rotation(Matrix<S>& tensor, const BlockLayout& layout,
                                 const BlockRotationOptions& options, const MapBuilder<S>& build,
                                 Draws* draws) {
  Transform<double> transform(layout.width);
  transform.append(map_blocks(tensor, layout, options.share_blocks, build));
  for (Index i = 0; i < options.permutations; ++i) {
    auto order = channel_order(tensor, layout, partition(options.partition), draws);
    if (!order.empty()) {
      Transform<double> deal(layout.width);
      deal.append(Permutation{std::move(order)});
      deal.cast<S>().apply(tensor);
      transform = transform.then(deal);
    }
    transform.append(map_blocks(tensor, layout, options.share_blocks, build));
  }
  return transform;
}

void bind(Fields& fields, BlockRotationOptions& options) {
  fields.add("permutations", options.permutations, {.min = 0, .max = 16},
             "T: how many times a permutation and another block map follow the first map");
  fields.add_choice(
      "partition", options.partition, partition_names(),
      "how channels are dealt to the blocks between the maps; contiguous: not at all");
  fields.add("share_blocks", options.share_blocks,
             "one map for all blocks of a site, or one map a block");
}

void check_block_size(const ModelConfig& config, Index block_size, bool ragged) {
  for (const SiteKind kind : kLinearSites) {
    with_context(fmt::format("method.block_size, {}", to_string(kind)),
                 [&] { return block_layout(config.site_width(kind), block_size, ragged); });
  }
}

template Transform<double> block_rotation(Matrix<float>&, const BlockLayout&,
                                          const BlockRotationOptions&, const MapBuilder<float>&,
                                          Draws*);
template Transform<double> block_rotation(Matrix<double>&, const BlockLayout&,
                                          const BlockRotationOptions&, const MapBuilder<double>&,
                                          Draws*);

}  // namespace ruq
