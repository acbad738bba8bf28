#include "ruquant/theory/density.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <tuple>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/theory/partial_moments.hpp"
#include "ruquant/theory/quadrature.hpp"

namespace ruq {
namespace {

template <class... Bodies>
struct Overloaded : Bodies... {
  using Bodies::operator()...;
};

void require_positive(double value, const char* what) {
  if (!(value > 0) || !std::isfinite(value)) {
    fail("a density needs a {} above zero, found {}", what, value);
  }
}

[[noreturn]] void no_curve() {
  fail("an empirical density is a set of samples: it has no pdf, score or point density");
}

// Γ(x + ½)/Γ(x). Differences of lgamma would lose a digit for each of its own; the asymptotic
// series is good to 1e-14 from where it is used.
double gamma_ratio(double x) {
  if (x < 85) return std::tgamma(x + 0.5) / std::tgamma(x);
  const double u = 1 / x;
  return std::sqrt(x) *
         (1 + u * (-1.0 / 8 + u * (1.0 / 128 + u * (5.0 / 1024 - u * (21.0 / 32768)))));
}

// --- f'/f and its kin

DerivativeRatios ratios_at(const UniformDensity&, double) { return {}; }

DerivativeRatios ratios_at(const GaussianDensity& f, double x) {
  const double s = f.deviation;
  const double z = x / s;
  return {-z / s, (z * z - 1) / (s * s), (3 - z * z) * z / (s * s * s)};
}

DerivativeRatios ratios_at(const LaplaceDensity& f, double x) {
  const double slope = (x > 0 ? -1 : x < 0 ? 1 : 0) / f.scale;
  const double square = 1 / (f.scale * f.scale);
  return {slope, square, slope * square};
}

DerivativeRatios ratios_at(const ExponentialDensity& f, double) {
  return {-f.rate, f.rate * f.rate, -f.rate * f.rate * f.rate};
}

// From the derivatives of log f = −(ν+1)/2·log q + constant, q = ν·scale² + x².
DerivativeRatios ratios_at(const StudentDensity& f, double x) {
  const double n = f.degrees + 1;
  const double s = f.degrees * f.scale * f.scale;
  const double q = s + x * x;
  const double d1 = -n * x / q;
  const double d2 = -n * (s - x * x) / (q * q);
  const double d3 = 2 * n * x * (3 * s - x * x) / (q * q * q);
  return {d1, d2 + d1 * d1, d3 + 3 * d1 * d2 + d1 * d1 * d1};
}

// --- samples

struct Atom {
  double value, weight;
};

std::vector<Atom> sorted_atoms(const std::vector<double>& samples,
                               const std::vector<double>& weights) {
  if (!weights.empty() && weights.size() != samples.size()) {
    fail("{} samples with {} weights", samples.size(), weights.size());
  }
  std::vector<Atom> atoms;
  atoms.reserve(samples.size());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const double weight = weights.empty() ? 1 : weights[i];
    if (!std::isfinite(samples[i]) || !std::isfinite(weight) || weight < 0) {
      fail("sample {} is {} with weight {}; expected finite samples and weights of at least 0", i,
           samples[i], weight);
    }
    if (weight > 0) atoms.push_back({samples[i], weight});
  }
  if (atoms.empty()) fail("an empirical density needs a sample of positive weight");
  std::stable_sort(atoms.begin(), atoms.end(),
                   [](const Atom& a, const Atom& b) { return a.value < b.value; });
  return atoms;
}

}  // namespace

StudentDensity::StudentDensity(double nu, double s)
    : degrees(nu), scale(s), peak(gamma_ratio(nu / 2) / (std::sqrt(nu * std::numbers::pi) * s)) {}

Moments& Moments::operator+=(const Moments& other) {
  m0 += other.m0;
  m1 += other.m1;
  m2 += other.m2;
  return *this;
}

Moments Moments::moved_down(double distance) const {
  return {m0, m1 + distance * m0, m2 + distance * (2 * m1 + distance * m0)};
}

