// One rotation a site and nothing else, for comparison: `hadamard`, a randomized Hadamard matrix
// over the whole width, and `householder` / `givens`, one block map of reflections or of plane
// rotations alone. Calibration, smoothing and the rotation of queries and keys are as in RUQuant.

#include "ruquant/base/error.hpp"
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"
#include "ruquant/method/ruquant.hpp"

namespace ruq {
namespace {

class FullHadamard final : public MethodBase<FullHadamard> {
 public:
  void bind(Fields& fields) override { ruq::bind(fields, smoothing_); }
  bool is_random() const override { return true; }
  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant,
               const Stream& stream) const {
    const ModelConfig& config = session.config();
    Plan plan = Plan::identity("hadamard", config.layers, quant);
    smooth(session, smoothing_, plan);
    rotate_queries_and_keys(config, config.head_width, plan);
    for (const Site& site : session.sites()) {
      Stream draws = stream.child(to_string(site));
      Transform<double>& online =
          plan.layers[static_cast<std::size_t>(site.layer)][site.kind].online;
      online = online.then(
          randomized_hadamard(config.site_width(site.kind), draws, to_string(site.kind), plan));
    }
    return plan;
  }

 private:
  SmoothingOptions smoothing_{.alpha = 0.6, .grouped = "online"};
};

class BlockMapOnly final : public MethodBase<BlockMapOnly> {
 public:
  explicit BlockMapOnly(std::string rotation) {
    options_.rotation = std::move(rotation);
    options_.givens = "mapped";
    options_.blocks.permutations = 0;
    options_.global_reflection = "none";
  }
  void bind(Fields& fields) override {
    ruq::bind(fields, options_.smoothing);
    fields.add("block_size", options_.block_size, {.min = 2}, "B: channels of one block");
    fields.add("ragged", options_.ragged, "allow a narrower last block");
    fields.add("steps", options_.steps, {.min = 0, .max = 4096}, "K: steps of a block map");
    if (options_.rotation == "givens") {
      fields.add("givens_per_step", options_.givens_per_step, {.min = 0, .max = 64},
                 "lambda: permutations with Givens rotations per step");
    }
  }
  bool is_random() const override { return true; }
  void check(const ModelConfig& config, const QuantSettings& quant) const override {
    MethodBase::check(config, quant);
    check_block_size(config, options_.block_size, options_.ragged);
  }
  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant,
               const Stream& stream) const {
    return ruquant_plan(options_.rotation, options_, session, quant, stream);
  }

 private:
  RuquantOptions options_;
};

}  // namespace

std::unique_ptr<Method> make_hadamard() { return std::make_unique<FullHadamard>(); }
std::unique_ptr<Method> make_householder() { return std::make_unique<BlockMapOnly>("householder"); }
std::unique_ptr<Method> make_givens() { return std::make_unique<BlockMapOnly>("givens"); }

}  // namespace ruq
