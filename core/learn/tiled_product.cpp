#include "ruquant/learn/tiled_product.hpp"

#include <algorithm>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kSquare = 16;  // of a turned tile: 16 floats are a cache line

}  // namespace

template <class S>
Matrix<S> tiled_product(const Matrix<S>& a, const Matrix<S>& b) {
  RUQ_CHECK(a.cols() == b.rows(), "[{},{}]·[{},{}]", a.rows(), a.cols(), b.rows(), b.cols());
  Matrix<S> c(a.rows(), b.cols());
  parallel_rows(a.rows(), kBackwardTile, [&](Index begin, Index end) {
    product_into<S>(a.middleRows(begin, end - begin), b, c.middleRows(begin, end - begin));
  });
  return c;
}

template <class S>
void add_transposed_product(const Matrix<S>& a, const Matrix<S>& b, Matrix<S>& sum) {
  RUQ_CHECK(a.rows() == b.rows(), "[{},{}]ᵀ·[{},{}]", a.rows(), a.cols(), b.rows(), b.cols());
  const bool first = sum.size() == 0;
  if (first) sum.resize(a.cols(), b.cols());
  RUQ_CHECK(sum.rows() == a.cols() && sum.cols() == b.cols(), "a sum of [{},{}] for [{},{}]",
            sum.rows(), sum.cols(), a.cols(), b.cols());
  parallel_rows(a.cols(), kBackwardTile, [&](Index begin, Index end) {
    const Index rows = end - begin;
    const Matrix<S> columns = turned<S>(a.middleCols(begin, rows));
    if (first) return product_into<S>(columns, b, sum.middleRows(begin, rows));
    Matrix<S> part(rows, b.cols());
    product_into<S>(columns, b, part);
    sum.middleRows(begin, rows) += part;
  });
}

template <class S>
Matrix<S> turned(const ConstMatrixView<S>& a) {
  Matrix<S> result(a.cols(), a.rows());
  for (Index r = 0; r < a.rows(); r += kSquare) {
    const Index rows = std::min(kSquare, a.rows() - r);
    for (Index c = 0; c < a.cols(); c += kSquare) {
      const Index cols = std::min(kSquare, a.cols() - c);
      result.block(c, r, cols, rows) = a.block(r, c, rows, cols).transpose();
    }
  }
  return result;
}

#define RUQ_INSTANTIATE(S)                                                              \
  template Matrix<S> tiled_product(const Matrix<S>&, const Matrix<S>&);                 \
  template void add_transposed_product(const Matrix<S>&, const Matrix<S>&, Matrix<S>&); \
  template Matrix<S> turned(const ConstMatrixView<S>&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