Density Density::uniform(double low, double high) {
  if (!std::isfinite(low) || !std::isfinite(high) || low >= high) {
    fail("a uniform density needs low < high, found {} and {}", low, high);
  }
  return Density(UniformDensity{low, high});
}

Density Density::gaussian(double deviation) {
  require_positive(deviation, "standard deviation");
  return Density(GaussianDensity{deviation});
}

Density Density::laplace(double deviation) {
  require_positive(deviation, "standard deviation");
  return Density(LaplaceDensity{deviation / std::numbers::sqrt2});
}

Density Density::student_t(double degrees, double deviation) {
  require_positive(deviation, "standard deviation");
  if (!(degrees > 2) || !std::isfinite(degrees)) {
    fail("Student-t has a variance only above 2 degrees of freedom, found {}", degrees);
  }
  return Density(StudentDensity(degrees, deviation * std::sqrt((degrees - 2) / degrees)));
}

Density Density::exponential(double rate) {
  require_positive(rate, "rate");
  return Density(ExponentialDensity{rate});
}

Density Density::empirical(const std::vector<double>& samples, const std::vector<double>& weights) {
  EmpiricalDensity f;
  double total = 0;
  for (const Atom& atom : sorted_atoms(samples, weights)) {
    if (f.values.empty() || f.values.back() != atom.value) {
      f.values.push_back(atom.value);
      f.weights.push_back(0);
    }
    f.weights.back() += atom.weight;
    total += atom.weight;
  }
  for (double& weight : f.weights) weight /= total;
  f.mean = std::inner_product(f.values.begin(), f.values.end(), f.weights.begin(), 0.0);
  f.before.resize(f.values.size() + 1);
  for (std::size_t i = 0; i < f.values.size(); ++i) {
    const double w = f.weights[i];
    const double x = f.values[i] - f.mean;
    f.before[i + 1] = f.before[i];
    f.before[i + 1] += {w, w * x, w * x * x};
  }
  return Density(std::move(f));
}

double Density::pdf(double x) const {
  return std::visit(Overloaded{[](const EmpiricalDensity&) -> double { no_curve(); },
                               [&](const auto& f) { return density_at(f, x); }},
                    kind_);
}

DerivativeRatios Density::ratios(double x) const {
  return std::visit(Overloaded{[](const EmpiricalDensity&) -> DerivativeRatios { no_curve(); },
                               [&](const auto& f) { return ratios_at(f, x); }},
                    kind_);
}

Moments Density::moments(double a, double b, double centre) const {
  if (!(a < b)) return {};
  return std::visit([&](const auto& f) { return partial_moments(f, a, b, centre); }, kind_);
}

std::optional<double> Density::centroid(double a, double b) const {
  const double centre = std::isfinite(a) && std::isfinite(b) ? a + (b - a) / 2
                        : std::isfinite(a)                   ? a
                        : std::isfinite(b)                   ? b
                                                             : 0;
  const Moments m = moments(a, b, centre);
  return m.m0 > 0 ? std::optional(centre + m.m1 / m.m0) : std::nullopt;
}

double Density::quantile(double p) const {
  if (!(p > 0 && p < 1)) fail("a quantile needs a probability between 0 and 1, found {}", p);
  if (const EmpiricalDensity* f = atoms()) {
    const auto enough = [&](const Moments& upto) { return upto.m0 < p; };
    const auto found = std::partition_point(f->before.begin() + 1, f->before.end(), enough);
    const auto last = std::ssize(f->values) - 1;
    return f->values[static_cast<std::size_t>(std::min(found - f->before.begin() - 1, last))];
  }
  // The smaller of the two tails, so that far quantiles keep their digits.
  const auto missing = [&](double x) {
    return p <= 0.5 ? p - probability(-kInfinity, x) : probability(x, kInfinity) - (1 - p);
  };
  double left = std::max(low(), -1.0);
  double right = std::min(high(), 1.0);
  if (left >= right) std::tie(left, right) = std::pair(low(), high());
  while (left > low() && missing(left) <= 0) left *= 2;
  while (right < high() && missing(right) > 0) right *= 2;
  return falling_root(missing, std::max(left, low()), std::min(right, high()));
}

