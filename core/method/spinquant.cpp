// SpinQuant (arXiv 2405.16406; specification §2.3): a basis R1 of the residual stream and one R2 of
// the values of every layer, both folded and both learned on the cross entropy of the quantized
// model by Cayley SGD; Ĥ_e online on queries and keys (R3), Ĥ_f online before down_proj (R4). Norm
// gains are fused into the weights; the code's mean-centring of the embedding is left out, as in
// QuaRot.
//
// R1 and R2 start as randomized Hadamard matrices, R2 with signs of its own in every layer. After
// learning they are replaced by the nearest orthogonal matrices, since Cayley SGD drifts off a
// little. `schedule` paper is 100 steps of 8 windows of 2048 tokens; short takes minutes on two
// cores for a model of 135 million weights. With `learning_steps` only the first of them are taken,
// at the rates that they have in the whole schedule.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/learn/cayley.hpp"
#include "ruquant/learn/model_rotation.hpp"
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"
#include "ruquant/method/rotated_basis.hpp"

namespace ruq {
namespace {

constexpr Index kHeldOutWindows = 2;

struct Schedule {
  Index steps = 16;
  Index windows = 2;   // of one step
  Index tokens = 256;  // of a window
  Index taken = 0;     // of the steps, from the first on; 0: all

  Index steps_taken() const { return taken > 0 ? std::min(taken, steps) : steps; }

  static Schedule of(const std::string& preset) {
    return preset == "paper" ? Schedule{.steps = 100, .windows = 8, .tokens = 2048} : Schedule{};
  }
};

struct SpinQuantOptions {
  std::string preset = "short";
  Schedule schedule;
  double learning_rate = 1.5;
  bool weights_in_learning = true;
  std::string learn = "both";

  bool learns(const char* what) const { return learn == what || learn == "both"; }
};

// All rotations of the model with an optimizer each.
class Optimizer {
 public:
  Optimizer(const SpinQuantOptions& options, Index layers, const Stream& stream)
      : options_(options), residual_{CayleySgd({}), stream.child("residual")} {
    for (Index l = 0; l < layers; ++l) {
      values_.push_back({CayleySgd({}), stream.child(fmt::format("layers.{}.values", l))});
    }
  }

  // As after so many steps. Momentum is not kept (cayley.hpp), so only draws are.
  void skip(Index steps) {
    residual_.draws.uniform(steps);
    for (One& one : values_) one.draws.uniform(steps);
  }

  void step(double rate, const ModelRotations& gradient, ModelRotations& rotations) {
    if (options_.learns("r1")) {
      with_context("R1", [&] { take(residual_, rate, gradient.residual, rotations.residual); });
    }
    if (!options_.learns("r2")) return;
    parallel_for(std::ssize(values_), [&](Index i) {
      const auto l = static_cast<std::size_t>(i);
      with_context(fmt::format("layers.{}.values", l),
                   [&] { take(values_[l], rate, gradient.values[l], rotations.values[l]); });
    });
  }

 private:
  struct One {
    CayleySgd sgd;
    Stream draws;  // of the occasional re-orthogonalization
  };
  static void take(One& one, double rate, const Matrix<double>& gradient, Matrix<double>& x) {
    one.sgd.set_learning_rate(rate);
    one.sgd.step(x, gradient, one.draws);
  }

  const SpinQuantOptions& options_;
  One residual_;
  std::vector<One> values_;
};

// max|X·Xᵀ − I| over all rotations; makes them orthogonal again.
double make_orthogonal(ModelRotations& rotations) {
  double drift = 0;
  const auto mend = [&](Matrix<double>& x) {
    const Matrix<double> square = x * x.transpose();
    drift = std::max(drift,
                     (square - Matrix<double>::Identity(x.rows(), x.cols())).cwiseAbs().maxCoeff());
    x = nearest_orthogonal(std::move(x));
  };
  mend(rotations.residual);
  for (Matrix<double>& map : rotations.values) mend(map);
  return drift;
}

template <class S>
class Learner {
 public:
  Learner(CalibrationSession<S>& session, const SpinQuantOptions& options,
          const typename ModelRotationObjective<S>::Setup& setup)
      : session_(session),
        options_(options),
        schedule_(options.schedule),
        model_(session.model()),
        steps_(schedule_.steps_taken()),
        objective_(model_, setup),
        tokens_(session.learning_tokens({.train = steps_ * schedule_.windows,
                                         .held_out = kHeldOutWindows,
                                         .tokens = schedule_.tokens})) {}

