#include "experiments/trial.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <utility>

#include "experiments/file_lock.hpp"
#include "experiments/home.hpp"
#include "experiments/kept.hpp"
#include "experiments/metrics.hpp"
#include "experiments/record.hpp"
#include "experiments/resume.hpp"
#include "experiments/sites.hpp"
#include "experiments/tokens.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/eval/choices.hpp"
#include "ruquant/eval/language.hpp"
#include "ruquant/io/tensor_store.hpp"
#include "ruquant/learn/learned_rounding.hpp"
#include "ruquant/model/activations.hpp"
#include "ruquant/model/calibration.hpp"
#include "ruquant/quant/rounding.hpp"

namespace ruq {
namespace {

namespace fs = std::filesystem;

constexpr Index kCheckTokens = 64;   // tokens on which the float function is compared
constexpr double kLongPlan = 4;      // processor seconds from which a plan is kept
constexpr double kKeepSeconds = 30;  // of work that an interruption may cost
constexpr double kUnchanged = 1e-3;  // relative change of final states that float explains

// Stands still while other processes are waited for.
class Clock {
 public:
  /// `waited`: seconds of waiting so far.
  explicit Clock(const double& waited) : waited_(waited) {}

  double lap() {
    const double now = time();
    return now - std::exchange(last_, now);
  }

 private:
  double time() const { return now_seconds() - waited_; }

  const double& waited_;
  double last_ = time();
};

std::string ids_key(std::span<const std::int32_t> ids) {
  return fmt::format("{:016x}", hash_bytes(ids.data(), ids.size_bytes()));
}

// Of the tokens that a task scores, how they are cut, and which choices are right. The task's own
// digest is that of its source, which tells nothing of the prompt.
std::uint64_t hash_items(const ChoiceTask& task) {
  std::uint64_t hash = hash_text(task.kind);
  const auto add = [&hash](const auto& values) {
    const std::size_t size = values.size();
    hash = hash_bytes(&size, sizeof size, hash);
    hash = hash_bytes(values.data(), size * sizeof values[0], hash);
  };
  for (const ChoiceItem& item : task.items) {
    add(std::vector{item.gold, std::ssize(item.contexts), std::ssize(item.choices)});
    for (const auto& context : item.contexts) add(context);
    for (const Choice& choice : item.choices) {
      add(std::vector{choice.context, choice.characters});
      add(choice.ids);
    }
  }
  return hash;
}

// The method's and the quantizers' options that are not defaults: those of how weights are rounded
// in the end, or all others.
std::string options_key(const Config& config, bool of_rounding) {
  RoundingOptions options;
  Fields fields;
  ruq::bind(fields, options, "quant.");
  std::string key;
  for (const auto& [name, value] : config.flat_changes()) {
    const bool rounds = name == "quant.rounding" || fields.find(name) != nullptr;
    if (rounds != of_rounding) continue;
    if (name.starts_with("method.") || name.starts_with("quant.") || name == "seed") {
      key += fmt::format(" {}={}", name, value);
    }
  }
  return key;
}

// What a learned plan depends on: everything that identifies the calibration, and the options but
// those of how weights are rounded in the end and of what is measured.
std::string plan_key(const Config& config, const std::string& session_key) {
  return fmt::format("{} {} {} {}{}", session_key, config.method_name,
                     method_info(config.method_name).result_version,
                     config.method->revision(config.quant), options_key(config, false));
}

std::string rounding_key(const Config& config, const std::string& session_key) {
  return fmt::format("{} rounding {}{}", plan_key(config, session_key),
                     rounding_version(config.quant.rounding), options_key(config, true));
}

// Beside the file of a plan: what it took to draw it up.
fs::path cost_of(fs::path plan) { return plan.replace_extension("cost.h5"); }

std::optional<Plan> kept_plan(const Config& config, const fs::path& file, Timing& timing) {
  if (!fs::exists(file) || !fs::exists(cost_of(file))) return std::nullopt;
  Plan plan = load_plan(file);
  const TensorReader took(cost_of(file));
  timing.plan_seconds = took.real_attribute("", "plan_seconds");
  timing.plan_cpu_seconds = took.real_attribute("", "plan_cpu_seconds");
  timing.peak_memory_mib = took.real_attribute("", "peak_memory_mib");
  plan.quant = config.quant;
  return plan;
}

}  // namespace

// Everything is keyed by text that names what it depends on, so a sweep over such a setting is
// safe.
struct Workbench::Impl {
  std::string session_key, reference_key, activations_key;
  Inputs loaded;  // that `model` and `tokens` were read from
  Model<float> model;
  TokenFile tokens;
  std::unique_ptr<ModelSession<float>> session;
  Matrix<float> reference;  // final hidden states of the float model on the evaluation tokens
  ActivationSet activations;
  LloydMaxErrors lloyd_max_errors;
  double waited = 0;  // seconds, for other processes

