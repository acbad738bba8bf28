// AdamW (Loshchilov and Hutter, arXiv 1711.05101) with PyTorch's order of operations:
//
//   θ ← θ·(1 − lr·decay);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²
//   θ ← θ − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)
//
// and the two learning-rate schedules in use.
#pragma once

#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

struct AdamWOptions {
  double learning_rate = 1e-2;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
};

/// Moments of any number of parameters; each parameter is known by its slot, and counts its own
/// steps t.
class AdamW {
 public:
  explicit AdamW(const AdamWOptions& options) : options_(options) {}

  /// One step of the parameter in `slot`, in place. Its size must stay what it was at its first
  /// step. Error if the gradient is not finite.
  void step(std::size_t slot, Eigen::Ref<Vector<double>> parameter,
            const Eigen::Ref<const Vector<double>>& gradient, double learning_rate);
  /// At the learning rate of the options.
  void step(std::size_t slot, Eigen::Ref<Vector<double>> parameter,
            const Eigen::Ref<const Vector<double>>& gradient) {
    step(slot, parameter, gradient, options_.learning_rate);
  }

 private:
  struct Moments {
    Index steps = 0;
    Vector<double> first, second;
  };
  AdamWOptions options_;
  std::vector<Moments> moments_;
};

/// `constant`, or `cosine`: from `start` at step 0 to `end` at step `steps`, half a cosine.
struct LearningRate {
  enum class Shape { constant, cosine } shape = Shape::constant;
  double start = 1e-2;
  double end = 0;
  Index steps = 1;

  double at(Index step) const;
};

}  // namespace ruq
