#include "ruquant/method/ruquant.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "support/layer_case.hpp"
#include "support/oracle.hpp"
#include "support/quantized.hpp"
#include "support/tape.hpp"

namespace ruq::test {
namespace {

// The published code on one set of attributes; no smoothing unless the fixture has it.
RuquantOptions official_options(const OracleCase& c) {
  RuquantOptions options;
  options.smoothing.alpha =
      c.has_attribute("alpha") ? std::optional(c.real("alpha")) : std::nullopt;
  options.block_size = c.integer("block_size");
  options.ragged = false;
  options.steps = c.integer("K");
  options.givens_per_step = c.integer("lambda");
  options.blocks.permutations = c.integer("tau");
  return options;
}

// Block maps and permutations of a site, against `map_name` [tau+1,B,B] and `perm_name` [tau,d].
void check_rotation(const Transform<double>& online, const OracleCase& c,
                    const std::string& map_name, const std::string& perm_name, double tolerance) {
  std::vector<Index> permutations;
  Index maps = 0;
  for (const Step<double>& step : online.steps()) {
    if (const auto* blocks = std::get_if<BlockDiagonal<double>>(&step)) {
      REQUIRE(maps < c.shape(map_name).at(0));
      REQUIRE(blocks->maps.size() == 1);
      check_close(blocks->maps[0].map, c.slice(map_name, maps++), tolerance, map_name);
    } else if (const auto* permutation = std::get_if<Permutation>(&step)) {
      permutations.insert(permutations.end(), permutation->index.begin(), permutation->index.end());
    }
  }
  CHECK(maps == c.shape(map_name).at(0));
  INFO(perm_name);
  CHECK(permutations == c.integers(perm_name));
}

TEST_CASE("RUQuant rotates and quantizes one linear as the official code") {
  for_each_case("ruquant_tensor", [](const OracleCase& c) {
    const RuquantOptions options = official_options(c);
    QuantSettings quant;
    quant.activation = {.bits = c.integer("abits"), .clip_ratio = c.real("lac")};
    quant.weight = {.bits = c.integer("wbits"), .clip_ratio = c.real("swc")};
    const Matrix<double> y = c.matrix("Y");
    const Matrix<double> w = c.matrix("W");

    Tape tape(c.vector("tape_u"), c.integers("tape_perm"));
    Matrix<double> mapped = y;
    const SiteRotation<double> rotation = ruquant_site(mapped, options, tape);
    CHECK(tape.used_up());
    CHECK(rotation.trace.chosen == c.integers("chosen"));
    check_close(rotation.direction, c.vector("omega"), 1e-10, "omega");
    check_rotation(rotation.transform, c, "M", "perm", 1e-10);

    // The same draws again, through the visitor that a walk calls.
    OneLinear linear(c.integer("d"), quant);
    Model<double> model;
    model.config = linear.config;
    LayerSession session(model, {}, y);
    Tape again(c.vector("tape_u"), c.integers("tape_perm"));
    ruquant_visitor<double>(options, session, [&](const Site&) -> Draws& { return again; })(
        linear.site, y, linear.plan);
    const Matrix<double> y_hat = linear.activation(y, false);
    check_close(y_hat, c.matrix("Y_hat"), 1e-10, "Y_hat");
    check_quantized(c, quantized_names("a_", 1e-10), y_hat, quant.activation);
    const Matrix<double> w_hat = linear.weight(w, false);
    check_close(w_hat, c.matrix("W_hat"), 1e-10, "W_hat");
    check_quantized(c, quantized_names("w_", 1e-10), w_hat, quant.weight);
    const Matrix<double> x_hat = linear.activation(c.matrix("X_new"), false);
    check_close(x_hat, c.matrix("X_new_hat"), 1e-10, "X_new_hat");
    check_quantized(c, quantized_names("x_", 1e-10), x_hat, quant.activation);

    for (const bool rounds : {false, true}) {
      const Matrix<double> weight = linear.weight(w, rounds);
      const std::string end = rounds ? "quant" : "fp";
      check_close(product_transposed<double>(linear.activation(y, rounds), weight),
                  c.matrix("out_" + end), 1e-10, "out_" + end);
      check_close(product_transposed<double>(linear.activation(c.matrix("X_new"), rounds), weight),
                  c.matrix("out_new_" + end), 1e-10, "out_new_" + end);
    }
  });
}

// [heads·T, e], head by head, as one row a token [T, heads·e], and back.
Matrix<double> token_rows(const Matrix<double>& head_rows, Index heads) {
  const Index tokens = head_rows.rows() / heads;
  const Index e = head_rows.cols();
  Matrix<double> x(tokens, heads * e);
  for (Index head = 0; head < heads; ++head) {
    x.middleCols(head * e, e) = head_rows.middleRows(head * tokens, tokens);
  }
  return x;
}
Matrix<double> head_rows(const Matrix<double>& token_rows, Index heads) {
  const Index e = token_rows.cols() / heads;
  Matrix<double> x(token_rows.rows() * heads, e);
  for (Index head = 0; head < heads; ++head) {
    x.middleRows(head * token_rows.rows(), token_rows.rows()) = token_rows.middleCols(head * e, e);
  }
  return x;
}

// The quirk of blocks wider than a head, which mix neighbouring tokens: not a plan of ours (§1.9),
// so only the pieces are compared.
void check_mixed_tokens(const OracleCase& c, const std::string& name, const QuantSpec& spec) {
  Transform<double> hadamard;
  if (name != "v") hadamard.append(HadamardStep{c.integer("block_size")});
  Matrix<double> x = rows_of(c, name, c.integer("block_size"));
  hadamard.apply(x);
  const Matrix<double> rotated =
      x.reshaped<Eigen::RowMajor>(x.size() / c.integer("head_dim"), c.integer("head_dim"));
  check_close(rotated, rows_of(c, name + "_rot", rotated.cols()), 1e-12, name + "_rot");
  check_quantized(c, quantized_names(name + "_", 1e-12), rotated, spec);
}

TEST_CASE("queries, keys and values are rotated and quantized as in the official code") {
  for_each_case("ruquant_attention", [](const OracleCase& c) {
    ModelConfig config;
    config.layers = 1;
    config.heads = config.kv_heads = c.integer("heads");
    config.head_width = c.integer("head_dim");
    QuantSettings quant;
    quant.queries = quant.keys = {.bits = c.integer("bits"), .clip_ratio = c.real("lac")};
    quant.values = {.bits = c.integer("bits")};
    Plan plan = Plan::identity("test", 1, quant);
    rotate_queries_and_keys(config, c.integer("block_size"), plan);

    const std::vector<std::tuple<std::string, SiteKind, QuantSpec>> operands = {
        {"q", SiteKind::queries, quant.queries},
        {"k", SiteKind::keys, quant.keys},
        {"v", SiteKind::values, quant.values}};
    for (const auto& [name, kind, spec] : operands) {
      if (c.integer("mixes_tokens") != 0) {
        check_mixed_tokens(c, name, spec);
        continue;
      }
      const Site site{0, kind};
      const Matrix<double> input = token_rows(rows_of(c, name, config.head_width), config.heads);
      Matrix<double> x = input;
      runtime_hook<double>(without_rounding(plan), config)(site, x);
      const Matrix<double> rotated = head_rows(x, config.heads);
      check_close(rotated, rows_of(c, name + "_rot", rotated.cols()), 1e-12, name + "_rot");
      check_quantized(c, quantized_names(name + "_", 1e-12), rotated, spec);
      x = input;
      runtime_hook<double>(plan, config)(site, x);
      check_close(head_rows(x, config.heads), rows_of(c, name + "_dequant", rotated.cols()), 1e-12,
                  name + "_dequant by the hook");
    }
  });
}

// s as the expression gives it, without its floor: s grows as the maxima^alpha, and at maxima this
// much larger none is floored.
Vector<double> scale_before_floor(const Vector<double>& maxima, const Matrix<double>& weight,
                                  double alpha) {
  constexpr double kLift = 0x1p40;
  return smoothing_scale(kLift * maxima, weight, alpha) / std::pow(kLift, alpha);
}

// s of every site, before its floor, and after it as the plan carries it.
void check_scales(const OracleCase& c, LayerSession& session, const Plan& plan, double tolerance) {
  for (const SiteKind kind : kLinearSites) {
    const std::string name = group_name(kind);
    const SitePlan& planned = plan.layers[0][kind];
    const bool online = kind == SiteKind::attn_out && c.integer("out_divided_online") != 0;
    const Transform<double>& carrier = online ? planned.online : planned.folded;
    const auto* scale = std::get_if<Scale<double>>(&carrier.steps().at(0));
    REQUIRE(scale != nullptr);
    check_close(scale->factor.cwiseInverse(), c.vector("s_" + name), tolerance, "s_" + name);

    const Linear key = kind == SiteKind::attn_in    ? Linear::q_proj
                       : kind == SiteKind::attn_out ? Linear::o_proj
                       : kind == SiteKind::mlp_in   ? Linear::up_proj
                                                    : Linear::down_proj;
    check_close(
        scale_before_floor(c.vector("act_max_" + name), session.weight(0, key), c.real("alpha")),
        c.vector("s_raw_" + name), tolerance, "s_raw_" + name);
  }
}

TEST_CASE("smoothing scales and their folding equal the official code") {
  for_each_case("ruquant_smooth", [](const OracleCase& c) {
    const Model<double> model = layer_model(c);
    LayerSession session(model, layer_maxima(c), c.matrix("m"));
    Plan plan = Plan::identity("test", 1, QuantSettings{});
    smooth(session, {.alpha = c.real("alpha"), .grouped = "online"}, plan);
    check_scales(c, session, plan, 1e-13);

    LayerWeights<double> folded = model.layers[0];
    fold_layer(plan, model.config, 0, folded);
    // The published code multiplies o_proj also where it divides at run time.
    for (const SiteKind kind : kLinearSites) install_site(plan, {0, kind}, folded);
    check_close(folded.attn_norm, c.vector("folded_gamma_in"), 1e-13, "folded_gamma_in");
    check_close(folded.mlp_norm, c.vector("folded_gamma_post"), 1e-13, "folded_gamma_post");
    for (const Linear linear : kLinears) {
      const std::string name = "folded_W_" + to_string(linear);
      check_close(folded[linear].weight, c.matrix(name), 1e-13, name);
    }

    const Matrix<double> m = c.matrix("m");
    Matrix<double> x = m;
    block_forward<double>(model.config, model.layers[0], 0, m.rows(), {}, x);
    check_close(x, c.matrix("fp_out_m"), 1e-13, "fp_out_m");
    x = m;
    block_forward(model.config, folded, 0, m.rows(), runtime_hook<double>(plan, model.config), x);
    check_close(x, c.matrix("fp_out_m"), 1e-13, "fp_out_m, folded");
  });
}

// One layer fixture: the calibration pass, the baked weights and the runs through them.
class LayerComparison {
 public:
  explicit LayerComparison(const OracleCase& c)
      : c_(c),
        model_(layer_model(c)),
        options_(official_options(c)),
        session_(model_, layer_maxima(c), c.matrix("m")),
        plan_(Plan::identity("ruquant", 1, official_quantizers(c))) {
    smooth(session_, options_.smoothing, plan_);
    rotate_queries_and_keys(model_.config, options_.block_size, plan_);
  }

