#include "ruquant/eval/language.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kPositions = 512;  // positions that share one pass over the vocabulary
constexpr Index kChunk = 2048;     // vocabulary entries at a time; sums within one run in S

// Σ exp(logits) seen so far, as sum·exp(largest), with the most likely token.
struct Normalizer {
  double largest = -std::numeric_limits<double>::infinity();
  double sum = 0;
  Index top = 0;

  double log_sum() const { return largest + std::log(sum); }

  // Takes in a chunk whose largest logit is `peak` at `index` and whose Σ exp(logit − peak) is
  // `total`; returns the factors by which what was seen and what is new are scaled.
  std::pair<double, double> merge(double peak, Index index, double total) {
    const double next = std::max(largest, peak);
    const double old_factor = std::exp(largest - next);
    const double new_factor = std::exp(peak - next);
    if (peak > largest) top = index;
    largest = next;
    sum = sum * old_factor + total * new_factor;
    return {old_factor, new_factor};
  }
};

struct PositionScore {
  double nll = 0, reference_nll = 0, kl = 0, agreement = 0;
};

// The vocabulary passes by in chunks, so that the logits of many positions never exist at once.
struct PositionState {
  Normalizer mine, theirs;
  double my_next = 0, their_next = 0;  // logits of the token that came
  double weighted = 0;  // Σ exp(a − theirs.largest)·(a − b), a of the float model

  PositionScore score(bool compared) const {
    PositionScore result{.nll = mine.log_sum() - my_next};
    if (!compared) return result;
    result.reference_nll = theirs.log_sum() - their_next;
    // KL(p ‖ q) = Σ p·(a − b) − log Σexp(a) + log Σexp(b)
    result.kl = std::max(0.0, weighted / theirs.sum - theirs.log_sum() + mine.log_sum());
    result.agreement = mine.top == theirs.top ? 1 : 0;
    return result;
  }
};

template <class S>
Matrix<S> logits_of(const Hidden<S>& model, Index begin, Index count, Index first, Index width) {
  Matrix<S> logits(count, width);
  product_transposed_into<S>(model.states.middleRows(begin, count),
                             model.head.middleRows(first, width), logits);
  return logits;
}

// exp(row − peak) in `weights`, its sum merged into `normalizer`.
template <class S, class Row>
std::pair<double, double> take_chunk(const Row& row, Index first, Normalizer& normalizer,
                                     RowVector<S>& weights) {
  Index index = 0;
  const S peak = row.maxCoeff(&index);
  weights = (row.array() - peak).exp();
  return normalizer.merge(static_cast<double>(peak), first + index,
                          static_cast<double>(weights.sum()));
}

// Scores of the positions [begin, begin + count) whose next tokens are known.
template <class S>
void score_positions(const Hidden<S>& model, const Hidden<S>* reference,
                     std::span<const std::int32_t> ids, Index begin, std::span<PositionScore> out) {
  const Index count = std::ssize(out);
  std::vector<PositionState> states(out.size());
  RowVector<S> weights;
  for (Index first = 0; first < model.head.rows(); first += kChunk) {
    const Index width = std::min(kChunk, model.head.rows() - first);
    const Matrix<S> mine = logits_of(model, begin, count, first, width);
    const Matrix<S> theirs =
        reference != nullptr ? logits_of(*reference, begin, count, first, width) : Matrix<S>();
    for (Index i = 0; i < count; ++i) {
      PositionState& state = states[static_cast<std::size_t>(i)];
      const Index next = ids[static_cast<std::size_t>(begin + i + 1)] - first;
      const bool here = next >= 0 && next < width;
      take_chunk<S>(mine.row(i), first, state.mine, weights);
      if (here) state.my_next = static_cast<double>(mine(i, next));
      if (reference == nullptr) continue;
      const auto [old_factor, new_factor] =
          take_chunk<S>(theirs.row(i), first, state.theirs, weights);
      const S weighted = (weights.array() * (theirs.row(i) - mine.row(i)).array()).sum();
      state.weighted = state.weighted * old_factor + static_cast<double>(weighted) * new_factor;
      if (here) state.their_next = static_cast<double>(theirs(i, next));
    }
  }
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = states[i].score(reference != nullptr);
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
