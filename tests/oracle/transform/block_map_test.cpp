#include "ruquant/transform/block_map.hpp"

#include <doctest/doctest.h>

#include "ruquant/transform/partition.hpp"
#include "ruquant/transform/transform.hpp"
#include "support/oracle.hpp"
#include "support/tape.hpp"

namespace ruq::test {
namespace {

TEST_CASE("plane rotations equal the official Givens construction") {
  for_each_case("ruquant_givens", [](const OracleCase& c) {
    const Vector<double> source = c.vector("source");
    const Vector<double> target = c.vector("target");
    Matrix<double> g = Matrix<double>::Identity(source.size(), source.size());
    for (Index i = 0; i + 1 < source.size(); i += 2) {
      const PlaneRotation r = plane_rotation(source(i), source(i + 1), target(i), target(i + 1));
      g.block<2, 2>(i, i) << r.cosine, r.sine, -r.sine, r.cosine;
    }
    check_close(g, c.matrix("G"), 1e-13, "G");
  });
}

TEST_CASE("block maps equal get_R") {
  for_each_case("ruquant_map", [](const OracleCase& c) {
    Matrix<double> samples = c.matrix("X").transpose();
    Tape tape(c.vector("tape_u"), c.integers("tape_perm"));
    const BlockMapOptions options{.steps = c.integer("K"), .givens_per_step = c.integer("lambda")};
    BlockMapTrace trace;
    const Matrix<double> map = build_block_map(samples, options, tape, &trace);
    check_close(map, c.matrix("M"), 1e-12, "M");
    check_close(samples, c.matrix("X_out").transpose(), 1e-12, "X_out");
    CHECK(trace.chosen == c.integers("chosen_col"));
    CHECK(tape.used_up());
  });
}

TEST_CASE("zigzag order equals permutation_zigzag") {
  for_each_case("ruquant_zigzag", [](const OracleCase& c) {
    const Matrix<double> y = c.matrix("Y");
    const auto order = zigzag_order(y, block_layout(y.cols(), c.integer("block_size"), false));
    CHECK(order == c.integers("perm"));
    Transform<double> transform;
    transform.append(Permutation{order});
    Matrix<double> y_out = y;
    transform.apply(y_out);
    check_exact(y_out, c.matrix("Y_out"), "Y_out");
  });
}

TEST_CASE("global reflection direction equals get_omg") {
  for_each_case("ruquant_omega", [](const OracleCase& c) {
    const Matrix<double> y = c.matrix("Y");
    Tape tape(c.vector("tape_u"), {});
    Index row = -1;
    const Vector<double> omega = global_reflection_direction(y, Target::u01, tape, &row);
    check_close(omega, c.vector("omega"), 1e-12, "omega");
    CHECK(row == c.integers("row").at(0));
    const Vector<double> v = omega.normalized();
    check_close((y - 2 * (y * v) * v.transpose()).eval(), c.matrix("Y_out"), 1e-12, "Y_out");
  });
}

}  // namespace
}  // namespace ruq::test
