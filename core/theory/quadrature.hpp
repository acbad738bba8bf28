// Gauss-Legendre quadrature with 16 nodes: exact for polynomials up to degree 31, and good to the
// last bit or two for a smooth function on a panel much shorter than its distance to a singularity.
#pragma once

#include <array>

namespace ruq {

struct GaussLegendre {
  static constexpr int kNodes = 16;
  std::array<double, kNodes> node;    ///< on [-1, 1], ascending
  std::array<double, kNodes> weight;  ///< they sum to 2
};

/// The rule, computed once.
const GaussLegendre& gauss_legendre();

/// ∫ f over [low, high] with `panels` panels of equal width.
template <class Function>
double integrate(const Function& f, double low, double high, int panels) {
  const GaussLegendre& rule = gauss_legendre();
  const double half = (high - low) / panels / 2;
  double sum = 0;
  for (int panel = 0; panel < panels; ++panel) {
    const double middle = low + (2 * panel + 1) * half;
    for (int i = 0; i < GaussLegendre::kNodes; ++i) {
      sum += rule.weight[i] * f(middle + half * rule.node[i]);
    }
  }
  return sum * half;
}

/// The root of a function that is positive at `low` and not at `high`, by bisection down to
/// neighbouring doubles or a value of exactly zero.
template <class Function>
double falling_root(const Function& f, double low, double high) {
  for (;;) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) return middle;
    const double value = f(middle);
    if (value == 0) return middle;
    (value > 0 ? low : high) = middle;
  }
}

}  // namespace ruq