  void check_teacher() const {
    Matrix<double> x = c_.matrix("m");
    block_forward<double>(model_.config, model_.layers[0], 0, x.rows(), {}, x);
    check_close(x, c_.matrix("fp_out_m"), 1e-9, "fp_out_m");
    for (Index s = 0; s < c_.shape("X").at(0); ++s) {
      x = c_.slice("X", s);
      block_forward<double>(model_.config, model_.layers[0], 0, x.rows(), {}, x);
      check_close(x, c_.slice("fp_out_X", s), 1e-9, "fp_out_X");
    }
  }

  void check_smoothing() {
    check_scales(c_, session_, plan_, 1e-13);
    LayerWeights<double> folded = model_.layers[0];
    fold_layer(plan_, model_.config, 0, folded);
    check_close(folded.attn_norm, c_.vector("folded_gamma_in"), 1e-13, "folded_gamma_in");
    check_close(folded.mlp_norm, c_.vector("folded_gamma_post"), 1e-13, "folded_gamma_post");
    for (const Linear linear : {Linear::v_proj, Linear::up_proj}) {
      const std::string name = "folded_W_" + to_string(linear);
      check_close(folded[linear].weight, c_.matrix(name), 1e-13, name);
    }
  }

  // Each calibration on the reference's own input: no error is handed down from site to site.
  void check_sites_alone() {
    Plan alone = plan_;
    calibrate([&](const SiteVisitor<double>& visit) {
      for (const SiteKind kind : kLinearSites) {
        visit({0, kind}, c_.matrix("calib_in_" + first_linear(kind)), alone);
      }
    });
    check_sites(alone, 1e-10);
  }

