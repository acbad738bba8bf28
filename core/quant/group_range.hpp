// The ends of the range of one group of values, that its step is made of; the same for the forward
// pass and for its gradients.
#pragma once

#include <algorithm>

#include "ruquant/quant/quantizer.hpp"

namespace ruq {

template <class S>
struct GroupRange {
  S min, max;             ///< of the values
  S base_low, base_high;  ///< min and max, or zero where the rule extends the range to hold it
  S low, high;            ///< times the clip factors
  bool met = false;       ///< these would cross, so both are half-way between
};

/// Of an array of values. Factors make the ends cross only where all values have one sign; what is
/// symmetric has one end.
template <class S, class Values>
GroupRange<S> group_range(const Values& x, const QuantSpec& spec, S low_factor, S high_factor) {
  const S min = x.minCoeff(), max = x.maxCoeff();
  GroupRange<S> range{min, max, min, max, 0, 0, false};
  const bool extends_to_zero = spec.rule == GridRule::quarot_weight ||
                               (spec.rule == GridRule::quarot_activation && spec.group_size == 0);
  if (extends_to_zero) {
    range.base_low = std::min(min, S(0));
    range.base_high = std::max(max, S(0));
  }
  range.low = low_factor * range.base_low;
  range.high = high_factor * range.base_high;
  range.met = !spec.symmetric && range.low > range.high;
  if (range.met) range.low = range.high = (range.low + range.high) / 2;
  return range;
}

}  // namespace ruq
