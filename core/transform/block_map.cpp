#include "ruquant/transform/block_map.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ruquant/base/error.hpp"
#include "ruquant/base/named.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 512;      // rows of one parallel range
constexpr double kNoStep = 1e-10;  // ‖ω‖² below this: the sample already is its target

struct Peak {
  double value = -1;
  Index row = 0;
};

template <class Row>
double kurtosis(const Row& row) {
  const double squares = static_cast<double>(row.squaredNorm());
  if (squares == 0) return 0;
  return static_cast<double>(row.array().square().square().sum()) *
         static_cast<double>(row.size()) / (squares * squares);
}

// What a pick looks at. Where the pick is random it is the peak, for the trace.
template <class Row>
double score(const Row& row, Pick pick) {
  if (pick == Pick::range) return static_cast<double>(row.maxCoeff() - row.minCoeff());
  if (pick == Pick::kurtosis) return kurtosis(row);
  return static_cast<double>(row.cwiseAbs().maxCoeff());
}

// Changes every row by `change(row)` and finds the row with the largest score of the result, the
// lowest index winning ties. One pass over memory.
template <class S, class Change>
Peak sweep(Matrix<S>& rows, Pick pick, const Change& change) {
  RUQ_CHECK(rows.rows() > 0, "no rows of {} channels to pick from", rows.cols());
  const Index ranges = (rows.rows() + kGrain - 1) / kGrain;
  std::vector<Peak> peaks(static_cast<std::size_t>(ranges));
  parallel_for(ranges, [&](Index range) {
    Peak& peak = peaks[static_cast<std::size_t>(range)];
    const Index end = std::min(rows.rows(), (range + 1) * kGrain);
    RowVector<S> scratch(rows.cols());
    for (Index r = range * kGrain; r < end; ++r) {
      change(rows.row(r), scratch);
      const double largest = score(rows.row(r), pick);
      if (largest > peak.value) peak = {largest, r};
    }
  });
  return *std::max_element(peaks.begin(), peaks.end(),
                           [](const Peak& a, const Peak& b) { return a.value < b.value; });
}

// −1 to 1 in even steps, the k-th for the k-th smallest of x.
Vector<double> ranked_ramp(const Vector<double>& x) {
  std::vector<Index> sorted(static_cast<std::size_t>(x.size()));
  std::iota(sorted.begin(), sorted.end(), Index{0});
  std::stable_sort(sorted.begin(), sorted.end(), [&](Index a, Index b) { return x(a) < x(b); });
  Vector<double> ramp(x.size());
  for (Index k = 0; k < x.size(); ++k) {
    ramp(sorted[static_cast<std::size_t>(k)]) =
        x.size() > 1 ? -1 + 2 * static_cast<double>(k) / static_cast<double>(x.size() - 1) : 1;
  }
  return ramp;
}

// The target of the sample x, of any length.
Vector<double> draw_target(const Vector<double>& x, Target target, Draws& draws) {
  const Index n = x.size();
  switch (target) {
    case Target::u01:
      return draws.uniform(n);
    case Target::u11:
      return 2 * draws.uniform(n).array() - 1;
    case Target::sphere:
      return draws.normal(n, 1).col(0);
    case Target::corner:
      return draws.uniform(n).unaryExpr([](double u) { return u < 0.5 ? -1.0 : 1.0; });
    case Target::ones:
      return Vector<double>::Ones(n);
    default:
      return ranked_ramp(x);
  }
}

// One permutation of channels followed by rotations of the pairs (0,1), (2,3), ...
struct PairRotations {
  std::vector<Index> order;
  std::vector<PlaneRotation> pairs;
};

// The same on the entries of a row, laid out so that the pairs fill vector registers.
template <class S>
class RowRotation {
 public:
  explicit RowRotation(const PairRotations& rotations)
      : odd_channel_(rotations.order.size() % 2 == 1 ? rotations.order.back() : -1) {
    for (std::size_t p = 0; p < rotations.pairs.size(); ++p) {
      first_.push_back(static_cast<int>(rotations.order[2 * p]));
      second_.push_back(static_cast<int>(rotations.order[2 * p + 1]));
      cosine_.push_back(static_cast<S>(rotations.pairs[p].cosine));
      sine_.push_back(static_cast<S>(rotations.pairs[p].sine));
    }
  }

  template <class Row>
  void apply(Row&& row, RowVector<S>& scratch) const {
    scratch = row;
    turn(scratch.data(), row.data());
    if (odd_channel_ >= 0) row(row.size() - 1) = scratch(odd_channel_);
  }

