// Derivatives by central differences, to hold hand-written ones against.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq::test {

/// (f(x + s) − f(x − s)) / 2s for one entry, by default at the step where rounding and curvature
/// cost about the same; the entry is restored.
inline double difference(const std::function<double()>& loss, double& entry, double step = 0) {
  const double kept = entry;
  const double s = step > 0 ? step : 6e-6 * std::max(1.0, std::abs(kept));
  entry = kept + s;
  const double above = loss();
  entry = kept - s;
  const double below = loss();
  entry = kept;
  return (above - below) / (2 * s);
}

/// All entries of the rows named: errors are at most `tolerance` times the largest gradient entry.
template <class M>
void check_gradient_of_rows(const std::function<double()>& loss, M& x, const M& gradient,
                            const std::vector<Index>& rows, double tolerance, double step = 0) {
  REQUIRE(gradient.rows() == x.rows());
  REQUIRE(gradient.cols() == x.cols());
  const double scale = gradient.cwiseAbs().maxCoeff();
  CHECK(scale > 0);
  double worst = 0;
  for (const Index r : rows) {
    for (Index c = 0; c < x.cols(); ++c) {
      worst = std::max(worst, std::abs(difference(loss, x(r, c), step) - gradient(r, c)));
    }
  }
  INFO("worst error " << worst << " at scale " << scale);
  CHECK(worst <= tolerance * scale);
}

template <class M>
void check_gradient(const std::function<double()>& loss, M& x, const M& gradient, double tolerance,
                    double step = 0) {
  std::vector<Index> rows;
  for (Index r = 0; r < x.rows(); ++r) rows.push_back(r);
  check_gradient_of_rows(loss, x, gradient, rows, tolerance, step);
}

}  // namespace ruq::test
