#include "ruquant/learn/flat_block.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>

#include "ruquant/learn/clip_logits.hpp"
#include "ruquant/learn/straight_through.hpp"
#include "ruquant/learn/transform_grad.hpp"
#include "ruquant/learn/weight_rounding.hpp"
#include "ruquant/quant/clamp_rows.hpp"
#include "support/layer_case.hpp"
#include "support/oracle.hpp"

namespace ruq::test {
namespace {

constexpr double kOut = 1e-11;
constexpr double kGradient = 1e-9;

QuantSpec spec_of(const OracleCase& c, const std::string& bits, GridRule rule) {
  return {.bits = c.integer(bits), .symmetric = c.integer("asymmetric") == 0, .rule = rule};
}

SvdFactor factor_of(const OracleCase& c, const std::string& side) {
  return {c.matrix("raw_u_" + side), c.matrix("raw_v_" + side), c.vector("sigma_" + side)};
}

RowClips<double> zeros(Index rows) {
  return {Vector<double>::Zero(rows), Vector<double>::Zero(rows)};
}

// One linear layer with what FlatQuant trains around it.
class FlatLinear {
 public:
  explicit FlatLinear(const OracleCase& c)
      : c_(c),
        weight_spec_(spec_of(c, "wbits", GridRule::quarot_weight)),
        site_spec_(spec_of(c, "abits", GridRule::quarot_activation)),
        left_(factor_of(c, "left")),
        right_(factor_of(c, "right")),
        x_(c.matrix("X")),
        w_(c.matrix("W")),
        weight_clips_{clip_factors(c.vector("clip_w_min")), clip_factors(c.vector("clip_w_max"))},
        site_clips_{site_factor("clip_a_min"), site_factor("clip_a_max")} {
    online_.append(Scale<double>{c.vector("diag")});
    online_.append(kronecker_step(left_.build(), right_.build()));
    if (c.integer("has_out_transform") == 0) return;
    const SquareMap<double> p_v = invertible_map(c.matrix("P_v"));
    const auto heads = static_cast<std::size_t>(w_.rows() / p_v.map.rows());
    outputs_.append(BlockDiagonal<double>{{p_v}, std::vector<Index>(heads, 0)});
  }

  void check() {
    check_close(left_.build().map, c_.matrix("P1"), kOut, "P1");
    check_close(right_.build().map, c_.matrix("P2"), kOut, "P2");
    Matrix<double> x_hat = x_;
    online_.apply(x_hat);
    check_close(x_hat, c_.matrix("X_hat"), kOut, "X_hat");
    Matrix<double> x_quant = x_hat;
    round_rows(x_quant, site_spec_, &site_clips_);
    check_close(x_quant, c_.matrix("X_quant"), kOut, "X_quant");
    const Matrix<double> w_quant = quantized_weight();
    check_close(w_quant, c_.matrix("W_quant"), kOut, "W_quant");
    check_close(Matrix<double>(x_quant * w_quant.transpose()), c_.matrix("out"), kOut, "out");
    check_executed();

    const Matrix<double> upstream = c_.matrix("upstream");
    TransformGradient sums = zero_gradient(online_);
    site_backward(x_hat, upstream * w_quant, sums);
    weight_backward(upstream.transpose() * x_quant, sums);
    check_close(sums[0].vector, c_.vector("grad_diag"), kGradient, "grad_diag");
    check_factor(left_.gradient(sums[1].maps[0]), "left");
    check_factor(right_.gradient(sums[1].maps[1]), "right");
  }

 private:
  Vector<double> site_factor(const std::string& name) const {
    return Vector<double>::Constant(x_.rows(), clip_factors(c_.vector(name))(0));
  }

