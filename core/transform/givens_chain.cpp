#include "ruquant/transform/givens_chain.hpp"

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <numeric>
#include <queue>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

// The turn that takes (a, b) to (p, q) of the same length; the identity for a pair of zeros.
PlaneTurn turn_to(Index i, Index j, double a, double b, double p, double q) {
  const double squared = a * a + b * b;
  if (squared == 0) return {i, j, 1, 0};
  return {i, j, (a * p + b * q) / squared, (b * p - a * q) / squared};
}

template <class Row>
void turn_entries(const PlaneTurn& turn, Row&& x) {
  const double a = x(turn.i);
  const double b = x(turn.j);
  x(turn.i) = turn.cosine * a + turn.sine * b;
  x(turn.j) = turn.cosine * b - turn.sine * a;
}

// Two channels of a matrix whose channels are rows.
void turn_channels(const PlaneTurn& turn, Matrix<double>& channels) {
  for (Index t = 0; t < channels.cols(); ++t) {
    const double a = channels(turn.i, t);
    const double b = channels(turn.j, t);
    channels(turn.i, t) = turn.cosine * a + turn.sine * b;
    channels(turn.j, t) = turn.cosine * b - turn.sine * a;
  }
}

// Between channels that are rows: the closed form of quartimax_turn.
template <class Channel>
PlaneTurn quartimax(Index i, Index j, const Channel& a, const Channel& b) {
  // z⁴ = (a² − b²)² − (2ab)² + i·2(a² − b²)(2ab)
  double real = 0;
  double imaginary = 0;
  for (Index t = 0; t < a.size(); ++t) {
    const double d = a(t) * a(t) - b(t) * b(t);
    const double e = 2 * a(t) * b(t);
    real += d * d - e * e;
    imaginary += 2 * d * e;
  }
  if (real == 0 && imaginary == 0) return {i, j, 1, 0};
  double angle = (std::atan2(imaginary, real) + std::numbers::pi) / 4;
  if (angle > std::numbers::pi / 4) angle -= std::numbers::pi / 2;
  return {i, j, std::cos(angle), std::sin(angle)};
}

// |entry| and index. Among equal magnitudes the lowest index comes out of either heap first.
using Entry = std::pair<double, Index>;
struct LargestFirst {
  bool operator()(const Entry& a, const Entry& b) const {
    return a.first != b.first ? a.first < b.first : a.second > b.second;
  }
};

// Both ends of a changing vector. Entries whose value has moved on are dropped when they surface.
class Extremes {
 public:
  explicit Extremes(const Vector<double>& x) : x_(x) {
    for (Index i = 0; i < x.size(); ++i) push(i);
  }
  void push(Index i) {
    largest_.push({std::abs(x_(i)), i});
    smallest_.push({std::abs(x_(i)), i});
  }
  Index largest() { return top(largest_); }
  Index smallest() { return top(smallest_); }

 private:
  template <class Heap>
  Index top(Heap& heap) const {
    while (heap.top().first != std::abs(x_(heap.top().second))) heap.pop();
    return heap.top().second;
  }
  const Vector<double>& x_;
  std::priority_queue<Entry, std::vector<Entry>, LargestFirst> largest_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> smallest_;
};

// Shares the entry of order[begin] out over order[begin, end).
void share_out(const std::vector<Index>& order, std::size_t begin, std::size_t end,
               Vector<double>& x, GivensChain& chain) {
  if (end - begin < 2) return;
  const std::size_t middle = begin + (end - begin + 1) / 2;
  const Index i = order[begin];
  const Index j = order[middle];
  const auto size = static_cast<double>(end - begin);
  const double length = std::hypot(x(i), x(j));
  const PlaneTurn turn =
      turn_to(i, j, x(i), x(j), length * std::sqrt(static_cast<double>(middle - begin) / size),
              length * std::sqrt(static_cast<double>(end - middle) / size));
  chain.append(turn);
  turn_entries(turn, x);
  share_out(order, begin, middle, x, chain);
  share_out(order, middle, end, x, chain);
}

}  // namespace

void GivensChain::append(const PlaneTurn& turn) {
  const bool inside = turn.i >= 0 && turn.j >= 0 && turn.i < width_ && turn.j < width_;
  if (!inside || turn.i == turn.j) {
    fail("a turn in the plane ({}, {}) does not fit a chain of width {}", turn.i, turn.j, width_);
  }
  turns_.push_back(turn);
}

