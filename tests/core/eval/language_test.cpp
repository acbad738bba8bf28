#include "ruquant/eval/language.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

constexpr Index kTokens = 24;

// Hidden states and a head, whose product has logits of a few units.
struct Speaker {
  Matrix<double> states, head;
  explicit Speaker(const std::string& name, Index vocabulary = 31, Index tokens = kTokens)
      : states(gaussian(tokens, 8, name + "/states")),
        head(gaussian(vocabulary, 8, name + "/head")) {}
  Hidden<double> hidden() const { return {states, head}; }
};

std::vector<std::int32_t> next_tokens(Index count, Index vocabulary) {
  std::vector<std::int32_t> ids;
  for (const double u : Stream(1, "ids").uniform(count)) {
    ids.push_back(static_cast<std::int32_t>(u * double(vocabulary)));
  }
  return ids;
}

// Probabilities of one position by the definition of softmax, in long double.
std::vector<long double> softmax(const Speaker& speaker, Index position) {
  std::vector<long double> p;
  long double total = 0;
  for (Index v = 0; v < speaker.head.rows(); ++v) {
    long double logit = 0;
    for (Index j = 0; j < 8; ++j) {
      logit += static_cast<long double>(speaker.states(position, j)) * speaker.head(v, j);
    }
    p.push_back(std::exp(logit));
    total += p.back();
  }
  for (auto& value : p) value /= total;
  return p;
}

struct Naive {
  double nll = 0, kl = 0, agreement = 0;
};

