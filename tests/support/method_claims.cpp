#include "support/method_claims.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "ruquant/base/error.hpp"
#include "ruquant/transform/hadamard.hpp"
#include "ruquant/transform/kronecker.hpp"

namespace ruq::test {
namespace {

using Lines = std::vector<std::string>;

void append(Lines& lines, const Lines& more) {
  lines.insert(lines.end(), more.begin(), more.end());
}

MethodClaims with(Fallbacks fallbacks) {
  MethodClaims claims;
  claims.fallbacks = std::move(fallbacks);
  return claims;
}

Lines full_hadamard_fallbacks(const ModelConfig& config) {
  Lines lines = smoothing_fallback(config);
  append(lines, site_hadamard_fallbacks(config));
  return lines;
}

// Blocks of 8, or what divides the width.
Lines learned_rotation_fallbacks(const ModelConfig& config) {
  Lines lines;
  for (const SiteKind kind : kLinearSites) {
    const Index width = config.site_width(kind);
    Index block = 8;
    while (width % block != 0) --block;
    if (block != 8) {
      lines.push_back(fmt::format("{}: blocks of 8 do not divide {} channels, {} instead",
                                  to_string(kind), width, block));
    }
    append(lines, hadamard_fallback(to_string(kind), block));
  }
  return lines;
}

// Two blocks at attn_in and mlp_in (all shapes are even), heads, and the whole of mlp_out.
Lines infoquant_fallbacks(const ModelConfig& config) {
  Lines lines = hadamard_fallback("attn_in", config.width / 2);
  append(lines, hadamard_fallback("attn_out", config.head_width));
  append(lines, hadamard_fallback("mlp_in", config.width / 2));
  append(lines, hadamard_fallback("mlp_out", config.mlp_width));
  return lines;
}

Lines spinquant_fallbacks(const ModelConfig& config) {
  Lines lines = hadamard_fallback("residual", config.width);
  append(lines, hadamard_fallback("values", config.head_width));
  append(lines, hadamard_fallback("heads", config.head_width));
  append(lines, hadamard_fallback("mlp_out", config.mlp_width));
  return lines;
}

// Sites that get a Kronecker product of their own.
Lines flatquant_fallbacks(const ModelConfig& config) {
  Lines lines;
  for (const SiteKind kind : {SiteKind::attn_in, SiteKind::mlp_in, SiteKind::mlp_out}) {
    const Index width = config.site_width(kind);
    if (width % 4 != 2) continue;
    const KroneckerSizes sizes = balanced_sizes(width);
    lines.push_back(fmt::format("{}: no factors of one parity for {}, {} and {} instead",
                                to_string(kind), width, sizes.left, sizes.right));
  }
  return lines;
}

// One line a method.
const std::map<std::string, MethodClaims>& table() {
  static const std::map<std::string, MethodClaims> all = {
      {"rtn", {.moved = {}, .rotates_queries_and_keys = false, .random = false}},
      {"smoothquant",
       {.rotates_queries_and_keys = false, .random = false, .fallbacks = smoothing_fallback}},
      {"omniquant",
       {.rotates_queries_and_keys = false, .random = false, .fallbacks = smoothing_fallback}},
      {"flatquant", with(flatquant_fallbacks)},
      {"hadamard", with(full_hadamard_fallbacks)},
      {"householder", with(smoothing_fallback)},
      {"givens", with(smoothing_fallback)},
      {"quarot",
       {.residual_basis = true,
        .fallbacks = [](const ModelConfig& config) { return quarot_fallbacks(config, false); }}},
      {"spinquant", {.residual_basis = true, .fallbacks = spinquant_fallbacks}},
      {"singlequant",
       {.random = false,
        .fallbacks = singlequant_fallbacks({kArtDerived, kUrtDerived, kFactorsDerived})}},
      {"learned_rotation", with(learned_rotation_fallbacks)},
      {"infoquant", with(infoquant_fallbacks)},
      {"duquant", with(smoothing_fallback)},
      {"ruquant", with(smoothing_fallback)},
  };
  return all;
}

}  // namespace

MethodClaims method_claims(const std::string& name) {
  const auto found = table().find(name);
  if (found != table().end()) return found->second;
  FAIL("tests/support/method_claims.cpp has no line for the method " << name);
  return {};
}

std::vector<std::string> claimed_methods() {
  std::vector<std::string> names;
  for (const auto& [name, claims] : table()) names.push_back(name);
  return names;
}

Lines smoothing_fallback(const ModelConfig& config) {
  if (config.heads == config.kv_heads) return {};
  return {"attn_out: smoothing divides at run time (grouped-query heads)"};
}

Lines hadamard_fallback(const std::string& where, Index order) {
  if (hadamard_exists(order)) return {};
  return {fmt::format("{}: no Hadamard matrix of order {}, a random orthogonal matrix instead",
                      where, order)};
}

Lines site_hadamard_fallbacks(const ModelConfig& config) {
  Lines lines;
  for (const SiteKind kind : kLinearSites) {
    append(lines, hadamard_fallback(to_string(kind), config.site_width(kind)));
  }
  return lines;
}

Lines quarot_fallbacks(const ModelConfig& config, bool smoothed) {
  Lines lines = hadamard_fallback("residual", config.width);
  if (smoothed) {
    lines.emplace_back("residual: R1 runs online at attn_in and mlp_in, after smoothing");
  }
  append(lines, hadamard_fallback("heads", config.head_width));
  if (!hadamard_exists(config.heads)) {
    lines.push_back(fmt::format(
        "attn_out: no Hadamard matrix across {} heads, a random orthogonal matrix instead",
        config.heads));
  }
  append(lines, hadamard_fallback("mlp_out", config.mlp_width));
  return lines;
}

Fallbacks singlequant_fallbacks(const Lines& derived, bool kronecker) {
  return [derived, kronecker](const ModelConfig& config) {
    Lines lines = derived;
    for (const SiteKind kind : kLinearSites) {
      const Index width = config.site_width(kind);
      if (!kronecker || width % 4 != 2) continue;
      const KroneckerSizes sizes = balanced_sizes(width);
      lines.push_back(fmt::format("{}: FlatQuant's rule has no factors of {}, {}x{} instead",
                                  to_string(kind), width, sizes.left, sizes.right));
    }
    return lines;
  };
}

}  // namespace ruq::test
