#include <doctest/doctest.h>

#include <algorithm>

#include "support/laws.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

constexpr Index kWindow = 16;

template <class S>
Model<S> model_of(const ModelConfig& config) {
  if constexpr (std::is_same_v<S, double>) {
    return tiny_model(config);
  } else {
    return as_float(tiny_model(config));
  }
}

// Sets the thread count for a scope; the tests run on one thread otherwise.
class Threads {
 public:
  explicit Threads(int count) : before_(threads()) { set_threads(count); }
  ~Threads() { set_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

void check_saved(const Plan& plan, const TinyBench<double>& bench) {
  const TemporaryFolder folder;
  save_plan(plan, folder / "plan.h5");
  const Plan loaded = load_plan(folder / "plan.h5");
  CHECK(same_plan(loaded, plan));
  CHECK(bench.logits(loaded) == bench.logits(plan));
}

void check_shape(const std::string& name, const ModelConfig& config, const MethodClaims& claims,
                 const std::vector<std::pair<std::string, std::string>>& settings) {
  const auto method = small_method(name, settings);
  const QuantSettings quant = quant_settings();
  method->check(config, quant);
  TinyBench<double> bench(config);
  const Plan plan = bench.plan(*method, quant);

  check_claims(plan, config, claims);
  check_outputs_kept(plan, config);
  TinyBench<float> in_float(config);
  check_outputs_kept_in_float(in_float.plan(*method, quant), config);
  check_saved(plan, bench);

  // Rounding to 4 bits must be felt, or the executor would be applying nothing.
  const double rounding = relative_distance(bench.logits(plan), bench.logits());
  CHECK(rounding > 1e-3);
  CHECK(rounding < 10);

  CHECK(same_plan(bench.plan(*method, quant), plan));
  CHECK(same_plan(TinyBench<double>(config).plan(*method, quant), plan));
  CHECK(same_plan(bench.plan(*method, quant, 2), plan) == !claims.random);
  CHECK(method->is_random() == claims.random);
  const Threads two(2);
  CHECK(same_plan(bench.plan(*method, quant), plan));
  CHECK(same_plan(TinyBench<float>(config).plan(*method, quant), in_float.plan(*method, quant)));
}

}  // namespace

std::unique_ptr<Method> small_method(
    const std::string& name, const std::vector<std::pair<std::string, std::string>>& settings) {
  auto method = make_method(name);
  Fields fields;
  method->bind(fields);
  const std::vector<std::pair<std::string, std::string>> small = {
      {"block_size", "8"},       {"steps", "4"},          {"givens_per_step", "2"},
      {"search_steps", "6"},     {"epochs", "1"},         {"learning_windows", "2"},
      {"held_out_windows", "1"}, {"learning_tokens", "8"}};
  for (const auto& [key, value] : small) {
    if (fields.find(key) != nullptr) fields.set(key, value);
  }
  for (const auto& [key, value] : settings) fields.set(key, value);
  return method;
}

QuantSettings quant_settings(const std::string& widths) {
  QuantSettings quant;
  quant.set_widths(bit_widths(widths));
  return quant;
}

CalibrationOptions tiny_calibration() {
  return {.windows = 4, .mean_windows = 8, .window_tokens = kWindow, .seed = 3};
}

template <class S>
TinyBench<S>::TinyBench(const ModelConfig& config)
    : model(model_of<S>(config)),
      calibration(tiny_tokens(400, config, 1)),
      test(tiny_tokens(2 * kWindow, config, 2)),
      session(model, calibration, tiny_calibration()) {}

template <class S>
Plan TinyBench<S>::plan(const Method& method, const QuantSettings& quant, std::uint64_t seed) {
  return method.plan(session, quant, Stream(seed, "laws"));
}

template <class S>
Matrix<S> TinyBench<S>::logits() const {
  return product_transposed<S>(final_hidden<S>(model, test, kWindow, {}), model.head_weight());
}

template <class S>
Matrix<S> TinyBench<S>::logits(const Plan& plan) const {
  const PlannedModel<S> planned(model, plan);
  return product_transposed<S>(final_hidden(planned.model(), test, kWindow, planned.hook()),
                               planned.model().head_weight());
}

template struct TinyBench<float>;
template struct TinyBench<double>;

void check_outputs_kept(const Plan& plan, const ModelConfig& config) {
  const TinyBench<double> bench(config);
  CHECK(relative_distance(bench.logits(without_rounding(plan)), bench.logits()) < 1e-10);
  check_outputs_kept_in_float(plan, config);
}

void check_outputs_kept_in_float(const Plan& plan, const ModelConfig& config) {
  const TinyBench<float> bench(config);
  CHECK(relative_distance(bench.logits(without_rounding(plan)), bench.logits()) < 1e-4);
}

void check_claims(const Plan& plan, const ModelConfig& config, const MethodClaims& claims) {
  const auto is_moved = [](const Transform<double>& transform, Index width) {
    const Matrix<double> map = transform.to_matrix(width);
    return (map - Matrix<double>::Identity(width, width)).cwiseAbs().maxCoeff() > 1e-3;
  };
  CHECK(is_moved(plan.residual, config.width) == claims.residual_basis);
  for (Index l = 0; l < config.layers; ++l) {
    for (const SiteKind kind : kLinearSites) {
      INFO("layers." << l << "." << to_string(kind));
      const bool claimed =
          std::find(claims.moved.begin(), claims.moved.end(), kind) != claims.moved.end();
      CHECK(is_moved(site_transform(plan, config, {l, kind}), config.site_width(kind)) == claimed);
    }
    const Transform<double>& pair = plan.layers[static_cast<std::size_t>(l)].query_key;
    CHECK(is_moved(pair, config.head_width) == claims.rotates_queries_and_keys);
  }
  CHECK(plan.fallbacks == claims.fallbacks(config));
}

void check_method_laws(const std::string& name) { check_method_laws(name, method_claims(name)); }

void check_method_laws(const std::string& name, const MethodClaims& claims,
                       const std::vector<std::pair<std::string, std::string>>& settings) {
  for (const TinyShape& shape : tiny_shapes()) {
    INFO(name << " on the shape: " << shape.name);
    check_shape(name, shape.config, claims, settings);
  }
}

}  // namespace ruq::test
