// Clip factors in the form in which they are learned: sigmoid(γ), γ from 4 (0.982), so that they
// stay between 0 and 1 (OmniQuant arXiv 2308.13137, FlatQuant arXiv 2410.09426; specification §2.4,
// §2.5).
#pragma once

#include <cmath>

#include "ruquant/base/matrix.hpp"

namespace ruq {

inline constexpr double kFirstClipLogit = 4;

inline double sigmoid(double gamma) { return 1 / (1 + std::exp(-gamma)); }

/// sigmoid of every entry.
inline Vector<double> clip_factors(const Vector<double>& gamma) {
  return gamma.unaryExpr([](double value) { return sigmoid(value); });
}

/// From ∂L/∂factor to ∂L/∂γ.
inline Vector<double> through_clip_factors(const Vector<double>& gamma,
                                           const Vector<double>& gradient) {
  const Vector<double> factor = clip_factors(gamma);
  return gradient.array() * factor.array() * (1 - factor.array());
}

}  // namespace ruq
