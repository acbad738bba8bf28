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

#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"
#include "ruquant/base/rng.hpp"

namespace ruq {

/// How a pair of channels is rotated. `mapped` sends the source pair to the target pair, as the
/// paper's abstract says; `code` applies the inverse rotation, as the published code does (Q1).
enum class GivensDirection { code, mapped };

/// What a sample is sent to, before scaling to its norm. u01, u11: drawn uniformly from [0,1) or
/// [−1,1) (Q2); sphere: a Gaussian direction; corner: random signs; ones: all equal, which an
/// asymmetric zero point takes away; ramp: evenly spaced over [−1,1], ranked as the sample is
/// (SingleQuant's target). The last two draw nothing.
enum class Target { u01, u11, sphere, corner, ones, ramp };
std::vector<std::string> target_names();
Target target(const std::string& name);  ///< Error with the nearest name

/// Which sample a step maps: the row with the largest |entry| (Q3), the widest range, the largest
/// kurtosis, or a random one (one uniform draw).
enum class Pick { maxabs, range, kurtosis, random };
std::vector<std::string> pick_names();
Pick pick(const std::string& name);  ///< Error with the nearest name

struct BlockMapOptions {
  Index steps = 16;           ///< K
  Index givens_per_step = 3;  ///< λ
  bool reflections = true;    ///< false leaves the Givens rotations alone
  GivensDirection givens = GivensDirection::code;
  Target target = Target::u01;
  Pick pick = Pick::maxabs;
};

/// What happened, for tests and for the log (Q5): the row picked at every draw and the largest
/// |entry| after every step (with another pick: the largest of what it looks at).
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
Vector<double> global_reflection_direction(const Matrix<S>& tensor, Target target, Draws& draws,
                                           Index* row = nullptr);

/// The rotation of one pair: for source (x0,x1) and target (t0,t1) of equal norm, (c, s) such that
/// [[c, s], [−s, c]] takes the target to the source (the code's G). Identity for a zero source.
struct PlaneRotation {
  double cosine = 1;
  double sine = 0;
};
PlaneRotation plane_rotation(double x0, double x1, double t0, double t1);

}  // namespace ruq
