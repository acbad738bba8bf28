#include "ruquant/learn/cross_entropy.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "support/differences.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

constexpr Index kVocabulary = 11;
constexpr Index kWidth = 6;

std::vector<std::int32_t> ids_of(Index count) {
  std::vector<std::int32_t> ids;
  for (Index t = 0; t < count; ++t) {
    ids.push_back(static_cast<std::int32_t>((7 * t + t * t) % kVocabulary));
  }
  return ids;
}

// From the definition, one position after another.
double plain_loss(const Matrix<double>& states, const Matrix<double>& head,
                  const TokenWindows& tokens) {
  double sum = 0;
  Index count = 0;
  for (Index r = 0; r < states.rows(); ++r) {
    if ((r + 1) % tokens.length == 0) continue;
    double total = 0;
    for (Index v = 0; v < head.rows(); ++v) total += std::exp(states.row(r).dot(head.row(v)));
    const Index next = tokens.ids[static_cast<std::size_t>(r + 1)];
    sum -= std::log(std::exp(states.row(r).dot(head.row(next))) / total);
    ++count;
  }
  return sum / static_cast<double>(count);
}

TEST_CASE("cross entropy is its definition, over windows and tiles") {
  for (const Index length : {Index{2}, Index{5}, Index{50}}) {
    const auto ids = ids_of(3 * length);
    const TokenWindows tokens{ids, length};
    const Matrix<double> states = gaussian(3 * length, kWidth, "states");
    const Matrix<double> head = gaussian(kVocabulary, kWidth, "head");
    const double expected = plain_loss(states, head, tokens);
    CHECK(cross_entropy(states, head, tokens) == doctest::Approx(expected).epsilon(1e-13));
    CHECK(cross_entropy<float>(states.cast<float>(), head.cast<float>(), tokens) ==
          doctest::Approx(expected).epsilon(1e-5));
  }
}

TEST_CASE("its gradient by the states, by differences; logits of a thousand do not overflow") {
  const auto ids = ids_of(8);
  const TokenWindows tokens{ids, 4};
  Matrix<double> states = gaussian(8, kWidth, "states");
  const Matrix<double> head = gaussian(kVocabulary, kWidth, "head");
  Matrix<double> gradient;
  const double loss = cross_entropy(states, head, tokens, &gradient);
  CHECK(loss == cross_entropy(states, head, tokens));
  check_gradient([&] { return cross_entropy(states, head, tokens); }, states, gradient, 1e-7);
  CHECK(gradient.row(3).norm() == 0);
  CHECK(gradient.row(7).norm() == 0);
  const Matrix<double> large = 1000 * states;
  CHECK(std::isfinite(cross_entropy(large, head, tokens, &gradient)));
  CHECK(gradient.allFinite());
}

TEST_CASE("windows of one token predict nothing, and are refused") {
  const auto ids = ids_of(4);
  const Matrix<double> states = gaussian(4, kWidth, "states");
  const Matrix<double> head = gaussian(kVocabulary, kWidth, "head");
  check_error([&] { cross_entropy(states, head, {ids, 1}); }, {"windows of 1"});
  check_error([&] { cross_entropy(states, head, {ids, 3}); }, {"4 tokens", "windows of 3"});
}

}  // namespace
}  // namespace ruq::test
