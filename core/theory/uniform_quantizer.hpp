// Uniform quantizers of b bits about zero, the one with the best step for a density, and what its
// error is made of.
#pragma once

#include "ruquant/theory/density.hpp"
#include "ruquant/theory/lloyd_max.hpp"

namespace ruq {

/// Which multiples of the step Δ are levels, N = 2^b.
enum class UniformKind {
  midrise,   ///< N half-odd multiples, −(N−1)/2 ... (N−1)/2
  midtread,  ///< N − 1 whole multiples, symmetric
  twos,      ///< −N/2 ... N/2 − 1, two's complement
};

/// The levels for a step. Error when bits is outside 1..16, or is 1 and the kind not midrise, or
/// the step is not positive.
Codebook uniform_codebook(double step, Index bits, UniformKind kind);

struct UniformQuantizer {
  double step;
  Codebook codebook;
};

/// The step of least squared error. A scan over clip points from 0.05 to 10⁴ deviations picks the
/// valley; for a density the step is then the root of the derivative (to rounding), for samples,
/// whose error has many small valleys, the best end of alternating assignment and least squares
/// from the best points of the scan.
UniformQuantizer optimal_uniform(const Density& density, Index bits, UniformKind kind);

/// Error of a uniform quantizer, in parts.
struct UniformError {
  double squared_error;
  double sqnr_db;
  double overload_share;    ///< share of the error beyond the end levels plus half a step
  double tail_probability;  ///< probability there
  double centroid_gain;     ///< error saved by centroids as levels, thresholds kept
};

UniformError uniform_error(const Density& density, const UniformQuantizer& quantizer);

}  // namespace ruq
