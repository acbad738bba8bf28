#include "ruquant/eval/language.hpp"

#include <algorithm>
#include <cmath>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kPositions = 128;  // positions whose logits are held at once, by each thread
constexpr Index kChunk = 2048;     // vocabulary entries summed in S before double takes over

// What one position says: log Σ exp(logits) and the most likely token.
struct Normalizer {
  double log_sum = 0;
  Index top = 0;
};

template <class S>
Normalizer normalizer(const Eigen::Ref<const RowVector<S>>& logits) {
  Normalizer result;
  const S largest = logits.maxCoeff(&result.top);
  double sum = 0;
  for (Index begin = 0; begin < logits.size(); begin += kChunk) {
    const Index count = std::min(kChunk, logits.size() - begin);
    sum += static_cast<double>((logits.segment(begin, count).array() - largest).exp().sum());
  }
  result.log_sum = static_cast<double>(largest) + std::log(sum);
  return result;
}

// KL(p ‖ q) of the softmaxes of two rows of logits: Σ p·(a − b) − log Σexp(a) + log Σexp(b).
template <class S>
double divergence(const Eigen::Ref<const RowVector<S>>& a, const Normalizer& of_a,
                  const Eigen::Ref<const RowVector<S>>& b, const Normalizer& of_b) {
  const S shift = static_cast<S>(of_a.log_sum);
  double sum = 0;
  for (Index begin = 0; begin < a.size(); begin += kChunk) {
    const Index count = std::min(kChunk, a.size() - begin);
    const auto x = a.segment(begin, count).array();
    sum += static_cast<double>(((x - shift).exp() * (x - b.segment(begin, count).array())).sum());
  }
  return std::max(0.0, sum - of_a.log_sum + of_b.log_sum);
}

template <class S>
Matrix<S> logits_of(const Hidden<S>& model, Index begin, Index count) {
  Matrix<S> logits(count, model.head.rows());
  product_transposed_into<S>(model.states.middleRows(begin, count), model.head, logits);
  return logits;
}

struct PositionScore {
  double nll = 0, reference_nll = 0, kl = 0, agreement = 0;
};

// Scores of the positions [begin, begin + count) whose next tokens are known.
template <class S>
void score_positions(const Hidden<S>& model, const Hidden<S>* reference,
                     std::span<const std::int32_t> ids, Index begin, std::span<PositionScore> out) {
  const Index count = std::ssize(out);
  const Matrix<S> logits = logits_of(model, begin, count);
  const Matrix<S> expected =
      reference != nullptr ? logits_of(*reference, begin, count) : Matrix<S>();
  for (Index i = 0; i < count; ++i) {
    PositionScore& score = out[static_cast<std::size_t>(i)];
    const Normalizer mine = normalizer<S>(logits.row(i));
    const Index next = ids[static_cast<std::size_t>(begin + i + 1)];
    score.nll = mine.log_sum - static_cast<double>(logits(i, next));
    if (reference == nullptr) continue;
    const Normalizer theirs = normalizer<S>(expected.row(i));
    score.reference_nll = theirs.log_sum - static_cast<double>(expected(i, next));
    score.kl = divergence<S>(expected.row(i), theirs, logits.row(i), mine);
    score.agreement = mine.top == theirs.top ? 1 : 0;
  }
}

template <class S>
std::vector<PositionScore> score_window(const Hidden<S>& model, const Hidden<S>* reference,
                                        std::span<const std::int32_t> ids, Index begin,
                                        Index length) {
  std::vector<PositionScore> scores(static_cast<std::size_t>(length - 1));
  parallel_rows(length - 1, kPositions, [&](Index first, Index last) {
    score_positions<S>(model, reference, ids, begin + first,
                       std::span(scores).subspan(static_cast<std::size_t>(first),
                                                 static_cast<std::size_t>(last - first)));
  });
  return scores;
}

}  // namespace

double mean(std::span<const double> values) {
  RUQ_CHECK(!values.empty(), "mean of nothing");
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

template <class S>
WindowScores score_windows(const Hidden<S>& model, std::span<const std::int32_t> ids, Index length,
                           const Hidden<S>* reference) {
  RUQ_CHECK(length > 1 && std::ssize(ids) % length == 0, "{} tokens in windows of {}", ids.size(),
            length);
  RUQ_CHECK(model.states.rows() == std::ssize(ids), "{} states for {} tokens", model.states.rows(),
            ids.size());
  WindowScores result;
  for (Index begin = 0; begin < std::ssize(ids); begin += length) {
    PositionScore sum;
    for (const PositionScore& score : score_window(model, reference, ids, begin, length)) {
      sum.nll += score.nll;
      sum.reference_nll += score.reference_nll;
      sum.kl += score.kl;
      sum.agreement += score.agreement;
    }
    const auto predictions = static_cast<double>(length - 1);
    result.nll.push_back(sum.nll / predictions);
    if (reference == nullptr) continue;
    result.reference_nll.push_back(sum.reference_nll / predictions);
    result.kl.push_back(sum.kl / predictions);
    result.agreement.push_back(sum.agreement / predictions);
  }
  return result;
}

template <class S>
Vector<double> next_token_log_probabilities(const Hidden<S>& model,
                                            std::span<const std::int32_t> ids) {
  const auto scores = score_window<S>(model, nullptr, ids, 0, std::ssize(ids));
  Vector<double> result(std::ssize(scores));
  for (Index i = 0; i < result.size(); ++i) result(i) = -scores[static_cast<std::size_t>(i)].nll;
  return result;
}

#define RUQ_INSTANTIATE(S)                                                                    \
  template WindowScores score_windows(const Hidden<S>&, std::span<const std::int32_t>, Index, \
                                      const Hidden<S>*);                                      \
  template Vector<double> next_token_log_probabilities(const Hidden<S>&,                      \
                                                       std::span<const std::int32_t>);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
