#include "ruquant/quant/row_levels.hpp"

#include <algorithm>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/theory/kmeans.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 16;
constexpr Index kMostBits = 8;

}  // namespace

template <class S>
Matrix<S> round_to_best_levels(const Matrix<S>& weight, const QuantSpec& spec) {
  if (spec.bits < 1 || spec.bits > kMostBits) {
    fail("levels of a row's own take 1 to {} bits, found {}", kMostBits, spec.bits);
  }
  const Index width = group_width(spec, weight.cols());
  Matrix<S> rounded(weight.rows(), weight.cols());
  parallel_rows(weight.size() / width, kGrain, [&](Index begin, Index end) {
    for (Index g = begin; g < end; ++g) {
      const S* from = weight.data() + g * width;
      const std::vector<double> values(from, from + width);
      const Codebook codebook = kmeans(values, Index{1} << spec.bits).codebook;
      for (Index c = 0; c < width; ++c) {
        rounded.data()[g * width + c] =
            static_cast<S>(codebook.nearest(static_cast<double>(from[c])));
      }
    }
  });
  return rounded;
}

template <class S>
Matrix<S> bin_centroids(const Matrix<S>& weight, const Grid<S>& grid) {
  const Index groups = grid.scale.cols();
  const Index width = weight.cols() / groups;
  const Codes codes = encode(weight, grid);
  const auto size = static_cast<std::size_t>(grid.code_max - grid.code_min + 1);
  Matrix<S> rounded(weight.rows(), weight.cols());
  parallel_rows(weight.rows() * groups, kGrain, [&](Index begin, Index end) {
    std::vector<double> sums(size);
    std::vector<Index> counts(size);
    for (Index g = begin; g < end; ++g) {
      const S* const from = weight.data() + g * width;
      const std::int32_t* const code = codes.data() + g * width;
      std::fill(sums.begin(), sums.end(), 0);
      std::fill(counts.begin(), counts.end(), 0);
      for (Index c = 0; c < width; ++c) {
        const auto bin = static_cast<std::size_t>(code[c] - grid.code_min);
        sums[bin] += static_cast<double>(from[c]);
        ++counts[bin];
      }
      for (Index c = 0; c < width; ++c) {
        const auto bin = static_cast<std::size_t>(code[c] - grid.code_min);
        rounded.data()[g * width + c] =
            static_cast<S>(sums[bin] / static_cast<double>(counts[bin]));
      }
    }
  });
  return rounded;
}

template Matrix<float> bin_centroids(const Matrix<float>&, const Grid<float>&);
template Matrix<double> bin_centroids(const Matrix<double>&, const Grid<double>&);
template Matrix<float> round_to_best_levels(const Matrix<float>&, const QuantSpec&);
template Matrix<double> round_to_best_levels(const Matrix<double>&, const QuantSpec&);

}  // namespace ruq
