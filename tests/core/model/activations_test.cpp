#include "ruquant/model/activations.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "ruquant/io/tensor_store.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

// All rows of the float stream at every linear site.
CaptureOptions everything(const ModelConfig& config) {
  CaptureOptions options;
  for (Index l = 0; l < config.layers; ++l) {
    for (const SiteKind kind : kLinearSites) options.sites.push_back({l, kind});
  }
  return options;
}

struct Captured {
  ModelConfig config;
  TinyBench<float> bench;
  std::vector<std::int32_t> test;
  ActivationSet set;

  explicit Captured(const char* shape) : Captured(shape, everything(tiny_config(shape))) {}
  Captured(const char* shape, const CaptureOptions& options)
      : config(tiny_config(shape)),
        bench(config),
        test(tiny_tokens(64, config, 5)),
        set(capture_activations(bench.model, bench.session, test, 16, options, "tiny")) {}
};

ActivationSet through_disk(const ActivationSet& set) {
  const TemporaryFolder folder;
  save_activations(set, folder / "dump.h5");
  return load_activations(folder / "dump.h5");
}

TEST_CASE("a dump comes back from disk to the last bit") {
  const Captured captured("biases");
  const ActivationSet loaded = through_disk(captured.set);
  CHECK(loaded.stream == "float_samples");
  CHECK(loaded.model == "tiny");
  for (const SiteKind kind :
       {SiteKind::attn_in, SiteKind::attn_out, SiteKind::mlp_out, SiteKind::keys}) {
    CHECK(loaded.config.site_width(kind) == captured.config.site_width(kind));
  }
  CHECK(loaded.config.layers == 2);
  REQUIRE(loaded.sites.size() == 8);
  for (std::size_t i = 0; i < 8; ++i) {
    const SiteActivations& a = loaded.sites[i];
    const SiteActivations& b = captured.set.sites[i];
    CHECK(a.site == b.site);
    CHECK(a.calibration == b.calibration);
    CHECK(a.test == b.test);
    CHECK(a.maxima == b.maxima);
    CHECK(a.norm_gain == b.norm_gain);
    CHECK(a.weights == b.weights);
    CHECK(a.weights.size() == linears_of(a.site.kind).size());
  }
}

TEST_CASE("methods draw up the same plan from a dump as from the model") {
  for (const TinyShape& shape : tiny_shapes()) {
    Captured captured(shape.name.c_str());
    const ActivationSet loaded = through_disk(captured.set);
    DumpSession dump(loaded);
    using Settings = std::vector<std::pair<std::string, std::string>>;
    // What smoothing folds shifts the float tensors of a model by rounding, and block maps amplify
    // that: they are compared without smoothing, where both see the same bits.
    const Settings plain = {{"smoothing", "none"}, {"calibration", "float"}};
    const std::vector<std::pair<std::string, Settings>> cases = {
        {"rtn", {}},    {"smoothquant", {}}, {"hadamard", {}},
        {"quarot", {}}, {"ruquant", plain},  {"duquant", plain}};
    for (const auto& [name, settings] : cases) {
      CAPTURE(shape.name);
      CAPTURE(name);
      const auto method = small_method(name, settings);
      const Plan from_model = captured.bench.plan(*method, quant_settings());
      const Plan from_dump = method->plan(dump, quant_settings(), Stream(1, "laws"));
      CHECK(same_plan(from_dump, from_model));
    }
  }
}

TEST_CASE("a dump shows visitors the tensor behind what is folded") {
  Captured captured("grouped");
  DumpSession dump(captured.set);
  Plan plan = Plan::identity("x", 2, quant_settings());
  for (LayerPlan& layer : plan.layers) {
    layer[SiteKind::attn_in].folded.append(Scale<double>{Vector<double>::Constant(36, 0.5)});
    layer[SiteKind::attn_in].online.append(Scale<double>{Vector<double>::Constant(36, 9)});
  }
  std::size_t visits = 0;
  dump.walk(CalibrationStream::mean_prefix, plan,
            [&](const Site& site, const Matrix<float>& tensor, Plan&) {
              const float factor = site.kind == SiteKind::attn_in ? 0.5F : 1.0F;
              CHECK(tensor == captured.set.sites[visits].calibration * factor);
              CHECK(site == captured.set.sites[visits].site);
              ++visits;
            });
  CHECK(visits == 8);
  CHECK(dump.sites() == captured.bench.session.sites());
  CHECK(dump.weight(1, Linear::v_proj) == captured.bench.model.layers[1][Linear::v_proj].weight);
  CHECK(dump.norm_gain(0, SiteKind::mlp_in) == captured.bench.model.layers[0].mlp_norm);
}

