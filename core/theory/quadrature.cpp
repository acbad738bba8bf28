#include "ruquant/theory/quadrature.hpp"

#include <cmath>
#include <numbers>

namespace ruq {
namespace {

struct Legendre {
  double value;
  double slope;
};

// P_n and its derivative by the three-term recurrence.
Legendre legendre(int n, double x) {
  double before = 1;
  double now = x;
  for (int k = 2; k <= n; ++k) {
    const double next = ((2 * k - 1) * x * now - (k - 1) * before) / k;
    before = now;
    now = next;
  }
  return {now, n * (x * now - before) / (x * x - 1)};
}

GaussLegendre make_rule() {
  constexpr int n = GaussLegendre::kNodes;
  GaussLegendre rule{};
  for (int i = 0; i < n / 2; ++i) {
    double x = std::cos(std::numbers::pi * (i + 0.75) / (n + 0.5));
    for (int step = 0; step < 10; ++step) {  // quadratic from a start good to three digits
      const Legendre p = legendre(n, x);
      x -= p.value / p.slope;
    }
    const double slope = legendre(n, x).slope;
    rule.node[n - 1 - i] = x;
    rule.node[i] = -x;
    rule.weight[i] = rule.weight[n - 1 - i] = 2 / ((1 - x * x) * slope * slope);
  }
  return rule;
}

}  // namespace

const GaussLegendre& gauss_legendre() {
  static const GaussLegendre rule = make_rule();
  return rule;
}

}  // namespace ruq
