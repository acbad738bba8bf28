// Names of the places of a decoder block. A Site is where a tensor is quantized; a Linear is one of
// the seven weight matrices.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

enum class SiteKind { attn_in, attn_out, mlp_in, mlp_out, queries, keys, values };
inline constexpr std::array kLinearSites = {SiteKind::attn_in, SiteKind::attn_out, SiteKind::mlp_in,
                                            SiteKind::mlp_out};

enum class Linear { q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj };
inline constexpr std::array kLinears = {Linear::q_proj,   Linear::k_proj,    Linear::v_proj,
                                        Linear::o_proj,   Linear::gate_proj, Linear::up_proj,
                                        Linear::down_proj};

inline constexpr std::size_t kSiteKinds = 7;

/// An array with the values of an enum for indices.
template <class Key, class T, std::size_t N>
struct Keyed : std::array<T, N> {
  using std::array<T, N>::operator[];
  T& operator[](Key key) { return (*this)[static_cast<std::size_t>(key)]; }
  const T& operator[](Key key) const { return (*this)[static_cast<std::size_t>(key)]; }
};

/// One entry for each of kLinearSites, of all kinds of site, or of kLinears.
template <class T>
using PerSite = Keyed<SiteKind, T, kLinearSites.size()>;
template <class T>
using PerKind = Keyed<SiteKind, T, kSiteKinds>;
template <class T>
using PerLinear = Keyed<Linear, T, kLinears.size()>;

struct Site {
  Index layer = 0;
  SiteKind kind = SiteKind::attn_in;
  friend bool operator==(const Site&, const Site&) = default;
};

std::string to_string(SiteKind kind);         ///< "attn_in"
SiteKind site_kind(const std::string& name);  ///< Error with the nearest name
std::string to_string(Linear linear);         ///< "q_proj"
std::string to_string(const Site& site);      ///< "layers.3.attn_in"

/// The linears fed by a site: attn_in → q, k, v; attn_out → o; mlp_in → gate, up; mlp_out → down.
/// Empty for queries, keys and values.
std::vector<Linear> linears_of(SiteKind kind);
SiteKind input_site(Linear linear);
/// Whether the tensor feeds linears: one of kLinearSites.
bool is_linear_site(SiteKind kind);
/// Whether a norm produces the tensor: attn_in and mlp_in.
bool has_norm(SiteKind kind);

}  // namespace ruq