TEST_CASE("capture takes evenly spaced rows, and test rows from the test tokens") {
  CaptureOptions few = {
      .sites = {{1, SiteKind::mlp_out}}, .calibration_tokens = 4, .test_tokens = 20};
  const Captured some("multi-head", few);
  const Captured all("multi-head");
  REQUIRE(some.set.sites.size() == 1);
  const SiteActivations& picked = some.set.sites[0];
  const SiteActivations& whole = all.set.sites[7];
  REQUIRE(picked.calibration.rows() == 4);
  REQUIRE(whole.calibration.rows() == 64);
  for (Index i = 0; i < 4; ++i) CHECK(picked.calibration.row(i) == whole.calibration.row(16 * i));
  CHECK(picked.test.rows() == 20);

  // Two windows hold twenty tokens; whole.test holds all four.
  REQUIRE(whole.test.rows() == 64);
  CHECK(picked.test.row(0) == whole.test.row(0));
  CHECK(picked.test.row(19) == whole.test.row(19 * 32 / 20));
  Matrix<float> expected;
  const SiteHook<float> keep = [&](const Site& site, Matrix<float>& tensor) {
    if (site == Site{1, SiteKind::mlp_out}) expected = tensor;
  };
  final_hidden(all.bench.model, std::span(all.test).first(16), 16, keep);
  CHECK(relative_error(whole.test.topRows(16), expected) < 1e-5);
}

TEST_CASE("the mean stream is captured on the float network") {
  CaptureOptions options = everything(tiny_config("grouped"));
  options.stream = CalibrationStream::mean_prefix;
  const Captured mean("grouped", options);
  CHECK(mean.set.stream == "mean");
  CHECK(mean.set.sites[0].calibration.rows() == 16);
  CHECK(mean.set.sites[0].test == Captured("grouped").set.sites[0].test);
}

TEST_CASE("what cannot be captured is refused") {
  const ModelConfig config = tiny_config("multi-head");
  TinyBench<float> bench(config);
  const auto test = tiny_tokens(40, config);
  const auto capture = [&](const CaptureOptions& options, std::size_t tokens) {
    capture_activations(bench.model, bench.session, std::span(test).first(tokens), 16, options,
                        "x");
  };
  CaptureOptions options = everything(config);
  options.stream = CalibrationStream::samples_prefix;
  check_error([&] { capture(options, 40); }, {"activations.stream", "samples_prefix"});
  check_error([&] { capture(everything(config), 15); }, {"15", "16"});
  options = everything(config);
  options.sites.push_back({0, SiteKind::keys});
  check_error([&] { capture(options, 40); }, {"layers.0.keys"});
  options.sites.back() = {2, SiteKind::mlp_in};
  check_error([&] { capture(options, 40); }, {"layers.2.mlp_in"});
}

