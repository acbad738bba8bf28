#include "ruquant/quant/rounding.hpp"

#include <doctest/doctest.h>

#include "support/oracle.hpp"
#include "support/quantized.hpp"

namespace ruq::test {
namespace {

/// Dataset X [samples, tokens, width] through the accumulator, one sample at a time.
Matrix<double> accumulated(const OracleCase& c, Index width) {
  HessianAccumulator accumulator(width);
  const Index samples = c.shape("X")[0];
  for (Index s = 0; s < samples; ++s) accumulator.add(c.slice("X", s));
  return accumulator.hessian();
}

GptqOptions sweep_options(const OracleCase& c) {
  return {.damping = c.real("percdamp"), .block_columns = c.integer("blocksize")};
}

Vector<double> as_vector(const std::vector<Index>& indices) {
  Vector<double> values(static_cast<Index>(indices.size()));
  for (std::size_t i = 0; i < indices.size(); ++i) {
    values(static_cast<Index>(i)) = static_cast<double>(indices[i]);
  }
  return values;
}

TEST_CASE("GPTQ as in QuaRot's code") {
  for_each_case("gptq", [](const OracleCase& c) {
    const Matrix<double> weight = c.matrix("W");
    const Matrix<double> hessian = accumulated(c, weight.cols());
    check_close(hessian, c.matrix("H"), 1e-10, "H");

    const Index group = c.integer("group_size");
    const QuantSpec spec{.bits = c.integer("bits"),
                         .symmetric = c.integer("symmetric") != 0,
                         .rule = GridRule::quarot_weight,
                         .group_size = group < 0 ? 0 : group,
                         .search = c.integer("mse") != 0};
    RoundingOptions options;
    options.gptq = sweep_options(c);
    options.gptq.act_order = c.integer("act_order") != 0;
    options.gptq.static_groups = c.integer("static_groups") != 0;

    const HessianFactor factor =
        factor_hessian(hessian, options.gptq.damping, options.gptq.act_order);
    check_exact(as_vector(factor.order), c.vector("perm"), "perm");
    check_close(factor.upper, c.matrix("U"), 1e-9, "U");

    const GptqResult<double> result = gptq(weight, spec, factor, options.gptq);
    const Matrix<double> scale = result.grid.scale.transpose();
    const Matrix<double> zero = result.grid.zero.transpose();
    check_close(scale, c.matrix("scale"), 1e-10, "scale");
    check_exact(zero, c.matrix("zero"), "zero");
    check_close(result.weight, c.matrix("Q"), 1e-10, "Q");
    check_close(result.losses, c.matrix("losses"), 1e-9, "losses");

    const RoundedWeight<double> rounded =
        round_weight<double>("gptq", {weight, spec, &factor, options});
    check_exact(rounded.weight, result.weight, "Q through the registry");
    check_close(Vector<double>::Constant(1, rounded.details.at("loss")), c.vector("loss_total"),
                1e-9, "loss_total");
  });
}

// The least importance under a mask.
double least_kept(const Matrix<double>& importance, const KeepMask& mask) {
  return (mask.array() != 0).select(importance, importance.maxCoeff()).minCoeff();
}

// The threshold itself is not to be seen. On the importance of the reference it must be the least
// that is kept, to the last bit; on ours within its error.
void check_threshold(const OracleCase& c, const Matrix<double>& importance, const KeepMask& mask,
                     const SeptqOptions& options) {
  const Vector<double> threshold = c.vector("threshold");
  const KeepMask on_reference = keep_mask(c.matrix("importance"), options);
  check_exact(on_reference, c.matrix("mask"), "mask of the reference's importance");
  CHECK(least_kept(c.matrix("importance"), on_reference) == threshold(0));
  check_close(Vector<double>::Constant(1, least_kept(importance, mask)), threshold, 1e-9,
              "threshold");
}

TEST_CASE("SEPTQ as in its code") {
  for_each_case("septq", [](const OracleCase& c) {
    const Matrix<double> weight = c.matrix("W");
    const Matrix<double> hessian = accumulated(c, weight.cols());
    check_close(hessian, c.matrix("H"), 1e-10, "H");

    const QuantSpec spec{
        .bits = c.integer("bits"), .rule = GridRule::quarot_weight, .search = true};
    RoundingOptions options;
    options.gptq = sweep_options(c);
    options.septq.kept_percent = c.real("sparsity_percent");

    const HessianFactor factor = factor_hessian(hessian, options.gptq.damping);
    check_close(factor.upper, c.matrix("U"), 1e-9, "U");
    const SeptqResult<double> result = septq(weight, spec, factor, options.gptq, options.septq);
    Matrix<double> alive = weight;  // the code empties dead channels before it looks at anything
    for (const Index channel : factor.dead) alive.col(channel).setZero();
    const Matrix<double> importance = rounding_importance(alive, result.sweep.grid, factor);
    check_close(importance, c.matrix("importance"), 1e-9, "importance");
    check_threshold(c, importance, result.mask, options.septq);
    check_close(flat(result.sweep.grid.scale), c.vector("scale"), 1e-14, "scale");
    check_exact(flat(result.sweep.grid.zero), c.vector("zero"), "zero");
    check_exact(result.mask, c.matrix("mask"), "mask");
    CHECK(result.kept == c.integer("kept"));
    CHECK(result.kept == c.integer("threshold_index") + 1);
    check_close(result.sweep.weight, c.matrix("Q"), 1e-10, "Q");
    check_exact(round_weight<double>("septq", {weight, spec, &factor, options}).weight,
                result.sweep.weight, "Q through the registry");
  });
}

TEST_CASE("UniQuanF's unified initialisation") {
  for_each_case("uniquanf_init", [](const OracleCase& c) {
    const Matrix<double> weight = c.matrix("W");
    const QuantSpec spec{.bits = c.integer("bits"), .group_size = c.integer("group_size")};
    RoundingOptions options;
    options.uniquanf.rounds = c.integer("T");
    options.uniquanf.scale_grid = c.integer("G");

    const auto start = unified_start(weight, spec, options.uniquanf);
    check_close(start.d1.array().exp().matrix(), c.vector("scale"), 1e-10, "scale");
    check_close(start.d1, c.vector("d1"), 1e-10, "d1");
    check_close(start.zero, c.vector("zero"), 1e-10, "zero");
    check_close_at(start.shift, c.vector("shift"), 1e-10,
                   std::max(1e-300, c.vector("shift").cwiseAbs().maxCoeff()), "shift");
    check_close(start.alpha, c.matrix("alpha"), 1e-10, "alpha");
    Codes codes;
    map_codes(weight, start, options.uniquanf, 0, codes);
    check_exact(codes, c.matrix("idx"), "idx");
    check_close(uniquanf_values(start, codes), c.matrix("W_quant"), 1e-10, "W_quant");
    check_close(round_weight<double>("uniquanf_init", {weight, spec, nullptr, options}).weight,
                c.matrix("W_quant"), 1e-10, "W_quant through the registry");
  });
}

/// With powers of two for factors and no shift the levels are even: the uniform quantizer of each
/// row, counted from the value of its lowest code since the zero point need not be an integer.
void check_uniform(const OracleCase& c, const UniquanfParameters<double>& p, const Codes& codes) {
  const Matrix<double> weight = c.matrix("W");
  const Vector<double> step = p.d1.array().exp();
  const Vector<double> lowest = -p.zero.cwiseProduct(step);
  const Index top = (Index{1} << c.integer("bits")) - 1;
  const Grid<double> grid{
      {.bits = c.integer("bits")}, 0, top, step, Matrix<double>::Zero(step.size(), 1)};
  Matrix<double> uniform = weight.colwise() - lowest;
  const Codes from_below = encode(uniform, grid);
  check_exact(codes, (static_cast<std::int32_t>(top) - from_below.array()).matrix(),
              "codes of the uniform quantizer, from the top");
  round_to_grid(uniform, grid);
  uniform.colwise() += lowest;
  check_close(uniform, c.slice("W_quant", 0), 1e-11, "W_quant of the uniform quantizer");
  check_close(uniquanf_values(p, codes), uniform, 1e-11, "W_quant against the uniform quantizer");
}

/// One step of the fixture: parameters, forward, gradients, binary form.
void check_step(const OracleCase& c, Index step, const UniquanfOptions& options, Codes& codes) {
  const Matrix<double> weight = c.matrix("W");
  const auto of_step = [&](const std::string& name) -> Vector<double> {
    return c.matrix(name).row(step);
  };
  const UniquanfParameters<double> p{of_step("d1"),          c.slice("d2", step), of_step("d3"),
                                     c.slice("alpha", step), c.vector("zero"),    c.vector("t")};
  map_codes(weight, p, options, step, codes);
  check_exact(codes, c.slice("idx", step), "idx");
  const Matrix<double> values = c.slice("W_quant", step);
  check_close(uniquanf_values(p, codes), values, 1e-11, "W_quant");

  const auto gradients =
      uniquanf_gradients(weight, p, codes, c.slice("upstream", step), options.gradient_filter);
  check_close(gradients.d1, of_step("grad_d1"), 1e-11, "grad_d1");
  check_close(gradients.d2, c.slice("grad_d2", step), 1e-11, "grad_d2");
  check_close(gradients.d3, of_step("grad_d3"), 1e-11, "grad_d3");
  check_close(gradients.alpha, c.slice("grad_alpha", step), 1e-11, "grad_alpha");
  // Where the filter cuts, nothing reaches the weight's own parameter; elsewhere its −W0 does.
  const Matrix<double> ones = Matrix<double>::Ones(weight.rows(), weight.cols());
  const auto through = uniquanf_gradients(weight, p, codes, ones, options.gradient_filter);
  check_exact((through.d2.array() == 0).cast<double>().matrix(), c.slice("filtered", step),
              "filtered");
  if (step == 0 && c.integer("uniform_alpha") != 0) check_uniform(c, p, codes);

  const BinaryCode<double> binary = to_binary_code(p, codes);
  check_close(binary.alpha, c.slice("bcq_alpha", step), 1e-11, "bcq_alpha");
  check_close(binary.shift, of_step("bcq_shift"), 1e-11, "bcq_shift");
  check_close(binary.decode(weight.cols()), values, 1e-11, "binary form");
}

TEST_CASE("UniQuanF's two forward steps and their gradients") {
  for_each_case("uniquanf_forward", [](const OracleCase& c) {
    const UniquanfOptions options{.mapping = "local",
                                  .mapping_period = 1,
                                  .gradient_filter = c.integer("gradient_filter") != 0};
    Codes codes;
    for (Index step = 0; step < 2; ++step) check_step(c, step, options, codes);
  });
}

}  // namespace
}  // namespace ruq::test
