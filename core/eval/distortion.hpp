// What quantization costs one site, measured on tokens that did not calibrate it.
//
// With X [T,d] the tokens, W [o,d] every weight the site feeds, X̂ = X·T and Ŵ = W·T⁻ᵀ their
// transformed forms and Q the quantizers of the plan:
//   output_error_db      10·log10( ‖Q(X̂)·Q(Ŵ)ᵀ − X·Wᵀ‖² / ‖X·Wᵀ‖² ): what the next layer sees
//   activation_error_db  10·log10( ‖Q(X̂) − X̂‖² / ‖X̂‖² )
//   uniform_gap_db       activation_error_db above that of a source that is uniform on the range of
//                        every token, −20·log10(2^b): 0 is what RUQuant aims at
//   weight_error_db      10·log10( ‖Q(Ŵ) − Ŵ‖² / ‖Ŵ‖² )
//                        (roundings that need data of the whole network: to nearest)
//   range_over_rms       mean over tokens of (max − min)/rms of X̂: what sets the step. 2√3 = 3.46
//                        for a uniform token, 2 for a two-valued one
//   kurtosis             mean over tokens of E[x⁴]/E[x²]² of X̂: 1.8 uniform, 3 Gaussian
//   uniformity_ks        mean over tokens of the Kolmogorov distance between the token's entries
//                        and the uniform distribution on [min, max]
//   centroid_shift       √ of the entry-weighted mean over bins of ((centroid − midpoint)/Δ)² of
//                        the activation quantizer: RUQuant's motive. 0 when entries are uniform in
//                        every bin
// A measure that has no meaning (nothing rounded) is left out. Errors in dB are more negative when
// better.
#pragma once

#include <map>
#include <string>

#include "ruquant/base/matrix.hpp"
#include "ruquant/model/model.hpp"
#include "ruquant/quant/plan.hpp"

namespace ruq {

/// `activations` [T,d] and `weights` (each [out,d]) in the original basis.
std::map<std::string, double> site_distortion(const Plan& plan, const ModelConfig& config,
                                              const Site& site, const Matrix<float>& activations,
                                              const std::map<Linear, Matrix<float>>& weights);

/// activation_error_db of the best that 2^bits levels can do for each token of x by itself, its own
/// Lloyd-Max levels (quant/row_levels.hpp): on the unrotated tensor, what a rotation has to beat
/// with a uniform grid. Error unless bits are 1 to 8.
double lloyd_max_error_db(const Matrix<float>& x, Index bits);

/// Mean over rows of the Kolmogorov distance to the uniform distribution on the row's own range.
double uniformity_distance(const Matrix<double>& x);

/// Mean over rows of E[x⁴]/E[x²]²; rows of zeros do not count.
double mean_kurtosis(const Matrix<double>& x);

/// Mean over rows of (max − min)/rms; rows of zeros do not count.
double mean_range_over_rms(const Matrix<double>& x);

/// Root mean square over all entries of (centroid − midpoint)/Δ of the entry's bin, bins formed row
/// by row on the grid that `spec` fits.
double centroid_shift(const Matrix<double>& x, const QuantSpec& spec);

/// What the bins of a row quantizer hold, all rows together: a bin a code, its entries placed at
/// (x − midpoint)/Δ of their own row.
struct BinProfile {
  Vector<double> code;   ///< [levels]
  Vector<double> share;  ///< [levels] of the entries
  Vector<double> shift;  ///< [levels] mean of (x − midpoint)/Δ; 0 for an empty bin
  /// [16] density of the position in the bin, from −½ to ½, over all bins but the two end ones;
  /// mean 1 (all zeros when those hold nothing). Flat is what makes midpoints centroids.
  Vector<double> within;
};
BinProfile bin_profile(const Matrix<double>& x, const QuantSpec& spec);

}  // namespace ruq
