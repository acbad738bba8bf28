#include "ruquant/theory/uniform_quantizer.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/theory/quadrature.hpp"

namespace ruq {
namespace {

// Levels in steps.
std::vector<double> multiples(Index bits, UniformKind kind) {
  const Index n = Index{1} << bits;
  std::vector<double> units;
  for (Index i = kind == UniformKind::midtread ? 1 : 0; i < n; ++i) {
    units.push_back(double(i - n / 2) + (kind == UniformKind::midrise ? 0.5 : 0));
  }
  return units;
}

class StepSearch {
 public:
  StepSearch(const Density& density, Index bits, UniformKind kind)
      : density_(density), bits_(bits), kind_(kind), units_(multiples(bits, kind)) {}

  double best() const {
    constexpr int kPoints = 160;
    const double half_range = std::ldexp(1.0, static_cast<int>(bits_) - 1);
    const double unit = density_.deviation() / half_range;
    if (!(unit > 0)) fail("the best step of samples that are all alike is not defined");
    std::vector<double> steps, errors;
    for (int i = 0; i < kPoints; ++i) {
      steps.push_back(unit * 0.05 * std::pow(2e5, double(i) / (kPoints - 1)));
      errors.push_back(error(steps.back()));
    }
    if (density_.atoms() != nullptr) return best_of_samples(steps, errors);
    const auto least = std::min_element(errors.begin(), errors.end()) - errors.begin();
    const auto k = static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(least, 1, kPoints - 2));
    return falling_root([this](double step) { return pull(step); }, steps[k - 1], steps[k + 1]);
  }

 private:
  double error(double step) const {
    return distortion(density_, uniform_codebook(step, bits_, kind_));
  }

  // −½·d(error)/d(step): nearest-neighbour thresholds have no part in it.
  double pull(double step) const {
    const Codebook codebook = uniform_codebook(step, bits_, kind_);
    double sum = 0;
    for (Index i = 0; i < codebook.size(); ++i) {
      const auto k = static_cast<std::size_t>(i);
      sum +=
          units_[k] * density_.moments(codebook.lower(i), codebook.upper(i), codebook.levels[k]).m1;
    }
    return sum;
  }

  // Σ u·E[X; cell] / Σ u²·P(cell): the best step for a fixed assignment.
  double refitted(double step) const {
    const Codebook codebook = uniform_codebook(step, bits_, kind_);
    double cross = 0;
    double square = 0;
    for (Index i = 0; i < codebook.size(); ++i) {
      const double u = units_[static_cast<std::size_t>(i)];
      const Moments m = density_.moments(codebook.lower(i), codebook.upper(i));
      cross += u * m.m1;
      square += u * u * m.m0;
    }
    return square > 0 && cross > 0 ? cross / square : step;
  }

  double best_of_samples(const std::vector<double>& steps,
                         const std::vector<double>& errors) const {
    std::vector<std::size_t> order(steps.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return errors[a] < errors[b]; });
    order.resize(std::min<std::size_t>(order.size(), 16));
    double best = steps[order[0]];
    double least = errors[order[0]];
    for (const std::size_t start : order) {
      double step = steps[start];
      for (int round = 0; round < 100; ++round) {
        const double next = refitted(step);
        if (std::abs(next - step) <= 1e-15 * step) break;
        step = next;
      }
      const double there = error(step);
      if (there < least) std::tie(least, best) = std::pair(there, step);
    }
    return best;
  }

  const Density& density_;
  Index bits_;
  UniformKind kind_;
  std::vector<double> units_;
};

}  // namespace

Codebook uniform_codebook(double step, Index bits, UniformKind kind) {
  if (bits < 1 || bits > 16 || (bits == 1 && kind != UniformKind::midrise)) {
    fail("a uniform quantizer has 1 to 16 bits, and 1 only as midrise; found {}", bits);
  }
  if (!(step > 0) || !std::isfinite(step)) fail("a step is above zero, found {}", step);
  std::vector<double> levels = multiples(bits, kind);
  for (double& level : levels) level *= step;
  return Codebook::of_levels(std::move(levels));
}

UniformQuantizer optimal_uniform(const Density& density, Index bits, UniformKind kind) {
  uniform_codebook(1, bits, kind);  // refuses wrong requests before the search
  const double step = StepSearch(density, bits, kind).best();
  return {step, uniform_codebook(step, bits, kind)};
}

UniformError uniform_error(const Density& density, const UniformQuantizer& quantizer) {
  const Codebook& codebook = quantizer.codebook;
  UniformError result{};
  for (Index i = 0; i < codebook.size(); ++i) {
    const double level = codebook.levels[static_cast<std::size_t>(i)];
    const Moments m = density.moments(codebook.lower(i), codebook.upper(i), level);
    result.squared_error += m.m2;
    if (m.m0 > 0) result.centroid_gain += m.m1 * m.m1 / m.m0;
  }
  const double first = codebook.levels.front();
  const double last = codebook.levels.back();
  const Moments below = density.moments(-kInfinity, first - quantizer.step / 2, first);
  const Moments above = density.moments(last + quantizer.step / 2, kInfinity, last);
  result.sqnr_db = sqnr_db(density, result.squared_error);
  result.tail_probability = below.m0 + above.m0;
  result.overload_share =
      result.squared_error > 0 ? (below.m2 + above.m2) / result.squared_error : 0;
  return result;
}

}  // namespace ruq
