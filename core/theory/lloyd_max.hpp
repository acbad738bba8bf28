// Scalar quantizers of a density, and the best of them. A codebook with levels y_1 < ... < y_N
// sends x to the nearest level, so its thresholds are x_i = (y_i + y_{i+1})/2; the best codebook
// (Lloyd 1957, Max 1960) also has each level at the centroid of its cell, y_i = E[X | x_{i−1} < X ≤
// x_i]. Both together are necessary, and sufficient where log f is concave (uniform, Gaussian,
// Laplace, exponential; not Student-t). At any codebook of centroids
//
//   E[Q] = E[X],   E[Q·(X − Q)] = 0,   D = E[X²] − E[Q²].
//
// A uniform codebook puts its levels on midpoints instead. In a cell of width Δ about m the
// centroid differs from the midpoint by
//
//   δ = (Δ²/12)·f'/f + Δ⁴·[ f'''/(480 f) − f'·f''/(288 f²) ] + O(Δ⁶).
#pragma once

#include <vector>

#include "ruquant/base/matrix.hpp"
#include "ruquant/theory/density.hpp"

namespace ruq {

struct Codebook {
  std::vector<double> levels;      ///< N, ascending
  std::vector<double> thresholds;  ///< N − 1 midpoints between them

  /// With the nearest-neighbour thresholds. Error unless there is a level and they ascend.
  static Codebook of_levels(std::vector<double> levels);

  Index size() const { return std::ssize(levels); }
  /// Ends of the cell of level i; infinite at the ends.
  double lower(Index i) const;
  double upper(Index i) const;
  /// The level nearest to x; the lower one of two.
  double nearest(double x) const;
};

/// E[(X − Q(X))²].
double distortion(const Density& density, const Codebook& codebook);

/// 10·log10(variance / error).
double sqnr_db(const Density& density, double squared_error);

/// The Lloyd-Max codebook of `levels` levels. An empirical density gives the global optimum, and
/// fewer levels when it has fewer distinct samples. For the others Newton's method on the centroid
/// conditions, begun at Panter and Dite's levels, finds the stationary codebook next to those, the
/// symmetric one of an even density; for Student-t nothing shows that no other is better. Error
/// when it does not settle.
Codebook lloyd_max(const Density& density, Index levels);

/// δ above, exactly. Error when the cell has no probability.
double centroid_shift(const Density& density, double midpoint, double width);

/// The first term of δ (terms = 1) or the first two (terms = 2).
double centroid_shift_expansion(const Density& density, double midpoint, double width, int terms);

/// One cell of a uniform grid.
struct Bin {
  double midpoint;
  double centroid;  ///< the midpoint where there is no probability
  double probability;
};

/// `count` cells of equal width between low and high, (low, low + w], ...; what is outside is left
/// out. For samples use Density::empirical.
std::vector<Bin> uniform_bins(const Density& density, double low, double high, Index count);

}  // namespace ruq
