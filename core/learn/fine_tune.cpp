#include "ruquant/learn/fine_tune.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <variant>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/learn/lbfgs.hpp"
#include "ruquant/learn/sphere_product.hpp"

namespace ruq {
namespace {

constexpr double kSmallestNorm = 1e-12;

Vector<double> unit(const Vector<double>& omega) {
  return omega / std::max(omega.norm(), kSmallestNorm);
}

// From the gradient by v = ω/‖ω‖ to that by ω.
Vector<double> through_unit(const Vector<double>& omega, const Vector<double>& gradient) {
  const double norm = omega.norm();
  if (norm <= kSmallestNorm) return gradient / kSmallestNorm;
  const Vector<double> v = omega / norm;
  return (gradient - v.dot(gradient) * v) / norm;
}

// All steps of a site's online transform but the reflection at its end.
Transform<double> without_reflection(const Transform<double>& online) {
  Transform<double> rest(online.width());
  for (std::size_t i = 0; i + 1 < online.steps().size(); ++i) rest.append(online.steps()[i]);
  return rest;
}

PerSite<Transform<double>> fixed_parts(const LayerPlan& plan) {
  PerSite<Transform<double>> fixed;
  for (const SiteKind kind : kLinearSites) fixed[kind] = without_reflection(plan[kind].online);
  return fixed;
}

std::vector<Index> all_windows(Index count) {
  std::vector<Index> windows(static_cast<std::size_t>(count));
  std::iota(windows.begin(), windows.end(), Index{0});
  return windows;
}

// The parts of a point on the product of spheres, one after another.
Vector<double> joined(const Directions& directions) {
  Index size = 0;
  for (const Vector<double>& part : directions) size += part.size();
  Vector<double> all(size);
  Index begin = 0;
  for (const Vector<double>& part : directions) {
    all.segment(begin, part.size()) = part;
    begin += part.size();
  }
  return all;
}

void split(const Eigen::Ref<const Vector<double>>& all, Directions& directions) {
  Index begin = 0;
  for (Vector<double>& part : directions) {
    part = all.segment(begin, part.size()).eval();
    begin += part.size();
  }
}

// The loss over the start's loss, so that the solver's tolerances do not depend on units. Remembers
// the best point it has seen.
template <class S>
class Cost final : public ceres::FirstOrderFunction {
 public:
  struct State {
    ReflectionObjective<S>& objective;
    const BlockSamples<S>& samples;
    Index max_evaluations = 0;
    double unit = 0;  // the loss at the first evaluation
    double best_loss = std::numeric_limits<double>::infinity();
    Directions best;
    LearningRecord record;

    bool spent() const { return max_evaluations > 0 && record.evaluations >= max_evaluations; }
  };

  Cost(State& state, int size) : state_(state), size_(size) {}

  bool Evaluate(const double* parameters, double* cost, double* gradient) const override {
    if (state_.spent()) return false;  // Ceres gives up, and the best point stands
    Directions point = state_.best;
    split(Eigen::Map<const Vector<double>>(parameters, size_), point);
    Directions slope;
    const double loss =
        state_.objective.evaluate(point, state_.samples, gradient == nullptr ? nullptr : &slope);
    if (!std::isfinite(loss)) return false;
    if (state_.unit == 0) state_.unit = loss > 0 ? loss : 1;
    ++state_.record.evaluations;
    state_.record.losses.push_back(loss);
    if (loss < state_.best_loss) {
      state_.best_loss = loss;
      state_.best = point;
    }
    *cost = loss / state_.unit;
    if (gradient != nullptr) {
      Eigen::Map<Vector<double>>(gradient, size_) = joined(slope) / state_.unit;
    }
    return true;
  }
  int NumParameters() const override { return size_; }

