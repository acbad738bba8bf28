#include "ruquant/method/duquant.hpp"

#include "ruquant/method/entries.hpp"
#include "ruquant/method/ruquant.hpp"
#include "ruquant/transform/search_map.hpp"

namespace ruq {
namespace {

class DuQuant final : public MethodBase<DuQuant> {
 public:
  void bind(Fields& fields) override {
    fields.add_preset(
        "lwc", options_.lwc, {"false", "true"},
        "DuQuant+LWC: learn clip factors of weight rows in place of the clip ratio; "
        "sets smoothing to 0.5, or 0.6 without",
        [this](const std::string& lwc) { options_.smoothing.alpha = lwc == "true" ? 0.5 : 0.6; });
    ruq::bind(fields, options_.smoothing);
    fields.add("block_size", options_.block_size, {.min = 2}, "B: channels of one block");
    fields.add("ragged", options_.ragged, "allow a narrower last block");
    fields.add("search_steps", options_.search_steps, {.min = 0, .max = 4096},
               "N: steps of the search");
    fields.add_choice("index", options_.index, {"row", "channel"},
                      "which coordinate a step swaps to the front: the code's or the paper's");
    ruq::bind(fields, options_.blocks);
    fields.add_choice("calibration", options_.calibration, {"mean", "samples", "float"},
                      "mean sequence or samples through the quantized prefix, or float samples");
    ruq::bind(fields, options_.clipping);
  }
  bool is_random() const override { return true; }
  bool needs_model() const override { return options_.lwc == "true"; }
  int revision(const QuantSettings&) const override {
    return needs_model() ? held_out_revision(options_.clipping.schedule.preset) : 0;
  }

  void check(const ModelConfig& config, const QuantSettings& quant) const override {
    MethodBase::check(config, quant);
    check_block_size(config, options_.block_size, options_.ragged);
  }

  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant,
               const Stream& stream) const {
    Plan plan = Plan::identity("duquant", session.config().layers, quant);
    smooth(session, options_.smoothing, plan);
    rotate_queries_and_keys(session.config(), options_.block_size, plan);
    session.walk(
        calibration_stream(options_.calibration), plan,
        [&](const Site& site, const Matrix<S>& tensor, Plan& drawn) {
          Stream draws = stream.child(to_string(site));
          Transform<double>& online =
              drawn.layers[static_cast<std::size_t>(site.layer)][site.kind].online;
          Matrix<S> y = tensor;
          online.cast<S>().apply(y);
          online = online.then(duquant_site<S>(
              y, options_, [&](Index n) { return random_orthogonal_factor(n, draws); }, &draws));
        });
    if (options_.lwc == "true") learn_weight_clips(session, options_.clipping, plan);
    return plan;
  }

 private:
  DuquantOptions options_;
};

}  // namespace

template <class S>
Transform<double> duquant_site(Matrix<S>& tensor, const DuquantOptions& options,
                               const OrthogonalFactors& factors, Draws* draws) {
  const SearchMapOptions search{
      .steps = options.search_steps,
      .index = options.index == "row" ? SwapIndex::row : SwapIndex::channel};
  const MapBuilder<S> build = [&](Matrix<S>& samples) {
    const Index n = samples.cols() - 1;
    return build_search_map(samples, search, [&] { return factors(n); });
  };
  const BlockLayout layout = block_layout(tensor.cols(), options.block_size, options.ragged);
  return block_rotation(tensor, layout, options.blocks, build, draws);
}

std::unique_ptr<Method> make_duquant() { return std::make_unique<DuQuant>(); }

template Transform<double> duquant_site(Matrix<float>&, const DuquantOptions&,
                                        const OrthogonalFactors&, Draws*);
template Transform<double> duquant_site(Matrix<double>&, const DuquantOptions&,
                                        const OrthogonalFactors&, Draws*);

}  // namespace ruq