  void load(const Inputs& inputs);
  ModelSession<float>& calibration(const Config& config);
  const Matrix<float>& float_states(const Config& config);
  const ActivationSet& activation_set(const Config& config, const Inputs& inputs);
  ActivationSet capture(const Config& config);
  void check_unchanged(const Config& config, const Plan& plan, const Model<float>& folded) const;
  Plan made_plan(const Config& config, Timing& timing);
  Plan draw_plan(const Config& config, const fs::path& file, Timing& timing);
  RoundingHelp<float> rounding_help(const Config& config, KeptRoundings& kept);
  void measure_language(const Config& config, const Inputs& inputs, const Progress& progress,
                        TrialResult& result);
  ChoiceScores float_choices(const Config& config, const ChoiceTask& task);
  void measure_tasks(const Config& config, const Inputs& inputs, const PlannedModel<float>& planned,
                     const Progress& progress, TrialResult& result);
  void measure_tensors(const Config& config, const Inputs& inputs, TrialResult& result);
};

Workbench::Workbench() : impl_(std::make_unique<Impl>()) {}
Workbench::~Workbench() = default;

void Workbench::Impl::load(const Inputs& inputs) {
  if (loaded.model != inputs.model) {
    session.reset();
    model = load_model<float>(inputs.model);
    loaded.model = inputs.model;  // the tokens may fail yet
  }
  if (loaded.tokens != inputs.tokens) {
    session.reset();
    tokens = known_tokens(inputs.tokens);
  }
  loaded = inputs;
}

ModelSession<float>& Workbench::Impl::calibration(const Config& config) {
  const CalibrationOptions& options = config.calibration;
  const auto ids = calibration_tokens(config, loaded);
  const std::string key = fmt::format("{} {} {} {} {} {} {}", known_model_digest(loaded.model),
                                      ids_key(ids), options.windows, options.mean_windows,
                                      options.window_tokens, options.seed, math_backend());
  if (session && key == session_key) return *session;
  session = std::make_unique<ModelSession<float>>(model, ids, options);
  session_key = key;
  const fs::path file = kept_file("maxima", key);
  if (fs::exists(file)) {
    session->set_channel_maxima(read_maxima(file));
  } else {
    logger().info("channel maxima over {} windows of {} tokens", options.windows,
                  options.window_tokens);
    write_maxima(session->channel_maxima(), file);
  }
  return *session;
}

const Matrix<float>& Workbench::Impl::float_states(const Config& config) {
  const std::vector<std::int32_t> evaluated = evaluated_tokens(config, tokens);
  const std::span<const std::int32_t> ids(evaluated);
  const Index length = config.evaluation.window_tokens;
  const std::string key = fmt::format("{} {} {} {}", known_model_digest(loaded.model), ids_key(ids),
                                      length, math_backend());
  if (key == reference_key) return reference;
  const fs::path file = kept_file("float", key);
  Matrix<float> states;
  if (fs::exists(file)) {
    states = TensorReader(file).matrix<float>("states");
  } else {
    logger().info("float reference on {} tokens", ids.size());
    states.resize(std::ssize(ids), model.config.width);
    for (Index begin = 0; begin < std::ssize(ids); begin += length) {
      states.middleRows(begin, length) = final_hidden<float>(
          model, ids.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(length)),
          length, {});
    }
    TensorWriter out(file);
    out.write("states", states);
    out.commit();
  }
  reference = std::move(states);
  reference_key = key;
  return reference;
}

