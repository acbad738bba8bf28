// Weight rounding: a registry of its own, independent of the rotations it is combined with.
#pragma once

#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"
#include "ruquant/quant/quantizer.hpp"

namespace ruq {

/// Rounds a weight [out, in] onto the grid that `spec` asks for; same shape back.
template <class S>
using RoundWeight = Matrix<S> (*)(Matrix<S> weight, const QuantSpec& spec);

/// The names known: "rtn" (round to nearest).
std::vector<std::string> rounding_names();

/// Rounds by the named method; identity at 16 bits. Error with the nearest name if unknown.
template <class S>
Matrix<S> round_weight(const std::string& name, Matrix<S> weight, const QuantSpec& spec);

}  // namespace ruq
