// `runexp theory`: scalar quantizers of a density as JSON, for notebooks and for looking at.
#pragma once

#include <string>

#include "ruquant/base/matrix.hpp"

namespace ruq {

struct TheoryRequest {
  std::string density = "gaussian";  ///< of density_names()
  Index bits = 4;
  double degrees = 5;  ///< of Student-t
};

/// The densities that can be asked for: deviation 1, or on [0, 1), or of rate 1.
std::string density_names();

/// {density, bits, deviation, uniform, optimal_uniform, lloyd_max, panter_dite_db}. Each quantizer
/// is {levels, thresholds, centroids, probabilities, sqnr_db}, uniform ones also {step, shift},
/// shift = (centroid − level)/Δ. `uniform` has its end levels at the 1/2000 and 1999/2000
/// quantiles, as the grid of a row of about a thousand entries; `optimal_uniform`, of even
/// densities alone, has the step of least squared error. Error for an unknown density, naming the
/// nearest.
std::string theory_json(const TheoryRequest& request);

}  // namespace ruq
