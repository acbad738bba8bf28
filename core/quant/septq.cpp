#include "ruquant/quant/septq.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 64;

// Keeps the entries of `scores` at or above the one at rank floor(percent·N/100), largest first.
template <class S>
void keep_largest(const S* scores, Index count, double percent, std::uint8_t* mask) {
  const auto rank = static_cast<Index>(std::floor(percent * static_cast<double>(count) / 100));
  if (percent <= 0 || rank >= count) {
    std::fill(mask, mask + count, static_cast<std::uint8_t>(percent > 0));
    return;
  }
  std::vector<S> ranked(scores, scores + count);
  std::nth_element(ranked.begin(), ranked.begin() + rank, ranked.end(), std::greater<>());
  const S threshold = ranked[static_cast<std::size_t>(rank)];
  std::transform(scores, scores + count, mask,
                 [&](S score) { return static_cast<std::uint8_t>(score >= threshold); });
}

}  // namespace

void bind(Fields& fields, SeptqOptions& options, const std::string& prefix) {
  fields.add(prefix + "kept_percent", options.kept_percent, {.min = 0, .max = 100},
             "share of the weights kept in floating point, p in percent");
  fields.add_choice(prefix + "mask_scope", options.mask_scope, {"global", "row"},
                    "whether that share is taken of the whole matrix or of every row");
}

template <class S>
Matrix<S> rounding_importance(const Matrix<S>& weight, const Grid<S>& grid,
                              const HessianFactor& factor) {
  Matrix<S> importance = weight;
  round_to_grid(importance, grid);
  importance = (importance - weight).cwiseAbs2();
  for (Index j = 0; j < weight.cols(); ++j) {
    const double pivot = factor.upper(j, j);
    importance.col(factor.order[static_cast<std::size_t>(j)]) *=
        static_cast<S>(1 / (pivot * pivot));
  }
  for (const Index channel : factor.dead) importance.col(channel).setZero();
  return importance;
}

template <class S>
KeepMask keep_mask(const Matrix<S>& importance, const SeptqOptions& options) {
  KeepMask mask(importance.rows(), importance.cols());
  if (options.mask_scope == "global") {
    keep_largest(importance.data(), importance.size(), options.kept_percent, mask.data());
    return mask;
  }
  if (options.mask_scope != "row") {
    fail("mask_scope: found '{}', expected global or row", options.mask_scope);
  }
  parallel_rows(importance.rows(), kGrain, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      keep_largest(importance.row(r).data(), importance.cols(), options.kept_percent,
                   mask.row(r).data());
    }
  });
  return mask;
}

template <class S>
SeptqResult<S> septq(const Matrix<S>& weight, const QuantSpec& spec, const HessianFactor& factor,
                     const GptqOptions& gptq_options, const SeptqOptions& options,
                     const RowClips<S>* clips) {
  Matrix<S> alive = weight;
  for (const Index channel : factor.dead) alive.col(channel).setZero();
  const Grid<S> grid = fit_grid(alive, spec, clips);
  SeptqResult<S> result;
  result.mask = keep_mask(rounding_importance(alive, grid, factor), options);
  result.kept = result.mask.template cast<Index>().sum();
  result.sweep = gptq(alive, spec, factor, gptq_options, &result.mask, &grid, clips);
  return result;
}

#define RUQ_INSTANTIATE(S)                                                                        \
  template Matrix<S> rounding_importance(const Matrix<S>&, const Grid<S>&, const HessianFactor&); \
  template KeepMask keep_mask(const Matrix<S>&, const SeptqOptions&);                             \
  template SeptqResult<S> septq(const Matrix<S>&, const QuantSpec&, const HessianFactor&,         \
                                const GptqOptions&, const SeptqOptions&, const RowClips<S>*);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