ActivationSet Workbench::Impl::capture(const Config& config) {
  const ActivationSettings& settings = config.activations;
  const CaptureOptions options{.sites = captured_sites(settings, model.config.layers),
                               .stream = settings.stream == "mean_prefix"
                                             ? CalibrationStream::mean_prefix
                                             : CalibrationStream::float_samples,
                               .calibration_tokens = settings.calibration_tokens,
                               .test_tokens = settings.test_tokens};
  return capture_activations(model, calibration(config), tokens.split(config.evaluation.split),
                             config.evaluation.window_tokens, options, model_name(config));
}

// Freshly captured or read from a dump, the same numbers: a capture is kept as a dump.
const ActivationSet& Workbench::Impl::activation_set(const Config& config, const Inputs& inputs) {
  const ActivationSettings& settings = config.activations;
  fs::path file = inputs.activations;
  std::string key = fmt::format("{} {} {}", file.string(), fmt::join(settings.layers, ","),
                                fmt::join(settings.kinds, ","));
  if (file.empty()) {
    calibration(config);
    key = fmt::format("{} {} {} {} {} {} {} {}", session_key, fmt::join(settings.layers, ","),
                      fmt::join(settings.kinds, ","), settings.stream, settings.calibration_tokens,
                      settings.test_tokens, ids_key(tokens.split(config.evaluation.split)),
                      config.evaluation.window_tokens);
    file = kept_file("activations", key);
  }
  if (key == activations_key) return activations;
  if (!fs::exists(file)) {
    logger().info("capturing activations");
    save_activations(capture(config), file);
  }
  activations = load_activations(file);
  keep_named_sites(settings, activations);
  lloyd_max_errors.clear();
  activations_key = key;
  return activations;
}

// Transforms alone must not change what the model computes; a plan that does is wrong, whatever its
// perplexity.
void Workbench::Impl::check_unchanged(const Config& config, const Plan& plan,
                                      const Model<float>& folded) const {
  const auto split = tokens.split(config.evaluation.split);
  const auto ids = split.first(std::min<std::size_t>(split.size(), kCheckTokens));
  const Matrix<float> expected = final_hidden<float>(model, ids, std::ssize(ids), {});
  const Plan transforms = without_rounding(plan);
  const Matrix<float> found = final_hidden<float>(folded, ids, std::ssize(ids),
                                                  runtime_hook<float>(transforms, model.config));
  const Matrix<float> expected_logits = product_transposed<float>(expected, model.head_weight());
  const Matrix<float> found_logits = product_transposed<float>(found, folded.head_weight());
  const double change =
      static_cast<double>((found_logits - expected_logits).norm() / expected_logits.norm());
  if (!(change <= kUnchanged)) {  // NaN fails too
    fail(
        "the plan's transforms change the float logits by {:.3g} of their norm, expected at most "
        "{}",
        change, kUnchanged);
  }
}

// A plan can take minutes and does not depend on how weights are rounded in the end: what was
// learned or took long is kept, so that a sweep over roundings draws it up once. One process does;
// those that want the same plan wait for it.
Plan Workbench::Impl::made_plan(const Config& config, Timing& timing) {
  calibration(config);
  const fs::path file = kept_file("plan", plan_key(config, session_key));
  if (auto plan = kept_plan(config, file, timing)) return *std::move(plan);
  const FileLock lock(file, "the plan");
  waited += lock.waited();
  if (auto plan = kept_plan(config, file, timing)) return *std::move(plan);
  return draw_plan(config, file, timing);
}

