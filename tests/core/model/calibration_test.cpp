#include "ruquant/model/calibration.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>

#include "ruquant/base/rng.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

using Tensors = std::map<std::string, Matrix<double>>;

constexpr Index kLength = 16;

// A range of exactly one window, so that every stream is known without knowing the draws.
struct OneWindow {
  ModelConfig config;
  Model<double> model;
  std::vector<std::int32_t> ids;
  ModelSession<double> session;

  explicit OneWindow(const char* shape)
      : config(tiny_config(shape)),
        model(tiny_model(config)),
        ids(tiny_tokens(kLength, config)),
        session(model, ids, {.windows = 2, .mean_windows = 3, .window_tokens = kLength}) {}

  std::vector<std::int32_t> repeated(Index times) const {
    std::vector<std::int32_t> all;
    for (Index i = 0; i < times; ++i) all.insert(all.end(), ids.begin(), ids.end());
    return all;
  }
};

// A rotation of each site that depends on the tensor shown, as those of the methods do.
Transform<double> towards(const Matrix<double>& tensor, const Site& site) {
  Stream stream(1, to_string(site));
  const Vector<double> u = stream.uniform(tensor.cols());
  const Vector<double> y = tensor.row(0).transpose();
  Transform<double> t;
  t.append(Reflection<double>{(y - y.norm() * u.normalized()).normalized()});
  return t;
}

// Walks with that rotation at every site; the tensors are those the visitor saw.
Tensors walk(ModelSession<double>& session, CalibrationStream stream, Plan& plan) {
  Tensors seen;
  session.walk(stream, plan, [&](const Site& site, const Matrix<double>& tensor, Plan& drawn) {
    CHECK(seen.emplace(to_string(site), tensor).second);
    SitePlan& here = drawn.layers[std::size_t(site.layer)][site.kind];
    here.online = here.online.then(towards(tensor, site));
  });
  return seen;
}

// What reaches the linear sites of a model before `hook` changes it.
Tensors run(const Model<double>& model, std::span<const std::int32_t> ids,
            const SiteHook<double>& hook) {
  Tensors seen;
  const SiteHook<double> both = [&](const Site& site, Matrix<double>& tensor) {
    if (!linears_of(site.kind).empty()) seen[to_string(site)] = tensor;
    if (hook) hook(site, tensor);
  };
  final_hidden(model, ids, kLength, both);
  return seen;
}

Plan smoothed_plan(const OneWindow& bench, const char* widths) {
  Plan plan = Plan::identity("walk", bench.config.layers, quant_settings(widths));
  Stream stream(7, "scales");
  for (LayerPlan& layer : plan.layers) {
    const auto scale = [&](Index n) {
      return Scale<double>{(stream.uniform(n).array() + 0.5).matrix()};
    };
    layer[SiteKind::attn_in].folded.append(scale(bench.config.width));
    layer[SiteKind::mlp_out].folded.append(scale(bench.config.mlp_width));
    layer[SiteKind::attn_out].online.append(scale(bench.config.query_width()));
    layer.query_key.append(HadamardStep{2});
  }
  return plan;
}

TEST_CASE("the prefix stream is what the finished plan's model computes, to the last bit") {
  for (const TinyShape& shape : tiny_shapes()) {
    CAPTURE(shape.name);
    OneWindow bench(shape.name.c_str());
    Plan plan = smoothed_plan(bench, "W4A4-Q4K4V4");
    const Tensors walked = walk(bench.session, CalibrationStream::samples_prefix, plan);
    CHECK(walked.size() == 8);
    const PlannedModel<double> planned(bench.model, plan);
    CHECK(walked == run(planned.model(), bench.repeated(2), planned.hook()));
  }
}

TEST_CASE("the same under a residual basis") {
  OneWindow bench("multi-head");
  Plan plan = Plan::identity("walk", 2, quant_settings());
  plan.residual.append(Scale<double>{Stream(1, "signs").signs(32)});
  plan.residual.append(Permutation{Stream(1, "order").permutation(32)});
  for (std::size_t l = 0; l < 2; ++l) {
    plan.layers[l][SiteKind::attn_in].folded.append(
        Scale<double>{bench.model.layers[l].attn_norm.cwiseInverse()});
    plan.layers[l][SiteKind::mlp_in].folded.append(
        Scale<double>{bench.model.layers[l].mlp_norm.cwiseInverse()});
  }
  const Tensors walked = walk(bench.session, CalibrationStream::samples_prefix, plan);
  const PlannedModel<double> planned(bench.model, plan);
  CHECK(walked == run(planned.model(), bench.repeated(2), planned.hook()));
}

