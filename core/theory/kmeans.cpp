#include "ruquant/theory/kmeans.hpp"

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

class Program {
 public:
  explicit Program(const EmpiricalDensity& atoms) : n_(std::ssize(atoms.values)), sums_(1) {
    Sums sum;
    for (Index i = 0; i < n_; ++i) {
      const long double w = atoms.weights[at(i)];
      const long double x = atoms.values[at(i)] - atoms.mean;
      sum = {sum.m0 + w, sum.m1 + w * x, sum.m2 + w * x * x};
      sums_.push_back(sum);
    }
  }

  /// Starts of the k best clusters.
  std::vector<Index> solve(Index k) {
    best_.resize(at(n_ + 1));
    for (Index end = 1; end <= n_; ++end) best_[at(end)] = cost(0, end);
    std::vector<std::vector<std::int32_t>> starts;
    for (Index clusters = 2; clusters <= k; ++clusters) {
      start_.assign(at(n_ + 1), 0);
      next_.assign(at(n_ + 1), 0);
      fill(clusters, n_, clusters - 1, n_ - 1);
      best_ = next_;
      starts.push_back(start_);
    }
    std::vector<Index> first(at(k), 0);
    Index end = n_;
    for (Index c = k - 1; c > 0; --c) end = first[at(c)] = starts[at(c - 1)][at(end)];
    return first;
  }

 private:
  // Extended precision: a cost is a difference of running sums, and small ones decide.
  struct Sums {
    long double m0 = 0, m1 = 0, m2 = 0;
  };

  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  long double cost(Index begin, Index end) const {
    const Sums& a = sums_[at(begin)];
    const Sums& b = sums_[at(end)];
    const long double m1 = b.m1 - a.m1;
    return std::max(0.0L, b.m2 - a.m2 - m1 * m1 / (b.m0 - a.m0));
  }

  // Ends in [low, high], whose last clusters start in [from, upto].
  void fill(Index low, Index high, Index from, Index upto) {
    if (low > high) return;
    const Index end = low + (high - low) / 2;
    Index chosen = from;
    long double least = -1;
    for (Index start = from; start <= std::min(upto, end - 1); ++start) {
      const long double total = best_[at(start)] + cost(start, end);
      if (least < 0 || total < least) std::tie(least, chosen) = std::pair(total, start);
    }
    next_[at(end)] = least;
    start_[at(end)] = static_cast<std::int32_t>(chosen);
    fill(low, end - 1, from, chosen);
    fill(end + 1, high, chosen, upto);
  }

  Index n_;
  std::vector<Sums> sums_;
  std::vector<long double> best_, next_;
  std::vector<std::int32_t> start_;
};

}  // namespace

Clusters kmeans(const std::vector<double>& samples, Index k, const std::vector<double>& weights) {
  return kmeans(*Density::empirical(samples, weights).atoms(), k);
}

Clusters kmeans(const EmpiricalDensity& atoms, Index k) {
  const Index n = std::ssize(atoms.values);
  if (k < 1) fail("k-means needs at least one cluster, found {}", k);
  k = std::min(k, n);
  if (n > (Index{1} << 30) / k) {
    fail("exact k-means of {} distinct values in {} clusters needs too much memory", n, k);
  }
  Clusters result{.codebook = {}, .first = Program(atoms).solve(k), .error = 0};
  std::vector<double> levels;
  for (Index c = 0; c < k; ++c) {
    const auto begin = static_cast<std::size_t>(result.first[static_cast<std::size_t>(c)]);
    const auto end =
        static_cast<std::size_t>(c + 1 < k ? result.first[static_cast<std::size_t>(c + 1)] : n);
    double mass = 0;
    double sum = 0;  // about the first value: exact where a cluster is one value
    for (std::size_t i = begin; i < end; ++i) {
      mass += atoms.weights[i];
      sum += atoms.weights[i] * (atoms.values[i] - atoms.values[begin]);
    }
    levels.push_back(atoms.values[begin] + sum / mass);
    for (std::size_t i = begin; i < end; ++i) {
      const double error = atoms.values[i] - levels.back();
      result.error += atoms.weights[i] * error * error;
    }
  }
  result.codebook = Codebook::of_levels(std::move(levels));
  return result;
}

}  // namespace ruq
