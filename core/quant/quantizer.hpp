// Uniform quantizers: what was asked (QuantSpec), what was fitted (Grid), and the maps between
// values, codes and rounded values. Rows are tokens or output channels; a row is cut into groups of
// group_size channels (the whole row when 0), and each group has its own step and zero point.
//
//   code = clamp(rint(x/Δ) + z, code_min, code_max),   value = (code − z)·Δ,   rint: half to even
//
// Rules (specification §1.8, §2.2), Q = 2^b − 1, ρ = clip ratio:
//   omniquant
//     lo = ρ·min, hi = ρ·max; Δ = clamp((hi−lo)/Q, 1e-5, 1e4), z = rint(clamp(−lo/Δ, ±1e4)); codes
//     0..Q. Zero is not forced into the range and z may lie outside [0, Q]. Symmetric:
//     Δ = max(|lo|,|hi|)/(2^{b−1}−1), z = 2^{b−1}−1. RUQuant, DuQuant, OmniQuant.
//   quarot_activation
//     range extended to hold 0 (not within groups, unless one is constant); symmetric:
//     Δ = max|x|ρ/(2^{b−1}−1), z = 0, codes −2^{b−1}..2^{b−1}−1; asymmetric: codes 0..Q. A zero
//     row has Δ = 1.
//   quarot_weight
//     the same with Δ floored at 1e-5 over its divisor; `search` shrinks the range by
//     p = 1 − i/100, i = 0..79 and keeps the first p with the least Σ|x − x̂|^2.4.
#pragma once

#include <optional>
#include <string>

#include "ruquant/base/fields.hpp"
#include "ruquant/base/matrix.hpp"

namespace ruq {

/// Equal length and equal entries (Eigen's == wants the same length).
template <class S>
bool same_values(const Vector<S>& a, const Vector<S>& b) {
  return a.size() == b.size() && a == b;
}

enum class GridRule { omniquant, quarot_activation, quarot_weight };

struct QuantSpec {
  Index bits = 16;  ///< 16 and above: not quantized
  bool symmetric = false;
  GridRule rule = GridRule::omniquant;
  Index group_size = 0;   ///< channels of one group; 0: the whole row
  double clip_ratio = 1;  ///< ρ
  bool search = false;    ///< range search (quarot_weight)

  bool rounds() const { return bits < 16; }
  friend bool operator==(const QuantSpec&, const QuantSpec&) = default;
};

std::string to_string(GridRule rule);
GridRule grid_rule(const std::string& name);

/// Steps and zero points of a matrix of rows: one entry a row and group, both [rows, groups].
template <class S>
struct Grid {
  QuantSpec spec;
  Index code_min = 0;
  Index code_max = 0;
  Matrix<S> scale;
  Matrix<S> zero;
};

/// Learned clipping (OmniQuant LWC): per-row factors that replace the clip ratio, lo = low·min and
/// hi = high·max.
template <class S>
struct RowClips {
  Vector<S> low;
  Vector<S> high;
  friend bool operator==(const RowClips& a, const RowClips& b) {
    return same_values(a.low, b.low) && same_values(a.high, b.high);
  }
};

/// Factors of the least and the greatest value of every row of a site, learned once a site instead
/// of the clip ratio.
struct ClipPair {
  double low = 1, high = 1;
  friend bool operator==(const ClipPair&, const ClipPair&) = default;
};

/// Levels of their own for a row quantizer, in units of codes: a value x of a row with step Δ and
/// zero point z has the position t = x/Δ + z, falls into the bin i with thresholds[i−1] <= t <
/// thresholds[i], and becomes (levels[i] − z)·Δ. Uniform quantization has levels at the codes and
/// thresholds half-way; both empty stands for that.
struct CodeLevels {
  Vector<double> thresholds;  ///< [levels − 1], rising
  Vector<double> levels;      ///< [code_max − code_min + 1]
  bool empty() const { return levels.size() == 0; }
  friend bool operator==(const CodeLevels& a, const CodeLevels& b) {
    return same_values(a.thresholds, b.thresholds) && same_values(a.levels, b.levels);
  }
};

using Codes = Matrix<std::int32_t>;

/// Fits a grid to every group of every row. Error if group_size does not divide the columns.
template <class S>
Grid<S> fit_grid(const Matrix<S>& x, const QuantSpec& spec, const RowClips<S>* clips = nullptr);

template <class S>
Codes encode(const Matrix<S>& x, const Grid<S>& grid);
template <class S>
Matrix<S> decode(const Codes& codes, const Grid<S>& grid);

/// decode(encode(x)), in place; nothing when spec.bits >= 16.
template <class S>
void round_to_grid(Matrix<S>& x, const Grid<S>& grid);

/// Fits and rounds in one pass: the dynamic quantization of activations, in place. `clips` take the
/// place of the clip ratio, `levels` that of the codes.
template <class S>
void fake_quantize(Matrix<S>& x, const QuantSpec& spec, const std::optional<ClipPair>& clips = {},
                   const CodeLevels& levels = {});

/// Group size in force for rows of `cols` channels; Error if it does not divide them.
Index group_width(const QuantSpec& spec, Index cols);

}  // namespace ruq
