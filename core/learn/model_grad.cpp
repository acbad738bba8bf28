#include "ruquant/learn/model_grad.hpp"

#include <algorithm>
#include <utility>

namespace ruq {
namespace {

constexpr Index kRowsAtOnce = 2048;  // part of the numbers: gradients are summed group by group

// Calls body(first row, rows) for groups of whole windows.
template <class Body>
void for_groups(Index rows, Index length, const Body& body) {
  const Index group = std::max<Index>(1, kRowsAtOnce / length) * length;
  for (Index begin = 0; begin < rows; begin += group) body(begin, std::min(group, rows - begin));
}

}  // namespace

template <class S>
Matrix<S> ModelGrad<S>::forward(BlockGrad<S>& block, Matrix<S> x, Index length,
                                const LayerCall& install) {
  for (std::size_t l = 0; l < inputs_.size(); ++l) {
    install(static_cast<Index>(l), block);
    Matrix<S> y(x.rows(), x.cols());
    for_groups(x.rows(), length, [&](Index begin, Index rows) {
      y.middleRows(begin, rows) = block.forward(x.middleRows(begin, rows), length);
    });
    inputs_[l] = std::exchange(x, std::move(y));
  }
  return x;
}

template <class S>
Matrix<S> ModelGrad<S>::backward(BlockGrad<S>& block, Matrix<S> gradient, Index length,
                                 const LayerCall& install, const LayerCall& collect) {
  for (std::size_t l = inputs_.size(); l-- > 0;) {
    install(static_cast<Index>(l), block);
    const Matrix<S> x = std::exchange(inputs_[l], {});
    for_groups(x.rows(), length, [&](Index begin, Index rows) {
      BlockRecord<S> record;
      block.forward(x.middleRows(begin, rows), length, &record);
      gradient.middleRows(begin, rows) = block.backward(record, gradient.middleRows(begin, rows));
    });
    collect(static_cast<Index>(l), block);
  }
  return gradient;
}

template class ModelGrad<float>;
template class ModelGrad<double>;

}  // namespace ruq
