#include "ruquant/quant/rounding.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("every rounding lands on the grid of the original weight and keeps 16 bits as they are") {
  const Matrix<double> weight = gaussian(9, 24, "weight", 1);
  for (const std::string& name : rounding_names()) {
    CAPTURE(name);
    CHECK(round_weight(name, weight, {.bits = 16}) == weight);
    for (const Index group : {0, 8}) {
      const QuantSpec spec = {.bits = 4, .group_size = group, .clip_ratio = 0.8};
      const Matrix<double> rounded = round_weight(name, weight, spec);
      CHECK(rounded != weight);
      const Grid<double> grid = fit_grid(weight, spec);
      CHECK(decode(encode(rounded, grid), grid) == rounded);
    }
  }
}

TEST_CASE("rtn takes the nearest code of each weight") {
  const Matrix<double> weight = gaussian(6, 10, "weight");
  const QuantSpec spec = {.bits = 3};
  const Matrix<double> rounded = round_weight("rtn", weight, spec);
  const Grid<double> grid = fit_grid(weight, spec);
  for (Index r = 0; r < weight.rows(); ++r) {
    for (Index c = 0; c < weight.cols(); ++c) {
      double nearest = 1e9;
      for (Index code = 0; code < 8; ++code) {
        const double level = (double(code) - grid.zero(r, 0)) * grid.scale(r, 0);
        nearest = std::min(nearest, std::abs(level - weight(r, c)));
      }
      CHECK(std::abs(rounded(r, c) - weight(r, c)) <= nearest * (1 + 1e-12));
    }
  }
}

TEST_CASE("an unknown rounding is refused with what is known") {
  const auto names = rounding_names();
  CHECK(std::find(names.begin(), names.end(), "rtn") != names.end());
  const Matrix<float> weight = Matrix<float>::Ones(2, 2);
  check_error([&] { round_weight("rtm", weight, {.bits = 4}); }, {"rtm", "did you mean 'rtn'"});
  check_error([&] { round_weight("rtm", weight, {.bits = 16}); }, {"rtm"});
}

}  // namespace
}  // namespace ruq::test