  void walk() {
    calibrate([&](const SiteVisitor<double>& visit) {
      session_.walk(CalibrationStream::mean_prefix, plan_,
                    [&](const Site& site, const Matrix<double>& tensor, Plan& plan) {
                      for (const Linear linear : linears_of(site.kind)) {
                        const std::string name = "calib_in_" + to_string(linear);
                        check_close(tensor, c_.matrix(name), 1e-9, name);
                      }
                      visit(site, tensor, plan);
                    });
    });
    check_sites(plan_, 1e-9);
    check_close(session_.output, c_.matrix("calib_out"), 1e-9, "calib_out");
  }

  void check_baked() const {
    const PlannedModel<double> planned(model_, plan_);
    const PlannedModel<double> rotated(model_, without_rounding(plan_));
    for (const Linear linear : kLinears) {
      const std::string name = to_string(linear);
      check_close(planned.model().layers[0][linear].weight, c_.matrix("w_dequant_" + name), 1e-9,
                  "w_dequant_" + name);
      const Grid<double> grid =
          fit_grid(rotated.model().layers[0][linear].weight, plan_.quant.weight);
      check_close(flat(grid.scale), c_.vector("w_scale_" + name), 1e-9, "w_scale_" + name);
      check_exact(flat(grid.zero), c_.vector("w_zp_" + name), "w_zp_" + name);
    }
  }

