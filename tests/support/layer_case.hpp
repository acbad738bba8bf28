// One decoder layer out of a fixture, as a calibration session and as a model of one layer.
//
// Datasets: W_<linear> [out,in], gamma_in, gamma_post [h], act_max_{qkv,out,fc1,down}; attributes
// h, f, n_q, n_kv, norm_eps and, where the layer has one, rope_base.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "ruquant/model/calibration.hpp"
#include "ruquant/model/fuse.hpp"
#include "support/oracle.hpp"

namespace ruq::test {

/// What the fixtures call the group of linears behind a site.
inline std::string group_name(SiteKind kind) {
  switch (kind) {
    case SiteKind::attn_in:
      return "qkv";
    case SiteKind::attn_out:
      return "out";
    case SiteKind::mlp_in:
      return "fc1";
    default:
      return "down";
  }
}

/// The linear that a site's calibration is named after: q_proj, o_proj, gate_proj, down_proj.
inline std::string first_linear(SiteKind kind) { return to_string(linears_of(kind).front()); }

inline ModelConfig layer_config(const OracleCase& c) {
  ModelConfig config;
  config.model_type = "llama";
  config.layers = 1;
  config.width = c.integer("h");
  config.mlp_width = c.integer("f");
  config.heads = c.integer("n_q");
  config.kv_heads = c.integer("n_kv");
  config.head_width = config.width / config.heads;
  config.vocabulary = 1;
  config.norm_epsilon = c.real("norm_eps");
  if (c.has_attribute("rope_base")) config.rope_base = c.real("rope_base");
  return config;
}

/// Queries and keys are clipped like activations, values are not (§1.9).
inline QuantSettings official_quantizers(const OracleCase& c) {
  QuantSettings quant;
  quant.activation = {.bits = c.integer("abits"), .clip_ratio = c.real("lac")};
  quant.weight = {.bits = c.integer("wbits"), .clip_ratio = c.real("swc")};
  quant.queries = quant.keys = quant.activation;
  quant.values = {.bits = c.integer("abits")};
  return quant;
}

inline Model<double> layer_model(const OracleCase& c) {
  Model<double> model;
  model.config = layer_config(c);
  model.embedding = Matrix<double>::Zero(1, model.config.width);
  model.final_norm = Vector<double>::Ones(model.config.width);
  LayerWeights<double> weights;
  weights.attn_norm = c.vector("gamma_in");
  weights.mlp_norm = c.vector("gamma_post");
  for (const Linear linear : kLinears) {
    weights[linear].weight = c.matrix("W_" + to_string(linear));
  }
  model.layers.push_back(std::move(weights));
  return model;
}

inline ChannelMaxima layer_maxima(const OracleCase& c) {
  ChannelMaxima maxima(1);
  for (const SiteKind kind : kLinearSites) {
    maxima[0][kind] = c.vector("act_max_" + group_name(kind));
  }
  return maxima;
}

/// Calibration on one layer whose channel maxima and walk input are given; `output` is where the
/// walk arrives.
class LayerSession final : public CalibrationSession<double> {
 public:
  LayerSession(const Model<double>& model, ChannelMaxima maxima, Matrix<double> input)
      : model_(model), maxima_(std::move(maxima)), input_(std::move(input)) {}

  const ModelConfig& config() const override { return model_.config; }
  std::vector<Site> sites() const override {
    std::vector<Site> all;
    for (const SiteKind kind : kLinearSites) all.push_back({0, kind});
    return all;
  }
  const Matrix<double>& weight(Index, Linear linear) const override {
    return model_.layers[0][linear].weight;
  }
  const Vector<double>& norm_gain(Index, SiteKind kind) const override {
    return kind == SiteKind::attn_in ? model_.layers[0].attn_norm : model_.layers[0].mlp_norm;
  }
  const ChannelMaxima& channel_maxima() override { return maxima_; }

  Matrix<double> output;

 private:
  void walk_sites(CalibrationStream stream, Plan& plan, const SiteVisitor<double>& visit,
                  const WalkOptions&) override {
    output = input_;
    walk_layer(model_.config, model_.layers[0], 0, input_.rows(),
               stream != CalibrationStream::float_samples, plan, visit, output);
  }

  const Model<double>& model_;
  ChannelMaxima maxima_;
  Matrix<double> input_;
};

/// One linear [out, width] and its input, in a plan of one layer: what the executor makes of them.
struct OneLinear {
  static constexpr Site site{0, SiteKind::attn_out};

  OneLinear(Index width, const QuantSettings& quant) : plan(Plan::identity("test", 1, quant)) {
    config.layers = config.heads = config.kv_heads = 1;
    config.width = config.mlp_width = config.head_width = width;
  }
  Transform<double>& online() { return plan.layers[0][site.kind].online; }

  Matrix<double> activation(Matrix<double> x, bool rounds) const {
    runtime_hook<double>(rounds ? plan : without_rounding(plan), config)(site, x);
    return x;
  }
  Matrix<double> weight(const Matrix<double>& w, bool rounds) const {
    LayerWeights<double> weights;
    weights[Linear::o_proj].weight = w;
    install_site(rounds ? plan : without_rounding(plan), site, weights);
    return weights[Linear::o_proj].weight;
  }

  ModelConfig config;
  Plan plan;
};

}  // namespace ruq::test
