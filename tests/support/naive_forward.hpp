// A decoder written once more, one token and one head at a time with plain loops in double, as the
// oracle of the forward pass. It shares no code with core/model beyond the struct of weights.
#pragma once

#include <cstdint>
#include <span>

#include "ruquant/model/model.hpp"

namespace ruq::test {

/// Logits [ids.size(), vocabulary] of one window.
Matrix<double> naive_logits(const Model<double>& model, std::span<const std::int32_t> ids);

}  // namespace ruq::test
