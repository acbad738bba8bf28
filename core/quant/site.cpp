#include "ruquant/quant/site.hpp"

#include <algorithm>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/base/named.hpp"

namespace ruq {
namespace {

const std::vector<std::string>& site_names() {
  static const std::vector<std::string> names = {"attn_in", "attn_out", "mlp_in", "mlp_out",
                                                 "queries", "keys",     "values"};
  return names;
}

}  // namespace

std::string to_string(SiteKind kind) { return site_names()[static_cast<std::size_t>(kind)]; }

SiteKind site_kind(const std::string& name) { return named<SiteKind>("site", site_names(), name); }

std::string to_string(Linear linear) {
  static const std::array<const char*, kLinears.size()> names = {
      "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  return names[static_cast<std::size_t>(linear)];
}

std::string to_string(const Site& site) {
  return fmt::format("layers.{}.{}", site.layer, to_string(site.kind));
}

std::vector<Linear> linears_of(SiteKind kind) {
  switch (kind) {
    case SiteKind::attn_in:
      return {Linear::q_proj, Linear::k_proj, Linear::v_proj};
    case SiteKind::attn_out:
      return {Linear::o_proj};
    case SiteKind::mlp_in:
      return {Linear::gate_proj, Linear::up_proj};
    case SiteKind::mlp_out:
      return {Linear::down_proj};
    default:
      return {};
  }
}

bool is_linear_site(SiteKind kind) { return !linears_of(kind).empty(); }

bool has_norm(SiteKind kind) { return kind == SiteKind::attn_in || kind == SiteKind::mlp_in; }

SiteKind input_site(Linear linear) {
  for (const SiteKind kind : kLinearSites) {
    const auto fed = linears_of(kind);
    if (std::find(fed.begin(), fed.end(), linear) != fed.end()) return kind;
  }
  fail("linear {} has no input site", static_cast<int>(linear));
}

}  // namespace ruq
