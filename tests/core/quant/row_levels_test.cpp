#include "ruquant/quant/row_levels.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

/// The least squared error of two levels: the best cut of the sorted values.
double best_of_two(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto spread = [&](std::size_t begin, std::size_t end) {
    double mean = 0, error = 0;
    for (std::size_t i = begin; i < end; ++i) mean += values[i] / double(end - begin);
    for (std::size_t i = begin; i < end; ++i) error += (values[i] - mean) * (values[i] - mean);
    return error;
  };
  double best = 1e300;
  for (std::size_t cut = 1; cut < values.size(); ++cut) {
    best = std::min(best, spread(0, cut) + spread(cut, values.size()));
  }
  return best;
}

TEST_CASE("each group has its best levels") {
  const Matrix<double> weight = gaussian(5, 24, "weight", 1);
  for (const Index group : {24, 8}) {
    const Matrix<double> rounded = round_to_best_levels(weight, {.bits = 1, .group_size = group});
    for (Index r = 0; r < 5; ++r) {
      for (Index c = 0; c < 24; c += group) {
        const auto values = weight.row(r).segment(c, group);
        const auto kept = rounded.row(r).segment(c, group);
        CHECK((kept - values).squaredNorm() ==
              doctest::Approx(best_of_two({values.begin(), values.end()})).epsilon(1e-12));
      }
    }
  }
}

TEST_CASE("no more levels than the width has, and levels are means") {
  const Matrix<double> weight = gaussian(3, 100, "weight");
  const Matrix<double> rounded = round_to_best_levels(weight, {.bits = 3});
  for (Index r = 0; r < 3; ++r) {
    const std::set<double> levels(rounded.row(r).begin(), rounded.row(r).end());
    CHECK(levels.size() == 8);
    for (const double level : levels) {
      const auto at = (rounded.row(r).array() == level);
      const double mean = at.select(weight.row(r).array(), 0.0).sum() / double(at.count());
      CHECK(level == doctest::Approx(mean).epsilon(1e-12));
    }
  }
}

TEST_CASE("few values are kept as they are") {
  const Matrix<double> weight = gaussian(2, 6, "weight");
  CHECK(relative_error(round_to_best_levels(weight, {.bits = 3}), weight) < 1e-15);
  const Matrix<float> ones = Matrix<float>::Ones(2, 6);
  CHECK(round_to_best_levels(ones, {.bits = 2}) == ones);
}

TEST_CASE("too many bits are refused") {
  check_error([] { round_to_best_levels<double>(Matrix<double>::Ones(1, 4), {.bits = 12}); },
              {"1 to 8 bits", "found 12"});
}

}  // namespace
}  // namespace ruq::test
