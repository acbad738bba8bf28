#include "ruquant/quant/quantizer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/base/named.hpp"
#include "ruquant/quant/group_range.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 64;
constexpr Index kSearchSteps = 80;  // of 100: the range shrinks to 0.21 at most
constexpr double kSearchNorm = 2.4;
constexpr Index kSearchRun = 64;  // values whose error is summed before it is compared

const std::vector<std::string>& rule_names() {
  static const std::vector<std::string> names = {"omniquant", "quarot_activation", "quarot_weight"};
  return names;
}

Index levels_minus_one(Index bits) { return (Index{1} << bits) - 1; }
Index symmetric_top(Index bits) { return (Index{1} << (bits - 1)) - 1; }

struct CodeRange {
  Index min, max;
};

CodeRange code_range(const QuantSpec& spec) {
  const bool is_signed = spec.symmetric && spec.rule != GridRule::omniquant;
  if (is_signed) return {-symmetric_top(spec.bits) - 1, symmetric_top(spec.bits)};
  return {0, levels_minus_one(spec.bits)};
}

template <class S>
struct StepAndZero {
  S scale, zero;
};

template <class S>
StepAndZero<S> omniquant_step(S lo, S hi, const QuantSpec& spec) {
  const S floor = S(1e-5);
  const S ceiling = S(1e4);
  if (spec.symmetric) {
    const S top = static_cast<S>(symmetric_top(spec.bits));
    return {std::clamp(std::max(std::abs(lo), std::abs(hi)) / top, floor, ceiling), top};
  }
  const S q = static_cast<S>(levels_minus_one(spec.bits));
  const S scale = std::clamp((hi - lo) / q, floor, ceiling);
  return {scale, std::rint(std::clamp(-lo / scale, -ceiling, ceiling))};
}

template <class S>
StepAndZero<S> quarot_step(S lo, S hi, const QuantSpec& spec) {
  const S floor = spec.rule == GridRule::quarot_weight ? S(1e-5) : S(0);
  if (spec.symmetric) {
    const S range = std::max({std::abs(lo), hi, floor});
    const S top = static_cast<S>(symmetric_top(spec.bits));
    return {range == 0 ? S(1) : range / top, S(0)};
  }
  if (lo == 0 && hi == 0) {
    lo = -1;
    hi = 1;
  } else if (lo == hi) {
    // A constant group has no range of its own, and the published code divides by zero.
    lo = std::min(lo, S(0));
    hi = std::max(hi, S(0));
  }
  const S scale = std::max(hi - lo, floor) / static_cast<S>(levels_minus_one(spec.bits));
  return {scale, std::rint(-lo / scale)};
}

// Σ|x̂ − x|^2.4 over a row, or some partial sum above `limit`: most shrinks are known to lose early.
template <class S, class Values>
S rounding_error(const Values& x, StepAndZero<S> grid, CodeRange codes, S limit) {
  using Run = Eigen::Array<S, 1, Eigen::Dynamic, Eigen::RowMajor, 1, kSearchRun>;
  const S low = static_cast<S>(codes.min);
  const S high = static_cast<S>(codes.max);
  S error = 0;
  for (Index begin = 0; begin < x.size() && error <= limit; begin += kSearchRun) {
    const auto values = x.segment(begin, std::min(kSearchRun, x.size() - begin));
    const Run rounded =
        (((values / grid.scale).rint() + grid.zero).max(low).min(high) - grid.zero) * grid.scale;
    // Through the logarithm, which is vectorized; pow costs eight times as much.
    error += ((rounded - values).abs().log() * S(kSearchNorm)).exp().sum();
  }
  return error;
}

// The first shrink factor with the least Σ|x − x̂|^2.4; p·lo and p·hi are not extended again.
template <class S, class Values>
StepAndZero<S> search_step(const Values& x, S lo, S hi, const QuantSpec& spec) {
  const CodeRange codes = code_range(spec);
  StepAndZero<S> best = quarot_step(lo, hi, spec);
  S best_error = std::numeric_limits<S>::infinity();
  if (spec.symmetric) {
    hi = std::max({std::abs(lo), hi, S(1e-5)});
    lo = -hi;
  } else if (lo == 0 && hi == 0) {
    lo = -1;
    hi = 1;
  }
  for (Index i = 0; i < kSearchSteps; ++i) {
    const S p = S(1) - static_cast<S>(i) / S(100);
    StepAndZero<S> trial{p * hi / static_cast<S>(symmetric_top(spec.bits)), S(0)};
    if (!spec.symmetric) {
      trial.scale = (p * hi - p * lo) / static_cast<S>(levels_minus_one(spec.bits));
      trial.zero = std::rint(-p * lo / trial.scale);
    }
    const S error = rounding_error<S>(x, trial, codes, best_error);
    if (error < best_error) {
      best_error = error;
      best = trial;
    }
  }
  return best;
}

template <class S, class Values>
StepAndZero<S> fit_step(const Values& x, const QuantSpec& spec, S low_ratio, S high_ratio) {
  const auto range = group_range<S>(x, spec, low_ratio, high_ratio);
  if (spec.rule == GridRule::omniquant) return omniquant_step<S>(range.low, range.high, spec);
  return spec.search ? search_step<S>(x, range.low, range.high, spec)
                     : quarot_step<S>(range.low, range.high, spec);
}

template <class S, class Values>
void round_group(Values x, StepAndZero<S> grid, CodeRange codes) {
  const S low = static_cast<S>(codes.min);
  const S high = static_cast<S>(codes.max);
  x = (((x / grid.scale).rint() + grid.zero).max(low).min(high) - grid.zero) * grid.scale;
}

