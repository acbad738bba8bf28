#include "ruquant/learn/psot.hpp"

#include <doctest/doctest.h>

#include "support/oracle.hpp"

namespace ruq::test {
namespace {

TEST_CASE("InfoQuant's peak-suppression loss and gradient") {
  for_each_case("infoquant_psot", [](const OracleCase& c) {
    const Index width = c.integer("h");
    const Index rows = c.integer("S") * c.integer("T");
    const Matrix<double> x = c.vector("X").reshaped<Eigen::RowMajor>(rows, width);
    std::vector<Matrix<double>> blocks;
    for (Index b = 0; b < c.integer("blocks"); ++b) blocks.push_back(c.slice("Q", b));
    std::vector<bool> outlier;
    if (c.integer("use_mask") == 1) {
      for (const Index marked : c.integers("outlier_mask")) outlier.push_back(marked != 0);
    }
    const PsotLoss result = psot_loss(x, blocks, outlier,
                                      {.temperature = c.real("temperature"),
                                       .subtract_mean = c.integer("subtract_mean") == 1,
                                       .outlier_weight = c.real("weight")});
    const Vector<double> loss = Vector<double>::Constant(1, result.loss);
    check_close(loss, c.vector("loss"), 1e-11, "loss");
    // The tolerance is relative to the largest entry of the whole dataset.
    const double scale = c.vector("grad_Q").cwiseAbs().maxCoeff();
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      check_close_at(result.gradient[b], c.slice("grad_Q", static_cast<Index>(b)), 1e-11, scale,
                     "grad_Q of block " + std::to_string(b));
    }
  });
}

}  // namespace
}  // namespace ruq::test
