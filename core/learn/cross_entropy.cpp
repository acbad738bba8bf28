#include "ruquant/learn/cross_entropy.hpp"

#include <cmath>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kPositions = 128;  // rows whose logits are held at once; part of the numbers

// Turns a row of logits into ∂L/∂logits without the 1/count; returns the loss of the row.
template <class S, class Row>
double row_loss(Row&& logits, Index next) {
  const S top = logits.maxCoeff();
  const S own = logits(next) - top;
  logits = (logits.array() - top).exp();
  const S sum = logits.sum();
  logits *= S(1) / sum;
  logits(next) -= S(1);
  return std::log(static_cast<double>(sum)) - static_cast<double>(own);
}

void check_shapes(Index rows, const TokenWindows& tokens) {
  if (tokens.length < 2 || tokens.ids.empty() || std::ssize(tokens.ids) % tokens.length != 0) {
    fail("cross entropy: found {} tokens in windows of {}, expected whole windows of at least 2",
         tokens.ids.size(), tokens.length);
  }
  RUQ_CHECK(rows == std::ssize(tokens.ids), "{} states for {} tokens", rows, tokens.ids.size());
}

}  // namespace

template <class S>
double cross_entropy(const Matrix<S>& states, const Matrix<S>& head, const TokenWindows& tokens,
                     Matrix<S>* gradient) {
  check_shapes(states.rows(), tokens);
  const Index length = tokens.length;
  const double count = static_cast<double>(tokens.windows() * (length - 1));
  Vector<double> losses = Vector<double>::Zero(states.rows());
  if (gradient != nullptr) gradient->resize(states.rows(), states.cols());
  parallel_rows(states.rows(), kPositions, [&](Index begin, Index end) {
    Matrix<S> logits(end - begin, head.rows());
    product_transposed_into<S>(states.middleRows(begin, end - begin), head, logits);
    for (Index r = begin; r < end; ++r) {
      if (r % length == length - 1) {
        logits.row(r - begin).setZero();  // nothing comes after the last token
        continue;
      }
      const Index next = tokens.ids[static_cast<std::size_t>(r + 1)];
      losses(r) = row_loss<S>(logits.row(r - begin), next);
    }
    if (gradient == nullptr) return;
    logits *= static_cast<S>(1 / count);
    product_into<S>(logits, head, gradient->middleRows(begin, end - begin));
  });
  return losses.sum() / count;
}

#define RUQ_INSTANTIATE(S)                                                               \
  template double cross_entropy(const Matrix<S>&, const Matrix<S>&, const TokenWindows&, \
                                Matrix<S>*);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
