#include "ruquant/learn/block_error.hpp"

#include <utility>

namespace ruq {
namespace {

template <class S>
Matrix<S> error_of(const Matrix<S>& output, const BlockSamples<S>& samples, Index window) {
  return output - samples.target.middleRows(window * samples.length, output.rows());
}

template <class S>
double squared_norm(const Matrix<S>& m) {
  return m.template cast<double>().squaredNorm();
}

}  // namespace

template <class S>
Matrix<S> window_input(const BlockSamples<S>& samples, bool float_stream, Index window,
                       Index count) {
  const Matrix<S>& all = float_stream ? samples.float_input : samples.quantized_input;
  return all.middleRows(window * samples.length, count * samples.length);
}

template <class S>
double squared_error(const BlockGrad<S>& block, Matrix<S> input, const BlockSamples<S>& samples,
                     Index window) {
  return squared_norm(
      error_of<S>(block.forward(std::move(input), samples.length), samples, window));
}

template <class S>
double block_output_error(const BlockGrad<S>& block, const BlockSamples<S>& samples,
                          bool float_stream, Index first, Index last) {
  double sum = 0;
  for (Index w = first; w < last; ++w) {
    sum += squared_error(block, window_input(samples, float_stream, w), samples, w);
  }
  return sum / static_cast<double>((last - first) * samples.length * samples.target.cols());
}

template <class S>
double add_squared_error(BlockGrad<S>& block, Matrix<S> input, const BlockSamples<S>& samples,
                         Index window, double entries, bool relative) {
  BlockRecord<S> record;
  Matrix<S> error =
      error_of<S>(block.forward(std::move(input), samples.length, &record), samples, window);
  const double sum = squared_norm(error);
  const double unit = relative && sum > 0 ? sum / entries : 1;
  error *= static_cast<S>(2 / (entries * unit));
  block.backward(record, error);
  return sum;
}

#define RUQ_INSTANTIATE(S)                                                                      \
  template Matrix<S> window_input(const BlockSamples<S>&, bool, Index, Index);                  \
  template double squared_error(const BlockGrad<S>&, Matrix<S>, const BlockSamples<S>&, Index); \
  template double block_output_error(const BlockGrad<S>&, const BlockSamples<S>&, bool, Index,  \
                                     Index);                                                    \
  template double add_squared_error(BlockGrad<S>&, Matrix<S>, const BlockSamples<S>&, Index,    \
                                    double, bool);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
