#include "experiments/tokens.hpp"

#include <doctest/doctest.h>

#include <numeric>

#include "support/errors.hpp"

namespace ruq::test {
namespace {

// Ids that are their own places, and a test split of 50 of them.
TokenFile counted() {
  TokenFile tokens;
  tokens.vocabulary = 100;
  tokens.ids.resize(100);
  std::iota(tokens.ids.begin(), tokens.ids.end(), 0);
  tokens.splits = {{"calibration", {0, 10}}, {"test", {10, 60}}};
  return tokens;
}

std::vector<std::int32_t> first_of_windows(Index windows, Index length, bool spread) {
  Config config("rtn");
  config.evaluation.windows = windows;
  config.evaluation.window_tokens = length;
  config.evaluation.spread = spread;
  const std::vector<std::int32_t> ids = evaluated_tokens(config, counted());
  REQUIRE(std::ssize(ids) == windows * length);
  std::vector<std::int32_t> begins;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (static_cast<Index>(i) % length == 0) {
      begins.push_back(ids[i]);
    } else {
      CHECK(ids[i] == ids[i - 1] + 1);
    }
  }
  return begins;
}

TEST_CASE("windows are the first of the split, or lie at equal distances over all of it") {
  using Ids = std::vector<std::int32_t>;
  CHECK(first_of_windows(3, 10, false) == Ids{10, 20, 30});
  CHECK(first_of_windows(3, 10, true) == Ids{10, 30, 50});
  CHECK(first_of_windows(4, 10, true) == Ids{10, 23, 36, 50});
  CHECK(first_of_windows(1, 10, true) == Ids{10});
  CHECK(first_of_windows(5, 10, true) == first_of_windows(5, 10, false));
}

TEST_CASE("more windows than the split holds are refused by number") {
  for (const bool spread : {false, true}) {
    check_error([&] { first_of_windows(6, 10, spread); },
                {"evaluation.windows", "6 windows of 10", "50 tokens", "test"});
  }
}

}  // namespace
}  // namespace ruq::test
