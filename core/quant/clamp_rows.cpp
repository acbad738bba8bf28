#include "ruquant/quant/clamp_rows.hpp"

#include "ruquant/base/error.hpp"

namespace ruq {

template <class S>
void clamp_rows(Matrix<S>& w, const RowClips<S>& clips) {
  RUQ_CHECK(clips.low.size() == w.rows() && clips.high.size() == w.rows(),
            "factors of {} and {} rows for {}", clips.low.size(), clips.high.size(), w.rows());
  for (Index r = 0; r < w.rows(); ++r) {
    const S low = clips.low(r) * w.row(r).minCoeff();
    const S high = clips.high(r) * w.row(r).maxCoeff();
    w.row(r) = w.row(r).cwiseMax(low).cwiseMin(high).eval();
  }
}

template void clamp_rows(Matrix<float>&, const RowClips<float>&);
template void clamp_rows(Matrix<double>&, const RowClips<double>&);

}  // namespace ruq
