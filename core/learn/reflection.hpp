// Stage 2 of RUQuant on the sphere: the global reflection I − 2vvᵀ that a smooth model of the
// quantization error prefers (specification §1.14).
//
// With z_t = y_t − 2(y_t·v)v for the token rows Y [T,d] of a site and ŵ_i likewise for the rows W
// [o,d] of all weights that the site feeds, Q_a = 2^{b_a} − 1 and Q_w = 2^{b_w} − 1,
//
//   J(v) = ‖W‖² / (12 T Q_a²)·Σ_t r(z_t)² + ‖Y‖² / (12 T Q_w²)·Σ_i r(ŵ_i)²,
//   r(z) = (1/β)·[log Σ_j exp(βz_j) + log Σ_j exp(−βz_j)],  β = 20 / (max z − min z) at the start:
//
// the expected squared error of the output when each row is rounded with a step of its range / Q
// and the errors are independent of everything else. r is a smooth upper bound of the range. A term
// whose bits are 16 is left out.
#pragma once

#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

struct ReflectionOptions {
  Index max_iterations = 30;  ///< L-BFGS iterations
  Index activation_bits = 4;
  Index weight_bits = 4;
};

/// What the optimizer did.
struct ReflectionReport {
  double initial_cost = 0;
  double final_cost = 0;
  Index iterations = 0;
  Index evaluations = 0;    ///< of the cost with its gradient
  std::string termination;  ///< Ceres's own message
};

struct ReflectionFit {
  Vector<double> v;  ///< [d], unit
  ReflectionReport report;
};

/// r(z) of a row at sharpness β, and on request r'(z) in `slope`.
double smooth_range(const RowVector<double>& z, double beta, RowVector<double>* slope);
/// The β of a row: 20 / (max z − min z).
double range_sharpness(const RowVector<double>& z);

/// J and its gradient with respect to v, extended off the sphere by the formula above. [d] is
/// the width of y and w.
class SmoothRangeObjective {
 public:
  /// `start` [d], unit, fixes the β of every row.
  SmoothRangeObjective(const Matrix<double>& y, const Matrix<double>& w,
                       const Vector<double>& start, const ReflectionOptions& options);
  /// Returns J(v); fills `gradient` [d] unless null.
  double evaluate(const Vector<double>& v, Vector<double>* gradient) const;

 private:
  struct Term {
    const Matrix<double>* rows = nullptr;
    double weight = 0;         // factor of Σ r²
    Vector<double> sharpness;  // β of every row
  };
  static Term term(const Matrix<double>& rows, double weight, const Vector<double>& start);
  std::vector<Term> terms_;
};

/// Minimises J from the unit vector `start` by L-BFGS on the sphere (Ceres). The result is never
/// worse than the start. Error if y holds no rows or both widths are 16 bits.
ReflectionFit optimize_reflection(const Matrix<double>& y, const Matrix<double>& w,
                                  const Vector<double>& start, const ReflectionOptions& options);

}  // namespace ruq