TEST_CASE("blocks are visited with both streams, and the quantized one goes through the plan") {
  for (const char* shape : {"grouped", "biases"}) {
    OneWindow bench(shape);
    Plan plan = smoothed_plan(bench, "W4A4-Q4K4V4");
    const LearningWindows windows{.train = 3, .held_out = 1, .tokens = 5};
    const Matrix<double> start =
        embed<double>(bench.model, bench.session.learning_tokens(windows).train);
    const PlannedModel<double> planned(bench.model, plan);
    Matrix<double> quantized = start, original = start;
    Index visits = 0;
    bench.session.walk_blocks(windows, plan, [&](const BlockView<double>& block, Plan& here) {
      CHECK(block.layer == visits++);
      CHECK(block.train.windows() == 3);
      CHECK(block.held_out.windows() == 1);
      CHECK(block.train.float_input == original);
      CHECK(relative_error(block.train.quantized_input, quantized) < 1e-12);
      CHECK(block.held_out.target.rows() == 5);
      CHECK(&here == &plan);
      const auto l = static_cast<std::size_t>(block.layer);
      block_forward<double>(bench.config, bench.model.layers[l], block.layer, 5, {}, original);
      CHECK(block.train.target == original);
      block_forward(bench.config, planned.model().layers[l], block.layer, 5, planned.hook(),
                    quantized);
    });
    CHECK(visits == bench.config.layers);
  }
}

TEST_CASE("a change that a visit makes to the plan acts on what follows") {
  OneWindow bench("grouped");
  Plan plan = Plan::identity("walk", 2, quant_settings("W16A16-Q16K16V16"));
  bench.session.walk_blocks({.train = 1, .held_out = 0, .tokens = 12}, plan,
                            [&](const BlockView<double>& block, Plan& here) {
                              CHECK(block.held_out.windows() == 0);
                              const bool same =
                                  block.train.quantized_input == block.train.float_input;
                              CHECK(same == (block.layer == 0));
                              here.quant.set_widths(bit_widths("W2A2-Q2K2V2"));
                            });
}

TEST_CASE("only the first blocks are visited when so many are asked for") {
  OneWindow bench("grouped");
  Plan plan = Plan::identity("walk", 2, quant_settings());
  Index visits = 0;
  bench.session.walk_blocks({.train = 1, .held_out = 0, .tokens = 12, .blocks = 1}, plan,
                            [&](const BlockView<double>&, Plan&) { ++visits; });
  CHECK(visits == 1);
}

TEST_CASE("windows are drawn by purpose, and longer ones than the range are refused") {
  OneWindow bench("grouped");
  CHECK(bench.session.windows(2, 4, "a") == bench.session.windows(2, 4, "a"));
  check_error([&] { bench.session.windows(1, 1000, "learning"); },
              {"learning", "windows of 1000 tokens"});
}

// The windows [first, last) of `ids`, each as where it begins: ids count the range.
std::vector<Index> begins_of(const std::vector<std::int32_t>& ids, Index length) {
  std::vector<Index> begins;
  for (std::size_t i = 0; i < ids.size(); i += static_cast<std::size_t>(length)) {
    begins.push_back(ids[i]);
    for (Index j = 0; j < length; ++j) CHECK(ids[i + static_cast<std::size_t>(j)] == ids[i] + j);
  }
  return begins;
}

bool share_a_token(const std::vector<Index>& some, const std::vector<Index>& others, Index length) {
  return std::any_of(some.begin(), some.end(), [&](Index a) {
    return std::any_of(others.begin(), others.end(),
                       [&](Index b) { return std::abs(a - b) < length; });
  });
}

