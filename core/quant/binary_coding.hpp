// Binary coding: a row (or a group of it) is written with signs and a few factors,
//
//   w ≈ Σ_i α_i s_i + t,   s_i = ±1,  i = 0..k−1,  α_0 >= α_1 >= ... >= 0
//
// A code c stands for the signs s_i = +1 where bit k−1−i of c is 0 and −1 where it is 1, so code 0
// is all +1. Codes fall in value as they rise whenever α_i >= Σ_{j>i} α_j.
//
// Fit by alternation: greedily α_i = mean|r|, s_i = sign(r), r −= α_i s_i; then, a number of times,
// α by least squares with the codes held (k conjugate-gradient steps from the present α, whose
// denominators carry 1e-6 as in the published code), |α| sorted, codes nearest to the values and,
// where a shift is fitted, t = mean(w − Σ α s). The plain form scales each group to unit root mean
// square first, so that the 1e-6 means the same for every group.
#pragma once

#include <array>
#include <string>

#include "ruquant/base/fields.hpp"
#include "ruquant/base/matrix.hpp"
#include "ruquant/quant/quantizer.hpp"

namespace ruq {

/// Widest code; a level table has 2^bits entries.
inline constexpr Index kMaxCodingBits = 8;

/// s_i of a code of `bits` bits, +1 or −1.
template <class S>
S code_sign(Index code, Index i, Index bits) {
  return ((code >> (bits - 1 - i)) & 1) == 0 ? S(1) : S(-1);
}

/// The 2^k levels of one group, by code and in order of value.
template <class S>
class LevelTable {
 public:
  /// Error if there are more than kMaxCodingBits factors.
  explicit LevelTable(const Eigen::Ref<const RowVector<S>>& alpha);

  Index size() const { return size_; }
  S level(Index code) const { return level_[static_cast<std::size_t>(code)]; }
  /// The code whose level is nearest; of two equally near, the smaller code.
  Index nearest(S value) const {
    std::size_t rank = 0;
    for (auto step = static_cast<std::size_t>(size_ / 2); step > 0; step /= 2) {
      const std::size_t at = rank + step - 1;
      const bool above = value > middle_[at] || (value == middle_[at] && code_[at + 1] < code_[at]);
      rank += above ? step : 0;
    }
    return code_[rank];
  }

 private:
  static constexpr std::size_t kMost = std::size_t{1} << kMaxCodingBits;
  Index size_;
  std::array<S, kMost> level_;     // by code
  std::array<Index, kMost> code_;  // by rank; equal levels all carry their smallest code
  std::array<S, kMost> middle_;    // between ranks r and r + 1
};

/// Factors and shift of one group.
struct CodingFactors {
  RowVector<double> alpha;
  double shift = 0;
};

/// The alternating fit to one group of values, on the scale they have.
CodingFactors alternating_coding(const Eigen::Ref<const RowVector<double>>& values, Index bits,
                                 Index rounds, bool fit_shift);

/// A matrix in binary coding. Rows here are the groups of the weight, row by row.
template <class S>
struct BinaryCode {
  Codes codes;      ///< [groups, width]
  Matrix<S> alpha;  ///< [groups, bits]
  Vector<S> shift;  ///< [groups]

  /// The values as a matrix of this many columns.
  Matrix<S> decode(Index cols) const;
};

struct BinaryCodingOptions {
  Index rounds = 15;
  bool fit_shift = false;
  friend bool operator==(const BinaryCodingOptions&, const BinaryCodingOptions&) = default;
};

void bind(Fields& fields, BinaryCodingOptions& options, const std::string& prefix);

/// Plain alternating binary coding of a weight [out, in]; uses bits and group_size of the spec.
template <class S>
BinaryCode<S> binary_coding(const Matrix<S>& weight, const QuantSpec& spec,
                            const BinaryCodingOptions& options);

}  // namespace ruq
