#include "ruquant/learn/straight_through.hpp"

#include <algorithm>
#include <cmath>

#include "ruquant/base/error.hpp"
#include "ruquant/quant/group_range.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 64;
constexpr double kSearchFloor = 1e-5;  // of the width that a symmetric search shrinks

template <class S>
struct StepSlope {
  S low = 0, high = 0;  // ∂Δ/∂lo, ∂Δ/∂hi
};

// Δ is a width of the range over a constant, so its slope is Δ / width; a Δ that is not that
// quotient is held at a bound and does not move.
template <class S>
StepSlope<S> step_slope(S lo, S hi, S step, const QuantSpec& spec) {
  const auto slope = [&](S width, Index divisor) {
    const bool follows = spec.search && spec.rule != GridRule::omniquant
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
template <class S>
void share_among_equal(const S* x, Index size, S value, S amount, S* gradient) {
  if (amount == 0) return;
  int hits = 0;
  for (Index j = 0; j < size; ++j) hits += x[j] == value ? 1 : 0;
  const S share = amount / static_cast<S>(hits);
  for (Index j = 0; j < size; ++j) gradient[j] += x[j] == value ? share : S(0);
}

template <class S>
struct FactorSlope {
  S low = 0, high = 0;  // ∂L/∂low, ∂L/∂high
};

template <class S>
using Row = Eigen::Array<S, 1, Eigen::Dynamic>;

// Room for one group.
template <class S>
struct Buffers {
  explicit Buffers(Index size) : scaled(size), code(size), inside(size) {}
  Row<S> scaled, code, inside;
};

// Passes the gradient on where the clamp does, and returns ∂L/∂Δ. Codes are whole numbers, so a
// clamped one has moved by one at least; said without a comparison, all of it is vector code.
template <class S>
S clamp_backward(const Eigen::Map<const Row<S>>& x, S step, S zero, const Grid<S>& grid,
                 Buffers<S>& b, Eigen::Map<Row<S>> gradient) {
  const S low = static_cast<S>(grid.code_min);
  const S high = static_cast<S>(grid.code_max);
  b.scaled = x / step;
  b.code = b.scaled.rint() + zero;
  b.inside = S(1) - (b.code.max(low).min(high) - b.code).abs().min(S(1));
  const S slope = (gradient * (b.code.max(low).min(high) - zero - b.inside * b.scaled)).sum();
  gradient *= b.inside;
  return slope;
}

// One group: `gradient` in place; returns the gradient of the two clip factors.
template <class S>
FactorSlope<S> group_backward(const S* x, Index size, S step, S zero, const Grid<S>& grid,
                              S low_factor, S high_factor, Buffers<S>& buffers, S* gradient) {
  const Eigen::Map<const Row<S>> values(x, size);
  const S step_gradient =
      clamp_backward(values, step, zero, grid, buffers, Eigen::Map<Row<S>>(gradient, size));
  const GroupRange<S> range = group_range<S>(values, grid.spec, low_factor, high_factor);
  const StepSlope<S> slope = step_slope(range.low, range.high, step, grid.spec);
  S low = step_gradient * slope.low;
  S high = step_gradient * slope.high;
  if (range.met) low = high = (low + high) / 2;
  if (range.base_low == range.min) {
    share_among_equal(x, size, range.min, low * low_factor, gradient);
  }
  if (range.base_high == range.max) {
    share_among_equal(x, size, range.max, high * high_factor, gradient);
  }
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
    Buffers<S> buffers(width);
    for (Index r = begin; r < end; ++r) {
      const S low = clips != nullptr ? clips->low(r) : ratio;
      const S high = clips != nullptr ? clips->high(r) : ratio;
      for (Index g = 0; g < groups; ++g) {
        const FactorSlope<S> slope =
            group_backward(&x(r, g * width), width, grid.scale(r, g), grid.zero(r, g), grid, low,
                           high, buffers, &gradient(r, g * width));
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
