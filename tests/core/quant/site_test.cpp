#include "ruquant/quant/site.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "support/errors.hpp"

namespace ruq::test {
namespace {

TEST_CASE("site names round trip and print with their layer") {
  for (const char* name :
       {"attn_in", "attn_out", "mlp_in", "mlp_out", "queries", "keys", "values"}) {
    CHECK(to_string(site_kind(name)) == name);
  }
  CHECK(to_string(Site{3, SiteKind::mlp_out}) == "layers.3.mlp_out");
  check_error([] { site_kind("mlp_uot"); }, {"mlp_uot", "did you mean 'mlp_out'"});
}

TEST_CASE("every linear is fed by the site that lists it, and by no other") {
  std::size_t listed = 0;
  for (const SiteKind kind : kLinearSites) {
    for (const Linear linear : linears_of(kind)) {
      CHECK(input_site(linear) == kind);
      ++listed;
    }
  }
  CHECK(listed == kLinears.size());
  CHECK(linears_of(SiteKind::attn_in).size() == 3);
  CHECK(linears_of(SiteKind::mlp_in) == std::vector<Linear>{Linear::gate_proj, Linear::up_proj});
  CHECK(input_site(Linear::o_proj) == SiteKind::attn_out);
  for (const SiteKind kind : {SiteKind::queries, SiteKind::keys, SiteKind::values}) {
    CHECK(linears_of(kind).empty());
  }
}

TEST_CASE("linears print as their Hugging Face modules") {
  CHECK(to_string(Linear::q_proj) == "q_proj");
  CHECK(to_string(Linear::down_proj) == "down_proj");
}

}  // namespace
}  // namespace ruq::test
