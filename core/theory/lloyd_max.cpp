#include "ruquant/theory/lloyd_max.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/theory/kmeans.hpp"

namespace ruq {
namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

// What lies below the first level that is sought. An even density is solved at the right of zero
// only: its codebook is symmetric, and two codebooks shifted against each other differ so little
// (for Laplace in no first order, since each half of it is memory-less) that both halves together
// are a nearly singular system.
enum class Foot {
  open,   // everything, down to minus infinity
  wall,   // a threshold at zero
  level,  // a level at zero
};

struct Part {
  std::vector<double> levels;
  Foot foot;

  std::size_t size() const { return levels.size(); }
  double lower(std::size_t i) const {
    if (i > 0) return levels[i - 1] + (levels[i] - levels[i - 1]) / 2;
    return foot == Foot::open ? -kInfinity : foot == Foot::wall ? 0 : levels[0] / 2;
  }
  double upper(std::size_t i) const { return i + 1 == size() ? kInfinity : lower(i + 1); }
  double nearest_threshold(std::size_t i) const {
    return std::min(levels[i] - lower(i), upper(i) - levels[i]);
  }
  bool ascends() const {
    double before = foot == Foot::open ? -kInfinity : 0;
    for (const double level : levels) {
      if (!std::isfinite(level) || level <= before) return false;
      before = level;
    }
    return true;
  }
};

// Where the levels stand: how far each centroid is from its level, and how it moves with the
// thresholds around it (∂centroid/∂threshold, half of which goes to each of the two levels).
struct Stand {
  explicit Stand(std::size_t n) : residual(n), slope_below(n), slope_above(n) {}
  std::vector<double> residual, slope_below, slope_above;
  double worst = 0;  // largest residual as a share of the distance to the nearer threshold
};

Stand stand(const Density& density, const Part& part) {
  Stand s(part.size());
  for (std::size_t i = 0; i < part.size(); ++i) {
    const double level = part.levels[i];
    const double low = part.lower(i);
    const double high = part.upper(i);
    const Moments m = density.moments(low, high, level);
    if (!(m.m0 > 0)) {  // an empty cell has no centroid: as bad as can be
      s.worst = kInfinity;
      return s;
    }
    s.residual[i] = m.m1 / m.m0;
    const auto slope = [&](double t) {
      return density.pdf(t) * (t - level - s.residual[i]) / m.m0;
    };
    if (i > 0 || part.foot == Foot::level) s.slope_below[i] = -slope(low);
    if (i + 1 < part.size()) s.slope_above[i] = slope(high);
    s.worst = std::max(s.worst, std::abs(s.residual[i]) / part.nearest_threshold(i));
  }
  return s;
}

// Newton's step on centroid(levels) − levels = 0: a tridiagonal system, eliminated downwards.
std::vector<double> newton_step(const Stand& s) {
  const std::size_t n = s.residual.size();
  std::vector<double> upper(n), step(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double below = -s.slope_below[i] / 2;
    double pivot = 1 - (s.slope_below[i] + s.slope_above[i]) / 2;
    double right = s.residual[i];
    if (i > 0) {
      pivot -= below * upper[i - 1];
      right -= below * step[i - 1];
    }
    upper[i] = -s.slope_above[i] / 2 / pivot;
    step[i] = right / pivot;
  }
  for (std::size_t i = n; i-- > 1;) step[i - 1] -= upper[i - 1] * step[i];
  return step;
}

Part moved(Part part, const std::vector<double>& step, double share) {
  for (std::size_t i = 0; i < part.size(); ++i) part.levels[i] += share * step[i];
  return part;
}

// Steps a share of Newton's step that brings the residuals down, or else Lloyd's own, which never
// raises the distortion. True when the full step was so short that the next would be rounding.
bool advance(const Density& density, Part& part, Stand& now) {
  constexpr double kShort = 1e-7;
  const std::vector<double> step = newton_step(now);
  double length = 0;
  for (std::size_t i = 0; i < part.size(); ++i) {
    length = std::max(length, std::abs(step[i]) / part.nearest_threshold(i));
  }
  for (double share = 1; share > 0.01; share /= 2) {
    Part next = moved(part, step, share);
    if (!next.ascends()) continue;
    Stand there = stand(density, next);
    if (there.worst < now.worst || length < kShort) {
      part = std::move(next);
      now = std::move(there);
      return length < kShort;
    }
  }
  part = moved(part, now.residual, 1);
  now = stand(density, part);
  return false;
}

// Centroids of the cells between the quantiles i/N of f^(1/3); of an even density those above zero.
Part companded(const Density& density, Index n) {
  const Density points = density.point_density();
  Part part{{}, !density.is_even() ? Foot::open : n % 2 == 0 ? Foot::wall : Foot::level};
  const Index first = part.foot == Foot::open ? 0 : (n + 1) / 2;
  for (Index i = first; i < n; ++i) {
    const double low = i > 0 ? points.quantile(double(i) / double(n)) : -kInfinity;
    const double high = i + 1 < n ? points.quantile(double(i + 1) / double(n)) : kInfinity;
    const auto centroid = density.centroid(low, high);
    if (!centroid) fail("a density has no probability between {} and {}", low, high);
    part.levels.push_back(*centroid);
  }
  return part;
}

// The whole codebook of which `part` was sought.
Codebook completed(const Part& part) {
  if (part.foot == Foot::open) return Codebook::of_levels(part.levels);
  std::vector<double> levels;
  for (std::size_t i = part.size(); i-- > 0;) levels.push_back(-part.levels[i]);
  if (part.foot == Foot::level) levels.push_back(0);
  levels.insert(levels.end(), part.levels.begin(), part.levels.end());
  return Codebook::of_levels(std::move(levels));
}

}  // namespace