TEST_CASE("no token of a held-out window is learned from") {
  constexpr Index kRange = 300, kTokens = 20;
  std::vector<std::int32_t> counting(kRange);
  std::iota(counting.begin(), counting.end(), 0);
  const Model<double> model = tiny_model(tiny_config("grouped"));
  Index moved = 0;
  for (Index seed = 0; seed < 20; ++seed) {
    const ModelSession<double> session(model, counting, {.window_tokens = kTokens, .seed = seed});
    const LearningTokens tokens =
        session.learning_tokens({.train = 30, .held_out = 4, .tokens = kTokens});
    const std::vector<Index> train = begins_of(tokens.train, kTokens);
    const std::vector<Index> held_out = begins_of(tokens.held_out, kTokens);
    CHECK(train.size() == 30);
    CHECK_FALSE(share_a_token(train, held_out, kTokens));
    // Held-out windows stay where they were drawn, and so do windows that are far from them.
    CHECK(tokens.held_out == session.windows(4, kTokens, "held out"));
    const std::vector<Index> drawn = begins_of(session.windows(30, kTokens, "learning"), kTokens);
    for (std::size_t w = 0; w < 30; ++w) {
      const bool stays = !share_a_token({drawn[w]}, held_out, kTokens);
      CHECK((train[w] == drawn[w]) == stays);
      if (!stays) ++moved;
    }

    const auto last = [](Index window) { return window >= 5; };
    const std::vector<Index> all = begins_of(session.windows(7, kTokens, "samples", last), kTokens);
    CHECK_FALSE(
        share_a_token({all.begin(), all.begin() + 5}, {all.begin() + 5, all.end()}, kTokens));
    const std::vector<Index> free = begins_of(session.windows(7, kTokens, "samples"), kTokens);
    CHECK(std::equal(all.begin() + 5, all.end(), free.begin() + 5));
  }
  CHECK(moved > 0);

  const ModelSession<double> session(model, counting, {.window_tokens = kTokens});
  check_error([&] { session.learning_tokens({.train = 1, .held_out = 400, .tokens = kTokens}); },
              {"learning", "no window of 20 tokens", "400 held-out", "300 tokens"});
}

TEST_CASE("a walk keeps the sequences that it is told to apart") {
  OneWindow bench("grouped");
  const auto first = [&](const HeldOut& held_out) {
    Plan plan = Plan::identity("walk", 2, quant_settings());
    Matrix<double> seen;
    bench.session.walk(CalibrationStream::float_samples, plan,
                       [&](const Site& site, const Matrix<double>& tensor, Plan&) {
                         if (site == Site{0, SiteKind::attn_in}) seen = tensor;
                       },
                       {.held_out = held_out});
    return seen;
  };
  // The range of this bench is one window: there is no place apart from it.
  CHECK(first({}).rows() == 2 * kLength);
  check_error([&] { first([](Index window) { return window == 1; }); }, {"samples", "no window"});
}

TEST_CASE("levels of the sites are fitted on the way, on the quantized prefix") {
  for (const char* name : {"centroid", "lloyd_max"}) {
    OneWindow bench("grouped");
    Plan plan = smoothed_plan(bench, "W4A4-Q16K16V16");
    plan.quant.activation_levels = name;
    Plan uniform = plan;
    fit_activation_levels(bench.session, plan);
    CHECK(plan.layers[0][SiteKind::attn_in].levels.levels.size() == 16);
    for (std::size_t l = 0; l < 2; ++l) {
      for (const SiteKind kind : kLinearSites) CHECK(!plan.layers[l][kind].levels.empty());
    }
    uniform.quant.activation_levels = "midpoint";
    fit_activation_levels(bench.session, uniform);
    CHECK(uniform.layers[0][SiteKind::attn_in].levels.empty());
  }
}

TEST_CASE("the float stream is the float model's, behind what is folded, whatever the widths") {
  OneWindow bench("grouped");
  Plan plan = smoothed_plan(bench, "W2A2-Q2K2V2");
  const Plan before = plan;
  const Tensors walked = walk(bench.session, CalibrationStream::float_samples, plan);
  Tensors expected = run(bench.model, bench.repeated(2), {});
  for (auto& [name, tensor] : expected) {
    CAPTURE(name);
    const Site site = {name[7] - '0', site_kind(name.substr(9))};
    Plan folded_alone = before;
    folded_alone.layers[std::size_t(site.layer)][site.kind].online = {};
    site_transform(folded_alone, bench.config, site).apply(tensor);
    CHECK(relative_error(walked.at(name), tensor) < 1e-12);
  }
}