  void check_forward() const {
    const PlannedModel<double> planned(model_, plan_);
    check_close(run(planned, c_.matrix("m"), "calib"), c_.matrix("calib_out"), 1e-9,
                "calib_out, again");
    for (Index s = 0; s < c_.shape("X").at(0); ++s) {
      check_close(run(planned, c_.slice("X", s), s == 0 ? "x0" : ""), c_.slice("out_X", s), 1e-9,
                  "out_X");
    }
  }

 private:
  // Hands `pass` the visitor of the method. Beside it every tensor goes through ruquant_site on a
  // second copy of the tape, which gives the columns chosen and ω before it is normalised.
  void calibrate(const std::function<void(const SiteVisitor<double>&)>& pass) {
    Tape tape(c_.vector("tape_u"), c_.integers("tape_perm"));
    Tape copy = tape;
    std::vector<Index> chosen;
    directions_.clear();
    const auto visit =
        ruquant_visitor<double>(options_, session_, [&](const Site&) -> Draws& { return tape; });
    pass([&](const Site& site, const Matrix<double>& tensor, Plan& drawn) {
      Matrix<double> y = tensor;
      drawn.layers[0][site.kind].online.apply(y);
      const SiteRotation<double> rotation = ruquant_site(y, options_, copy);
      chosen.insert(chosen.end(), rotation.trace.chosen.begin(), rotation.trace.chosen.end());
      directions_.push_back(rotation.direction);
      visit(site, tensor, drawn);
    });
    CHECK(tape.used_up());
    CHECK(chosen == c_.integers("chosen"));
  }

  void check_sites(const Plan& plan, double tolerance) const {
    REQUIRE(directions_.size() == kLinearSites.size());
    for (const SiteKind kind : kLinearSites) {
      const std::string name = first_linear(kind);
      const Transform<double>& online = plan.layers[0][kind].online;
      check_rotation(online, c_, "M_" + name, "perm_" + name, tolerance);
      const Vector<double> omega = c_.vector("omega_" + name);
      check_close(directions_[static_cast<std::size_t>(kind)], omega, tolerance, "omega_" + name);
      const auto* reflection = std::get_if<Reflection<double>>(&online.steps().back());
      REQUIRE(reflection != nullptr);
      check_close(reflection->v, omega.normalized(), tolerance, "omega_" + name + ", unit");
    }
  }

  // Runs one sequence through the baked layer; with a prefix, compares the input and the output of
  // every linear on the way with <prefix>_in_* and <prefix>_out_*.
  Matrix<double> run(const PlannedModel<double>& planned, Matrix<double> x,
                     const std::string& prefix) const {
    const LayerWeights<double>& weights = planned.model().layers[0];
    const SiteHook<double> hook = [&](const Site& site, Matrix<double>& tensor) {
      const Matrix<double> before = tensor;
      planned.hook()(site, tensor);
      if (prefix.empty()) return;
      for (const Linear linear : linears_of(site.kind)) {
        const std::string end = to_string(linear);
        check_close(before, c_.matrix(prefix + "_in_" + end), 1e-9, prefix + "_in_" + end);
        check_close(product_transposed<double>(tensor, weights[linear].weight),
                    c_.matrix(prefix + "_out_" + end), 1e-9, prefix + "_out_" + end);
      }
    };
    block_forward(planned.model().config, weights, 0, x.rows(), hook, x);
    return x;
  }

  const OracleCase& c_;
  Model<double> model_;
  RuquantOptions options_;
  LayerSession session_;
  Plan plan_;
  std::vector<Vector<double>> directions_;
};

TEST_CASE("RUQuant calibrates, bakes and runs a layer as the official code") {
  for (const char* fixture : {"ruquant_layer_a", "ruquant_layer_b", "ruquant_layer_c"}) {
    for_each_case(fixture, [](const OracleCase& c) {
      LayerComparison layer(c);
      layer.check_teacher();
      layer.check_smoothing();
      layer.check_sites_alone();
      layer.walk();
      layer.check_baked();
      layer.check_forward();
    });
  }
}

}  // namespace
}  // namespace ruq::test
