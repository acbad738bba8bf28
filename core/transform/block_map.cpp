#include "ruquant/transform/block_map.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 512;      // rows of one parallel range
constexpr double kNoStep = 1e-10;  // ‖ω‖² below this: the sample already is its target

struct Peak {
  double value = -1;
  Index row = 0;
};

// Changes every row by `change(row)` and finds the row with the largest |entry| of the result, the
// lowest index winning ties. One pass over memory.
template <class S, class Change>
Peak sweep(Matrix<S>& rows, const Change& change) {
  const Index ranges = (rows.rows() + kGrain - 1) / kGrain;
  std::vector<Peak> peaks(static_cast<std::size_t>(ranges));
  parallel_for(ranges, [&](Index range) {
    Peak& peak = peaks[static_cast<std::size_t>(range)];
    const Index end = std::min(rows.rows(), (range + 1) * kGrain);
    RowVector<S> scratch(rows.cols());
    for (Index r = range * kGrain; r < end; ++r) {
      change(rows.row(r), scratch);
      const double largest = static_cast<double>(rows.row(r).cwiseAbs().maxCoeff());
      if (largest > peak.value) peak = {largest, r};
    }
  });
  return *std::max_element(peaks.begin(), peaks.end(),
                           [](const Peak& a, const Peak& b) { return a.value < b.value; });
}

Vector<double> draw_target(Index n, TargetRange range, Draws& draws) {
  Vector<double> u = draws.uniform(n);
  if (range == TargetRange::u11) u = 2 * u.array() - 1;
  return u;
}

// One permutation of channels followed by rotations of the pairs (0,1), (2,3), ...
struct PairRotations {
  std::vector<Index> order;
  std::vector<PlaneRotation> pairs;

  template <class S, class Row>
  void apply(Row&& row, RowVector<S>& scratch) const {
    for (std::size_t i = 0; i < order.size(); ++i) {
      scratch(static_cast<Index>(i)) = row(order[i]);
    }
    for (std::size_t p = 0; p < pairs.size(); ++p) {
      const auto i = static_cast<Index>(2 * p);
      const S c = static_cast<S>(pairs[p].cosine);
      const S s = static_cast<S>(pairs[p].sine);
      const S a = scratch(i);
      const S b = scratch(i + 1);
      scratch(i) = c * a + s * b;
      scratch(i + 1) = c * b - s * a;
    }
    row = scratch;
  }
};

PairRotations draw_rotations(const RowVector<double>& extreme, const BlockMapOptions& options,
                             Draws& draws) {
  PairRotations rotations;
  rotations.order = draws.permutation(extreme.size());
  const Vector<double> u = draw_target(extreme.size(), options.target, draws);
  for (Index i = 0; i + 1 < extreme.size(); i += 2) {
    const double x0 = extreme(rotations.order[static_cast<std::size_t>(i)]);
    const double x1 = extreme(rotations.order[static_cast<std::size_t>(i + 1)]);
    const double scale =
        std::hypot(u(i), u(i + 1)) > 0 ? std::hypot(x0, x1) / std::hypot(u(i), u(i + 1)) : 0;
    PlaneRotation rotation = plane_rotation(x0, x1, scale * u(i), scale * u(i + 1));
    if (options.givens == GivensDirection::mapped) rotation.sine = -rotation.sine;
    rotations.pairs.push_back(rotation);
  }
  return rotations;
}

}  // namespace

PlaneRotation plane_rotation(double x0, double x1, double t0, double t1) {
  const double squared = x0 * x0 + x1 * x1;
  if (squared == 0 || (t0 == 0 && t1 == 0)) return {};
  return {(x0 * t0 + x1 * t1) / squared, (x0 * t1 - x1 * t0) / squared};
}

template <class S>
Matrix<double> build_block_map(Matrix<S>& samples, const BlockMapOptions& options, Draws& draws,
                               BlockMapTrace* trace) {
  const Index width = samples.cols();
  Matrix<double> map = Matrix<double>::Identity(width, width);
  RowVector<double> map_scratch(width);
  Peak peak = sweep(samples, [](const auto&, const auto&) {});
  const auto note_choice = [&] {
    if (trace != nullptr) trace->chosen.push_back(peak.row);
  };

  for (Index step = 0; step < options.steps; ++step) {
    if (options.reflections) {
      const Vector<double> x = samples.row(peak.row).transpose().template cast<double>();
      const Vector<double> u = draw_target(width, options.target, draws);
      const Vector<double> omega = x - (x.norm() / u.norm()) * u;
      note_choice();
      const double squared = omega.squaredNorm();
      if (squared < kNoStep) continue;
      const RowVector<S> direction = omega.transpose().template cast<S>();
      const S factor = static_cast<S>(2 / squared);
      peak =
          sweep(samples, [&](auto row, auto&) { row -= factor * row.dot(direction) * direction; });
      map.noalias() -= (2 / squared) * (map * omega) * omega.transpose();
    }
    for (Index i = 0; i < options.givens_per_step; ++i) {
      const RowVector<double> extreme = samples.row(peak.row).template cast<double>();
      note_choice();
      const PairRotations rotations = draw_rotations(extreme, options, draws);
      peak = sweep(samples, [&](auto row, auto& scratch) { rotations.apply<S>(row, scratch); });
      for (Index r = 0; r < width; ++r) rotations.apply<double>(map.row(r), map_scratch);
    }
    if (trace != nullptr) trace->peaks.push_back(peak.value);
  }
  return map;
}

template <class S>
Vector<double> global_reflection_direction(const Matrix<S>& tensor, TargetRange target,
                                           Draws& draws, Index* row) {
  Index extreme = 0;
  tensor.cwiseAbs().rowwise().maxCoeff().maxCoeff(&extreme);
  if (row != nullptr) *row = extreme;
  const Vector<double> y = tensor.row(extreme).transpose().template cast<double>();
  const Vector<double> u = draw_target(y.size(), target, draws);
  return y - (y.norm() / u.norm()) * u;
}

template Matrix<double> build_block_map(Matrix<float>&, const BlockMapOptions&, Draws&,
                                        BlockMapTrace*);
template Matrix<double> build_block_map(Matrix<double>&, const BlockMapOptions&, Draws&,
                                        BlockMapTrace*);
template Vector<double> global_reflection_direction(const Matrix<float>&, TargetRange, Draws&,
                                                    Index*);
template Vector<double> global_reflection_direction(const Matrix<double>&, TargetRange, Draws&,
                                                    Index*);

}  // namespace ruq
