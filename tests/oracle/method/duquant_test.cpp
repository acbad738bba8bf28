#include "ruquant/method/duquant.hpp"

#include <doctest/doctest.h>

#include <variant>
#include <vector>

#include "support/layer_case.hpp"
#include "support/oracle.hpp"
#include "support/quantized.hpp"

namespace ruq::test {
namespace {

TEST_CASE("DuQuant rotates and quantizes one linear as the official code") {
  for_each_case("duquant_tensor", [](const OracleCase& c) {
    const Matrix<double> x = c.matrix("X");
    DuquantOptions options;
    options.block_size = c.integer("block_size");
    options.ragged = false;
    options.search_steps = c.integer("N");
    options.blocks.permutations = c.integer("tau");
    QuantSettings quant;
    quant.activation = {.bits = c.integer("abits"), .clip_ratio = c.real("lac")};
    quant.weight = {.bits = c.integer("wbits"), .clip_ratio = c.real("swc")};

    OneLinear linear(c.integer("d"), quant);
    Index searches = 0;
    Matrix<double> rotated = x;
    linear.online() =
        duquant_site(rotated, options, [&](Index) { return c.slice("C_prime", searches++); });
    CHECK(searches == c.shape("C_prime")[0]);

    Index map = 0;
    Index permutation = 0;
    for (const Step<double>& step : linear.online().steps()) {
      if (const auto* blocks = std::get_if<BlockDiagonal<double>>(&step)) {
        check_close(blocks->maps.at(0).map, c.slice("R", map++), 1e-10, "R");
      } else {
        const std::vector<Index> all = c.integers("perm");
        const auto begin = all.begin() + permutation++ * x.cols();
        CHECK(std::get<Permutation>(step).index == std::vector<Index>(begin, begin + x.cols()));
      }
    }
    CHECK(map == options.blocks.permutations + 1);
    CHECK(permutation == options.blocks.permutations);

    check_close(rotated, c.matrix("X_hat"), 1e-10, "X_hat, as built");
    const Matrix<double> x_hat = linear.activation(x, false);
    check_close(x_hat, c.matrix("X_hat"), 1e-10, "X_hat");
    check_quantized(c, quantized_names("a_", 1e-10), x_hat, quant.activation);
    const Matrix<double> w_hat = linear.weight(c.matrix("W"), false);
    check_close(w_hat, c.matrix("W_hat"), 1e-10, "W_hat");
    check_quantized(c, quantized_names("w_", 1e-10), w_hat, quant.weight);

    const Matrix<double> out =
        product_transposed<double>(linear.activation(x, true), linear.weight(c.matrix("W"), true));
    check_close(out, c.matrix("out_quant"), 1e-10, "out_quant");
  });
}

}  // namespace
}  // namespace ruq::test
