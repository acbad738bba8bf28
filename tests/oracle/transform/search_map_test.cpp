#include "ruquant/transform/search_map.hpp"

#include <doctest/doctest.h>

#include "support/oracle.hpp"

namespace ruq::test {
namespace {

TEST_CASE("DuQuant's base rotation") {
  for_each_case("duquant_base", [](const OracleCase& c) {
    const Matrix<double> expected = c.matrix("R_base");
    check_close(duquant_base_rotation(expected.rows()), expected, 1e-13, "R_base");
  });
}

TEST_CASE("DuQuant's search") {
  for_each_case("duquant_search", [](const OracleCase& c) {
    const Matrix<double> x = c.matrix("X");
    const Index block = c.integer("block_size");
    Matrix<double> samples = x.reshaped<Eigen::RowMajor>(x.size() / block, block);
    const SearchMapOptions options{.steps = c.integer("N"), .index = SwapIndex::row};
    SearchMapTrace trace;
    const Matrix<double> map = build_search_map(
        samples, options, [&] { return c.matrix("C_prime"); }, &trace);
    CHECK(trace.swap_rows == c.integers("swap_rows"));
    CHECK(trace.swap_indices == c.integers("swap_index"));
    CHECK(trace.prefix_length == c.integer("prefix_length"));
    Vector<double> peaks = Eigen::Map<Vector<double>>(trace.peaks.data(), std::ssize(trace.peaks));
    check_close(peaks, c.vector("peaks"), 1e-11, "peaks");
    check_close(map, c.matrix("R"), 1e-11, "R");
    const Matrix<double> x_out = samples.reshaped<Eigen::RowMajor>(x.rows(), x.cols());
    check_close(x_out, c.matrix("X_out"), 1e-11, "X_out");
  });
}

}  // namespace
}  // namespace ruq::test