bool Density::is_even() const {
  return std::visit(
      Overloaded{[](const UniformDensity& f) { return f.low == -f.high; },
                 [](const ExponentialDensity&) { return false; },
                 [](const EmpiricalDensity&) { return false; }, [](const auto&) { return true; }},
      kind_);
}

double Density::mean() const {
  return std::visit(
      Overloaded{[](const UniformDensity& f) { return f.low + (f.high - f.low) / 2; },
                 [](const ExponentialDensity& f) { return 1 / f.rate; },
                 [](const EmpiricalDensity& f) { return f.mean; }, [](const auto&) { return 0.0; }},
      kind_);
}

double Density::variance() const {
  return std::visit(
      Overloaded{[](const UniformDensity& f) { return (f.high - f.low) * (f.high - f.low) / 12; },
                 [](const GaussianDensity& f) { return f.deviation * f.deviation; },
                 [](const LaplaceDensity& f) { return 2 * f.scale * f.scale; },
                 [](const StudentDensity& f) {
                   return f.degrees > 2 ? f.scale * f.scale * f.degrees / (f.degrees - 2)
                                        : kInfinity;
                 },
                 [](const ExponentialDensity& f) { return 1 / (f.rate * f.rate); },
                 [](const EmpiricalDensity& f) { return f.before.back().m2; }},
      kind_);
}

double Density::deviation() const { return std::sqrt(variance()); }

double Density::low() const {
  return std::visit(Overloaded{[](const UniformDensity& f) { return f.low; },
                               [](const ExponentialDensity&) { return 0.0; },
                               [](const EmpiricalDensity& f) { return f.values.front(); },
                               [](const auto&) { return -kInfinity; }},
                    kind_);
}

double Density::high() const {
  return std::visit(Overloaded{[](const UniformDensity& f) { return f.high; },
                               [](const EmpiricalDensity& f) { return f.values.back(); },
                               [](const auto&) { return kInfinity; }},
                    kind_);
}

Density Density::point_density() const {
  return std::visit(
      Overloaded{
          [](const UniformDensity& f) { return Density(f); },
          [](const GaussianDensity& f) {
            return Density(GaussianDensity{f.deviation * std::numbers::sqrt3});
          },
          [](const LaplaceDensity& f) { return Density(LaplaceDensity{3 * f.scale}); },
          [](const ExponentialDensity& f) { return Density(ExponentialDensity{f.rate / 3}); },
          // A power of a Student-t is one of (ν−2)/3 degrees with the same ν·scale².
          [](const StudentDensity& f) {
            const double degrees = (f.degrees - 2) / 3;
            return Density(StudentDensity(degrees, f.scale * std::sqrt(f.degrees / degrees)));
          },
          [](const EmpiricalDensity&) -> Density { no_curve(); }},
      kind_);
}

double Density::panter_dite() const {
  return std::visit(
      Overloaded{[](const UniformDensity&) { return 1.0; },
                 [](const GaussianDensity&) { return std::numbers::sqrt3 * std::numbers::pi / 2; },
                 [](const LaplaceDensity&) { return 4.5; },
                 [](const ExponentialDensity&) { return 2.25; },
                 // ∫ f^(1/3) = f(0)^(1/3) · scale·√ν · B(1/2, (ν−2)/6)
                 [this](const StudentDensity& f) {
                   const double half = (f.degrees - 2) / 6;
                   const double beta = std::sqrt(std::numbers::pi) / gamma_ratio(half);
                   const double width = f.scale * std::sqrt(f.degrees) * beta;
                   return pdf(0) * width * width * width / (12 * variance());
                 },
                 [](const EmpiricalDensity&) -> double { no_curve(); }},
      kind_);
}

}  // namespace ruq
