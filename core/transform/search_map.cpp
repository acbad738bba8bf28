#include "ruquant/transform/search_map.hpp"

#include <Eigen/QR>
#include <algorithm>
#include <cmath>
#include <vector>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 512;

// The extreme entries of a matrix; the lowest row and then the lowest channel win ties.
struct Extremes {
  double max = -INFINITY, min = INFINITY;
  Index max_row = 0, max_channel = 0, min_row = 0, min_channel = 0;

  void take(double value, Index row, Index channel) {
    if (value > max) max = value, max_row = row, max_channel = channel;
    if (value < min) min = value, min_row = row, min_channel = channel;
  }
  bool top_is_larger() const { return std::abs(max) > std::abs(min); }
  Index row() const { return top_is_larger() ? max_row : min_row; }
  Index channel() const { return top_is_larger() ? max_channel : min_channel; }
};

template <class S>
Extremes find_extremes(const Matrix<S>& x) {
  const Index ranges = (x.rows() + kGrain - 1) / kGrain;
  std::vector<Extremes> found(static_cast<std::size_t>(ranges));
  parallel_for(ranges, [&](Index range) {
    Extremes& mine = found[static_cast<std::size_t>(range)];
    const Index end = std::min(x.rows(), (range + 1) * kGrain);
    for (Index r = range * kGrain; r < end; ++r) {
      Index top = 0;
      Index bottom = 0;
      const double max = static_cast<double>(x.row(r).maxCoeff(&top));
      const double min = static_cast<double>(x.row(r).minCoeff(&bottom));
      mine.take(max, r, top);
      mine.take(min, r, bottom);
    }
  });
  Extremes all;
  for (const Extremes& some : found) {
    all.take(some.max, some.max_row, some.max_channel);
    all.take(some.min, some.min_row, some.min_channel);
  }
  return all;
}

Matrix<double> with_factor(const Matrix<double>& base, const Matrix<double>& factor) {
  Matrix<double> c = Matrix<double>::Identity(base.rows(), base.cols());
  c.bottomRightCorner(factor.rows(), factor.cols()) = factor;
  return base * c;
}

// E_j A E_j: coordinates 0 and j trade places.
Matrix<double> swapped(Matrix<double> a, Index j) {
  a.row(0).swap(a.row(j));
  a.col(0).swap(a.col(j));
  return a;
}

}  // namespace

Matrix<double> duquant_base_rotation(Index block) {
  Matrix<double> r = Matrix<double>::Identity(block, block);
  for (Index i = 0; i + 1 < block; ++i) {
    const double n = static_cast<double>(i + 2);
    const double c = 1 / std::sqrt(n);
    const double s = std::sqrt((n - 1) / n);
    // Left factor ρ_i acts on rows i and i+1: [[c, -s], [s, c]].
    const RowVector<double> upper = r.row(i);
    const RowVector<double> lower = r.row(i + 1);
    r.row(i) = c * upper - s * lower;
    r.row(i + 1) = s * upper + c * lower;
  }
  r.row(0).swap(r.row(block - 1));
  r.col(0).swap(r.col(block - 1));
  return r;
}

Matrix<double> random_orthogonal_factor(Index n, Draws& draws) {
  const Eigen::MatrixXd gauss = draws.normal(n, n);
  return Eigen::HouseholderQR<Eigen::MatrixXd>(gauss).householderQ() *
         Eigen::MatrixXd::Identity(n, n);
}

template <class S>
Matrix<double> build_search_map(Matrix<S>& samples, const SearchMapOptions& options,
                                const FactorSource& next_factor, SearchMapTrace* trace) {
  const Index block = samples.cols();
  const bool by_row = options.index == SwapIndex::row;
  const Matrix<double> base = duquant_base_rotation(block);
  Matrix<double> step_map = by_row ? with_factor(base, next_factor()) : Matrix<double>();

  const Matrix<S> original = samples;
  Matrix<double> product_so_far = Matrix<double>::Identity(block, block);
  Matrix<double> best = product_so_far;
  double best_score = INFINITY;
  for (Index step = 0; step <= options.steps; ++step) {
    const Extremes extremes = find_extremes(samples);
    const double score = by_row ? extremes.max - extremes.min
                                : std::max(std::abs(extremes.max), std::abs(extremes.min));
    const Index swap = by_row ? extremes.row() % block : extremes.channel();
    if (trace != nullptr) {
      trace->swap_rows.push_back(extremes.row());
      trace->swap_indices.push_back(swap);
      trace->peaks.push_back(score);
    }
    if (score < best_score) {
      best_score = score;
      best = product_so_far;
      if (trace != nullptr) trace->prefix_length = step;
    }
    if (step == options.steps) break;
    if (!by_row) step_map = with_factor(base, next_factor());
    const Matrix<double> factor = swapped(step_map, swap);
    product_so_far = product_so_far * factor;
    samples = product<S>(samples, factor.template cast<S>().eval());
  }
  samples = product<S>(original, best.template cast<S>().eval());
  return best;
}

template Matrix<double> build_search_map(Matrix<float>&, const SearchMapOptions&,
                                         const FactorSource&, SearchMapTrace*);
template Matrix<double> build_search_map(Matrix<double>&, const SearchMapOptions&,
                                         const FactorSource&, SearchMapTrace*);

}  // namespace ruq
