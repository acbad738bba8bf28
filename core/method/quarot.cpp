// QuaRot (arXiv 2404.00456; specification §2.2): a randomized Hadamard basis of the residual stream
// (R1 = D·Ĥ_h, folded), Ĥ_e on every value head (folded) with Ĥ_{n_q} across heads online, Ĥ_f
// online before down_proj, Ĥ_e online on queries and keys after RoPE. Norm gains are fused into the
// weights. The code's mean-centring of the embedding is left out: it changes an RMSNorm model.
//
// With smoothing the scales sit between norm and rotation, so R1 cannot be folded any more: it runs
// online at attn_in and mlp_in, the same R1 in every layer, and the plan says so.
#include "ruquant/base/error.hpp"
#include "ruquant/method/entries.hpp"
#include "ruquant/method/rotated_basis.hpp"
#include "ruquant/transform/hadamard.hpp"

namespace ruq {
namespace {

class QuaRot final : public MethodBase<QuaRot> {
 public:
  void bind(Fields& fields) override {
    fields.add("smoothing", smoothing_.alpha, {.min = 0, .max = 1},
               "alpha of SmoothQuant's scales before the rotation, or none (as published)");
  }
  bool is_random() const override { return true; }

  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant,
               const Stream& stream) const {
    const ModelConfig& config = session.config();
    Plan plan = Plan::identity("quarot", config.layers, quant);
    smooth(session, smoothing_, plan);
    Stream draws = stream.child("residual");
    const Transform<double> r1 = randomized_hadamard(config.width, draws, "residual", plan);
    if (smoothing_.alpha) {
      plan.note_fallback("residual: R1 runs online at attn_in and mlp_in, after smoothing");
    } else {
      plan.residual = r1;
    }
    const Transform<double> head = head_rotation(config.head_width, stream, plan);
    const Transform<double> across = across_heads(config, stream, plan);
    const Transform<double> hidden = hidden_rotation(config.mlp_width, stream, plan);
    for (const Site& site : session.sites()) {
      LayerPlan& layer = plan.layers[static_cast<std::size_t>(site.layer)];
      SitePlan& planned = layer[site.kind];
      if (site.kind == SiteKind::attn_out) {
        planned.folded = planned.folded.then(over_kv_heads(head, config));
        planned.online = planned.online.then(across);
      } else if (site.kind == SiteKind::mlp_out) {
        planned.online = planned.online.then(hidden);
      } else if (smoothing_.alpha) {
        planned.online = planned.online.then(r1);
      } else {
        planned.folded.append(Scale<double>{fused_gain(session, site)});
      }
    }
    for (LayerPlan& layer : plan.layers) layer.query_key = head;
    return plan;
  }

 private:
  // Ĥ_{n_q} ⊗ I_e; a Haar matrix where no Hadamard matrix of that many heads exists (§1.14).
  static Transform<double> across_heads(const ModelConfig& config, const Stream& stream,
                                        Plan& plan) {
    Matrix<double> map;
    if (hadamard_exists(config.heads)) {
      map = Matrix<double>::Identity(config.heads, config.heads);
      hadamard_in_place<double>(map, config.heads, false);
    } else {
      Stream draws = stream.child("across_heads");
      map = haar_orthogonal(config.heads, draws);
      plan.note_fallback(fmt::format(
          "attn_out: no Hadamard matrix across {} heads, a random orthogonal matrix instead",
          config.heads));
    }
    Transform<double> across(config.query_width());
    across.append(Kronecker<double>{{map, {}}, {}, config.heads, config.head_width});
    return across;
  }

  // Scales and the folded head rotation commute with grouping only when the group shares them.
  SmoothingOptions smoothing_{.alpha = {}, .grouped = "shared"};
};

}  // namespace

std::unique_ptr<Method> make_quarot() { return std::make_unique<QuaRot>(); }

}  // namespace ruq
