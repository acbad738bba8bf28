// FlatQuant (arXiv 2410.09426; specification §2.4): an invertible Kronecker map at every linear
// site, maps of the value heads and of queries and keys, per-channel scales, and clip factors,
// learned block after block on the float stream; learn/flat_block.hpp says which map goes where.
//
// As in the published code the raw matrices behind U and V start as random orthogonal ones; their
// Cayley maps are orthogonal too, but not the matrices drawn. Scales start from the maxima of
// activations and weights. After training the scales and P_v are folded, the other maps run online.
//
// Readings: the factors of a weight row act on v_proj after P_v is folded into it, where the
// published code clips before; under the quarot_weight rule they clamp the row as published, under
// other rules they narrow the range of its grid (quant/clamp_rows.hpp).
#include <algorithm>
#include <optional>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/flat_block.hpp"
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"

namespace ruq {
namespace {

constexpr double kSmallestMaximum = 1e-5;

// 32 steps of 4 sequences an epoch; 8 more sequences judge.
LearningSchedule paper_schedule() {
  return {.preset = "paper",
          .windows = {.train = 128, .held_out = 8, .tokens = 2048},
          .epochs = 15,
          .batch = 4};
}

class FlatQuant final : public MethodBase<FlatQuant> {
 public:
  void bind(Fields& fields) override {
    ruq::bind(fields, schedule_, LearningSchedule{}, paper_schedule());
    fields.add("scale_alpha", scale_alpha_, {.min = 0, .max = 1},
               "alpha of the scales' start w^(1-alpha) / x^alpha, or none: all ones");
    fields.add("learn_transforms", parts_.transforms, "train the maps, or keep their random start");
    fields.add("learn_scale", parts_.scale, "train the scales, or keep their start");
    fields.add("learn_clips", parts_.clips, "train clip factors, or keep the clip ratios");
    fields.add("learning_rate", rates_.transform, {.min = 0}, "of maps and scales");
    fields.add("clip_rate", rates_.clip, {.min = 0}, "learning rate of the clip factors");
    fields.add("weight_decay", rates_.weight_decay, {.min = 0}, "of AdamW, on everything trained");
  }
  bool is_random() const override { return true; }
  bool needs_model() const override { return parts_.any(); }
  int revision(const QuantSettings&) const override { return held_out_revision(schedule_.preset); }

  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant,
               const Stream& stream) const {
    const ModelConfig& config = session.config();
    Plan plan = Plan::identity("flatquant", config.layers, quant);
    for (const SiteKind kind : kLinearSites) note_sizes(config, kind, plan);
    std::vector<FlatBlock> blocks;
    for (Index l = 0; l < config.layers; ++l) {
      blocks.push_back(start(session, l, stream.child(fmt::format("layers.{}", l))));
      write(session, blocks.back(), l, plan);
    }
    if (!parts_.any() || !quant.rounds()) return plan;  // nothing to learn from
    session.walk_blocks(schedule_.windows, plan, [&](const BlockView<S>& block, Plan& drawn) {
      FlatBlock& flat = blocks[static_cast<std::size_t>(block.layer)];
      drawn.learning.push_back(
          fit_flat_block(config, block, quant, parts_, rates_, schedule_, flat));
      write(session, flat, block.layer, drawn);
    });
    return plan;
  }

 private:
  static void note_sizes(const ModelConfig& config, SiteKind kind, Plan& plan) {
    const Index width = config.site_width(kind);
    if (kind == SiteKind::attn_out || has_flatquant_sizes(width)) return;
    const KroneckerSizes sizes = flatquant_sizes(width);
    plan.note_fallback(fmt::format("{}: no factors of one parity for {}, {} and {} instead",
                                   to_string(kind), width, sizes.left, sizes.right));
  }

  template <class S>
  FlatBlock start(CalibrationSession<S>& session, Index layer, const Stream& stream) const {
    FlatBlock block = flat_start(session.config(), [&](const std::string& place, Index width) {
      Stream draws = stream.child(place);
      return haar_orthogonal(width, draws);
    });
    if (!scale_alpha_) return block;
    for (const Site& site : session.sites()) {
      if (site.layer != layer || site.kind == SiteKind::attn_out) continue;
      block.scale[site.kind] = first_scale(session, site);
    }
    return block;
  }

  template <class S>
  Vector<double> first_scale(CalibrationSession<S>& session, const Site& site) const {
    const auto layer = static_cast<std::size_t>(site.layer);
    const Vector<double>& activations = session.channel_maxima()[layer][site.kind];
    Vector<double> weights = Vector<double>::Constant(activations.size(), kSmallestMaximum);
    for (const Linear linear : linears_of(site.kind)) {
      const Vector<double> own = session.weight(site.layer, linear)
                                     .cwiseAbs()
                                     .colwise()
                                     .maxCoeff()
                                     .transpose()
                                     .template cast<double>();
      weights = weights.cwiseMax(own).eval();
    }
    return flatquant_init_scale(weights, activations.cwiseMax(kSmallestMaximum), *scale_alpha_);
  }

  // Puts the block's numbers into the plan of its layer, at the sites that exist.
  template <class S>
  void write(CalibrationSession<S>& session, const FlatBlock& block, Index layer,
             Plan& plan) const {
    const ModelConfig& config = session.config();
    LayerPlan& planned = plan.layers[static_cast<std::size_t>(layer)];
    const BlockParameters parameters = flat_parameters(block, config, parts_.clips);
    for (const Site& site : session.sites()) {
      if (site.layer != layer) continue;
      SitePlan& here = planned[site.kind];
      here.folded = folded(block, config, site.kind);
      here.online = block.online(site.kind, config.head_width);
      here.clips = parameters.activation_clips[site.kind];
    }
    planned.query_key = parameters.query_key;
    planned.weight_clips = parameters.weight_clips;
  }

  static Transform<double> folded(const FlatBlock& block, const ModelConfig& config,
                                  SiteKind kind) {
    if (kind == SiteKind::attn_out) {
      Transform<double> values(config.kv_width());
      values.append(BlockDiagonal<double>{
          {block.values.build()}, std::vector<Index>(static_cast<std::size_t>(config.kv_heads))});
      return values;
    }
    Transform<double> scale(config.site_width(kind));
    scale.append(Scale<double>{block.scale[kind]});
    return scale;
  }

  LearningSchedule schedule_;
  std::optional<double> scale_alpha_ = 0.3;
  FlatParts parts_;
  FlatRates rates_;
};

}  // namespace

std::unique_ptr<Method> make_flatquant() { return std::make_unique<FlatQuant>(); }

}  // namespace ruq
