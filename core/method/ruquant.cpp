#include "ruquant/method/ruquant.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/learn/block_fit.hpp"
#include "ruquant/learn/fine_tune.hpp"
#include "ruquant/learn/reflection.hpp"
#include "ruquant/method/entries.hpp"
#include "ruquant/transform/hadamard.hpp"

namespace ruq {
namespace {

BlockMapOptions map_options(const RuquantOptions& options) {
  return {.steps = options.steps,
          .givens_per_step = options.rotation == "householder" ? 0 : options.givens_per_step,
          .reflections = options.rotation != "givens",
          .givens = options.givens == "code" ? GivensDirection::code : GivensDirection::mapped,
          .target = target(options.target),
          .pick = pick(options.pick)};
}

// The `hadamard` variant of a block map: random signs, then the Hadamard matrix of the block (of
// the largest power of two that divides it where none of its order exists).
template <class S>
Matrix<double> hadamard_map(Matrix<S>& samples, Draws& draws) {
  const Index width = samples.cols();
  const Index order = hadamard_exists(width) ? width : largest_power_of_two(width, width);
  const Vector<double> u = draws.uniform(width);
  Transform<double> rotation(width);
  rotation.append(Scale<double>{u.unaryExpr([](double x) { return x < 0.5 ? 1.0 : -1.0; })});
  rotation.append(HadamardStep{order});
  rotation.cast<S>().apply(samples);
  return rotation.to_matrix(width);
}

// Stage 2 on one site: the reflection that the smooth objective of §1.14 prefers.
template <class S>
Vector<double> optimized_direction(const Vector<double>& omega, const Matrix<S>& tensor,
                                   const RuquantOptions& options, CalibrationSession<S>& session,
                                   Plan& plan, const Site& site) {
  // Every second row of those that are looked at judges and does not teach.
  const Index tokens = std::min(options.reflection_tokens, std::max<Index>(tensor.rows() / 2, 1));
  Matrix<double> y(tokens, tensor.cols()), others(tokens, tensor.cols());
  for (Index i = 0; i < tokens; ++i) {
    y.row(i) = tensor.row(i * tensor.rows() / tokens).template cast<double>();
    others.row(i) = tensor.row((2 * i + 1) * tensor.rows() / (2 * tokens)).template cast<double>();
  }
  const ReflectionOptions fit{.max_iterations = options.reflection_iterations,
                              .activation_bits = plan.quant.activation.bits,
                              .weight_bits = plan.quant.weight.bits};
  const Matrix<double> weights = stacked_weights(session, plan, site);
  const Vector<double> start = omega.normalized();  // the floor is AdamW's alone
  const ReflectionFit result = optimize_reflection(y, weights, start, fit);
  const SmoothRangeObjective judge(others, weights, start, fit);
  plan.learning.push_back({.where = to_string(site),
                           .optimizer = "lbfgs",
                           .objective = "smooth range",
                           .initial_loss = result.report.initial_cost,
                           .final_loss = result.report.final_cost,
                           .steps = result.report.iterations,
                           .evaluations = result.report.evaluations,
                           .tokens = result.report.evaluations * tokens,
                           .termination = result.report.termination,
                           .details = {{"other_rows_start", judge.evaluate(start, nullptr)},
                                       {"other_rows_end", judge.evaluate(result.v, nullptr)}}});
  return result.v;
}

template <class S>
LayerWeights<S> folded_weights(const ModelConfig& config, const BlockView<S>& block,
                               const Plan& plan) {
  LayerWeights<S> folded = block.weights;
  fold_layer(plan, config, block.layer, folded);
  return folded;
}

// What the optimized reflections do for whole blocks, beside those that were drawn. Their own
// objective looks at single sites and at rows of the calibration sequence.
template <class S>
void judge_optimized(const RuquantOptions& options, CalibrationSession<S>& session,
                     const SiteDirections& drawn, Plan& plan) {
  LearningWindows windows = options.finetune_windows;
  windows.train = 0;
  session.walk_blocks(windows, plan, [&](const BlockView<S>& block, Plan& here) {
    const auto layer = static_cast<std::size_t>(block.layer);
    const LayerPlan& planned = here.layers[layer];
    ReflectionObjective<S> objective(
        session.config(), folded_weights(session.config(), block, here), planned, here.quant);
    here.learning.push_back({.where = fmt::format("layers.{}", block.layer),
                             .objective = "block output",
                             .held_out_initial = objective.judge(drawn[layer], block.held_out),
                             .held_out_final = objective.judge(objective.start(), block.held_out),
                             .termination = "Judged, not learned."});
  });
}

// Stage 2 on whole blocks: the four reflections of each move until its quantized output is near the
// float one's. Stage 1 is done by then: the published calibration sequence passes each block as it
// was before tuning, so tuning a block changes nothing that a later one is built from.
template <class S>
void finetune(const RuquantOptions& options, CalibrationSession<S>& session,
              const SiteDirections& directions, Plan& plan) {
  const ModelConfig& config = session.config();
  const auto tune = [&](const BlockView<S>& block, Plan& here) {
    const auto layer = static_cast<std::size_t>(block.layer);
    LearningRecord record = fine_tune_reflections(
        config, folded_weights(config, block, here), here.quant, block.train, block.held_out,
        options.finetune, here.layers[layer], &directions[layer]);
    record.where = fmt::format("layers.{}", block.layer);
    logger().info("{}: block error {:.4g} -> {:.4g}, held out {:.4g} -> {:.4g}", record.where,
                  record.initial_loss, record.final_loss, record.held_out_initial.value_or(0),
                  record.held_out_final.value_or(0));
    here.learning.push_back(std::move(record));
  };
  session.walk_blocks(options.finetune_windows, plan, tune);
}

}  // namespace

CalibrationStream calibration_stream(const std::string& name) {
  if (name == "mean") return CalibrationStream::mean_prefix;
  if (name == "samples") return CalibrationStream::samples_prefix;
  return CalibrationStream::float_samples;
}

template <class S>
SiteRotation<S> ruquant_site(Matrix<S>& tensor, const RuquantOptions& options, Draws& draws) {
  const BlockLayout layout = block_layout(tensor.cols(), options.block_size, options.ragged);
  SiteRotation<S> result;
  const BlockMapOptions maps = map_options(options);
  const MapBuilder<S> build = [&](Matrix<S>& samples) {
    if (options.rotation == "hadamard") return hadamard_map(samples, draws);
    return build_block_map(samples, maps, draws, &result.trace);
  };
  result.transform = block_rotation(tensor, layout, options.blocks, build, &draws);
  if (options.global_reflection != "none") {
    Index row = 0;
    result.direction = global_reflection_direction(tensor, maps.target, draws, &row);
    result.trace.chosen.push_back(row);
  }
  return result;
}

template <class S>
SiteVisitor<S> ruquant_visitor(const RuquantOptions& options, CalibrationSession<S>& session,
                               SiteDraws draws, SiteDirections* directions) {
  return [&options, &session, draws = std::move(draws), directions](
             const Site& site, const Matrix<S>& tensor, Plan& plan) {
    Transform<double>& online = plan.layers[static_cast<std::size_t>(site.layer)][site.kind].online;
    Matrix<S> y = tensor;
    online.cast<S>().apply(y);  // smoothing that could not be folded comes first
    const SiteRotation<S> rotation = ruquant_site(y, options, draws(site));
    online = online.then(rotation.transform);
    if (!rotation.trace.peaks.empty()) {  // nothing keeps the best step (Q5), so tell how it went
      const auto [least, most] =
          std::minmax_element(rotation.trace.peaks.begin(), rotation.trace.peaks.end());
      logger().debug(
          "{}: largest |entry| {:.4g} after the first step, {:.4g} after the last, "
          "between {:.4g} and {:.4g}",
          to_string(site), rotation.trace.peaks.front(), rotation.trace.peaks.back(), *least,
          *most);
    }
    Vector<double> direction = rotation.direction;
    if (direction.size() == 0) return;
    if (directions != nullptr) {
      (*directions)[static_cast<std::size_t>(site.layer)][site.kind] = direction;
    }
    if (options.global_reflection == "optimized") {
      direction = optimized_direction(direction, y, options, session, plan, site);
    }
    online.append(Reflection<double>{direction / std::max(direction.norm(), 1e-12)});
  };
}

void Ruquant::apply_preset(const std::string& name) {
  options_.givens = name == "official" ? "code" : "mapped";
  options_.omega_floor = name == "official" ? 0.01 : 0;
}

void Ruquant::apply_schedule(const std::string& name) {
  const bool paper = name == "paper";
  options_.finetune_windows = {
      .train = paper ? 128 : 8, .held_out = paper ? 4 : 2, .tokens = paper ? 2048 : 256};
  options_.finetune.epochs = paper ? 20 : 3;
}

void Ruquant::bind(Fields& fields) {
  fields.add_preset("preset", options_.preset, {"official", "paper"},
                    "what the published code does, or what the paper's abstract says",
                    [this](const std::string& name) { apply_preset(name); });
  ruq::bind(fields, options_.smoothing);
  fields.add("block_size", options_.block_size, {.min = 1}, "B: channels of one block");
  fields.add("ragged", options_.ragged, "allow a narrower last block");
  fields.add_choice("rotation", options_.rotation,
                    {"composite", "householder", "givens", "hadamard"},
                    "what a block map is made of");
  fields.add("steps", options_.steps, {.min = 0, .max = 4096}, "K: steps of a block map");
  fields.add("givens_per_step", options_.givens_per_step, {.min = 0, .max = 64},
             "lambda: permutations with Givens rotations after each reflection");
  fields.add_choice("givens", options_.givens, {"code", "mapped"},
                    "Q1: direction of the Givens rotations, as published or source to target");
  fields.add_choice("target", options_.target, target_names(),
                    "Q2: where samples are sent: uniform on [0,1) or [-1,1), ...");
  fields.add_choice("pick", options_.pick, pick_names(), "Q3: the sample mapped at each step");
  ruq::bind(fields, options_.blocks);
  fields.add_choice("global_reflection", options_.global_reflection,
                    {"none", "init", "optimized", "finetuned"},
                    "Q6: the reflection of the whole site: none, towards a drawn target, optimized "
                    "on the sphere, or tuned on the block's output");
  fields.add_choice("calibration", options_.calibration, {"mean", "samples", "float"},
                    "Q7: mean sequence or samples through the quantized prefix, or float samples");
  fields.add("omega_floor", options_.omega_floor, {.min = 0, .max = 1},
             "Q10: floor of |omega_j| while AdamW tunes on the block's output");
  fields.add("reflection_iterations", options_.reflection_iterations, {.min = 1, .max = 10000},
             "L-BFGS iterations of the optimized reflection");
  fields.add("reflection_tokens", options_.reflection_tokens, {.min = 1},
             "tokens that the optimized reflection sees");
  fields.add_preset("schedule", options_.schedule, {"short", "paper"},
                    "how long reflections are tuned on the block's output",
                    [this](const std::string& name) { apply_schedule(name); });
  ruq::bind(fields, options_.finetune_windows);
  fields.add_choice("finetune_optimizer", options_.finetune.optimizer, {"adamw", "lbfgs"},
                    "the published recipe, or L-BFGS on the spheres");
  fields.add("epochs", options_.finetune.epochs, {.min = 0, .max = 10000},
             "adamw: passes over the training windows, one a step");
  fields.add("finetune_learning_rate", options_.finetune.adamw.learning_rate, {.min = 0, .max = 10},
             "adamw: constant rate");
  fields.add("finetune_iterations", options_.finetune.max_iterations, {.min = 1, .max = 10000},
             "lbfgs: iterations over all windows");
  fields.add("finetune_evaluations", options_.finetune.max_evaluations, {.min = 0},
             "lbfgs: evaluations of the loss over all windows, after which it stops; 0: no limit");
}

void Ruquant::check(const ModelConfig& config, const QuantSettings& quant) const {
  MethodBase::check(config, quant);
  const std::string& reflection = options_.global_reflection;
  if (reflection == "finetuned" || reflection == "optimized") {
    check_rounds("method.global_reflection", reflection, quant);
  }
  check_block_size(config, options_.block_size, options_.ragged);
}

template <class S>
Plan ruquant_plan(const std::string& name, const RuquantOptions& options,
                  CalibrationSession<S>& session, const QuantSettings& quant,
                  const Stream& stream) {
  Plan plan = Plan::identity(name, session.config().layers, quant);
  smooth(session, options.smoothing, plan);
  rotate_queries_and_keys(session.config(), options.block_size, plan);
  std::unique_ptr<Stream> current;
  const SiteDraws draws = [&](const Site& site) -> Draws& {
    current = std::make_unique<Stream>(stream.child(to_string(site)));
    return *current;
  };
  // Fine-tuning starts from directions whose length no plan holds.
  SiteDirections directions(plan.layers.size());
  const bool tunes = options.global_reflection == "finetuned";
  // A dump has no sequences to judge a block on.
  const bool judges = options.global_reflection == "optimized" && session.window_tokens() > 0;
  session.walk(calibration_stream(options.calibration), plan,
               ruquant_visitor(options, session, draws, &directions),
               {.plan_is_memory = !tunes && !judges});
  if (judges) judge_optimized(options, session, directions, plan);
  if (tunes) {
    RuquantOptions tuned = options;
    tuned.finetune.omega_floor = options.omega_floor;
    finetune(tuned, session, directions, plan);
  }
  return plan;
}

template <class S>
Plan Ruquant::draw_up(CalibrationSession<S>& session, const QuantSettings& quant,
                      const Stream& stream) const {
  return ruquant_plan("ruquant", options_, session, quant, stream);
}

std::unique_ptr<Method> make_ruquant() { return std::make_unique<Ruquant>(); }

template Plan Ruquant::draw_up(CalibrationSession<float>&, const QuantSettings&,
                               const Stream&) const;
template Plan Ruquant::draw_up(CalibrationSession<double>&, const QuantSettings&,
                               const Stream&) const;
template Plan ruquant_plan(const std::string&, const RuquantOptions&, CalibrationSession<float>&,
                           const QuantSettings&, const Stream&);
template Plan ruquant_plan(const std::string&, const RuquantOptions&, CalibrationSession<double>&,
                           const QuantSettings&, const Stream&);
template SiteRotation<float> ruquant_site(Matrix<float>&, const RuquantOptions&, Draws&);
template SiteRotation<double> ruquant_site(Matrix<double>&, const RuquantOptions&, Draws&);
template SiteVisitor<float> ruquant_visitor(const RuquantOptions&, CalibrationSession<float>&,
                                            SiteDraws, SiteDirections*);
template SiteVisitor<double> ruquant_visitor(const RuquantOptions&, CalibrationSession<double>&,
                                             SiteDraws, SiteDirections*);

}  // namespace ruq
