// Products of plane rotations as a value, and chains that flatten a vector or a set of them
// (specification of SingleQuant, §1.2; arXiv 2511.22316).
//
// A turn in the plane (i, j) maps (x_i, x_j) to (c·x_i + s·x_j, −s·x_i + c·x_j). With x_i = a and
// x_j = b of length ρ, the alignment turn (ART) has c = (a + b)/(ρ√2), s = (b − a)/(ρ√2) and makes
// both equal to ρ/√2, the least peak that a rotation of this plane can reach. The angle is reported
// of the paper; which planes are turned, and everything for several rows at once, is derived
// (ours).
//
// Laws: chains are orthogonal with determinant 1; apply(x)ᵀ == xᵀ·to_matrix(); inverse() undoes.
#pragma once

#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

struct PlaneTurn {
  Index i = 0;
  Index j = 1;
  double cosine = 1;
  double sine = 0;
};

class GivensChain {
 public:
  explicit GivensChain(Index width) : width_(width) {}

  /// Appends a turn, applied after those before. Error unless i ≠ j both lie in [0, width).
  void append(const PlaneTurn& turn);
  /// This chain followed by `next`, of the same width.
  GivensChain then(const GivensChain& next) const;
  GivensChain inverse() const;

  Index width() const { return width_; }
  const std::vector<PlaneTurn>& turns() const { return turns_; }

  void apply(Vector<double>& x) const;
  /// X ← X·M for X [rows, width] and M = to_matrix().
  void apply_rows(Matrix<double>& x) const;
  /// X ← Mᵀ·X for X [width, columns]: every column is turned.
  void apply_columns(Matrix<double>& x) const;
  /// M [width, width].
  Matrix<double> to_matrix() const;

 private:
  Index width_;
  std::vector<PlaneTurn> turns_;
};

/// ART in the plane (i, j) of x; the identity where both entries are zero.
PlaneTurn alignment_turn(const Vector<double>& x, Index i, Index j);

/// How a vector is flattened by ART, step after step.
struct AlignmentOptions {
  Index steps = 127;   ///< K: most turns; never more than n − 1
  double crest = 1.2;  ///< stops once max|x| ≤ crest·rms(x); 1 is a corner of the cube
};

/// The greedy chain: K times the largest |entry| and the smallest are made equal (lowest index on a
/// tie). O(n + K log n). The peak never grows.
GivensChain alignment_chain(const Vector<double>& x, const AlignmentOptions& options = {});

/// The balanced tree of n − 1 turns: the largest |entry| is shared out over all coordinates, which
/// join in ascending order of |entry|, halving the set at every node. A single spike A ends as A/√n
/// everywhere, whatever n is: a node over p and q coordinates aims at lengths in the ratio √p : √q,
/// which is ART where p = q.
GivensChain alignment_tree(const Vector<double>& x);

/// The turn of channels i and j of X [rows, n] that minimizes Σ_t (x_ti⁴ + x_tj⁴), the quartimax
/// criterion, in closed form: with z = x_i + i·x_j and S = Σ_t z_t⁴, the angle (arg S + π)/4 modulo
/// a quarter turn; the smallest such turn is taken. One row gives ART up to order and signs.
PlaneTurn quartimax_turn(const Matrix<double>& x, Index i, Index j);

struct QuartimaxOptions {
  Index sweeps = 3;
  double settled = 1e-6;  ///< stops when a sweep lowers the sum by less than this share of it
};

/// Cyclic Jacobi sweeps of quartimax turns over all n(n − 1)/2 pairs of channels. X [rows, n]
/// becomes X·M; Σ|x|⁴ never grows. O(rows·n²) a sweep.
GivensChain quartimax_sweeps(Matrix<double>& x, const QuartimaxOptions& options = {});

}  // namespace ruq
