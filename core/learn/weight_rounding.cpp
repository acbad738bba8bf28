#include "ruquant/learn/weight_rounding.hpp"

#include "ruquant/learn/straight_through.hpp"
#include "ruquant/quant/clamp_rows.hpp"

namespace ruq {
namespace {

// What one bound gathers goes to the entries of the row that set it, in equal parts.
template <class S, class Values, class Gradient>
void to_extreme(const Values& x, S extreme, S amount, Gradient&& gradient) {
  if (amount == 0) return;
  const auto hits = (x.array() == extreme).template cast<S>();
  gradient.array() += hits * (amount / hits.sum());
}

}  // namespace

template <class S>
void round_weight_rows(Matrix<S>& w, const QuantSpec& spec, const RowClips<S>* clips) {
  if (!spec.rounds()) return;
  if (clips == nullptr || !clamps_rows(spec)) return round_rows(w, spec, clips);
  clamp_rows(w, *clips);
  const RowClips<S> whole = unclipped_rows<S>(w.rows());
  round_rows(w, spec, &whole);
}

template <class S>
void round_weight_rows_backward(const Matrix<S>& w, const QuantSpec& spec, Matrix<S>& gradient,
                                const RowClips<S>* clips, RowClips<S>* clip_gradient) {
  if (!spec.rounds()) return;
  if (clips == nullptr || !clamps_rows(spec)) {
    return round_rows_backward(w, spec, gradient, clips, clip_gradient);
  }
  Matrix<S> clamped = w;
  clamp_rows(clamped, *clips);
  const RowClips<S> whole = unclipped_rows<S>(w.rows());
  round_rows_backward(clamped, spec, gradient, &whole);
  RowClips<S> unused{Vector<S>::Zero(w.rows()), Vector<S>::Zero(w.rows())};
  clamp_rows_backward(w, *clips, gradient, clip_gradient != nullptr ? *clip_gradient : unused);
}

template <class S>
void clamp_rows_backward(const Matrix<S>& w, const RowClips<S>& clips, Matrix<S>& gradient,
                         RowClips<S>& clip_gradient) {
  for (Index r = 0; r < w.rows(); ++r) {
    const S least = w.row(r).minCoeff();
    const S greatest = w.row(r).maxCoeff();
    const S low = clips.low(r) * least;
    const S high = clips.high(r) * greatest;
    S by_low = 0;
    S by_high = 0;
    for (Index c = 0; c < w.cols(); ++c) {
      if (w(r, c) > high) {
        by_high += gradient(r, c);
      } else if (w(r, c) < low) {
        by_low += gradient(r, c);
      } else {
        continue;
      }
      gradient(r, c) = 0;
    }
    clip_gradient.low(r) += by_low * least;
    clip_gradient.high(r) += by_high * greatest;
    to_extreme(w.row(r), least, by_low * clips.low(r), gradient.row(r));
    to_extreme(w.row(r), greatest, by_high * clips.high(r), gradient.row(r));
  }
}

#define RUQ_INSTANTIATE(S)                                                                 \
  template void round_weight_rows(Matrix<S>&, const QuantSpec&, const RowClips<S>*);       \
  template void round_weight_rows_backward(const Matrix<S>&, const QuantSpec&, Matrix<S>&, \
                                           const RowClips<S>*, RowClips<S>*);              \
  template void clamp_rows_backward(const Matrix<S>&, const RowClips<S>&, Matrix<S>&, RowClips<S>&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
