#include "ruquant/transform/kronecker.hpp"

#include <doctest/doctest.h>

#include "support/oracle.hpp"

namespace ruq::test {
namespace {

TEST_CASE("FlatQuant's factor sizes") {
  for_each_case("flatquant_sizes", [](const OracleCase& c) {
    const auto n = c.integers("n");
    const auto left = c.integers("n1");
    const auto right = c.integers("n2");
    REQUIRE(left.size() == n.size());
    for (std::size_t i = 0; i < n.size(); ++i) {
      CAPTURE(n[i]);
      CHECK(flatquant_sizes(n[i]) == KroneckerSizes{left[i], right[i]});
    }
  });
}

TEST_CASE("FlatQuant's Kronecker product") {
  for_each_case("flatquant_kronecker", [](const OracleCase& c) {
    Transform<double> transform;
    transform.append(
        kronecker_step(invertible_map(c.matrix("P1")), invertible_map(c.matrix("P2"))));
    Matrix<double> x = c.matrix("X");
    transform.apply(x);
    check_close(x, c.matrix("Y"), 1e-13, "Y");
  });
}

TEST_CASE("FlatQuant's first scale") {
  for_each_case("flatquant_init_scale", [](const OracleCase& c) {
    check_close(flatquant_init_scale(c.vector("w_max"), c.vector("x_max"), c.real("alpha")),
                c.vector("diag"), 1e-14, "diag");
  });
}

// A factor from its SVD form, compared with the orthogonal maps and the product on record.
SquareMap<double> factor_of(const OracleCase& c, const std::string& side, const std::string& name) {
  const Matrix<double> u = cayley_map(c.matrix("raw_u_" + side));
  const Matrix<double> v = cayley_map(c.matrix("raw_v_" + side));
  check_close(u, c.matrix("orth_u_" + side), 1e-11, "orth_u_" + side);
  check_close(v, c.matrix("orth_v_" + side), 1e-11, "orth_v_" + side);
  SquareMap<double> map = svd_map(u, c.vector("sigma_" + side), v);
  check_close(map.map, c.matrix(name), 1e-11, name);
  return map;
}

TEST_CASE("FlatQuant's transform of activations and weights") {
  for_each_case("flatquant_transform", [](const OracleCase& c) {
    const bool svd = c.integer("svd_form") == 1;
    Transform<double> transform;
    transform.append(Scale<double>{c.vector("diag")});
    transform.append(
        kronecker_step(svd ? factor_of(c, "left", "P1") : invertible_map(c.matrix("P1")),
                       svd ? factor_of(c, "right", "P2") : invertible_map(c.matrix("P2"))));
    Matrix<double> x = c.matrix("X");
    Matrix<double> w = c.matrix("W");
    transform.apply(x);
    transform.apply_dual(w);
    check_close(x, c.matrix("X_hat"), 1e-11, "X_hat");
    check_close(w, c.matrix("W_hat"), 1e-11, "W_hat");
  });
}

}  // namespace
}  // namespace ruq::test