  LearningRecord learn(const Stream& stream, ModelRotations& rotations) {
    LearningRecord record;
    record.where = "model";
    record.optimizer = "cayley sgd";
    record.objective = "next-token cross entropy";
    record.held_out_initial = objective_.evaluate(rotations, held_out());
    record.details["held_out_float"] = float_loss(held_out());
    Optimizer optimizer(options_, model_.config.layers, stream);
    const Index done = resume(rotations, record.losses);
    optimizer.skip(done);
    for (Index step = done; step < steps_; ++step) {
      ModelRotations gradient;
      record.losses.push_back(objective_.evaluate(rotations, batch(step), &gradient));
      optimizer.step(rate(step), gradient, rotations);
      logger().info("spinquant: step {} of {}, loss {:.4f}", step + 1, steps_,
                    record.losses.back());
      session_.keep_steps(step + 1, steps_, state_of(rotations, record.losses));
    }
    record.details["scheduled_steps"] = static_cast<double>(schedule_.steps);
    record.details["orthogonality_drift"] = make_orthogonal(rotations);
    record.initial_loss = record.losses.front();
    record.final_loss = objective_.evaluate(rotations, batch(0));
    record.held_out_final = objective_.evaluate(rotations, held_out());
    record.steps = record.evaluations = steps_;
    record.tokens = std::ssize(tokens_.train);
    record.termination = steps_ == schedule_.steps
                             ? fmt::format("Took all {} steps.", steps_)
                             : fmt::format("Took {} of {} steps.", steps_, schedule_.steps);
    return record;
  }

 private:
  TokenWindows batch(Index step) const {
    const auto size = static_cast<std::size_t>(schedule_.windows * schedule_.tokens);
    return {std::span(tokens_.train).subspan(static_cast<std::size_t>(step) * size, size),
            schedule_.tokens};
  }
  TokenWindows held_out() const { return {tokens_.held_out, schedule_.tokens}; }
  // A cosine from the learning rate to zero.
  double rate(Index step) const {
    const double share = static_cast<double>(step) / static_cast<double>(schedule_.steps);
    return options_.learning_rate * 0.5 * (1 + std::cos(std::numbers::pi * share));
  }
  double float_loss(const TokenWindows& tokens) const {
    const Matrix<S> states = final_hidden<S>(model_, tokens.ids, tokens.length, {});
    return cross_entropy(states, model_.head_weight(), tokens);
  }

  // The rotations as a plan, to be kept between steps.
  Plan state_of(const ModelRotations& rotations, const std::vector<double>& losses) const {
    Plan state = Plan::identity("spinquant", model_.config.layers, {});
    state.residual.append(BlockDiagonal<double>{{{rotations.residual, {}}}, {0}});
    for (std::size_t l = 0; l < state.layers.size(); ++l) {
      state.layers[l][SiteKind::attn_out].folded.append(
          BlockDiagonal<double>{{{rotations.values[l], {}}}, {0}});
    }
    state.learning.push_back({.where = "model", .losses = losses});
    return state;
  }

  Index resume(ModelRotations& rotations, std::vector<double>& losses) {
    Plan state = state_of(rotations, losses);
    const Index done = session_.resume_steps(state);
    const auto map_of = [](const Transform<double>& transform) {
      return std::get<BlockDiagonal<double>>(transform.steps().at(0)).maps.at(0).map;
    };
    rotations.residual = map_of(state.residual);
    for (std::size_t l = 0; l < state.layers.size(); ++l) {
      rotations.values[l] = map_of(state.layers[l][SiteKind::attn_out].folded);
    }
    losses = state.learning.at(0).losses;
    return done;
  }