// While a plan is drawn up what is done is kept, so that an interrupted trial goes on from there.
Plan Workbench::Impl::draw_plan(const Config& config, const fs::path& file, Timing& timing) {
  ModelSession<float>& session_here = calibration(config);
  const auto parts = std::make_shared<KeptParts>(file, kKeepSeconds);
  session_here.set_journal(parts);
  Plan plan = config.method->plan(session_here, config.quant,
                                  Stream(static_cast<std::uint64_t>(config.seed), "plan"));
  fit_activation_levels(session_here, plan);
  session_here.set_journal(nullptr);
  std::tie(timing.plan_seconds, timing.plan_cpu_seconds) = parts->took();
  if (config.method->needs_model() || timing.plan_cpu_seconds > kLongPlan) {
    TensorWriter cost(cost_of(file));
    cost.attribute("", "plan_seconds", timing.plan_seconds);
    cost.attribute("", "plan_cpu_seconds", timing.plan_cpu_seconds);
    cost.attribute("", "peak_memory_mib", peak_memory_mib());
    cost.commit();
    save_plan(plan, file);
  }
  parts->clear();
  return plan;
}

RoundingHelp<float> Workbench::Impl::rounding_help(const Config& config, KeptRoundings& kept) {
  if (!config.quant.weight.rounds() ||
      rounding_needs(config.quant.rounding) == RoundingNeeds::weight) {
    return {};
  }
  const CalibrationOptions& options = config.calibration;
  const ModelSession<float>& session_here = calibration(config);
  // What learns keeps the last windows for judging.
  const Index judging = options.windows - config.quant.rounding_options.learning.held_out;
  const HeldOut held_out = [judging](Index window) { return window >= judging; };
  const bool learns = rounding_needs(config.quant.rounding) == RoundingNeeds::block;
  return {session_here.windows(options.windows, options.window_tokens, "samples",
                               learns ? held_out : HeldOut{}),
          options.window_tokens, [&kept](const BlockTask<float>& task) { kept.round(task); },
          Stream(static_cast<std::uint64_t>(config.seed), "rounding")};
}

// The float model's likelihoods are the same for every trial, so they are kept.
ChoiceScores Workbench::Impl::float_choices(const Config& config, const ChoiceTask& task) {
  const std::string key =
      fmt::format("{} {} {} {:016x} {} {}", known_model_digest(loaded.model), task.name,
                  task.digest, hash_items(task), config.tasks.items, math_backend());
  const fs::path file = kept_file("choices", key);
  if (fs::exists(file)) return read_choices(file);
  logger().info("float reference on {}", task.name);
  const ChoiceScores made =
      score_choices<float>(model, {}, task, config.tasks.items, model.config.context);
  write_choices(made, file);
  return made;
}

void Workbench::Impl::measure_tasks(const Config& config, const Inputs& inputs,
                                    const PlannedModel<float>& planned, const Progress& progress,
                                    TrialResult& result) {
  for (const auto& [name, file] : inputs.tasks) {
    const ChoiceTask& task = known_task(file);
    const ChoiceScores floats = float_choices(config, task);
    const ChoiceScores scores = score_choices(
        planned.model(), planned.hook(), task, config.tasks.items, model.config.context, 1024,
        [&, &name = name](double share) { progress(name, 0.9 * share); });
    measure_task(task, scores, floats, result);
  }
}

