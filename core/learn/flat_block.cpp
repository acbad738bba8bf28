#include "ruquant/learn/flat_block.hpp"

#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/clip_logits.hpp"

namespace ruq {
namespace {

// Of M = U·diag(s)·Vᵀ: the parts by raw_u, raw_v and s.
SvdFactor through_svd(const SvdFactor& factor, const Vector<double>& s,
                      const Matrix<double>& by_map) {
  const Matrix<double> u = cayley_map(factor.raw_u);
  const Matrix<double> v = cayley_map(factor.raw_v);
  const Matrix<double> by_u = by_map * v * s.asDiagonal();
  const Matrix<double> by_v = by_map.transpose() * u * s.asDiagonal();
  return {cayley_map_gradient(factor.raw_u, by_u), cayley_map_gradient(factor.raw_v, by_v),
          (u.transpose() * by_map * v).diagonal()};
}

Transform<double> one_map(SquareMap<double> map) {
  const Index width = map.map.rows();
  Transform<double> transform(width);
  transform.append(BlockDiagonal<double>{{std::move(map)}, {0}});
  return transform;
}

Vector<double> through_pair(const Vector<double>& gamma, const ClipPair& slope) {
  return through_clip_factors(gamma, Vector<double>{{slope.low, slope.high}});
}

}  // namespace

SquareMap<double> SvdFactor::build() const {
  return svd_map(cayley_map(raw_u), sigma, cayley_map(raw_v));
}

SvdFactor SvdFactor::gradient(const Matrix<double>& by_map) const {
  return through_svd(*this, sigma, by_map);
}

SvdFactor SvdFactor::gradient_by_dual(const Matrix<double>& by_dual) const {
  SvdFactor result = through_svd(*this, sigma.cwiseInverse(), by_dual);
  result.sigma = -result.sigma.array() / sigma.array().square();
  return result;
}

Transform<double> FlatBlock::online(SiteKind kind, Index head_width) const {
  const SvdFactor& first = left[kind];
  const SvdFactor& second = right[kind];
  const Index right_width = second.width() > 0 ? second.width() : head_width;
  Transform<double> transform(first.width() * right_width);
  transform.append(Kronecker<double>{first.build(),
                                     second.width() > 0 ? second.build() : SquareMap<double>{},
                                     first.width(), right_width});
  return transform;
}

// Queries get P_h⁻ᵀ, whose dual is P_h.
Transform<double> FlatBlock::query_key() const {
  SquareMap<double> map = heads.build();
  std::swap(map.map, map.dual);
  return one_map(std::move(map));
}

Transform<double> FlatBlock::value_map() const { return one_map(values.build()); }

FlatBlock flat_start(const ModelConfig& config, const RawMaps& draw) {
  const auto drawn = [&](const std::string& name, Index width) {
    return SvdFactor{draw(name + ".u", width), draw(name + ".v", width),
                     Vector<double>::Ones(width)};
  };
  FlatBlock block;
  for (const SiteKind kind : kLinearSites) {
    const std::string name = to_string(kind);
    const Index width = config.site_width(kind);
    const bool is_mixed = kind == SiteKind::attn_out;
    const KroneckerSizes sizes =
        is_mixed ? KroneckerSizes{config.heads, config.head_width} : flatquant_sizes(width);
    block.left[kind] = drawn(name + ".left", sizes.left);
    if (!is_mixed) {
      block.right[kind] = drawn(name + ".right", sizes.right);
      block.scale[kind] = Vector<double>::Ones(width);
    }
    block.site_clips[kind] = Vector<double>::Constant(2, kFirstClipLogit);
  }
  block.values = drawn("values", config.head_width);
  block.heads = drawn("heads", config.head_width);
  for (const Linear linear : kLinears) {
    block.low[linear] = block.high[linear] =
        Vector<double>::Constant(config.out_width(linear), kFirstClipLogit);
  }
  return block;
}

BlockParameters flat_parameters(const FlatBlock& block, const ModelConfig& config,
                                bool with_clips) {
  BlockParameters parameters;
  for (const SiteKind kind : kLinearSites) {
    const Vector<double>& d = block.scale[kind];
    Transform<double> online(d.size());
    if (d.size() > 0) online.append(Scale<double>{d});
    parameters.online[kind] = online.then(block.online(kind, config.head_width));
    if (!with_clips) continue;
    const Vector<double> pair = clip_factors(block.site_clips[kind]);
    parameters.activation_clips[kind] = ClipPair{pair(0), pair(1)};
  }
  parameters.values = block.value_map();
  parameters.query_key = block.query_key();
  if (!with_clips) return parameters;
  for (const Linear linear : kLinears) {
    parameters.weight_clips[linear] =
        RowClips<double>{clip_factors(block.low[linear]), clip_factors(block.high[linear])};
  }
  return parameters;
}

FlatBlock flat_gradient(const FlatBlock& block, const BlockGradients& gradients) {
  FlatBlock result;
  for (const SiteKind kind : kLinearSites) {
    const TransformGradient& online = gradients.online[kind];
    const std::vector<Matrix<double>>& maps = online.back().maps;
    if (block.scale[kind].size() > 0) result.scale[kind] = online.front().vector;
    result.left[kind] = block.left[kind].gradient(maps[0]);
    if (block.right[kind].width() > 0) {
      result.right[kind] = block.right[kind].gradient(maps[1]);
    }
    result.site_clips[kind] =
        through_pair(block.site_clips[kind], gradients.activation_clips[kind]);
  }
  result.values = block.values.gradient(gradients.values.front().maps[0]);
  result.heads = block.heads.gradient_by_dual(gradients.query_key.front().maps[0]);
  for (const Linear linear : kLinears) {
    const RowClips<double>& slope = gradients.weight_clips[linear];
    if (slope.low.size() == 0) continue;
    result.low[linear] = through_clip_factors(block.low[linear], slope.low);
    result.high[linear] = through_clip_factors(block.high[linear], slope.high);
  }
  return result;
}

void visit_flat_parts(
    FlatBlock& block, const FlatParts& parts,
    const std::function<void(const std::string&, Eigen::Map<Vector<double>>, bool)>& visit) {
  const auto vector = [&](const std::string& name, Vector<double>& v, bool is_clip) {
    if (v.size() > 0) visit(name, Eigen::Map<Vector<double>>(v.data(), v.size()), is_clip);
  };
  const auto factor = [&](const std::string& name, SvdFactor& f) {
    if (f.width() == 0) return;
    for (const auto& [suffix, raw] : {std::pair(" u", &f.raw_u), std::pair(" v", &f.raw_v)}) {
      visit(name + suffix, Eigen::Map<Vector<double>>(raw->data(), raw->size()), false);
    }
    vector(name + " sigma", f.sigma, false);
  };
  for (const SiteKind kind : kLinearSites) {
    const std::string name = to_string(kind);
    if (parts.transforms) {
      factor(name + " left", block.left[kind]);
      factor(name + " right", block.right[kind]);
    }
    if (parts.scale) vector(name + " scale", block.scale[kind], false);
    if (parts.clips) vector(name + " clips", block.site_clips[kind], true);
  }
  if (parts.transforms) {
    factor("values", block.values);
    factor("heads", block.heads);
  }
  if (!parts.clips) return;
  for (const Linear linear : kLinears) {
    vector(to_string(linear) + " low", block.low[linear], true);
    vector(to_string(linear) + " high", block.high[linear], true);
  }
}

namespace {

// The chart of the parts that move. They move in `block` itself, whose other numbers stay.
BlockChart flat_chart(const ModelConfig& config, const FlatParts& parts, FlatBlock& block) {
  const auto take_over = [&block, parts](const std::vector<FitGroup>& groups) {
    std::size_t i = 0;
    visit_flat_parts(block, parts, [&](const std::string&, Eigen::Map<Vector<double>> v, bool) {
      v = groups[i++].value;
    });
  };
  BlockChart chart;
  chart.build = [&config, &block, parts, take_over](const std::vector<FitGroup>& groups) {
    take_over(groups);
    return flat_parameters(block, config, parts.clips);
  };
  chart.pull_back = [&block, parts](const std::vector<FitGroup>&, const BlockGradients& gradients) {
    FlatBlock slope = flat_gradient(block, gradients);
    std::vector<Vector<double>> result;
    visit_flat_parts(slope, parts, [&](const std::string&, Eigen::Map<Vector<double>> v, bool) {
      result.push_back(v);
    });
    return result;
  };
  return chart;
}

}  // namespace

template <class S>
LearningRecord fit_flat_block(const ModelConfig& config, const BlockView<S>& block,
                              const QuantSettings& quant, const FlatParts& parts,
                              const FlatRates& rates, const LearningSchedule& schedule,
                              FlatBlock& flat) {
  std::vector<FitGroup> groups;
  visit_flat_parts(
      flat, parts, [&](const std::string& name, Eigen::Map<Vector<double>> v, bool is_clip) {
        groups.push_back({name, v, is_clip ? rates.clip : rates.transform, rates.weight_decay});
      });
  BlockGrad<S> grad(config, block.weights, {}, quant, block.layer);
  const BlockFitOptions options{.objective = "relative block output on the float stream",
                                .epochs = schedule.epochs,
                                .batch = schedule.batch,
                                .float_stream = true,
                                .relative = true,
                                .final_rate = rates.final_rate};
  const BlockChart chart = flat_chart(config, parts, flat);
  LearningRecord record = fit_block(grad, chart, block.train, block.held_out, options, groups);
  record.where = fmt::format("layers.{}", block.layer);
  return record;
}

#define RUQ_INSTANTIATE(S)                                                                         \
  template LearningRecord fit_flat_block(const ModelConfig&, const BlockView<S>&,                  \
                                         const QuantSettings&, const FlatParts&, const FlatRates&, \
                                         const LearningSchedule&, FlatBlock&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
