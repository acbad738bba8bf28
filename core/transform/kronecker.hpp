// Kronecker transforms as FlatQuant uses them (arXiv 2410.09426; specification §2.4): a row x of
// n = n1·n2 channels, seen as an [n1, n2] row-major matrix, becomes leftᵀ·x·right. That costs
// n·(n1 + n2) products a row instead of n².
//
// Each factor is learned in the form P = U·diag(σ)·Vᵀ with U and V orthogonal, each the Cayley map
// of a skew matrix, so that the inverse costs no solve: P⁻ᵀ = U·diag(1/σ)·Vᵀ.
#pragma once

#include "ruquant/transform/transform.hpp"

namespace ruq {

struct KroneckerSizes {
  Index left = 1;   ///< n1
  Index right = 1;  ///< n2, at least n1
  friend bool operator==(const KroneckerSizes&, const KroneckerSizes&) = default;
};

/// The factors of n nearest to each other: n1 the largest divisor with n1² ≤ n. Error unless n ≥ 1.
KroneckerSizes balanced_sizes(Index n);

/// Whether the rule of flatquant_sizes() has an answer: n is not 2 mod 4.
bool has_flatquant_sizes(Index n);

/// FlatQuant's rule: the smallest a ≥ √n for which a² − n = b² is a square; n1 = a − b, n2 = a + b,
/// of one parity. Where n = 2 mod 4 there is no such a and the published code does not end;
/// balanced_sizes(n) takes its place. A prime has the factors 1 and itself. Error unless n ≥ 1.
KroneckerSizes flatquant_sizes(Index n);

/// The step of two square maps; a map without a dual is taken to be orthogonal.
Kronecker<double> kronecker_step(SquareMap<double> left, SquareMap<double> right);

/// A map with its dual m⁻ᵀ, by LU. Error if it is not square or if the reciprocal condition number
/// is below 1e-14.
SquareMap<double> invertible_map(const Matrix<double>& map);

/// The Cayley map (I − A/2)⁻¹(I + A/2) of A = tril(raw, −1) − tril(raw, −1)ᵀ: orthogonal for every
/// raw [n,n], of which only the part below the diagonal counts.
Matrix<double> cayley_map(const Matrix<double>& raw);

/// d/d raw of a loss whose derivative by cayley_map(raw) is `upstream`; zero on and above the
/// diagonal.
Matrix<double> cayley_map_gradient(const Matrix<double>& raw, const Matrix<double>& upstream);

/// U·diag(σ)·Vᵀ and its dual for orthogonal U, V [n,n] and σ [n]. Error if an entry of σ is zero.
SquareMap<double> svd_map(const Matrix<double>& u, const Vector<double>& sigma,
                          const Matrix<double>& v);

/// Per-channel factors d that multiply x before the Kronecker step: d_j = w_j^{1−α} / x_j^α, at
/// least 1e-5, from the largest |weight| and |activation| of every channel (both positive).
Vector<double> flatquant_init_scale(const Vector<double>& weight_maxima,
                                    const Vector<double>& activation_maxima, double alpha);

}  // namespace ruq