TEST_CASE("NaN and infinity anywhere in a dump are refused with file and dataset") {
  const Captured captured("biases");
  const auto refuse = [&](const auto& spoil, const char* dataset) {
    ActivationSet bad = captured.set;
    spoil(bad.sites[4]);  // layers.1.attn_in
    const TemporaryFolder folder;
    save_activations(bad, folder / "bad.h5");
    check_error([&] { load_activations(folder / "bad.h5"); },
                {"bad.h5", std::string("layers.1.attn_in/") + dataset});
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  refuse([&](SiteActivations& s) { s.calibration(3, 2) = nan; }, "calibration");
  refuse([&](SiteActivations& s) { s.test(0, 0) = infinity; }, "test");
  refuse([&](SiteActivations& s) { s.maxima(5) = double(nan); }, "maxima");
  refuse([&](SiteActivations& s) { s.norm_gain(1) = nan; }, "norm_gain");
  refuse([&](SiteActivations& s) { s.weights[Linear::k_proj](2, 2) = -infinity; },
         "weights/k_proj");
}

TEST_CASE("datasets of the wrong shape are refused") {
  const Captured captured("biases");
  const auto refuse = [&](const auto& spoil, const char* dataset) {
    ActivationSet bad = captured.set;
    spoil(bad.sites[0]);
    const TemporaryFolder folder;
    save_activations(bad, folder / "bad.h5");
    check_error([&] { load_activations(folder / "bad.h5"); }, {"bad.h5", dataset});
  };
  refuse([](SiteActivations& s) { s.calibration = Matrix<float>::Ones(4, 7); },
         "layers.0.attn_in/calibration");
  refuse([](SiteActivations& s) { s.maxima = Vector<double>::Ones(3); }, "layers.0.attn_in/maxima");
  refuse([](SiteActivations& s) { s.norm_gain = Vector<float>::Ones(3); },
         "layers.0.attn_in/norm_gain");
  refuse(
      [](SiteActivations& s) { s.weights[Linear::k_proj].conservativeResize(3, Eigen::NoChange); },
      "layers.0.attn_in/weights/k_proj: found 3x");
  refuse([](SiteActivations& s) { s.weights[Linear::v_proj] = Matrix<float>::Ones(4, 7); },
         "layers.0.attn_in/weights/v_proj: found 4x7");
}

TEST_CASE("sets without rows are refused") {
  const Captured captured("biases");
  const auto refuse = [&](Matrix<float> SiteActivations::*rows, const char* dataset) {
    ActivationSet bad = captured.set;
    Matrix<float>& emptied = bad.sites[7].*rows;  // layers.1.mlp_out
    emptied = Matrix<float>(0, emptied.cols());
    const TemporaryFolder folder;
    save_activations(bad, folder / "bad.h5");
    check_error([&] { load_activations(folder / "bad.h5"); },
                {"bad.h5: layers.1.mlp_out/" + std::string(dataset), "found 0 rows",
                 "expected at least one"});
  };
  refuse(&SiteActivations::calibration, "calibration");
  refuse(&SiteActivations::test, "test");
}

TEST_CASE("shapes that no model has are refused by name") {
  const Captured captured("biases");
  const auto refuse = [&](Index ModelConfig::*shape, const std::string& name, Index value,
                          const std::string& expected) {
    ActivationSet bad = captured.set;
    bad.config.*shape = value;
    const TemporaryFolder folder;
    save_activations(bad, folder / "bad.h5");
    check_error([&] { load_activations(folder / "bad.h5"); },
                {fmt::format("bad.h5: {}: found {}, expected {}", name, value, expected)});
  };
  for (const Index value : {Index{0}, Index{-1}, Index{1} << 40}) {
    refuse(&ModelConfig::layers, "layers", value, "1 to ");
    refuse(&ModelConfig::width, "width", value, "1 to ");
    refuse(&ModelConfig::mlp_width, "mlp_width", value, "1 to ");
    refuse(&ModelConfig::heads, "heads", value, "1 to ");
    refuse(&ModelConfig::kv_heads, "kv_heads", value, "1 to ");
    refuse(&ModelConfig::head_width, "head_width", value, "1 to ");
  }
  refuse(&ModelConfig::kv_heads, "kv_heads", captured.config.heads + 1, "a divisor of the");
}

TEST_CASE("a file that is no dump is refused") {
  const TemporaryFolder folder;
  save_plan(Plan::identity("x", 1, QuantSettings{}), folder / "plan.h5");
  check_error([&] { load_activations(folder / "plan.h5"); }, {"plan.h5", "ruquant-activations"});
  ActivationSet none = Captured("biases").set;
  none.sites.clear();
  save_activations(none, folder / "none.h5");
  check_error([&] { load_activations(folder / "none.h5"); }, {"none.h5", "no sites"});
}

TEST_CASE("groups that are no sites of the model are refused") {
  const Captured captured("biases");
  const TemporaryFolder folder;
  for (const Site site : {Site{2, SiteKind::attn_in}, Site{0, SiteKind::values}}) {
    ActivationSet bad = captured.set;
    bad.sites[0].site = site;
    save_activations(bad, folder / "bad.h5");
    check_error([&] { load_activations(folder / "bad.h5"); }, {"bad.h5", to_string(site)});
  }
  for (const char* group : {"layers.x.attn_in", "layers.", "notes", "layers.-1.attn_in",
                            "layers.01.attn_in", "layers.99999999999999999999.attn_in"}) {
    save_activations(captured.set, folder / "bad.h5");
    TensorWriter file(folder / "group.h5");
    const TensorReader from(folder / "bad.h5");
    file.attribute("", "format", std::string("ruquant-activations"));
    file.attribute("", "format_version", std::int64_t{1});
    for (const char* text : {"stream", "model"}) file.attribute("", text, std::string("x"));
    for (const char* shape : {"layers", "width", "mlp_width", "heads", "kv_heads", "head_width"}) {
      file.attribute("", shape, from.integer_attribute("", shape));
    }
    file.attribute(group, "note", std::string("x"));
    file.commit();
    check_error([&] { load_activations(folder / "group.h5"); }, {group});
  }
}

TEST_CASE("asking a dump for a site that it lacks names the site") {
  CaptureOptions one = {.sites = {{0, SiteKind::mlp_in}}};
  const Captured captured("multi-head", one);
  const DumpSession dump(captured.set);
  CHECK(dump.weight(0, Linear::up_proj).rows() == 48);
  check_error([&] { dump.weight(1, Linear::up_proj); }, {"layers.1.mlp_in"});
  check_error([&] { dump.norm_gain(0, SiteKind::attn_in); }, {"layers.0.attn_in"});
}

}  // namespace
}  // namespace ruq::test