// The same with levels of their own: a binary search over the thresholds.
template <class S, class Values>
void round_group_to_levels(Values x, StepAndZero<S> grid, const Vector<S>& thresholds,
                           const Vector<S>& levels) {
  const S* const first = thresholds.data();
  const S* const last = first + thresholds.size();
  for (Index i = 0; i < x.size(); ++i) {
    const Index bin = std::upper_bound(first, last, x(i) / grid.scale + grid.zero) - first;
    x(i) = (levels(bin) - grid.zero) * grid.scale;
  }
}

}  // namespace

std::string to_string(GridRule rule) { return rule_names()[static_cast<std::size_t>(rule)]; }

GridRule grid_rule(const std::string& name) {
  return named<GridRule>("grid rule", rule_names(), name);
}

Index group_width(const QuantSpec& spec, Index cols) {
  const Index width = spec.group_size == 0 ? cols : spec.group_size;
  if (cols % width != 0) {
    fail("group_size: {} does not divide the {} channels of a row", width, cols);
  }
  return width;
}

template <class S>
Grid<S> fit_grid(const Matrix<S>& x, const QuantSpec& spec, const RowClips<S>* clips) {
  RUQ_CHECK(spec.rounds(), "no grid at {} bits", spec.bits);
  RUQ_CHECK(clips == nullptr || (clips->low.size() == x.rows() && clips->high.size() == x.rows()),
            "clip factors of {} and {} rows for {}", clips->low.size(), clips->high.size(),
            x.rows());
  const Index width = group_width(spec, x.cols());
  const CodeRange codes = code_range(spec);
  Grid<S> grid{spec, codes.min, codes.max, Matrix<S>(x.rows(), x.cols() / width),
               Matrix<S>(x.rows(), x.cols() / width)};
  const S ratio = static_cast<S>(spec.clip_ratio);
  parallel_rows(x.rows(), kGrain, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const S low = clips != nullptr ? clips->low(r) : ratio;
      const S high = clips != nullptr ? clips->high(r) : ratio;
      for (Index g = 0; g < grid.scale.cols(); ++g) {
        const auto step = fit_step<S>(x.row(r).segment(g * width, width).array(), spec, low, high);
        grid.scale(r, g) = step.scale;
        grid.zero(r, g) = step.zero;
      }
    }
  });
  return grid;
}

template <class S>
Codes encode(const Matrix<S>& x, const Grid<S>& grid) {
  const Index width = x.cols() / grid.scale.cols();
  Codes codes(x.rows(), x.cols());
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) {
      const S code = std::rint(x(r, c) / grid.scale(r, c / width)) + grid.zero(r, c / width);
      codes(r, c) = static_cast<std::int32_t>(
          std::clamp(code, static_cast<S>(grid.code_min), static_cast<S>(grid.code_max)));
    }
  }
  return codes;
}

template <class S>
Matrix<S> decode(const Codes& codes, const Grid<S>& grid) {
  const Index width = codes.cols() / grid.scale.cols();
  Matrix<S> x(codes.rows(), codes.cols());
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) {
      x(r, c) = (static_cast<S>(codes(r, c)) - grid.zero(r, c / width)) * grid.scale(r, c / width);
    }
  }
  return x;
}

template <class S>
void round_to_grid(Matrix<S>& x, const Grid<S>& grid) {
  const Index width = x.cols() / grid.scale.cols();
  const CodeRange codes{grid.code_min, grid.code_max};
  parallel_rows(x.rows(), kGrain, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      for (Index g = 0; g < grid.scale.cols(); ++g) {
        round_group<S>(x.row(r).segment(g * width, width).array(),
                       StepAndZero<S>{grid.scale(r, g), grid.zero(r, g)}, codes);
      }
    }
  });
}

template <class S>
void fake_quantize(Matrix<S>& x, const QuantSpec& spec, const std::optional<ClipPair>& clips,
                   const CodeLevels& levels) {
  if (!spec.rounds()) return;
  const Index width = group_width(spec, x.cols());
  const CodeRange codes = code_range(spec);
  const S low = static_cast<S>(clips ? clips->low : spec.clip_ratio);
  const S high = static_cast<S>(clips ? clips->high : spec.clip_ratio);
  RUQ_CHECK(levels.empty() || levels.levels.size() == codes.max - codes.min + 1,
            "{} levels for codes {} to {}", levels.levels.size(), codes.min, codes.max);
  const Vector<S> thresholds = levels.thresholds.template cast<S>();
  const Vector<S> values = levels.levels.template cast<S>();
  parallel_rows(x.rows(), kGrain, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      for (Index c = 0; c < x.cols(); c += width) {
        auto group = x.row(r).segment(c, width).array();
        const StepAndZero<S> grid = fit_step<S>(group, spec, low, high);
        if (levels.empty()) {
          round_group<S>(group, grid, codes);
        } else {
          round_group_to_levels<S>(group, grid, thresholds, values);
        }
      }
    }
  });
}

#define RUQ_INSTANTIATE(S)                                                                  \
  template Grid<S> fit_grid(const Matrix<S>&, const QuantSpec&, const RowClips<S>*);        \
  template Codes encode(const Matrix<S>&, const Grid<S>&);                                  \
  template Matrix<S> decode(const Codes&, const Grid<S>&);                                  \
  template void round_to_grid(Matrix<S>&, const Grid<S>&);                                  \
  template void fake_quantize(Matrix<S>&, const QuantSpec&, const std::optional<ClipPair>&, \
                              const CodeLevels&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
