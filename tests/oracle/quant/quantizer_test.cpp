#include "ruquant/quant/quantizer.hpp"

#include <doctest/doctest.h>

#include "support/oracle.hpp"
#include "support/quantized.hpp"

namespace ruq::test {
namespace {

Vector<double> sigmoid(const Vector<double>& x) { return (1 / (1 + (-x.array()).exp())).matrix(); }

TEST_CASE("rows quantized as in the RUQuant code") {
  for_each_case("ruquant_quantizer_rows", [](const OracleCase& c) {
    const QuantSpec spec{.bits = c.integer("bits"),
                         .symmetric = c.integer("symmetric") != 0,
                         .group_size = c.integer("group_size"),
                         .clip_ratio = c.real("ratio")};
    const QuantizedNames names{"scale", "zp", "codes", "dequant", 1e-15, 1e-14};
    if (c.integer("learned_clip") != 0) {
      const RowClips<double> clips{sigmoid(c.vector("gamma_lo")), sigmoid(c.vector("gamma_hi"))};
      check_quantized(c, names, c.matrix("X"), spec, &clips);
    } else {
      check_quantized(c, names, c.matrix("X"), spec);
    }
  });
}

TEST_CASE("QuaRot's weight quantizer, with and without the range search") {
  for_each_case("quarot_weight_quantizer", [](const OracleCase& c) {
    // The constants of the search are fixed in the program.
    REQUIRE(c.real("norm") == 2.4);
    REQUIRE(c.integer("grid") == 100);
    REQUIRE(c.real("maxshrink") == 0.8);
    const QuantSpec spec{.bits = c.integer("bits"),
                         .symmetric = c.integer("symmetric") != 0,
                         .rule = GridRule::quarot_weight,
                         .search = c.integer("mse") != 0};
    check_quantized(c, {"scale", "zero", "codes", "dequant", 1e-14, 1e-14}, c.matrix("W"), spec);
  });
}

TEST_CASE("QuaRot's activation quantizer") {
  for_each_case("quarot_act_quantizer", [](const OracleCase& c) {
    const Index group = c.integer("group_size");
    const QuantSpec spec{.bits = c.integer("bits"),
                         .symmetric = c.integer("symmetric") != 0,
                         .rule = GridRule::quarot_activation,
                         .group_size = group < 0 ? 0 : group,
                         .clip_ratio = c.real("clip_ratio")};
    const Matrix<double> x = c.matrix("X");
    const Grid<double> grid = fit_grid(x, spec);
    // The reference repeats step and zero point for every channel of a group.
    const Index width = x.cols() / grid.scale.cols();
    Matrix<double> scale(x.rows(), x.cols());
    Matrix<double> zero(x.rows(), x.cols());
    for (Index channel = 0; channel < x.cols(); ++channel) {
      scale.col(channel) = grid.scale.col(channel / width);
      zero.col(channel) = grid.zero.col(channel / width);
    }
    check_close(scale, c.matrix("scale"), 1e-14, "scale");
    check_exact(zero, c.matrix("zero"), "zero");
    check_exact(encode(x, grid), c.matrix("codes"), "codes");
    check_close(decode(encode(x, grid), grid), c.matrix("dequant"), 1e-14, "dequant");
    Matrix<double> rounded = x;
    fake_quantize(rounded, spec);
    check_close(rounded, c.matrix("dequant"), 1e-14, "dequant, in one pass");
  });
}

}  // namespace
}  // namespace ruq::test
