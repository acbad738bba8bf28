// RUQuant stage 1: the orthogonal B×B map of a site's blocks, a composite of Householder
// reflections and Givens rotations towards uniformly sampled targets (arXiv 2604.04013; get_R of
// the official code, specification §1.6), and the global Householder reflection (§1.7.4).
//
// Samples are the rows of a [N, B] matrix: every block of every token. Each of K steps takes the
// row x that holds the largest |entry|, draws a target t ~ U[0,1)^B of the same norm, and reflects
// by ω = x − t, which sends x exactly to t. Then λ times: a random permutation of the channels, and
// a rotation of each adjacent pair of channels by the angle that takes that pair of the extreme row
// to a drawn target of the same norm.
//
// The map is chaotic in its input (§1.13): two correct programs agree in FP64 only for small K·λ.
// Orthogonality is exact to rounding whatever happens.
#pragma once

#include <vector>

#include "ruquant/base/matrix.hpp"
#include "ruquant/base/rng.hpp"

namespace ruq {

/// How a pair of channels is rotated. `mapped` sends the source pair to the target pair, as the
/// paper's abstract says; `code` applies the inverse rotation, as the published code does (Q1).
enum class GivensDirection { code, mapped };

/// Where targets are drawn from before they are scaled to the source's norm (Q2).
enum class TargetRange { u01, u11 };

struct BlockMapOptions {
  Index steps = 16;           ///< K
  Index givens_per_step = 3;  ///< λ
  bool reflections = true;    ///< false leaves the Givens rotations alone
  GivensDirection givens = GivensDirection::code;
  TargetRange target = TargetRange::u01;
};

/// What happened, for tests and for the log (Q5): the row picked at every draw and the largest
/// |entry| after every step.
struct BlockMapTrace {
  std::vector<Index> chosen;
  std::vector<double> peaks;
};

/// The map M [B,B] to be applied as row ← row·M. `samples` [N,B] becomes samples·M. Draws per call:
/// K·(1 + 2λ) as in §1.6 (a step whose ‖ω‖² < 1e-10 consumes its first draw only).
template <class S>
Matrix<double> build_block_map(Matrix<S>& samples, const BlockMapOptions& options, Draws& draws,
                               BlockMapTrace* trace = nullptr);

/// Direction ω of the global reflection: y − t, y the row of `tensor` with the largest |entry| and
/// t a drawn target of its norm. Not normalised; `row` receives the index of y when given.
template <class S>
Vector<double> global_reflection_direction(const Matrix<S>& tensor, TargetRange target,
                                           Draws& draws, Index* row = nullptr);

/// The rotation of one pair: for source (x0,x1) and target (t0,t1) of equal norm, (c, s) such that
/// [[c, s], [−s, c]] takes the target to the source (the code's G). Identity for a zero source.
struct PlaneRotation {
  double cosine = 1;
  double sine = 0;
};
PlaneRotation plane_rotation(double x0, double x1, double t0, double t1);

}  // namespace ruq
