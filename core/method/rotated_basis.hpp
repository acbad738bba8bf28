// What QuaRot and SpinQuant share: the parts of a plan that works in a rotated basis of the
// residual stream (specification §2.2, §2.3).
#pragma once

#include "ruquant/method/common.hpp"

namespace ruq {

/// Ĥ_e of one head; where no Hadamard matrix exists a random orthogonal matrix from the stream's
/// child "head", and the plan says so.
Transform<double> head_rotation(Index head_width, const Stream& stream, Plan& plan);

/// A map of one head on every head of the value space [kv_heads·e].
Transform<double> over_kv_heads(const Transform<double>& head, const ModelConfig& config);

/// Ĥ_f before down_proj; otherwise a random orthogonal matrix from the stream's child "mlp_out",
/// and the plan says so.
Transform<double> hidden_rotation(Index mlp_width, const Stream& stream, Plan& plan);

}  // namespace ruq