TEST_CASE("sites are visited in order of execution, with the plan drawn so far") {
  OneWindow bench("biases");
  Plan plan = Plan::identity("order", 2, quant_settings());
  std::vector<Site> visited;
  bench.session.walk(CalibrationStream::mean_prefix, plan,
                     [&](const Site& site, const Matrix<double>& tensor, Plan& drawn) {
                       CHECK(tensor.rows() == kLength);
                       CHECK(tensor.cols() == bench.config.site_width(site.kind));
                       CHECK(&drawn == &plan);
                       visited.push_back(site);
                     });
  CHECK(visited == bench.session.sites());
  CHECK(visited.size() == 8);
  CHECK(visited[1] == Site{0, SiteKind::attn_out});
}

TEST_CASE("the mean stream averages embeddings position by position") {
  // Token t has the embedding (t, 1, 0, ...), and the range counts 0, 1, 2, ...: the mean of
  // windows at offsets o_w is (position + mean offset, 1), and attn_in shows the ratio.
  ModelConfig config = tiny_config("multi-head");
  config.vocabulary = 400;
  Model<double> model = tiny_model(config);
  std::vector<std::int32_t> ids;
  for (std::int32_t id = 0; id < 400; ++id) {
    ids.push_back(id);
    model.embedding.row(id).setZero();
    model.embedding(id, 0) = id;
    model.embedding(id, 1) = 1;
  }
  const Vector<double>& gain = model.layers[0].attn_norm;
  const auto mean_offset = [&](const CalibrationOptions& options) {
    ModelSession<double> session(model, ids, options);
    Plan plan = Plan::identity("mean", 2, QuantSettings{});
    double offset = -1;
    session.walk(CalibrationStream::mean_prefix, plan,
                 [&](const Site& site, const Matrix<double>& tensor, Plan&) {
                   if (!(site == Site{0, SiteKind::attn_in})) return;
                   REQUIRE(tensor.rows() == options.window_tokens);
                   for (Index t = 0; t < tensor.rows(); ++t) {
                     const double ratio = tensor(t, 0) / gain(0) / (tensor(t, 1) / gain(1));
                     if (t == 0) offset = ratio;
                     CHECK(ratio - double(t) == doctest::Approx(offset));
                   }
                 });
    return offset;
  };
  const CalibrationOptions many = {.mean_windows = 64, .window_tokens = 10};
  const double offset = mean_offset(many);
  CHECK(offset > 195 - 4 * 113 / 8.0);  // uniform on 0..390: mean 195, deviation 113/√64
  CHECK(offset < 195 + 4 * 113 / 8.0);
  CHECK(mean_offset(many) == offset);
  CalibrationOptions other = many;
  other.seed = 9;
  CHECK(mean_offset(other) != offset);
  const double one = mean_offset({.mean_windows = 1, .window_tokens = 10});
  CHECK(one == doctest::Approx(std::round(one)));
}

TEST_CASE("channel maxima are those of the float tensors, and are computed once") {
  OneWindow bench("grouped");
  const Tensors tensors = run(bench.model, bench.ids, {});
  const ChannelMaxima& maxima = bench.session.channel_maxima();
  REQUIRE(maxima.size() == 2);
  for (const Site& site : bench.session.sites()) {
    const Vector<double>& found = maxima[std::size_t(site.layer)][site.kind];
    const Matrix<double>& tensor = tensors.at(to_string(site));
    CHECK(relative_error(found, tensor.cwiseAbs().colwise().maxCoeff().transpose().eval()) < 1e-14);
  }
  CHECK(&bench.session.channel_maxima() == &maxima);

  ChannelMaxima known = maxima;
  known[1][0](3) = 77;
  OneWindow second("grouped");
  second.session.set_channel_maxima(known);
  CHECK(second.session.channel_maxima()[1][0](3) == 77);
}

TEST_CASE("the session shows the model's weights and gains") {
  const OneWindow bench("biases");
  CHECK(&bench.session.weight(1, Linear::o_proj) == &bench.model.layers[1][Linear::o_proj].weight);
  CHECK(&bench.session.norm_gain(0, SiteKind::attn_in) == &bench.model.layers[0].attn_norm);
  CHECK(&bench.session.norm_gain(1, SiteKind::mlp_in) == &bench.model.layers[1].mlp_norm);
}

TEST_CASE("a range shorter than a window is refused") {
  const ModelConfig config = tiny_config("multi-head");
  const Model<float> model = as_float(tiny_model(config));
  const auto ids = tiny_tokens(15, config);
  check_error([&] { ModelSession<float>(model, ids, {.window_tokens = 16}); },
              {"window_tokens", "16", "15"});
}

}  // namespace
}  // namespace ruq::test
