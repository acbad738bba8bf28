// What every method says about its plans, in one table: the tests of the methods and the matrix of
// methods and shapes (core/method/matrix_test.cpp) both read it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ruquant/model/model.hpp"
#include "ruquant/quant/site.hpp"

namespace ruq::test {

using Fallbacks = std::function<std::vector<std::string>(const ModelConfig&)>;

/// The default is a rotation at every linear site and of queries and keys, with nothing to fall
/// back from.
struct MethodClaims {
  std::vector<SiteKind> moved = {kLinearSites.begin(), kLinearSites.end()};
  bool rotates_queries_and_keys = true;
  bool residual_basis = false;
  bool random = true;
  Fallbacks fallbacks = [](const ModelConfig&) { return std::vector<std::string>(); };
};

/// The claims of a method under the options of small_method; fails the test for a method without a
/// line in the table of method_claims.cpp.
MethodClaims method_claims(const std::string& name);

/// The names of that table.
std::vector<std::string> claimed_methods();

// --- what methods fall back to, by shape

/// Scales that cannot be folded under grouped-query heads.
std::vector<std::string> smoothing_fallback(const ModelConfig& config);
/// "attn_in: no Hadamard matrix of order 23, ..." where there is none.
std::vector<std::string> hadamard_fallback(const std::string& where, Index order);
/// Of every linear site, over its whole width.
std::vector<std::string> site_hadamard_fallbacks(const ModelConfig& config);
/// Of QuaRot, with or without smoothing.
std::vector<std::string> quarot_fallbacks(const ModelConfig& config, bool smoothed);
/// Of SingleQuant: what is derived, then sizes that do not factor by FlatQuant's rule.
Fallbacks singlequant_fallbacks(const std::vector<std::string>& derived, bool kronecker = true);

/// Lines that SingleQuant's plans say of derived parts.
inline const std::string kArtDerived =
    "ART: the angle is reported of the paper; planes and representative are derived";
inline const std::string kUrtDerived =
    "URT: n-1 turns to an equal-norm ramp, 2(n-1) where those cannot, are derived";
inline const std::string kFactorsDerived =
    "factors: row and column of the peak for ART, leading singular vectors for URT, are derived";

}  // namespace ruq::test