GivensChain GivensChain::then(const GivensChain& next) const {
  if (next.width_ != width_) fail("a chain of width {} after one of {}", next.width_, width_);
  GivensChain result = *this;
  result.turns_.insert(result.turns_.end(), next.turns_.begin(), next.turns_.end());
  return result;
}

GivensChain GivensChain::inverse() const {
  GivensChain result = *this;
  std::reverse(result.turns_.begin(), result.turns_.end());
  for (PlaneTurn& turn : result.turns_) turn.sine = -turn.sine;
  return result;
}

void GivensChain::apply(Vector<double>& x) const {
  RUQ_CHECK(x.size() == width_, "{} entries, chain {}", x.size(), width_);
  for (const PlaneTurn& turn : turns_) turn_entries(turn, x);
}

void GivensChain::apply_rows(Matrix<double>& x) const {
  RUQ_CHECK(x.cols() == width_, "{} columns, chain {}", x.cols(), width_);
  parallel_rows(x.rows(), kRowTile, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      for (const PlaneTurn& turn : turns_) turn_entries(turn, x.row(r));
    }
  });
}

void GivensChain::apply_columns(Matrix<double>& x) const {
  RUQ_CHECK(x.rows() == width_, "{} rows, chain {}", x.rows(), width_);
  for (const PlaneTurn& turn : turns_) turn_channels(turn, x);
}

Matrix<double> GivensChain::to_matrix() const {
  Matrix<double> result = Matrix<double>::Identity(width_, width_);
  apply_rows(result);
  return result;
}

PlaneTurn alignment_turn(const Vector<double>& x, Index i, Index j) {
  const double each = std::hypot(x(i), x(j)) * std::numbers::sqrt2 / 2;
  return turn_to(i, j, x(i), x(j), each, each);
}

GivensChain alignment_chain(const Vector<double>& x, const AlignmentOptions& options) {
  GivensChain chain(x.size());
  if (x.size() < 2) return chain;
  if (!x.allFinite()) fail("an alignment chain needs finite entries");
  Vector<double> current = x;
  Extremes extremes(current);
  const double target = options.crest * x.norm() / std::sqrt(static_cast<double>(x.size()));
  const Index steps = std::min(options.steps, x.size() - 1);
  for (Index step = 0; step < steps; ++step) {
    const Index i = extremes.largest();
    const Index j = extremes.smallest();
    // All equal: nothing is left to share.
    if (std::abs(current(i)) <= target || std::abs(current(i)) == std::abs(current(j))) break;
    const PlaneTurn turn = alignment_turn(current, i, j);
    chain.append(turn);
    turn_entries(turn, current);
    extremes.push(i);
    extremes.push(j);
  }
  return chain;
}

GivensChain alignment_tree(const Vector<double>& x) {
  GivensChain chain(x.size());
  if (x.size() < 2) return chain;
  std::vector<Index> order(static_cast<std::size_t>(x.size()));
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](Index a, Index b) { return std::abs(x(a)) < std::abs(x(b)); });
  std::rotate(order.begin(), order.end() - 1, order.end());
  Vector<double> current = x;
  share_out(order, 0, order.size(), current, chain);
  return chain;
}

PlaneTurn quartimax_turn(const Matrix<double>& x, Index i, Index j) {
  return quartimax(i, j, x.col(i), x.col(j));
}

GivensChain quartimax_sweeps(Matrix<double>& x, const QuartimaxOptions& options) {
  const Index n = x.cols();
  GivensChain chain(n);
  Matrix<double> channels = x.transpose();  // a channel is read and written as one run
  double before = channels.array().square().square().sum();
  for (Index sweep = 0; sweep < options.sweeps; ++sweep) {
    for (Index i = 0; i < n; ++i) {
      for (Index j = i + 1; j < n; ++j) {
        const PlaneTurn turn = quartimax(i, j, channels.row(i), channels.row(j));
        if (turn.sine == 0) continue;
        chain.append(turn);
        turn_channels(turn, channels);
      }
    }
    const double after = channels.array().square().square().sum();
    if (before - after <= options.settled * before) break;
    before = after;
  }
  x = channels.transpose();
  return chain;
}

}  // namespace ruq
