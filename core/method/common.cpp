#include "ruquant/method/common.hpp"

#include <Eigen/QR>
#include <algorithm>
#include <cmath>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/transform/hadamard.hpp"

namespace ruq {
namespace {

constexpr double kSmallestMaximum = 1e-5;
constexpr double kSmallestOwnScale = 1e-5;  // of SmoothQuant's own code

// The linear whose weight decides the smoothing scale of a site.
Linear key_linear(SiteKind kind) {
  switch (kind) {
    case SiteKind::attn_in:
      return Linear::q_proj;
    case SiteKind::mlp_in:
      return Linear::up_proj;
    case SiteKind::attn_out:
      return Linear::o_proj;
    default:
      return Linear::down_proj;
  }
}

// One scale for all query heads that share a key-value head: [heads·e] → [kv_heads·e], the maximum.
Vector<double> shared_over_group(const Vector<double>& scale, const ModelConfig& config) {
  const Index group = config.heads / config.kv_heads;
  const Index e = config.head_width;
  Vector<double> shared = Vector<double>::Zero(config.kv_width());
  for (Index head = 0; head < config.heads; ++head) {
    auto mine = shared.segment(head / group * e, e);
    mine = mine.cwiseMax(scale.segment(head * e, e)).eval();
  }
  return shared;
}

}  // namespace

void bind(Fields& fields, SmoothingOptions& options, const std::string& prefix) {
  fields.add(prefix + "smoothing", options.alpha, {.min = 0, .max = 1},
             "alpha of SmoothQuant's scales, or none");
  fields.add_choice(
      prefix + "smoothing_grouped", options.grouped, {"online", "shared"},
      "attn_out under grouped-query heads: divide at run time (as the official codes) "
      "or one scale a group, folded into v_proj");
}

template <class S>
Vector<double> smoothing_scale(const Vector<double>& activation_maxima, const Matrix<S>& weight,
                               double alpha, double floor) {
  const Vector<double> a = activation_maxima.cwiseMax(kSmallestMaximum);
  const Vector<double> w =
      weight.cwiseAbs().colwise().maxCoeff().transpose().template cast<double>().cwiseMax(
          kSmallestMaximum);
  return (a.array().pow(alpha) / w.array().pow(1 - alpha)).max(floor).matrix();
}

// The scale of a site behind a norm as SmoothQuant's own code has it.
template <class S>
Vector<double> own_scale(CalibrationSession<S>& session, const Site& site,
                         const Vector<double>& activation_maxima, double alpha) {
  RowVector<S> largest = RowVector<S>::Zero(activation_maxima.size());
  for (const Linear linear : linears_of(site.kind)) {
    const Matrix<S>& weight = session.weight(site.layer, linear);
    largest = largest.cwiseMax(weight.cwiseAbs().colwise().maxCoeff()).eval();
  }
  return smoothing_scale<S>(activation_maxima, largest, alpha, kSmallestOwnScale);
}

template <class S>
void smooth(CalibrationSession<S>& session, const SmoothingOptions& options, Plan& plan) {
  if (!options.alpha) return;
  const ModelConfig& config = session.config();
  const ChannelMaxima& maxima = session.channel_maxima();
  for (const Site& site : session.sites()) {
    const auto layer = static_cast<std::size_t>(site.layer);
    if (options.behind_norms && !has_norm(site.kind)) continue;
    const Vector<double>& site_maxima = maxima[layer][site.kind];
    const Vector<double> scale =
        options.behind_norms
            ? own_scale(session, site, site_maxima, *options.alpha)
            : smoothing_scale(site_maxima, session.weight(site.layer, key_linear(site.kind)),
                              *options.alpha);
    SitePlan& planned = plan.layers[layer][site.kind];
    const bool grouped = config.heads != config.kv_heads;
    if (site.kind != SiteKind::attn_out) {
      planned.folded.append(Scale<double>{scale.cwiseInverse()});
    } else if (!grouped || options.grouped == "shared") {
      planned.folded.append(Scale<double>{shared_over_group(scale, config).cwiseInverse()});
    } else {
      planned.online.append(Scale<double>{scale.cwiseInverse()});
      plan.note_fallback("attn_out: smoothing divides at run time (grouped-query heads)");
    }
  }
}

void rotate_queries_and_keys(const ModelConfig& config, Index limit, Plan& plan) {
  const Index order = largest_power_of_two(config.head_width, limit);
  if (order == 1) {
    plan.note_fallback(fmt::format("queries, keys: no Hadamard rotation divides the head width {}",
                                   config.head_width));
    return;
  }
  for (LayerPlan& layer : plan.layers) layer.query_key.append(HadamardStep{order});
}

void bind(Fields& fields, QueryKeyOptions& options) {
  fields.add_choice("queries_keys", options.rotation, {"none", "hadamard"},
                    "rotation of every head of queries and keys; the official RUQuant and DuQuant "
                    "codes have it in every run");
}

void rotate_queries_and_keys(const ModelConfig& config, const QueryKeyOptions& options,
                             Plan& plan) {
  if (options.rotation == "hadamard") rotate_queries_and_keys(config, config.head_width, plan);
}

Matrix<double> haar_orthogonal(Index n, Draws& draws) {
  const Eigen::MatrixXd gauss = draws.normal(n, n);
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(gauss);
  Eigen::MatrixXd q = qr.householderQ() * Eigen::MatrixXd::Identity(n, n);
  for (Index j = 0; j < n; ++j) {
    if (qr.matrixQR()(j, j) < 0) q.col(j) = -q.col(j);
  }
  return q;
}

Transform<double> randomized_hadamard(Index width, Stream& stream, const std::string& where,
                                      Plan& plan) {
  Transform<double> rotation(width);
  if (!hadamard_exists(width)) {
    plan.note_fallback(fmt::format(
        "{}: no Hadamard matrix of order {}, a random orthogonal matrix instead", where, width));
    rotation.append(BlockDiagonal<double>{{{haar_orthogonal(width, stream), {}}}, {0}});
    return rotation;
  }
  rotation.append(Scale<double>{stream.signs(width)});
  rotation.append(HadamardStep{width});
  return rotation;
}

template <class S>
Vector<double> fused_gain(CalibrationSession<S>& session, const Site& site) {
  return session.norm_gain(site.layer, site.kind)
      .template cast<double>()
      .unaryExpr([](double gain) { return gain == 0 ? 1.0 : 1 / gain; });
}

template <class S>
Matrix<double> stacked_weights(CalibrationSession<S>& session, const Plan& plan, const Site& site) {
  const auto linears = linears_of(site.kind);
  Index rows = 0;
  for (const Linear linear : linears) rows += session.weight(site.layer, linear).rows();
  Matrix<double> all(rows, session.config().site_width(site.kind));
  Index at = 0;
  for (const Linear linear : linears) {
    const Matrix<S>& weight = session.weight(site.layer, linear);
    all.middleRows(at, weight.rows()) = weight.template cast<double>();
    at += weight.rows();
  }
  site_transform(plan, session.config(), site).apply_dual(all);
  return all;
}

void check_quantizers(const ModelConfig& config, const QuantSettings& quant) {
  for (const auto& [name, spec] :
       {std::pair("quant.weight", &quant.weight), std::pair("quant.activation", &quant.activation),
        std::pair("quant.queries", &quant.queries), std::pair("quant.keys", &quant.keys),
        std::pair("quant.values", &quant.values)}) {
    if (spec->search && spec->rule == GridRule::omniquant) {
      fail("{}.search: found true under rule {}, expected quarot_weight or quarot_activation", name,
           to_string(spec->rule));
    }
  }
  for (const Linear linear : kLinears) {
    const Index width = config.in_width(linear);
    if (quant.weight.rounds()) {
      with_context(fmt::format("quant.weight, {}", to_string(linear)),
                   [&] { return group_width(quant.weight, width); });
    }
    const SiteKind kind = input_site(linear);
    if (quant.activation.rounds()) {
      with_context(fmt::format("quant.activation, {}", to_string(kind)),
                   [&] { return group_width(quant.of(kind), width); });
    }
  }
  for (const auto& [name, spec] :
       {std::pair("quant.queries", &quant.queries), std::pair("quant.keys", &quant.keys),
        std::pair("quant.values", &quant.values)}) {
    if (!spec->rounds()) continue;
    with_context(name, [&] { return group_width(*spec, config.head_width); });
  }
}

void check_rounds(const std::string& key, const std::string& found, const QuantSettings& quant) {
  if (quant.weight.rounds() || quant.activation.rounds()) return;
  fail(
      "{}: found {} at {}, expected weights or activations of less than 16 bits: there is no error "
      "to learn from",
      key, found, to_string(quant.widths()));
}

template Vector<double> smoothing_scale(const Vector<double>&, const Matrix<float>&, double,
                                        double);
template Vector<double> smoothing_scale(const Vector<double>&, const Matrix<double>&, double,
                                        double);
#define RUQ_INSTANTIATE(S)                                                      \
  template void smooth(CalibrationSession<S>&, const SmoothingOptions&, Plan&); \
  template Vector<double> fused_gain(CalibrationSession<S>&, const Site&);      \
  template Matrix<double> stacked_weights(CalibrationSession<S>&, const Plan&, const Site&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
