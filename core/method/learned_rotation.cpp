// One learned rotation a site, for the comparison of objectives (core/learn/site_rotation.hpp): the
// same map for all blocks of the site, as in RUQuant, from a random Hadamard start by Cayley SGD on
// the float stream. SingleQuant (arXiv 2511.22316) holds that straight-through gradients of
// rotations are non-smooth and noisy; `objective` sets them beside smooth ones under the same
// learner, data, start and measure, and every site's LearningRecord tells how noisy they were.
//
// The learning rate is the turn of the first step in radian, so that it means the same to all
// objectives.
#include <algorithm>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/site_rotation.hpp"
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"
#include "ruquant/transform/hadamard.hpp"

namespace ruq {
namespace {

// The largest width in 2..limit that divides the site's, or else the whole of it.
Index dividing_block(Index width, Index limit) {
  for (Index block = std::min(limit, width); block >= 2; --block) {
    if (width % block == 0) return block;
  }
  return width;
}

class LearnedRotation final : public MethodBase<LearnedRotation> {
 public:
  void bind(Fields& fields) override {
    fields.add_preset("schedule", schedule_, {"short", "long"},
                      "30 steps of 128 tokens, or 300 of 512",
                      [this](const std::string& name) { apply_schedule(name); });
    ruq::bind(fields, smoothing_);
    ruq::bind(fields, queries_keys_);
    fields.add_choice("objective", objective_, {"psot", "smooth_range", "straight_through"},
                      "what the rotation minimises: InfoQuant's peak loss, a smooth model of the "
                      "rounding error, or the rounding error itself with straight-through slopes");
    fields.add("block_size", block_size_, {.min = 2},
               "B: channels of one block, or the largest divisor of the width below it");
    fields.add("steps", learning_.steps, {.min = 0, .max = 1000000}, "steps of each site");
    fields.add("batch_tokens", learning_.batch_rows, {.min = 1}, "tokens of one step");
    fields.add("learning_rate", learning_.rate_start, {.min = 0, .max = 1e6},
               "rms turn of the channels at the first step, in radian, falling linearly to a "
               "hundredth");
    fields.add("noise_batches", learning_.noise_batches, {.min = 0, .max = 4096},
               "batches that measure the noise of the gradient; 0: not measured");
  }
  bool is_random() const override { return true; }
  void check(const ModelConfig& config, const QuantSettings& quant) const override {
    MethodBase::check(config, quant);
    if (objective_ != "psot") check_rounds("method.objective", objective_, quant);
  }

  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant,
               const Stream& stream) const {
    Plan plan = Plan::identity("learned_rotation", session.config().layers, quant);
    smooth(session, smoothing_, plan);
    rotate_queries_and_keys(session.config(), queries_keys_, plan);
    session.walk(CalibrationStream::float_samples, plan,
                 [&](const Site& site, const Matrix<S>& tensor, Plan& drawn) {
                   Matrix<double> x = tensor.template cast<double>();
                   drawn.layers[static_cast<std::size_t>(site.layer)][site.kind].online.apply(x);
                   learn_site(site, x, stacked_weights(session, drawn, site),
                              session.window_tokens(), stream.child(to_string(site)), drawn);
                 },
                 {.held_out = held_out_sequence});
    return plan;
  }

 private:
  void apply_schedule(const std::string& name) {
    learning_.steps = name == "short" ? 30 : 300;
    learning_.batch_rows = name == "short" ? 128 : 512;
  }

  std::unique_ptr<RotationObjective> make_objective(const SiteRows& rows,
                                                    const Matrix<double>& weights,
                                                    const QuantSettings& quant,
                                                    const Maps& start) const {
    if (objective_ == "psot") return psot_objective(rows, {});
    if (objective_ == "smooth_range") return smooth_range_objective(rows, weights, quant, start);
    return straight_through_objective(rows, weights, quant);
  }

  Index block_of(const Site& site, Index width, Plan& plan) const {
    const Index block = dividing_block(width, block_size_);
    if (block != block_size_) {
      plan.note_fallback(fmt::format("{}: blocks of {} do not divide {} channels, {} instead",
                                     to_string(site.kind), block_size_, width, block));
    }
    return block;
  }

  // `x` and `weights` in the basis of what runs before the rotation.
  void learn_site(const Site& site, const Matrix<double>& x, const Matrix<double>& weights,
                  Index sequence, const Stream& stream, Plan& plan) const {
    const Index block = block_of(site, x.cols(), plan);
    const std::vector<Index> which(static_cast<std::size_t>(x.cols() / block), 0);
    Stream draws = stream.child("start");
    Maps maps = {randomized_hadamard(block, draws, to_string(site.kind), plan).to_matrix(block)};
    const Maps start = maps;
    const RowSplit split = split_rows(x.rows(), sequence);
    const QuantSettings quant = plan.quant.single(site.kind);
    const auto objective = make_objective({gathered(x, split.train), which}, weights, quant, start);
    RotationOptions options = learning_;
    options.rate_end = 0.01 * options.rate_start;
    options.rate_in_radian = true;
    LearningRecord record = learn_rotation(*objective, options, stream, maps);
    record.where = to_string(site);
    const SiteRows judged{gathered(x, split.held_out), which};
    const auto held_out =
        judged.x.rows() == 0 ? nullptr : make_objective(judged, weights, quant, start);
    judge_held_out(judged, weights, quant, held_out.get(), start, maps, record);
    plan.learning.push_back(std::move(record));
    plan.layers[static_cast<std::size_t>(site.layer)][site.kind].online.append(
        BlockDiagonal<double>{{{std::move(maps[0]), {}}}, which});
  }

  std::string schedule_ = "short";
  SmoothingOptions smoothing_;
  QueryKeyOptions queries_keys_{.rotation = "hadamard"};
  std::string objective_ = "psot";
  Index block_size_ = 64;
  RotationOptions learning_{.steps = 30, .batch_rows = 128, .rate_start = 0.05};
};

}  // namespace

std::unique_ptr<Method> make_learned_rotation() { return std::make_unique<LearnedRotation>(); }

}  // namespace ruq