void Workbench::Impl::measure_language(const Config& config, const Inputs& inputs,
                                       const Progress& progress, TrialResult& result) {
  const Matrix<float>& expected = float_states(config);
  progress("plan", 0);
  result.plan = made_plan(config, result.timing);
  Clock clock(waited);
  progress("weights", 0.3);
  KeptRoundings kept(kept_file("rounding", rounding_key(config, session_key)), kKeepSeconds,
                     learned_rounding<float>);
  const PlannedModel<float> planned(
      model, result.plan,
      [&](const Model<float>& folded) { check_unchanged(config, result.plan, folded); },
      rounding_help(config, kept));
  waited += kept.waited_seconds();
  result.timing.apply_seconds = clock.lap() + kept.found_seconds();
  kept.clear();
  measure_weights(planned.rounded(), result);
  result.plan.learning.insert(result.plan.learning.end(), planned.learning().begin(),
                              planned.learning().end());
  measure_learning(result.plan, result);

  const std::vector<std::int32_t> evaluated = evaluated_tokens(config, tokens);
  const std::span<const std::int32_t> ids(evaluated);
  const Index length = config.evaluation.window_tokens;
  WindowScores scores, floats;
  for (Index begin = 0; begin < std::ssize(ids); begin += length) {
    progress("text", 0.5 + 0.4 * static_cast<double>(begin) / static_cast<double>(ids.size()));
    const auto window =
        ids.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(length));
    const Matrix<float> states = final_hidden(planned.model(), window, length, planned.hook());
    const Matrix<float> expected_states = expected.middleRows(begin, length);
    const Hidden<float> mine{states, planned.model().head_weight()};
    const Hidden<float> theirs{expected_states, model.head_weight()};
    const WindowScores here = score_windows(mine, window, length, &theirs);
    scores.nll.push_back(here.nll[0]);
    scores.kl.push_back(here.kl[0]);
    scores.agreement.push_back(here.agreement[0]);
    floats.nll.push_back(here.reference_nll[0]);
  }
  result.windows = {{"nll", scores.nll},
                    {"nll_float", floats.nll},
                    {"kl", scores.kl},
                    {"agreement", scores.agreement}};
  result.metrics["nll"] = mean(scores.nll);
  result.metrics["nll_float"] = mean(floats.nll);
  result.metrics["nll_over_float"] = mean(scores.nll) - mean(floats.nll);
  result.metrics[fmt::format("ppl.w{}", length)] = std::exp(mean(scores.nll));
  result.metrics[fmt::format("ppl_float.w{}", length)] = std::exp(mean(floats.nll));
  result.diverged = lost_words(mean(scores.nll), mean(floats.nll), model.config.vocabulary);
  result.metrics["kl"] = mean(scores.kl);
  result.metrics["agreement"] = mean(scores.agreement);
  result.timing.evaluate_seconds = clock.lap();
  measure_tasks(config, inputs, planned, progress, result);
  result.timing.task_seconds = clock.lap();
}

void Workbench::Impl::measure_tensors(const Config& config, const Inputs& inputs,
                                      TrialResult& result) {
  const ActivationSet& set = activation_set(config, inputs);
  Clock clock(waited);
  Plan plan;
  if (config.method->needs_model()) {
    plan = result.plan.layers.empty() ? made_plan(config, result.timing) : result.plan;
  } else {
    DumpSession session_here(set);
    const Stream stream(static_cast<std::uint64_t>(config.seed), "plan");
    plan = config.method->plan(session_here, config.quant, stream);
    fit_activation_levels(session_here, plan);
  }
  measure_sites(set, plan, config.activations.sample_tokens, lloyd_max_errors, result);
  if (result.plan.layers.empty()) result.plan = std::move(plan);
  result.timing.tensor_seconds = clock.lap();
}

TrialResult Workbench::run(const Config& config, const Inputs& inputs, const Progress& progress) {
  Clock clock(impl_->waited);
  restart_peak_memory();
  TrialResult result;
  load(config, inputs);
  if (config.measures_language()) impl_->measure_language(config, inputs, progress, result);
  if (config.measures_tensors()) {
    progress("sites", 0.9);
    impl_->measure_tensors(config, inputs, result);
  }
  result.fallbacks = result.plan.fallbacks;
  result.timing.total_seconds = clock.lap();
  result.timing.peak_memory_mib = std::max(result.timing.peak_memory_mib, peak_memory_mib());
  return result;
}

void Workbench::load(const Config& config, const Inputs& inputs) {
  if (!config.needs_model()) return;
  cache_folder("shared");
  impl_->load(inputs);
}

void Workbench::dump(const Config& config, const Inputs& inputs, const fs::path& file) {
  load(config, inputs);
  Inputs captured = inputs;
  captured.activations.clear();
  save_activations(impl_->activation_set(config, captured), file);
}

void Workbench::prepare(const Config& config, const Inputs& inputs) {
  load(config, inputs);
  if (config.needs_model()) impl_->calibration(config);
  if (config.measures_language()) impl_->float_states(config);
  for (const auto& [name, file] : inputs.tasks) impl_->float_choices(config, known_task(file));
  if (config.measures_tensors()) impl_->activation_set(config, inputs);
}

}  // namespace ruq