Naive naive_window(const Speaker& model, const Speaker& reference,
                   const std::vector<std::int32_t>& ids, Index begin, Index length) {
  Naive sum;
  for (Index t = begin; t + 1 < begin + length; ++t) {
    const auto q = softmax(model, t);
    const auto p = softmax(reference, t);
    sum.nll -= double(std::log(q[std::size_t(ids[std::size_t(t + 1)])]));
    for (std::size_t v = 0; v < p.size(); ++v) sum.kl += double(p[v] * std::log(p[v] / q[v]));
    const auto top = [](const auto& x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
    sum.agreement += top(p) == top(q) ? 1 : 0;
  }
  const double count = double(length - 1);
  return {sum.nll / count, sum.kl / count, sum.agreement / count};
}

TEST_CASE("nll, divergence and agreement equal the definitions, window by window") {
  for (const Index vocabulary : {2, 31, 5000}) {  // 5000: more than one summation chunk
    const Speaker model("model", vocabulary);
    const Speaker reference("reference", vocabulary);
    const auto ids = next_tokens(kTokens, vocabulary);
    const Hidden<double> truth = reference.hidden();
    const WindowScores scores = score_windows(model.hidden(), ids, 8, &truth);
    REQUIRE(scores.nll.size() == 3);
    REQUIRE(scores.kl.size() == 3);
    for (std::size_t w = 0; w < 3; ++w) {
      CAPTURE(vocabulary);
      const Naive expected = naive_window(model, reference, ids, Index(8 * w), 8);
      CHECK(scores.nll[w] == doctest::Approx(expected.nll).epsilon(1e-12));
      CHECK(scores.kl[w] == doctest::Approx(expected.kl).epsilon(1e-11));
      CHECK(scores.agreement[w] == expected.agreement);
    }
  }
}

TEST_CASE("float scores agree with those of double") {
  const Speaker model("model", 5000);
  const Speaker reference("reference", 5000);
  const auto ids = next_tokens(kTokens, 5000);
  const Hidden<double> truth = reference.hidden();
  const WindowScores exact = score_windows(model.hidden(), ids, 12, &truth);
  const Matrix<float> states = model.states.cast<float>(), head = model.head.cast<float>();
  const Matrix<float> true_states = reference.states.cast<float>();
  const Matrix<float> true_head = reference.head.cast<float>();
  const Hidden<float> narrow = {true_states, true_head};
  const WindowScores scores = score_windows(Hidden<float>{states, head}, ids, 12, &narrow);
  for (std::size_t w = 0; w < 2; ++w) {
    CHECK(scores.nll[w] == doctest::Approx(exact.nll[w]).epsilon(1e-5));
    CHECK(scores.kl[w] == doctest::Approx(exact.kl[w]).epsilon(1e-5));
  }
}

TEST_CASE("a model agrees with itself: no divergence, full agreement") {
  const Speaker model("model", 300);
  const Hidden<double> self = model.hidden();
  const WindowScores scores = score_windows(self, next_tokens(kTokens, 300), 12, &self);
  CHECK(scores.kl == std::vector<double>{0, 0});
  CHECK(scores.agreement == std::vector<double>{1, 1});
}

TEST_CASE("without a reference there is nll alone") {
  const Speaker model("model");
  const WindowScores scores =
      score_windows<double>(model.hidden(), next_tokens(kTokens, 31), 24, nullptr);
  CHECK(scores.nll.size() == 1);
  CHECK(scores.kl.empty());
  CHECK(scores.agreement.empty());
}

TEST_CASE("a uniform model has the nll of its vocabulary") {
  Speaker model("model", 17);
  model.head.setZero();
  const auto scores = score_windows<double>(model.hidden(), next_tokens(kTokens, 17), 24, nullptr);
  CHECK(scores.nll[0] == doctest::Approx(std::log(17.0)));
}

TEST_CASE("large logits neither overflow nor lose the answer") {
  Speaker model("model");
  model.head *= 1e4;
  const Hidden<double> self = model.hidden();
  const auto scores = score_windows(self, next_tokens(kTokens, 31), 24, &self);
  CHECK(std::isfinite(scores.nll[0]));
  CHECK(scores.nll[0] > 1e3);
  CHECK(scores.kl[0] == 0);
}

TEST_CASE("log probabilities are those of the scores, position by position") {
  const Speaker model("model", 31, 300);  // more positions than are held at once
  const auto ids = next_tokens(300, 31);
  const Vector<double> log_p = next_token_log_probabilities(model.hidden(), ids);
  REQUIRE(log_p.size() == 299);
  for (const Index t : {0, 127, 128, 298}) {
    const auto p = softmax(model, t);
    CHECK(
        log_p(t) ==
        doctest::Approx(double(std::log(p[std::size_t(ids[std::size_t(t + 1)])]))).epsilon(1e-12));
  }
  const auto scores = score_windows<double>(model.hidden(), ids, 300, nullptr);
  CHECK(scores.nll[0] == doctest::Approx(-log_p.mean()));
}

TEST_CASE("two threads score as one") {
  const Speaker model("model", 31, 600);
  const Speaker reference("reference", 31, 600);
  const Hidden<double> truth = reference.hidden();
  const auto ids = next_tokens(600, 31);
  const WindowScores one = score_windows(model.hidden(), ids, 300, &truth);
  set_threads(2);
  const WindowScores two = score_windows(model.hidden(), ids, 300, &truth);
  set_threads(1);
  CHECK(one.nll == two.nll);
  CHECK(one.kl == two.kl);
  CHECK(one.agreement == two.agreement);
}

TEST_CASE("token counts that do not fit are caught") {
  const Speaker model("model");
  const auto ids = next_tokens(kTokens, 31);
  check_error([&] { score_windows<double>(model.hidden(), ids, 7, nullptr); }, {"24", "7"});
  check_error([&] { score_windows<double>(model.hidden(), ids, 1, nullptr); }, {"1"});
  check_error([&] { score_windows<double>(model.hidden(), std::span(ids).first(12), 12, nullptr); },
              {"24 states for 12 tokens"});
}

TEST_CASE("the mean") {
  const std::vector<double> values = {1, 2, 6};
  CHECK(mean(values) == 3);
  check_error([] { mean({}); }, {"mean of nothing"});
}

}  // namespace
}  // namespace ruq::test
