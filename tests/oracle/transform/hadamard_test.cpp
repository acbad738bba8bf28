#include "ruquant/transform/hadamard.hpp"

#include <doctest/doctest.h>

#include "support/oracle.hpp"

namespace ruq::test {
namespace {

TEST_CASE("fast Hadamard products equal matmul_hadU and its transpose") {
  for_each_case("hadamard", [](const OracleCase& c) {
    const Index n = c.integer("n");
    CHECK(hadamard_order(n).base == c.integer("K"));
    CHECK(hadamard_order(n).power_of_two == c.integer("pow2"));
    Matrix<double> y = c.matrix("X");
    hadamard_in_place<double>(y, n, false);
    check_close(y, c.matrix("Y"), 1e-13, "Y");
    Matrix<double> yt = c.matrix("X");
    hadamard_in_place<double>(yt, n, true);
    check_close(yt, c.matrix("Yt"), 1e-13, "Yt");
    if (c.has("signs")) {
      Matrix<double> r = c.vector("signs").asDiagonal().toDenseMatrix();
      hadamard_in_place<double>(r, n, false);
      check_close(r, c.matrix("R_random"), 1e-13, "R_random");
    }
  });
}

TEST_CASE("constructed base matrices equal the published tables") {
  // Constants: not every set of reference numbers repeats them.
  const auto directory = oracle_directory();
  if (directory && !std::filesystem::exists(*directory / "hadamard_tables.h5")) {
    MESSAGE("hadamard_tables: not in this set of reference numbers");
    return;
  }
  for_each_case("hadamard_tables", [](const OracleCase& c) {
    check_exact(hadamard_base(c.integer("K")), c.matrix("had_K"), "had_K");
  });
}

}  // namespace
}  // namespace ruq::test
