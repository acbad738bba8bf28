// Rotations that send given vectors to given targets (specification of SingleQuant, §1.3 and §1.4).
//
// URT, the uniformity rotation, sends a representative x to its ramp: the vector of equal norm
// whose entries are evenly spaced about zero and ordered as those of x, y_i = c·(2k − n + 1) with k
// the ascending rank of x_i. Of all permutations of the ramp it is the nearest to x. Its crest
// factor max|y|/rms(y) is √(3(n − 1)/(n + 1)), towards √3, that of a uniform distribution.
//
// That a Givens chain reaches such a target is said of the paper (arXiv 2511.22316); the target,
// the chain and all forms for several rows are derived (ours). Everything here maps rows, x ↦ x·M.
#pragma once

#include <optional>
#include <vector>

#include "ruquant/transform/givens_chain.hpp"
#include "ruquant/transform/transform.hpp"

namespace ruq {

/// The ramp of x; equal entries rank by index. Zero for one channel, which has no such ramp.
Vector<double> ramp_target(const Vector<double>& x);

/// Whether target_chain(x, y) exists: with coordinates in descending order of |x|, the first k + 1
/// of x hold at least the energy of the first k of y, for every k.
bool chain_feasible(const Vector<double>& x, const Vector<double>& y);

/// n − 1 turns that send x to y of equal norm: coordinates in descending order of |x|, each settled
/// by one turn with the carry, on the branch whose carry has the sign of the next target. Nothing
/// where not feasible. Error if the norms differ by more than 1e-9 of the larger.
std::optional<GivensChain> target_chain(const Vector<double>& x, const Vector<double>& y);

/// 2(n − 1) turns that send x to y of equal norm, always: x to a multiple of e_1, then back to y.
GivensChain target_chain_through_axis(const Vector<double>& x, const Vector<double>& y);

/// target_chain where feasible, else target_chain_through_axis.
GivensChain uniformity_chain(const Vector<double>& x, const Vector<double>& y);

/// The Householder reflection that sends x to y of equal norm, along x − y; nothing if x and y
/// agree to 1e-12 of their norm. Determinant −1.
std::optional<Reflection<double>> target_reflection(const Vector<double>& x,
                                                    const Vector<double>& y);

/// The reflection that sends a mean to ±‖mean‖/√n in every channel, the sign being that of its sum:
/// a shared direction becomes an offset, which the zero point of an asymmetric grid takes away.
std::optional<Reflection<double>> reflection_to_ones(const Vector<double>& mean);

/// What the rows are drawn to, each with its own norm: corners of the cube, sign(z)·‖z‖/√n; the
/// ramp of the row; or the row rounded to 2^bits evenly spaced levels from its minimum to its
/// maximum.
enum class ProcrustesTarget { corner, ramp, quantized };

struct ProcrustesOptions {
  ProcrustesTarget target = ProcrustesTarget::ramp;
  Index iterations = 10;
  Index bits = 4;         ///< of `quantized`
  double settled = 1e-9;  ///< stops when the objective falls by less than this share of it
};

struct ProcrustesFit {
  Matrix<double> map;  ///< [n,n] orthogonal
  std::vector<double>
      objectives;  ///< Σ‖x·R − y‖² with the targets of R, of the start and every step
};

/// Alternates y ← target(x·R) and R = U·Vᵀ from the SVD of Xᵀ·Y, from R = I. Both halves are exact,
/// so the objective never grows; a row keeps its last target where a new rounding would be further.
/// Rows count by their squared norm: normalize them for equal weight. Error if X [rows, n] has no
/// rows.
ProcrustesFit procrustes_rotation(const Matrix<double>& x, const ProcrustesOptions& options = {});

/// How many turns ART takes on a vector: the whole tree or a greedy chain.
struct AlignmentForm {
  bool tree = true;
  AlignmentOptions greedy;
};
GivensChain align(const Vector<double>& x, const AlignmentForm& form);

/// One vector for each factor of a Kronecker map left ⊗ right, out of a token seen as an [n1, n2]
/// grid.
struct GridVectors {
  Vector<double> left;   ///< [n1]
  Vector<double> right;  ///< [n2]
};

/// The column and the row of the largest |entry|: what ART aligns. A single spike A then ends as
/// A/√(n1·n2) with the tree.
GridVectors peak_vectors(const Vector<double>& x, Index left_width);

/// Unit leading singular vectors of the grid: what URT sends to their ramps. Exact only where the
/// grid has rank one.
GridVectors leading_vectors(const Vector<double>& x, Index left_width);

}  // namespace ruq
