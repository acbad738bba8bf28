#include "ruquant/method/rotated_basis.hpp"

#include "ruquant/base/error.hpp"
#include "ruquant/transform/hadamard.hpp"

namespace ruq {

Transform<double> head_rotation(Index head_width, const Stream& stream, Plan& plan) {
  Transform<double> rotation(head_width);
  if (hadamard_exists(head_width)) {
    rotation.append(HadamardStep{head_width});
    return rotation;
  }
  plan.note_fallback(fmt::format(
      "heads: no Hadamard matrix of order {}, a random orthogonal matrix instead", head_width));
  Stream draws = stream.child("head");
  rotation.append(BlockDiagonal<double>{{{haar_orthogonal(head_width, draws), {}}}, {0}});
  return rotation;
}

Transform<double> over_kv_heads(const Transform<double>& head, const ModelConfig& config) {
  Transform<double> all(config.kv_width());
  for (const Step<double>& step : head.steps()) {
    if (const auto* blocks = std::get_if<BlockDiagonal<double>>(&step)) {
      all.append(BlockDiagonal<double>{
          blocks->maps, std::vector<Index>(static_cast<std::size_t>(config.kv_heads), 0)});
    } else {
      all.append(step);
    }
  }
  return all;
}

Transform<double> hidden_rotation(Index mlp_width, const Stream& stream, Plan& plan) {
  if (!hadamard_exists(mlp_width)) {
    Stream draws = stream.child("mlp_out");
    return randomized_hadamard(mlp_width, draws, "mlp_out", plan);
  }
  Transform<double> rotation(mlp_width);
  rotation.append(HadamardStep{mlp_width});
  return rotation;
}

}  // namespace ruq
