#include "ruquant/learn/straight_through.hpp"

#include <algorithm>
#include <cmath>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 64;
constexpr double kSearchFloor = 1e-5;  // of the width that a symmetric search shrinks

// The range of one group: least and greatest value, and the ends lo, hi that Δ is made of.
template <class S>
struct GroupRange {
  S min, max;             // of the values
  S base_low, base_high;  // min and max, or zero where the range is extended to hold it
  S low, high;            // times the clip factors
};

template <class S, class Values>
GroupRange<S> group_range(const Values& x, const QuantSpec& spec, S low_factor, S high_factor) {
  GroupRange<S> range{x.minCoeff(), x.maxCoeff(), 0, 0, 0, 0};
  range.base_low = range.min;
  range.base_high = range.max;
  const bool extends_to_zero = spec.rule == GridRule::quarot_weight ||
                               (spec.rule == GridRule::quarot_activation && spec.group_size == 0);
  if (extends_to_zero) {
    range.base_low = std::min(range.base_low, S(0));
    range.base_high = std::max(range.base_high, S(0));
  }
  range.low = low_factor * range.base_low;
  range.high = high_factor * range.base_high;
  return range;
}

template <class S>
struct StepSlope {
  S low = 0, high = 0;  // ∂Δ/∂lo, ∂Δ/∂hi
};

// Δ is a width of the range over a constant, so its slope is Δ / width; a Δ that is not that
// quotient is held at a bound and does not move.
template <class S>
StepSlope<S> step_slope(S lo, S hi, S step, const QuantSpec& spec) {
  const auto slope = [&](S width, Index divisor) {
    const bool follows = spec.search
                             ? !spec.symmetric || width >= S(kSearchFloor)
                             : std::abs(step * static_cast<S>(divisor) - width) <= S(1e-3) * width;
    return width > 0 && follows ? step / width : S(0);
  };
  if (spec.symmetric) {
    const Index top = (Index{1} << (spec.bits - 1)) - 1;
    if (std::abs(lo) > std::abs(hi)) return {std::copysign(slope(std::abs(lo), top), lo), 0};
    return {0, std::copysign(slope(std::abs(hi), top), hi)};
  }
  const Index levels = (Index{1} << spec.bits) - 1;
  if (spec.rule != GridRule::omniquant && lo == hi) {  // a constant group, extended to zero
    if (lo > 0) return {0, slope(lo, levels)};
    return {-slope(-lo, levels), 0};
  }
  const S both = slope(hi - lo, levels);
  return {-both, both};
}

// Adds `amount` to the entries of `gradient` where x equals `value`, in equal parts.
template <class S, class Values, class Gradient>
void share_among_equal(const Values& x, S value, S amount, Gradient& gradient) {
  if (amount == 0) return;
  const auto hits = (x == value).template cast<S>();
  gradient += hits * (amount / hits.sum());
}

template <class S>
struct FactorSlope {
  S low = 0, high = 0;  // ∂L/∂low, ∂L/∂high
};

// One group: `gradient` in place; returns the gradient of the two clip factors.
template <class S, class Values, class Gradient>
FactorSlope<S> group_backward(const Values& x, S step, S zero, const Grid<S>& grid, S low_factor,
                              S high_factor, Gradient gradient) {
  const S code_min = static_cast<S>(grid.code_min);
  const S code_max = static_cast<S>(grid.code_max);
  S step_gradient = 0;
  for (Index j = 0; j < x.size(); ++j) {
    const S scaled = x(j) / step;
    const S code = std::rint(scaled) + zero;
    const bool inside = code >= code_min && code <= code_max;
    const S level = std::clamp(code, code_min, code_max) - zero;
    step_gradient += gradient(j) * (inside ? level - scaled : level);
    if (!inside) gradient(j) = 0;
  }
  const GroupRange<S> range = group_range<S>(x, grid.spec, low_factor, high_factor);
  const StepSlope<S> slope = step_slope(range.low, range.high, step, grid.spec);
  const S low = step_gradient * slope.low;
  const S high = step_gradient * slope.high;
  if (range.base_low == range.min) share_among_equal(x, range.min, low * low_factor, gradient);
  if (range.base_high == range.max) share_among_equal(x, range.max, high * high_factor, gradient);
  return {low * range.base_low, high * range.base_high};
}

}  // namespace

template <class S>
void round_rows(Matrix<S>& x, const QuantSpec& spec, const RowClips<S>* clips) {
  if (!spec.rounds()) return;
  if (clips == nullptr) {
    fake_quantize(x, spec);
  } else {
    round_to_grid(x, fit_grid(x, spec, clips));
  }
}

template <class S>
void round_rows_backward(const Matrix<S>& x, const QuantSpec& spec, Matrix<S>& gradient,
                         const RowClips<S>* clips, RowClips<S>* clip_gradient) {
  if (!spec.rounds()) return;
  RUQ_CHECK(x.rows() == gradient.rows() && x.cols() == gradient.cols(),
            "a gradient of [{}, {}] for values of [{}, {}]", gradient.rows(), gradient.cols(),
            x.rows(), x.cols());
  const Grid<S> grid = fit_grid(x, spec, clips);
  const Index groups = grid.scale.cols();
  const Index width = x.cols() / groups;
  const S ratio = static_cast<S>(spec.clip_ratio);
  parallel_rows(x.rows(), kGrain, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const S low = clips != nullptr ? clips->low(r) : ratio;
      const S high = clips != nullptr ? clips->high(r) : ratio;
      for (Index g = 0; g < groups; ++g) {
        const FactorSlope<S> slope = group_backward<S>(
            x.row(r).segment(g * width, width).array(), grid.scale(r, g), grid.zero(r, g), grid,
            low, high, gradient.row(r).segment(g * width, width).array());
        if (clips == nullptr || clip_gradient == nullptr) continue;
        clip_gradient->low(r) += slope.low;
        clip_gradient->high(r) += slope.high;
      }
    }
  });
}

#define RUQ_INSTANTIATE(S)                                                          \
  template void round_rows(Matrix<S>&, const QuantSpec&, const RowClips<S>*);       \
  template void round_rows_backward(const Matrix<S>&, const QuantSpec&, Matrix<S>&, \
                                    const RowClips<S>*, RowClips<S>*);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
