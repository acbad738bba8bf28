#include "ruquant/model/forward.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "support/errors.hpp"
#include "support/laws.hpp"
#include "support/naive_forward.hpp"
#include "support/tiny_model.hpp"

namespace ruq::test {
namespace {

template <class S>
Matrix<S> logits(const Model<S>& model, std::span<const std::int32_t> ids, Index length,
                 const SiteHook<S>& hook = {}) {
  return product_transposed<S>(final_hidden(model, ids, length, hook), model.head_weight());
}

TEST_CASE("the forward pass equals a decoder of plain loops, on every shape") {
  for (const TinyShape& shape : tiny_shapes()) {
    CAPTURE(shape.name);
    const Model<double> model = tiny_model(shape.config);
    const auto ids = tiny_tokens(19, shape.config);
    const Matrix<double> expected = naive_logits(model, ids);
    CHECK(relative_error(logits(model, ids, 19), expected) < 1e-11);
    CHECK(relative_error(logits(as_float(model), ids, 19), expected) < 1e-4);
  }
}

TEST_CASE("RoPE scaling equals the plain loops: linear, and all three bands of llama3") {
  ModelConfig config = tiny_config("normed heads");
  const auto ids = tiny_tokens(40, config);
  const Matrix<double> plain = logits(tiny_model(config), ids, 40);
  config.rope_base = 500;
  config.rope_scaling = {.kind = RopeScaling::Kind::linear, .factor = 4};
  const auto check_against_loops = [&] {
    const Model<double> model = tiny_model(config);
    const Matrix<double> scaled = logits(model, ids, 40);
    CHECK(relative_error(scaled, naive_logits(model, ids)) < 1e-11);
    CHECK(relative_error(scaled, plain) > 1e-3);
  };
  check_against_loops();
  // Wavelengths of this base run from 6 to 1500 positions: below 64/4, between, and above 64.
  config.rope_scaling = {.kind = RopeScaling::Kind::llama3,
                         .factor = 8,
                         .low_freq_factor = 1,
                         .high_freq_factor = 4,
                         .original_context = 64};
  check_against_loops();
}

TEST_CASE("more tokens than one tile of queries") {
  const ModelConfig config = tiny_config("grouped");
  const Model<double> model = tiny_model(config);
  const auto ids = tiny_tokens(290, config);
  CHECK(relative_error(logits(model, ids, 290), naive_logits(model, ids)) < 1e-10);
}

TEST_CASE("a later token leaves earlier logits alone") {
  for (const TinyShape& shape : tiny_shapes()) {
    CAPTURE(shape.name);
    const Model<double> model = tiny_model(shape.config);
    auto ids = tiny_tokens(20, shape.config);
    const Matrix<double> before = logits(model, ids, 20);
    ids[13] = (ids[13] + 1) % static_cast<std::int32_t>(shape.config.vocabulary);
    const Matrix<double> after = logits(model, ids, 20);
    CHECK(after.topRows(13) == before.topRows(13));
    for (Index t = 13; t < 20; ++t) CHECK((after.row(t) - before.row(t)).norm() > 1e-6);
  }
}

TEST_CASE("windows of a batch do not see each other and start at position 0") {
  const ModelConfig config = tiny_config("biases");
  const Model<double> model = tiny_model(config);
  const auto ids = tiny_tokens(36, config);
  const Matrix<double> together = logits(model, ids, 12);
  for (Index w = 0; w < 3; ++w) {
    const auto window = std::span(ids).subspan(std::size_t(12 * w), 12);
    CHECK(relative_error(together.middleRows(12 * w, 12), logits(model, window, 12)) < 1e-13);
  }
  CHECK(relative_error(together, logits(model, ids, 36)) > 1e-3);
}

TEST_CASE("continuations with a shared context are what they are behind a context of their own") {
  for (const TinyShape& shape : tiny_shapes()) {
    CAPTURE(shape.name);
    const Model<double> model = tiny_model(shape.config);
    const auto ids = tiny_tokens(20, shape.config);
    // A context of 7 rows, continuations of 4, 0 and 6, and another context with one of 3.
    const Layout layout = {{0, 7}, {7, 4, 0, 7}, {11, 0, 0, 7}, {11, 6, 0, 7}, {17, 0}, {17, 3}};
    const Matrix<double> shared = final_hidden<double>(model, ids, layout, {});
    const auto alone = [&](Index begin, Index rows, Index context) {
      std::vector<std::int32_t> own(ids.begin(), ids.begin() + context);
      own.insert(own.end(), ids.begin() + begin, ids.begin() + begin + rows);
      return Matrix<double>(final_hidden<double>(model, own, context + rows, {}).bottomRows(rows));
    };
    CHECK(relative_error(Matrix<double>(shared.middleRows(0, 7)), alone(0, 7, 0)) < 1e-12);
    CHECK(relative_error(Matrix<double>(shared.middleRows(7, 4)), alone(7, 4, 7)) < 1e-12);
    CHECK(relative_error(Matrix<double>(shared.middleRows(11, 6)), alone(11, 6, 7)) < 1e-12);
    CHECK(relative_error(Matrix<double>(shared.middleRows(17, 3)), alone(17, 3, 0)) < 1e-12);
  }
}

TEST_CASE("segments that do not cover the rows in order are a fault") {
  const ModelConfig config = tiny_config("grouped");
  const Model<double> model = tiny_model(config);
  const auto ids = tiny_tokens(6, config);
  for (const Layout& layout : {Layout{{0, 5}}, Layout{{1, 5}}, Layout{{0, 3}, {3, 3, 2, 2}}}) {
    CHECK_THROWS(final_hidden<double>(model, ids, layout, {}));
  }
}

TEST_CASE("hooks run in order, on tensors of the promised shapes, and may change them") {
  const ModelConfig config = tiny_config("normed heads");
  const Model<double> model = tiny_model(config);
  const auto ids = tiny_tokens(10, config);
  std::vector<std::string> seen;
  const SiteHook<double> record = [&](const Site& site, Matrix<double>& tensor) {
    seen.push_back(to_string(site));
    CHECK(tensor.rows() == 10);
    CHECK(tensor.cols() == config.site_width(site.kind));
  };
  const Matrix<double> plain = logits(model, ids, 5);
  CHECK(logits(model, ids, 5, record) == plain);
  std::vector<std::string> expected;
  for (const char* layer : {"layers.0.", "layers.1."}) {
    for (const char* kind :
         {"attn_in", "queries", "keys", "values", "attn_out", "mlp_in", "mlp_out"}) {
      expected.push_back(std::string(layer) + kind);
    }
  }
  CHECK(seen == expected);

  for (const char* kind :
       {"attn_in", "queries", "keys", "values", "attn_out", "mlp_in", "mlp_out"}) {
    CAPTURE(std::string(kind));
    const SiteHook<double> shrink = [&](const Site& site, Matrix<double>& tensor) {
      if (site == Site{1, site_kind(kind)}) tensor *= 0.5;
    };
    CHECK(relative_error(logits(model, ids, 5, shrink), plain) > 1e-4);
  }
}

TEST_CASE(
    "the trace of a block leads from its input to its output, and asking for it changes none") {
  for (const TinyShape& shape : tiny_shapes()) {
    CAPTURE(shape.name);
    const Model<double> model = tiny_model(shape.config);
    const LayerWeights<double>& layer = model.layers[0];
    const Matrix<double> input = embed(model, tiny_tokens(14, shape.config));
    Matrix<double> input_of_heads, mixed, normed, hidden;
    const SiteHook<double> look = [&](const Site& site, Matrix<double>& tensor) {
      if (site.kind == SiteKind::attn_in) input_of_heads = tensor;
      if (site.kind == SiteKind::attn_out) mixed = tensor;
      if (site.kind == SiteKind::mlp_in) normed = tensor;
      if (site.kind == SiteKind::mlp_out) hidden = tensor;
    };
    BlockTrace<double> trace;
    Matrix<double> output = input, untraced = input;
    block_forward(shape.config, layer, 0, 7, look, output, &trace);
    block_forward<double>(shape.config, layer, 0, 7, {}, untraced);
    CHECK(output == untraced);
    const auto through = [&](Linear which, const Matrix<double>& x) -> Matrix<double> {
      Matrix<double> y = x * layer[which].weight.transpose();
      if (layer[which].bias.size() > 0) y.rowwise() += layer[which].bias.transpose();
      return y;
    };
    const auto check_projection = [&](const Matrix<double>& kept, Linear which, Index norm) {
      if (norm == 0) {
        CHECK(kept.size() == 0);
        return;
      }
      CHECK(relative_error(kept, through(which, input_of_heads)) < 1e-12);
    };
    check_projection(trace.queries, Linear::q_proj, layer.q_norm.size());
    check_projection(trace.keys, Linear::k_proj, layer.k_norm.size());
    CHECK(relative_error(trace.stream, Matrix<double>(input + through(Linear::o_proj, mixed))) <
          1e-12);
    CHECK(relative_error(trace.gates, through(Linear::gate_proj, normed)) < 1e-12);
    CHECK(relative_error(trace.up, through(Linear::up_proj, normed)) < 1e-12);
    const Matrix<double> gated =
        (trace.gates.array() / (1 + (-trace.gates.array()).exp()) * trace.up.array()).matrix();
    CHECK(relative_error(hidden, gated) < 1e-12);
  }
}

TEST_CASE("halving attn_out by a hook equals halving the rows of v_proj") {
  const ModelConfig config = tiny_config("grouped");
  Model<double> model = tiny_model(config);
  const auto ids = tiny_tokens(10, config);
  const SiteHook<double> halve = [](const Site& site, Matrix<double>& tensor) {
    if (site.kind == SiteKind::attn_out) tensor *= 0.5;
  };
  const Matrix<double> hooked = logits(model, ids, 10, halve);
  for (auto& layer : model.layers) layer[Linear::v_proj].weight *= 0.5;
  CHECK(relative_error(hooked, logits(model, ids, 10)) < 1e-13);
}

TEST_CASE("NaN or infinity names the site where it is first seen") {
  const ModelConfig config = tiny_config("multi-head");
  const Model<double> good = tiny_model(config);
  const auto ids = tiny_tokens(6, config);
  const auto message_for = [&](const auto& spoil) {
    Model<double> bad = good;
    spoil(bad);
    return error_of([&] { final_hidden<double>(bad, ids, 6, {}); });
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const auto spoilt_linear = [&](Linear linear, double value) {
    return message_for([&](Model<double>& m) { m.layers[1][linear].weight(0, 0) = value; });
  };
  CHECK(spoilt_linear(Linear::q_proj, nan).find("layers.1.queries") != std::string::npos);
  CHECK(spoilt_linear(Linear::k_proj, infinity).find("layers.1.keys") != std::string::npos);
  CHECK(spoilt_linear(Linear::v_proj, nan).find("layers.1.values") != std::string::npos);
  CHECK(spoilt_linear(Linear::o_proj, nan).find("layers.1.mlp_in") != std::string::npos);
  CHECK(spoilt_linear(Linear::gate_proj, nan).find("layers.1.mlp_out") != std::string::npos);
  CHECK(spoilt_linear(Linear::up_proj, nan).find("layers.1.mlp_out") != std::string::npos);
  CHECK(message_for([&](auto& m) { m.layers[0].attn_norm(3) = nan; }).find("layers.0.attn_in") !=
        std::string::npos);
  CHECK(message_for([&](auto& m) {
          m.layers[0][Linear::down_proj].weight(1, 1) = nan;
        }).find("layers.1.attn_in") != std::string::npos);
}

TEST_CASE("NaN behind the last site does not leave quietly") {
  Model<double> bad = tiny_model(tiny_config("multi-head"));
  bad.layers[1][Linear::down_proj].weight(0, 0) = std::numeric_limits<double>::quiet_NaN();
  check_error([&] { final_hidden<double>(bad, tiny_tokens(6, bad.config), 6, {}); }, {"NaN"});
}

TEST_CASE("a hook that makes NaN is named too") {
  const Model<double> model = tiny_model(tiny_config("multi-head"));
  const SiteHook<double> spoil = [](const Site& site, Matrix<double>& tensor) {
    if (site == Site{1, SiteKind::keys}) tensor(2, 0) = std::numeric_limits<double>::quiet_NaN();
  };
  check_error([&] { final_hidden<double>(model, tiny_tokens(6, model.config), 6, spoil); },
              {"layers.1.keys", "after quantization"});
}

TEST_CASE("ids outside the vocabulary are refused") {
  const Model<double> model = tiny_model(tiny_config("multi-head"));
  const std::vector<std::int32_t> high = {3, 50};
  const std::vector<std::int32_t> low = {-1};
  check_error([&] { embed<double>(model, high); }, {"token 1", "50", "0 to 49"});
  check_error([&] { embed<double>(model, low); }, {"-1"});
}

TEST_CASE("rms_norm of a worked row") {
  const Matrix<double> x = (Matrix<double>(2, 2) << 3, 4, 0, 0).finished();
  const Matrix<double> y = rms_norm<double>(x, Vector<double>{{1, 10}}, 0.5);
  const double rms = std::sqrt(12.5 + 0.5);
  CHECK(y(0, 0) == doctest::Approx(3 / rms));
  CHECK(y(0, 1) == doctest::Approx(40 / rms));
  CHECK(y.row(1).isZero(0));
}

TEST_CASE("two threads compute the logits of one, to the last bit") {
  const ModelConfig config = tiny_config("grouped");
  const Model<float> model = as_float(tiny_model(config));
  const auto ids = tiny_tokens(300, config);
  const Matrix<float> one = logits(model, ids, 150);
  set_threads(2);
  const Matrix<float> two = logits(model, ids, 150);
  set_threads(1);
  CHECK(one == two);
}

}  // namespace
}  // namespace ruq::test
