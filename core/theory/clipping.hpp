// Where to clip before rounding: models of the error, rules for data, and what min-max ranges of
// Gaussian vectors are expected to be.
#pragma once

#include <span>

#include "ruquant/base/matrix.hpp"
#include "ruquant/theory/density.hpp"

namespace ruq {

// --- models: a symmetric clip at ±α, b bits

/// E[(|X| − α)²; |X| > α] + α²/(3·4^b): the error of clipping, and that of rounding as if it were
/// uniform over the whole range (Banner et al. 2019, ACIQ).
double aciq_error(const Density& density, Index bits, double clip);

/// The α that makes aciq_error least. For Gaussian of deviation 1 at b = 1, 2, ...: 1.24, 1.71,
/// 2.15, ...; for Laplace of scale β it solves α/β = 3·4^b·e^(−α/β): 1.86, 2.83, ... One-sided
/// (after a ReLU) b bits clip where two-sided b + 1 do.
double aciq_clip(const Density& density, Index bits);

/// OCTAV (Sakr et al. 2022): rounding noise counts only inside the range. The fixed point of
///   s ← E[|x|; |x| > s] / ( (4^−b/3)·P(|x| ≤ s) + P(|x| > s) )
/// on the data, begun at s = E|x|, no higher than max|x|. If the iteration runs in a circle (small
/// data), the s on it of least octav_error. The fixed point lies near the minimum of octav_error,
/// not on it: its derivation holds P(|x| ≤ s) fixed. 0 for all zeros; Error on no data or NaN.
double octav_clip(std::span<const double> data, Index bits);

/// E[(|x| − s)²; |x| > s] + (4^−b/3)·s²·P(|x| ≤ s) on the data.
double octav_error(std::span<const double> data, Index bits, double clip);

// --- shrinking the range of each vector by a fixed ratio

struct ShrinkSearch {
  Index bits = 4;
  /// False: range (ratio·min, ratio·max), 2^b codes, whole zero point. True: step ratio·max|x| over
  /// 2^(b−1) − 1, codes −2^(b−1) ... 2^(b−1) − 1; the lowest is beyond the range unless it is
  /// shrunk.
  bool symmetric = false;
  double power = 2;       ///< p of the error |x − Q(x)|^p, usually 2 or 2.4
  Index grid = 100;       ///< ratios 1, 1 − 1/grid, ...
  double smallest = 0.3;  ///< the least ratio tried
};

struct Shrink {
  double ratio;
  double error;  ///< mean of |x − Q(x)|^p
};

/// Mean of |x − Q(x)|^p with one ratio for every row of [rows, columns]. Rows whose range is a
/// single point count as exact. Error when bits is outside 2..16, p or the ratio is not positive,
/// or the data is empty or not finite.
double shrink_error(const Matrix<double>& rows, const ShrinkSearch& search, double ratio);
/// The best ratio for all rows together; the larger of two equals.
Shrink best_shrink(const Matrix<double>& rows, const ShrinkSearch& search);
/// The best ratio for each row alone: their mean, and the mean error.
Shrink best_shrink_per_row(const Matrix<double>& rows, const ShrinkSearch& search);

// --- ranges of n independent standard normal values, by numerical integration

struct RangeMoments {
  double max_abs;          ///< E max|x|
  double max_abs_squared;  ///< E (max|x|)²
  double range;            ///< E R, R = max − min
  double range_squared;    ///< E R²
};

/// Error when n < 1.
RangeMoments gaussian_range(Index n);

/// SQNR in dB of min-max rounding without clipping: error Δ²/12 with the step of the expected
/// squared range, R²/(2^b − 1)² or, symmetric, (max|x|)²/(2^(b−1) − 1)². The symmetric one needs
/// b ≥ 2 and is good from 4.
double min_max_sqnr_db(Index n, Index bits, bool symmetric);

}  // namespace ruq
