#include "ruquant/theory/partial_moments.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ruquant/theory/quadrature.hpp"

namespace ruq {
namespace {

// --- widths of panels at x ≥ 0: a fraction of the distance to the nearest singularity, and no
// --- more than a few e-folds of the density

double panel_width(const GaussianDensity& f, double) { return f.deviation / 2; }
double panel_width(const ExponentialDensity& f, double) { return 0.5 / f.rate; }
double panel_width(const StudentDensity& f, double x) {
  const double geometric = std::max(f.scale, x / 2) / 2;
  const double folds = (f.degrees + 1) * x / (f.degrees * f.scale * f.scale + x * x);
  return folds * geometric > 4 ? 4 / folds : geometric;
}

// Wider cells than this are differences of half-lines, which no longer cancel.
double panelled_width(const GaussianDensity& f) { return 4 * f.deviation; }
double panelled_width(const ExponentialDensity& f) { return 4 / f.rate; }
double panelled_width(const StudentDensity&) { return kInfinity; }

template <class Kind>
Moments panelled(const Kind& f, double a, double b, double centre) {
  const GaussLegendre& rule = gauss_legendre();
  Moments sum;
  while (a < b) {
    const double width = panel_width(f, a);
    const double end = b - a < 1.01 * width ? b : a + width;
    const double half = (end - a) / 2;
    const double middle = a + half;
    for (int i = 0; i < GaussLegendre::kNodes; ++i) {
      const double offset = half * rule.node[i];
      const double mass = half * rule.weight[i] * density_at(f, middle + offset);
      const double x = (middle - centre) + offset;
      sum += {mass, mass * x, mass * x * x};
    }
    a = end;
  }
  return sum;
}

// --- half-lines (a, ∞) for a ≥ 0, about a

Moments tail(const GaussianDensity& f, double a) {
  const double z = a / f.deviation;
  const double q = std::erfc(z / std::numbers::sqrt2) / 2;
  const double phi = f.deviation * density_at(f, a);
  return {q, f.deviation * (phi - z * q), f.deviation * f.deviation * ((1 + z * z) * q - z * phi)};
}

Moments tail(const ExponentialDensity& f, double a) {
  const double mass = std::exp(-f.rate * a);
  return {mass, mass / f.rate, 2 * mass / (f.rate * f.rate)};
}

// With z = x/(scale·√ν) the density is proportional to z^(−ν−1)·(1 + z^−2)^(−(ν+1)/2); the
// binomial series, integrated term by term. Good for z² well above 1 and above ν. Moments that do
// not exist (k ≥ ν) come out as no number to use, those below them are right all the same.
Moments student_series(const StudentDensity& f, double a) {
  const double unit = f.scale * std::sqrt(f.degrees);
  const double z = a / unit;
  const double p = (f.degrees + 1) / 2;
  double sums[3] = {0, 0, 0};
  double term = std::pow(z, -f.degrees);
  for (int j = 0; j < 400 && std::abs(term) > 1e-19 * sums[0]; ++j) {
    for (int k = 0; k < 3; ++k) sums[k] += term / (f.degrees + 2 * j - k);
    term *= -(p + j) / ((j + 1) * z * z);
  }
  const double constant = f.peak * unit;
  const Moments plain = {constant * sums[0], constant * a * sums[1], constant * a * a * sums[2]};
  return plain.moved_down(-a);
}

Moments tail(const StudentDensity& f, double a) {
  const double start =
      f.scale * std::sqrt(f.degrees) * std::max(3.0, std::sqrt(2 * (f.degrees + 1)));
  if (a >= start) return student_series(f, a);
  Moments sum = panelled(f, a, start, a);
  return sum += student_series(f, start).moved_down(start - a);
}

// --- any interval

// 0 ≤ a < b.
template <class Kind>
Moments right_of_zero(const Kind& f, double a, double b, double centre) {
  if (b - a <= panelled_width(f) && b < kInfinity) return panelled(f, a, b, centre);
  Moments sum = tail(f, a).moved_down(a - centre);
  if (b < kInfinity) {
    const Moments beyond = tail(f, b).moved_down(b - centre);
    sum += {-beyond.m0, -beyond.m1, -beyond.m2};
  }
  return sum;
}

// Of an even density, from what it is at the right of zero.
template <class Right>
Moments of_even(const Right& right, double a, double b, double centre) {
  Moments sum;
  if (a < 0) {
    const Moments mirrored = right(std::max(0.0, -b), -a, -centre);
    sum += {mirrored.m0, -mirrored.m1, mirrored.m2};
  }
  if (b > 0) sum += right(std::max(0.0, a), b, centre);
  return sum;
}

template <class Kind>
Moments of_even_kind(const Kind& f, double a, double b, double centre) {
  return of_even([&](double l, double h, double c) { return right_of_zero(f, l, h, c); }, a, b,
                 centre);
}

}  // namespace

double density_at(const UniformDensity& f, double x) {
  return x < f.low || x > f.high ? 0 : 1 / (f.high - f.low);
}
double density_at(const GaussianDensity& f, double x) {
  const double z = x / f.deviation;
  return std::exp(-z * z / 2) / (f.deviation * std::sqrt(2 * std::numbers::pi));
}
double density_at(const LaplaceDensity& f, double x) {
  return std::exp(-std::abs(x) / f.scale) / (2 * f.scale);
}
double density_at(const StudentDensity& f, double x) {
  const double z = x / f.scale;
  return f.peak * std::exp(-(f.degrees + 1) / 2 * std::log1p(z * z / f.degrees));
}
double density_at(const ExponentialDensity& f, double x) {
  return x < 0 ? 0 : f.rate * std::exp(-f.rate * x);
}

Moments partial_moments(const UniformDensity& f, double a, double b, double centre) {
  const double l = std::max(a, f.low);
  const double h = std::min(b, f.high);
  if (l >= h) return {};
  const double mass = (h - l) / (f.high - f.low);
  const double distance = l + (h - l) / 2 - centre;
  return {mass, mass * distance, mass * (distance * distance + (h - l) * (h - l) / 12)};
}

Moments partial_moments(const GaussianDensity& f, double a, double b, double centre) {
  return of_even_kind(f, a, b, centre);
}

Moments partial_moments(const StudentDensity& f, double a, double b, double centre) {
  return of_even_kind(f, a, b, centre);
}

Moments partial_moments(const LaplaceDensity& f, double a, double b, double centre) {
  const ExponentialDensity side = {1 / f.scale};
  const Moments both = of_even(
      [&](double l, double h, double c) { return right_of_zero(side, l, h, c); }, a, b, centre);
  return {both.m0 / 2, both.m1 / 2, both.m2 / 2};
}

Moments partial_moments(const ExponentialDensity& f, double a, double b, double centre) {
  return b <= 0 ? Moments{} : right_of_zero(f, std::max(a, 0.0), b, centre);
}

Moments partial_moments(const EmpiricalDensity& f, double a, double b, double centre) {
  const auto upto = [&](double x) -> const Moments& {
    return f.before[static_cast<std::size_t>(std::upper_bound(f.values.begin(), f.values.end(), x) -
                                             f.values.begin())];
  };
  const Moments& from = upto(a);
  Moments sum = upto(b);
  sum += {-from.m0, -from.m1, -from.m2};
  return sum.moved_down(f.mean - centre);
}

}  // namespace ruq