Codebook Codebook::of_levels(std::vector<double> levels) {
  if (levels.empty()) fail("a codebook needs at least one level");
  Codebook codebook;
  for (std::size_t i = 1; i < levels.size(); ++i) {
    if (!(levels[i - 1] < levels[i])) {
      fail("levels of a codebook ascend, found {} before {}", levels[i - 1], levels[i]);
    }
    codebook.thresholds.push_back(levels[i - 1] + (levels[i] - levels[i - 1]) / 2);
  }
  codebook.levels = std::move(levels);
  return codebook;
}

double Codebook::lower(Index i) const { return i == 0 ? -kInfinity : thresholds[at(i - 1)]; }

double Codebook::upper(Index i) const { return i + 1 == size() ? kInfinity : thresholds[at(i)]; }

double Codebook::nearest(double x) const {
  const auto cell = std::lower_bound(thresholds.begin(), thresholds.end(), x) - thresholds.begin();
  return levels[at(cell)];
}

double distortion(const Density& density, const Codebook& codebook) {
  double sum = 0;
  for (Index i = 0; i < codebook.size(); ++i) {
    sum += density.moments(codebook.lower(i), codebook.upper(i), codebook.levels[at(i)]).m2;
  }
  return sum;
}

double sqnr_db(const Density& density, double squared_error) {
  return 10 * std::log10(density.variance() / squared_error);
}

Codebook lloyd_max(const Density& density, Index levels) {
  if (levels < 1) fail("a codebook needs at least one level, found {}", levels);
  if (const EmpiricalDensity* samples = density.atoms()) return kmeans(*samples, levels).codebook;

  constexpr int kMost = 2000;
  Part part = companded(density, levels);
  Stand now = stand(density, part);
  for (int iteration = 0; iteration < kMost && now.worst < kInfinity; ++iteration) {
    if (advance(density, part, now)) return completed(part);
  }
  fail("the Lloyd-Max codebook of {} levels did not settle", levels);
}

double centroid_shift(const Density& density, double midpoint, double width) {
  const Moments m = density.moments(midpoint - width / 2, midpoint + width / 2, midpoint);
  if (!(m.m0 > 0)) fail("a cell of width {} at {} has no probability", width, midpoint);
  return m.m1 / m.m0;
}

double centroid_shift_expansion(const Density& density, double midpoint, double width, int terms) {
  if (terms != 1 && terms != 2) fail("the expansion has 1 or 2 terms, found {}", terms);
  const DerivativeRatios f = density.ratios(midpoint);
  const double square = width * width;
  const double first = square / 12 * f.first;
  if (terms == 1) return first;
  return first + square * square * (f.third / 480 - f.first * f.second / 288);
}

std::vector<Bin> uniform_bins(const Density& density, double low, double high, Index count) {
  if (!(low < high) || !std::isfinite(high - low) || count < 1) {
    fail("bins need low < high and a count of at least 1, found {}, {} and {}", low, high, count);
  }
  const auto edge = [&](Index i) { return low + (high - low) * (double(i) / double(count)); };
  std::vector<Bin> bins;
  for (Index i = 0; i < count; ++i) {
    const double middle = edge(i) + (edge(i + 1) - edge(i)) / 2;
    const Moments m = density.moments(edge(i), edge(i + 1), middle);
    bins.push_back({middle, m.m0 > 0 ? middle + m.m1 / m.m0 : middle, m.m0});
  }
  return bins;
}

}  // namespace ruq
