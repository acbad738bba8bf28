// What the straight-through rules describe, written as a smooth function whose true derivative
// they are: rint(u) becomes u plus its error at the start, and which entries are clipped is decided
// there too. Δ follows the range of each row.
#pragma once

#include <algorithm>
#include <cmath>

#include "ruquant/quant/quantizer.hpp"

namespace ruq::test {

class FrozenRounding {
 public:
  FrozenRounding(const Matrix<double>& start, const QuantSpec& spec, const RowClips<double>* clips)
      : spec_(spec), offset_(start.rows(), start.cols()), clipped_(offset_) {
    const Grid<double> grid = fit_grid(start, spec, clips);
    const Index width = start.cols() / grid.scale.cols();
    for (Index r = 0; r < start.rows(); ++r) {
      for (Index c = 0; c < start.cols(); ++c) {
        const double u = start(r, c) / grid.scale(r, c / width);
        const double zero = grid.zero(r, c / width);
        const double code = std::rint(u) + zero;
        const double kept = std::clamp(code, static_cast<double>(grid.code_min),
                                       static_cast<double>(grid.code_max));
        clipped_(r, c) = kept != code;
        offset_(r, c) = kept != code ? kept - zero : std::rint(u) - u;
      }
    }
  }
  Matrix<double> operator()(const Matrix<double>& x, const RowClips<double>* clips) const {
    const Grid<double> grid = fit_grid(x, spec_, clips);
    const Index width = x.cols() / grid.scale.cols();
    Matrix<double> y(x.rows(), x.cols());
    for (Index r = 0; r < x.rows(); ++r) {
      for (Index c = 0; c < x.cols(); ++c) {
        const double step = grid.scale(r, c / width);
        const double own = clipped_(r, c) != 0 ? 0 : x(r, c) / step;
        y(r, c) = (own + offset_(r, c)) * step;
      }
    }
    return y;
  }
  double clipped_share() const { return clipped_.mean(); }

 private:
  QuantSpec spec_;
  Matrix<double> offset_, clipped_;
};

}  // namespace ruq::test
