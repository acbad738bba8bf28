// A weight and the Hessian of correlated inputs, for the tests of the column sweeps.
#pragma once

#include <string>

#include "ruquant/quant/hessian.hpp"
#include "support/laws.hpp"

namespace ruq::test {

struct SweepCase {
  Matrix<double> weight;   ///< [out, in]
  Matrix<double> hessian;  ///< [in, in], positive definite, far from diagonal
};

inline SweepCase sweep_case(Index out, Index in, const std::string& name) {
  const Matrix<double> mixing = gaussian(in, in, name + "/mixing");
  const Matrix<double> x = gaussian(2 * in, in, name + "/x") * mixing;
  HessianAccumulator accumulator(in);
  accumulator.add(x, 2);
  return {gaussian(out, in, name + "/weight"), accumulator.hessian()};
}

}  // namespace ruq::test
