// OmniQuant (arXiv 2308.13137; specification §2.5) in its simple form: SmoothQuant's scales, then
// learned weight clipping (LWC) and, with `let`, the scales themselves, block after block on the
// quantized stream (learn/weight_clipping.hpp). The learned shift of activations is out of scope,
// and so are the scales of queries and keys and of the values: those stay as smoothing made them.
#include "ruquant/learn/weight_clipping.hpp"
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"

namespace ruq {
namespace {

class OmniQuant final : public MethodBase<OmniQuant> {
 public:
  void bind(Fields& fields) override {
    ruq::bind(fields, smoothing_);
    ruq::bind(fields, query_key_);
    fields.add("lwc", clipping_.clips, "learn clip factors of weight rows");
    fields.add("let", clipping_.scales,
               "learn the scales folded at attn_in, mlp_in and mlp_out, from smoothing's");
    ruq::bind(fields, clipping_);
    fields.add("let_rate", clipping_.scale_rate, {.min = 0},
               "learning rate of the scales, which divide (paper 0.01, published code 0.005)");
  }
  bool is_random() const override { return false; }
  bool needs_model() const override { return clipping_.learns(); }
  int revision(const QuantSettings&) const override {
    return held_out_revision(clipping_.schedule.preset);
  }

  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant, const Stream&) const {
    Plan plan = Plan::identity("omniquant", session.config().layers, quant);
    smooth(session, smoothing_, plan);
    rotate_queries_and_keys(session.config(), query_key_, plan);
    learn_weight_clips(session, clipping_, plan);
    return plan;
  }

 private:
  SmoothingOptions smoothing_{.alpha = 0.5, .grouped = "online"};
  QueryKeyOptions query_key_;
  WeightClippingOptions clipping_{.scales = true};
};

}  // namespace

std::unique_ptr<Method> make_omniquant() { return std::make_unique<OmniQuant>(); }

}  // namespace ruq
