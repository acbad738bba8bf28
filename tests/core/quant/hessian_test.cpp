#include "ruquant/quant/hessian.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("H is the sum of outer products over the samples, whatever the batches") {
  for (const Index width : {1, 5, 128, 300}) {
    const Matrix<double> x = gaussian(1100, width, "x", width > 1 ? 1 : 0);
    const Matrix<double> expected = x.transpose() * x * (2.0 / 5);
    HessianAccumulator whole(width);
    whole.add(x, 5);
    CHECK(whole.samples() == 5);
    CHECK(relative_error(whole.hessian(), expected) < 1e-13);
    CHECK(whole.hessian() == whole.hessian().transpose());

    HessianAccumulator parts(width);
    parts.add(Matrix<double>(x.topRows(7)), 2);
    parts.add(Matrix<double>(x.bottomRows(1093)), 3);
    CHECK(relative_error(parts.hessian(), expected) < 1e-13);

    HessianAccumulator single(width);
    single.add(Matrix<float>(x.cast<float>()), 5);
    CHECK(relative_error(single.hessian(), expected) < 1e-5);
  }
}

TEST_CASE("the factor squares to the damped inverse, in sweep order") {
  const Index n = 300;  // three panels, the last one ragged
  const Matrix<double> x = gaussian(700, n, "x", 2);
  HessianAccumulator accumulator(n);
  accumulator.add(x);
  Matrix<double> h = accumulator.hessian();
  h.row(4).setZero();
  h.col(4).setZero();
  for (const bool act_order : {false, true}) {
    const HessianFactor factor = factor_hessian(h, 0.02, act_order);
    CHECK(factor.dead == std::vector<Index>{4});
    Matrix<double> damped = h;
    damped(4, 4) = 1;
    damped = Matrix<double>(damped(factor.order, factor.order));
    for (Index j = 1; act_order && j < n; ++j) CHECK(damped(j, j) <= damped(j - 1, j - 1));
    damped.diagonal().array() += 0.02 * damped.diagonal().mean();
    CHECK(relative_error(factor.upper.transpose() * factor.upper,
                         Matrix<double>(damped.inverse())) < 1e-10);
    CHECK(factor.upper.isUpperTriangular(0));
    CHECK(factor.upper.diagonal().minCoeff() > 0);
  }
}

TEST_CASE("the loss of a change is its quadratic form") {
  const Matrix<double> x = gaussian(30, 6, "x");
  const Matrix<double> change = gaussian(4, 6, "change");
  HessianAccumulator accumulator(6);
  accumulator.add(x, 3);
  const double expected = (x * change.transpose()).squaredNorm() * 2 / 3;
  CHECK(output_loss(change, accumulator.hessian()) == doctest::Approx(expected).epsilon(1e-12));
}

TEST_CASE("a Hessian that cannot be used is refused") {
  check_error([] { HessianAccumulator(3).hessian(); }, {"before it saw any inputs"});
  check_error([] { factor_hessian(Matrix<double>::Zero(2, 3), 0.01); }, {"[2,3]"});
  check_error([] { factor_hessian(-Matrix<double>::Identity(3, 3), 0.01); },
              {"positive definite", "damping 0.01"});
}

}  // namespace
}  // namespace ruq::test