 private:
  void turn(const S* __restrict from, S* __restrict to) const {
    const int* __restrict first = first_.data();
    const int* __restrict second = second_.data();
    const S* __restrict cosine = cosine_.data();
    const S* __restrict sine = sine_.data();
    const std::size_t pairs = first_.size();
    for (std::size_t p = 0; p < pairs; ++p) {
      const S a = from[first[p]];
      const S b = from[second[p]];
      to[2 * p] = cosine[p] * a + sine[p] * b;
      to[2 * p + 1] = cosine[p] * b - sine[p] * a;
    }
  }

  std::vector<int> first_, second_;
  std::vector<S> cosine_, sine_;
  Index odd_channel_;  // of an odd width: it is moved alone
};

PairRotations draw_rotations(const RowVector<double>& extreme, const BlockMapOptions& options,
                             Draws& draws) {
  PairRotations rotations;
  rotations.order = draws.permutation(extreme.size());
  Vector<double> ordered(extreme.size());
  for (Index i = 0; i < extreme.size(); ++i) {
    ordered(i) = extreme(rotations.order[static_cast<std::size_t>(i)]);
  }
  const Vector<double> u = draw_target(ordered, options.target, draws);
  for (Index i = 0; i + 1 < extreme.size(); i += 2) {
    const double x0 = ordered(i);
    const double x1 = ordered(i + 1);
    const double scale =
        std::hypot(u(i), u(i + 1)) > 0 ? std::hypot(x0, x1) / std::hypot(u(i), u(i + 1)) : 0;
    PlaneRotation rotation = plane_rotation(x0, x1, scale * u(i), scale * u(i + 1));
    if (options.givens == GivensDirection::mapped) rotation.sine = -rotation.sine;
    rotations.pairs.push_back(rotation);
  }
  return rotations;
}

}  // namespace

std::vector<std::string> target_names() {
  return {"u01", "u11", "sphere", "corner", "ones", "ramp"};
}
Target target(const std::string& name) { return named<Target>("target", target_names(), name); }

std::vector<std::string> pick_names() { return {"maxabs", "range", "kurtosis", "random"}; }
Pick pick(const std::string& name) { return named<Pick>("pick", pick_names(), name); }

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
  Peak peak = sweep(samples, options.pick, [](const auto&, const auto&) {});
  const auto choose = [&] {
    if (options.pick == Pick::random) {
      peak.row = static_cast<Index>(draws.uniform(1)(0) * static_cast<double>(samples.rows()));
    }
    if (trace != nullptr) trace->chosen.push_back(peak.row);
  };

  for (Index step = 0; step < options.steps; ++step) {
    if (options.reflections) {
      choose();
      const Vector<double> x = samples.row(peak.row).transpose().template cast<double>();
      const Vector<double> u = draw_target(x, options.target, draws);
      const Vector<double> omega = x - (x.norm() / u.norm()) * u;
      const double squared = omega.squaredNorm();
      if (squared < kNoStep) continue;
      const RowVector<S> direction = omega.transpose().template cast<S>();
      const S factor = static_cast<S>(2 / squared);
      peak = sweep(samples, options.pick,
                   [&](auto row, auto&) { row -= factor * row.dot(direction) * direction; });
      map.noalias() -= (2 / squared) * (map * omega) * omega.transpose();
    }
    for (Index i = 0; i < options.givens_per_step; ++i) {
      choose();
      const RowVector<double> extreme = samples.row(peak.row).template cast<double>();
      const PairRotations rotations = draw_rotations(extreme, options, draws);
      const RowRotation<S> turn(rotations);
      peak =
          sweep(samples, options.pick, [&](auto row, auto& scratch) { turn.apply(row, scratch); });
      const RowRotation<double> turn_map(rotations);
      for (Index r = 0; r < width; ++r) turn_map.apply(map.row(r), map_scratch);
    }
    if (trace != nullptr) trace->peaks.push_back(peak.value);
  }
  return map;
}

template <class S>
Vector<double> global_reflection_direction(const Matrix<S>& tensor, Target target, Draws& draws,
                                           Index* row) {
  Index extreme = 0;
  tensor.cwiseAbs().rowwise().maxCoeff().maxCoeff(&extreme);
  if (row != nullptr) *row = extreme;
  const Vector<double> y = tensor.row(extreme).transpose().template cast<double>();
  const Vector<double> u = draw_target(y, target, draws);
  return y - (y.norm() / u.norm()) * u;
}

template Matrix<double> build_block_map(Matrix<float>&, const BlockMapOptions&, Draws&,
                                        BlockMapTrace*);
template Matrix<double> build_block_map(Matrix<double>&, const BlockMapOptions&, Draws&,
                                        BlockMapTrace*);
template Vector<double> global_reflection_direction(const Matrix<float>&, Target, Draws&, Index*);
template Vector<double> global_reflection_direction(const Matrix<double>&, Target, Draws&, Index*);

}  // namespace ruq
