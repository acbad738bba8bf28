#include "experiments/sites.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/eval/distortion.hpp"
#include "ruquant/eval/language.hpp"
#include "ruquant/model/fuse.hpp"

namespace ruq {
namespace {

// The site whose tokens have the widest range for their power, before any transform, among those
// behind a norm and among those behind an activation function.
std::vector<const SiteActivations*> outlier_rich_sites(const ActivationSet& set) {
  std::map<bool, std::pair<double, const SiteActivations*>> found;
  for (const SiteActivations& site : set.sites) {
    if (site.site.kind == SiteKind::attn_out) continue;
    const double ratio = mean_range_over_rms(site.test.cast<double>());
    auto& best = found[has_norm(site.site.kind)];
    if (best.second == nullptr || ratio > best.first) best = {ratio, &site};
  }
  std::vector<const SiteActivations*> sites;
  for (const auto& [behind_norm, best] : found) sites.push_back(best.second);
  return sites;
}

// The bins of a site's quantizer before and after the transform, for figures.
void keep_bins(const SiteActivations& site, const Plan& plan, const ModelConfig& config,
               TrialResult& result) {
  const QuantSpec spec = plan.quant.of(site.site.kind);
  if (!spec.rounds()) return;
  Matrix<double> x = site.test.cast<double>();
  for (const char* when : {"before", "after"}) {
    const std::string group =
        fmt::format("{}.{}/{}", site.site.layer, to_string(site.site.kind), when);
    const BinProfile bins = bin_profile(x, spec);
    result.bins[group + "/code"] = bins.code;
    result.bins[group + "/share"] = bins.share;
    result.bins[group + "/shift"] = bins.shift;
    result.bins[group + "/within"] = bins.within;
    site_transform(plan, config, site.site).apply(x);
  }
}

double lloyd_max_error(const SiteActivations& site, Index bits, LloydMaxErrors& known) {
  const std::string key = fmt::format("{} {}", to_string(site.site), bits);
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  return known[key] = lloyd_max_error_db(site.test, bits);
}

}  // namespace

std::vector<Site> captured_sites(const ActivationSettings& settings, Index layers) {
  std::vector<Index> chosen = settings.layers;
  if (chosen.empty()) {
    for (Index i = 0; i < 4; ++i) chosen.push_back((layers - 1) * i / 3);
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  }
  std::vector<Site> sites;
  for (const Index layer : chosen) {
    for (const SiteKind kind : kLinearSites) {
      const auto& kinds = settings.kinds;
      if (std::find(kinds.begin(), kinds.end(), to_string(kind)) == kinds.end()) continue;
      sites.push_back({layer, kind});
    }
  }
  return sites;
}

void keep_named_sites(const ActivationSettings& settings, ActivationSet& set) {
  const auto is_among = [](const auto& values, const auto& value) {
    return std::find(values.begin(), values.end(), value) != values.end();
  };
  std::erase_if(set.sites, [&](const SiteActivations& held) {
    return (!settings.layers.empty() && !is_among(settings.layers, held.site.layer)) ||
           !is_among(settings.kinds, to_string(held.site.kind));
  });
  if (set.sites.empty()) {
    fail("activations: found no site of layers {} and kinds {} among the dumped ones",
         fmt::join(settings.layers, ","), fmt::join(settings.kinds, ","));
  }
}

void measure_sites(const ActivationSet& set, const Plan& plan, Index sample_tokens,
                   LloydMaxErrors& known, TrialResult& result) {
  std::map<std::string, std::vector<double>> by_measure;
  for (const SiteActivations& site : set.sites) {
    auto measures = site_distortion(plan, set.config, site.site, site.test, site.weights);
    const auto error = measures.find("activation_error_db");
    if (error != measures.end()) {
      // Levels of its own for every entry of a narrow site meet it exactly: no gap to speak of.
      const double least = lloyd_max_error(site, plan.quant.activation.bits, known);
      if (std::isfinite(least)) measures["lloyd_max_gap_db"] = error->second - least;
    }
    for (const auto& [name, value] : measures) {
      by_measure["tensor." + name].push_back(value);
      by_measure[fmt::format("tensor.{}.{}", name, to_string(site.site.kind))].push_back(value);
    }
    result.sites[to_string(site.site)] = std::move(measures);
  }
  for (const auto& [name, values] : by_measure) result.metrics[name] = mean(values);
  if (sample_tokens == 0) return;
  for (const SiteActivations* site : outlier_rich_sites(set)) {
    const Index rows = std::min(sample_tokens, site->test.rows());
    const std::string group = fmt::format("{}.{}", site->site.layer, to_string(site->site.kind));
    Matrix<float> sample = site->test.topRows(rows);
    result.samples[group + "/before"] = sample;
    site_transform(plan, set.config, site->site).cast<float>().apply(sample);
    result.samples[group + "/after"] = std::move(sample);
    keep_bins(*site, plan, set.config, result);
  }
}

}  // namespace ruq
