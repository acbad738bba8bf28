#include "ruquant/quant/row_levels.hpp"

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

template Matrix<float> round_to_best_levels(const Matrix<float>&, const QuantSpec&);
template Matrix<double> round_to_best_levels(const Matrix<double>&, const QuantSpec&);

}  // namespace ruq