  // The same numbers in a plan, through the executor. It folds a map of the outputs before it clips
  // rows (core/method/flatquant.cpp), the published code clips first: no plan says that, so under
  // such a map only the activations are compared.
  void check_executed() const {
    QuantSettings quant;
    quant.weight = weight_spec_;
    quant.activation = site_spec_;
    OneLinear linear(x_.cols(), quant);
    linear.online() = online_;
    LayerPlan& planned = linear.plan.layers[0];
    planned[OneLinear::site.kind].clips = ClipPair{site_clips_.low(0), site_clips_.high(0)};
    check_close(linear.activation(x_, false), c_.matrix("X_hat"), kOut, "X_hat by the hook");
    const Matrix<double> x_quant = linear.activation(x_, true);
    check_close(x_quant, c_.matrix("X_quant"), kOut, "X_quant by the hook");
    if (maps_outputs()) return;
    planned.weight_clips[Linear::o_proj] = weight_clips_;
    const Matrix<double> w_quant = linear.weight(w_, true);
    check_close(w_quant, c_.matrix("W_quant"), kOut, "W_quant as installed");
    check_close(product_transposed<double>(x_quant, w_quant), c_.matrix("out"), kOut,
                "out as executed");
  }
  bool maps_outputs() const { return !outputs_.is_identity(); }

  // Clamped, then mapped at its outputs where there is such a map, then rounded.
  Matrix<double> quantized_weight() const {
    Matrix<double> w = w_;
    online_.apply_dual(w);
    if (!maps_outputs()) {
      round_weight_rows(w, weight_spec_, &weight_clips_);
      return w;
    }
    clamp_rows(w, weight_clips_);
    outputs_.apply_to_outputs(w);
    round_weight_rows(w, weight_spec_);
    return w;
  }

  void site_backward(const Matrix<double>& x_hat, Matrix<double> gradient,
                     TransformGradient& sums) const {
    RowClips<double> slope = zeros(x_.rows());
    round_rows_backward(x_hat, site_spec_, gradient, &site_clips_, &slope);
    check_clips("clip_a_min", Vector<double>::Constant(1, slope.low.sum()));
    check_clips("clip_a_max", Vector<double>::Constant(1, slope.high.sum()));
    transform_backward(online_, x_, gradient, sums);
  }

  void weight_backward(Matrix<double> gradient, TransformGradient& sums) const {
    Matrix<double> w_hat = w_;
    online_.apply_dual(w_hat);
    RowClips<double> slope = zeros(w_.rows());
    if (!maps_outputs()) {
      round_weight_rows_backward(w_hat, weight_spec_, gradient, &weight_clips_, &slope);
    } else {
      Matrix<double> mapped = w_hat;
      clamp_rows(mapped, weight_clips_);
      outputs_.apply_to_outputs(mapped);
      round_weight_rows_backward(mapped, weight_spec_, gradient);
      Matrix<double> columns = gradient.transpose();
      outputs_.apply_transpose(columns);
      gradient = columns.transpose();
      clamp_rows_backward(w_hat, weight_clips_, gradient, slope);
    }
    check_clips("clip_w_min", slope.low);
    check_clips("clip_w_max", slope.high);
    dual_backward(online_, w_, gradient, sums);
  }

  void check_clips(const std::string& name, const Vector<double>& slope) const {
    check_close(through_clip_factors(c_.vector(name), slope), c_.vector("grad_" + name), kGradient,
                "grad_" + name);
  }
  void check_factor(const SvdFactor& gradient, const std::string& side) const {
    check_close(gradient.raw_u, c_.matrix("grad_raw_u_" + side), kGradient, "grad_raw_u_" + side);
    check_close(gradient.raw_v, c_.matrix("grad_raw_v_" + side), kGradient, "grad_raw_v_" + side);
    check_close(gradient.sigma, c_.vector("grad_sigma_" + side), kGradient, "grad_sigma_" + side);
  }

  const OracleCase& c_;
  QuantSpec weight_spec_, site_spec_;
  SvdFactor left_, right_;
  Matrix<double> x_, w_;
  RowClips<double> weight_clips_, site_clips_;
  Transform<double> online_, outputs_;
};

TEST_CASE("a linear layer under FlatQuant's maps and clips, forward and backward") {
  for_each_case("flatquant_linear", [](const OracleCase& c) { FlatLinear(c).check(); });
}

}  // namespace
}  // namespace ruq::test