 private:
  State& state_;
  int size_;
};

template <class S>
void check_samples(const ModelConfig& config, const BlockSamples<S>& samples) {
  const Matrix<S>& input = samples.quantized_input;
  if (samples.length <= 0 || input.rows() == 0) {
    fail("fine-tuning: found no samples, expected at least one window");
  }
  if (input.rows() % samples.length != 0 || input.cols() != config.width ||
      samples.target.rows() != input.rows() || samples.target.cols() != config.width) {
    fail(
        "fine-tuning: found inputs [{}, {}] and targets [{}, {}], expected two of [windows*{}, {}]",
        input.rows(), input.cols(), samples.target.rows(), samples.target.cols(), samples.length,
        config.width);
  }
}

}  // namespace

Directions reflections(const LayerPlan& plan) {
  Directions directions;
  for (const SiteKind kind : kLinearSites) {
    const auto& steps = plan[kind].online.steps();
    const auto* last = steps.empty() ? nullptr : std::get_if<Reflection<double>>(&steps.back());
    if (last == nullptr) {
      fail("{}: found the transform '{}', expected a global reflection at its end", to_string(kind),
           plan[kind].online.describe());
    }
    directions[kind] = last->v;
  }
  return directions;
}

template <class S>
ReflectionObjective<S>::ReflectionObjective(const ModelConfig& config,
                                            const LayerWeights<S>& folded, const LayerPlan& plan,
                                            const QuantSettings& quant, Index layer)
    : start_(reflections(plan)),
      query_key_(plan.query_key),
      block_(config, folded, fixed_parts(plan), quant, layer) {
  install(start_);
}

template <class S>
void ReflectionObjective<S>::install(const Directions& omega) {
  BlockParameters parameters;
  parameters.query_key = query_key_;
  for (const SiteKind kind : kLinearSites) {
    parameters.online[kind].append(Reflection<double>{unit(omega[kind])});
  }
  block_.install(std::move(parameters));
}

template <class S>
double ReflectionObjective<S>::evaluate(const Directions& omega, const BlockSamples<S>& samples,
                                        std::span<const Index> windows, Directions* gradient) {
  install(omega);
  const auto entries =
      static_cast<double>(std::ssize(windows) * samples.length * samples.target.cols());
  double sum = 0;
  for (const Index window : windows) {
    Matrix<S> input = window_input(samples, false, window);
    sum += gradient == nullptr
               ? squared_error(block_, std::move(input), samples, window)
               : add_squared_error(block_, std::move(input), samples, window, entries);
  }
  if (gradient != nullptr) {
    const BlockGradients slopes = block_.take_gradients();
    for (const SiteKind kind : kLinearSites) {
      (*gradient)[kind] = through_unit(omega[kind], slopes.online[kind].front().vector);
    }
  }
  return sum / entries;
}

template <class S>
double ReflectionObjective<S>::evaluate(const Directions& omega, const BlockSamples<S>& samples,
                                        Directions* gradient) {
  return evaluate(omega, samples, all_windows(samples.windows()), gradient);
}

template <class S>
std::optional<double> ReflectionObjective<S>::judge(const Directions& omega,
                                                    const BlockSamples<S>& held_out) {
  if (held_out.windows() == 0) return std::nullopt;
  return evaluate(omega, held_out);
}

template <class S>
Matrix<S> ReflectionObjective<S>::output(const BlockSamples<S>& samples, Index window) const {
  return block_.forward(window_input(samples, false, window), samples.length);
}

Vector<double> raised_to_floor(Vector<double> omega, double floor) {
  for (double& value : omega) {
    if (value != 0) value = std::copysign(std::max(std::abs(value), floor), value);
  }
  return omega;
}

template <class S>
LearningRecord tune_by_adamw(ReflectionObjective<S>& objective, const BlockSamples<S>& samples,
                             std::span<const Index> order, const FineTuneOptions& options,
                             Directions& omega,
                             const std::function<void(const Directions&)>& after_step) {
  AdamW optimizer(options.adamw);
  LearningRecord record{.optimizer = "adamw"};
  const auto raise_all = [&] {
    for (Vector<double>& part : omega) part = raised_to_floor(part, options.omega_floor);
  };
  StepLog log("fine-tuning", std::ssize(order));
  for (const Index& window : order) {
    raise_all();
    Directions gradient;
    record.losses.push_back(objective.evaluate(omega, samples, {&window, 1}, &gradient));
    for (std::size_t i = 0; i < omega.size(); ++i) optimizer.step(i, omega[i], gradient[i]);
    if (after_step) after_step(omega);
    log.after(std::ssize(record.losses));
  }
  raise_all();
  record.steps = record.evaluations = std::ssize(order);
  record.tokens = record.steps * samples.length;
  record.termination = fmt::format("Took all {} steps.", order.size());
  return record;
}

template <class S>
LearningRecord tune_by_lbfgs(ReflectionObjective<S>& objective, const BlockSamples<S>& samples,
                             const FineTuneOptions& options, Directions& omega) {
  std::vector<int> dimensions;
  for (Vector<double>& part : omega) {
    part = unit(part);
    dimensions.push_back(static_cast<int>(part.size()));
  }
  typename Cost<S>::State state{.objective = objective,
                                .samples = samples,
                                .max_evaluations = options.max_evaluations,
                                .best = omega,
                                .record = {.optimizer = "lbfgs"}};
  Vector<double> point = joined(omega);
  // The problem owns cost and manifold.
  const ceres::GradientProblem problem(new Cost<S>(state, static_cast<int>(point.size())),
                                       new SphereProduct(dimensions));
  const auto summary = minimize_lbfgs(problem, options.max_iterations, point);

  for (std::size_t i = 0; i < omega.size(); ++i) omega[i] = unit(state.best[i]);
  state.record.steps = iterations_of(summary);
  state.record.tokens = state.record.evaluations * samples.windows() * samples.length;
  state.record.termination = state.spent() && summary.termination_type == ceres::FAILURE
                                 ? fmt::format("Spent all {} evaluations.", options.max_evaluations)
                                 : summary.message;
  return std::move(state.record);
}

template <class S>
LearningRecord fine_tune_reflections(const ModelConfig& config, const LayerWeights<S>& folded,
                                     const QuantSettings& quant, const BlockSamples<S>& train,
                                     const BlockSamples<S>& held_out,
                                     const FineTuneOptions& options, LayerPlan& plan,
                                     const Directions* start) {
  check_samples(config, train);
  // What stands before the reflections stays, so one objective judges start and result.
  ReflectionObjective<S> objective(config, folded, plan, quant);
  Directions omega = start != nullptr ? *start : objective.start();
  const double initial = objective.evaluate(omega, train);
  const std::optional<double> held_out_initial = objective.judge(omega, held_out);
  LearningRecord record;
  if (options.optimizer == "lbfgs") {
    record = tune_by_lbfgs(objective, train, options, omega);
  } else {
    std::vector<Index> order;
    for (Index epoch = 0; epoch < options.epochs; ++epoch) {
      const std::vector<Index> pass = all_windows(train.windows());
      order.insert(order.end(), pass.begin(), pass.end());
    }
    record = tune_by_adamw(objective, train, order, options, omega);
  }
  record.objective = "block output";
  record.initial_loss = initial;
  record.final_loss = objective.evaluate(omega, train);
  record.held_out_initial = held_out_initial;
  for (const SiteKind kind : kLinearSites) {
    Transform<double> online = without_reflection(plan[kind].online);
    online.append(Reflection<double>{unit(omega[kind])});
    plan[kind].online = std::move(online);
  }
  record.held_out_final = objective.judge(reflections(plan), held_out);
  return record;
}

#define RUQ_INSTANTIATE(S)                                                                      \
  template class ReflectionObjective<S>;                                                        \
  template LearningRecord tune_by_adamw(                                                        \
      ReflectionObjective<S>&, const BlockSamples<S>&, std::span<const Index>,                  \
      const FineTuneOptions&, Directions&, const std::function<void(const Directions&)>&);      \
  template LearningRecord tune_by_lbfgs(ReflectionObjective<S>&, const BlockSamples<S>&,        \
                                        const FineTuneOptions&, Directions&);                   \
  template LearningRecord fine_tune_reflections(                                                \
      const ModelConfig&, const LayerWeights<S>&, const QuantSettings&, const BlockSamples<S>&, \
      const BlockSamples<S>&, const FineTuneOptions&, LayerPlan&, const Directions*);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