  CalibrationSession<S>& session_;
  const SpinQuantOptions& options_;
  const Schedule& schedule_;
  const Model<S>& model_;
  const Index steps_;
  ModelRotationObjective<S> objective_;
  LearningTokens tokens_;
};

class SpinQuant final : public MethodBase<SpinQuant> {
 public:
  void bind(Fields& fields) override {
    fields.add_preset("schedule", options_.preset, {"short", "paper"},
                      "16 steps of 2 windows of 256 tokens, or 100 steps of 8 of 2048 as published",
                      [this](const std::string& name) { options_.schedule = Schedule::of(name); });
    Schedule& schedule = options_.schedule;
    fields.add("steps", schedule.steps, {.min = 1, .max = 100000}, "steps of Cayley SGD");
    fields.add("learning_steps", schedule.taken, {.min = 0},
               "of these, steps that are taken, from the first on, to try a long schedule; 0: all");
    fields.add("learning_batch", schedule.windows, {.min = 1, .max = 1024},
               "windows whose mean loss a step sees");
    fields.add("learning_tokens", schedule.tokens, {.min = 2, .max = 1 << 20},
               "tokens of one of these windows");
    fields.add("learning_rate", options_.learning_rate, {.min = 0},
               "bound of the step length, cosine to zero");
    fields.add("weights_in_learning", options_.weights_in_learning,
               "round weights while learning; false is meant for GPTQ afterwards, as published");
    fields.add_choice("learn", options_.learn, {"none", "r1", "r2", "both"},
                      "which rotations are learned; none keeps the random start");
  }
  bool is_random() const override { return true; }
  bool needs_model() const override { return options_.learn != "none"; }
  int revision(const QuantSettings&) const override { return held_out_revision(options_.preset); }

  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant,
               const Stream& stream) const {
    const ModelConfig& config = session.config();
    Plan plan = Plan::identity("spinquant", config.layers, quant);
    ModelRotations rotations = start(config, stream, plan);
    typename ModelRotationObjective<S>::Setup setup;
    setup.query_key = head_rotation(config.head_width, stream, plan);
    setup.hidden = hidden_rotation(config.mlp_width, stream, plan);
    setup.quant = quant;
    if (!options_.weights_in_learning) setup.quant.weight.bits = 16;
    if (options_.learn != "none") {
      Learner<S> learner(session, options_, setup);
      plan.learning.push_back(learner.learn(stream.child("learning"), rotations));
    }
    plan.residual.append(BlockDiagonal<double>{{{rotations.residual, {}}}, {0}});
    for (const Site& site : session.sites()) {
      const auto l = static_cast<std::size_t>(site.layer);
      SitePlan& planned = plan.layers[l][site.kind];
      if (site.kind == SiteKind::attn_out) {
        Transform<double> head(config.head_width);
        head.append(BlockDiagonal<double>{{{rotations.values[l], {}}}, {0}});
        planned.folded = over_kv_heads(head, config);
      } else if (site.kind == SiteKind::mlp_out) {
        planned.online = setup.hidden;
      } else {
        planned.folded.append(Scale<double>{fused_gain(session, site)});
      }
    }
    for (LayerPlan& layer : plan.layers) layer.query_key = setup.query_key;
    return plan;
  }

 private:
  static ModelRotations start(const ModelConfig& config, const Stream& stream, Plan& plan) {
    Stream residual = stream.child("residual");
    ModelRotations rotations{
        randomized_hadamard(config.width, residual, "residual", plan).to_matrix(config.width), {}};
    for (Index l = 0; l < config.layers; ++l) {
      Stream values = stream.child(fmt::format("layers.{}.values", l));
      rotations.values.push_back(randomized_hadamard(config.head_width, values, "values", plan)
                                     .to_matrix(config.head_width));
    }
    return rotations;
  }

  SpinQuantOptions options_;
};

}  // namespace

std::unique_ptr<Method> make_spinquant() { return std::make_unique<SpinQuant>(); }

}  // namespace ruq
