#include "ruquant/learn/cayley.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "support/laws.hpp"
#include "support/oracle.hpp"

namespace ruq::test {
namespace {

TEST_CASE("SpinQuant's Cayley SGD") {
  for_each_case("spinquant_cayley", [](const OracleCase& c) {
    CayleySgd optimizer({.learning_rate = c.real("lr"), .momentum = c.real("momentum")});
    const auto draws = c.integers("rand");
    const Vector<double> lengths = c.vector("alpha_steps");
    REQUIRE(std::ssize(draws) == c.integer("steps"));
    Matrix<double> x = c.matrix("X0");
    Vector<double> taken(lengths.size()), off(lengths.size());
    for (Index i = 0; i < c.integer("steps"); ++i) {
      taken(i) = optimizer.step(x, c.slice("grads", i), draws[static_cast<std::size_t>(i)] == 1);
      check_close(x, c.slice("X_steps", i), 1e-11, "X after step " + std::to_string(i));
      off(i) = orthogonality_error(x);
    }
    check_close(taken, lengths, 1e-11, "alpha_steps");
    // What is left of products near one, so that one is the scale of its error.
    check_close_at(off, c.vector("orth_error"), 1e-11, 1, "orth_error");
  });
}

}  // namespace
}  // namespace ruq::test
