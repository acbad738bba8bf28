#include "ruquant/learn/adamw.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ruquant/base/error.hpp"

namespace ruq {

void AdamW::step(std::size_t slot, Eigen::Ref<Vector<double>> parameter,
                 const Eigen::Ref<const Vector<double>>& gradient, double learning_rate) {
  if (!gradient.allFinite()) fail("AdamW: NaN or infinity in the gradient of parameter {}", slot);
  if (slot >= moments_.size()) moments_.resize(slot + 1);
  Moments& own = moments_[slot];
  if (own.steps == 0) {
    own.first.setZero(parameter.size());
    own.second.setZero(parameter.size());
  }
  RUQ_CHECK(own.first.size() == parameter.size() && gradient.size() == parameter.size(),
            "parameter {}: {} entries and a gradient of {}, {} before", slot, parameter.size(),
            gradient.size(), own.first.size());
  ++own.steps;
  const AdamWOptions& o = options_;
  const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(own.steps));
  const double correction2 = 1 - std::pow(o.beta2, static_cast<double>(own.steps));
  parameter *= 1 - learning_rate * o.weight_decay;
  own.first = o.beta1 * own.first + (1 - o.beta1) * gradient;
  own.second = o.beta2 * own.second + (1 - o.beta2) * gradient.cwiseAbs2();
  parameter.array() -= learning_rate / correction1 * own.first.array() /
                       (own.second.array().sqrt() / std::sqrt(correction2) + o.epsilon);
}

double LearningRate::at(Index step) const {
  if (shape == Shape::constant) return start;
  const double part = std::clamp(static_cast<double>(step) / static_cast<double>(steps), 0.0, 1.0);
  return end + (start - end) * (1 + std::cos(std::numbers::pi * part)) / 2;
}

}  // namespace ruq
