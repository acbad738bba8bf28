#include "ruquant/learn/site_rotation.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/learn/cayley.hpp"

namespace ruq {
namespace {

constexpr Index kJudgedRows = 4096;
constexpr double kProbeAngle = 0.001;                // rms turn of the probe step, radian
constexpr double kReorthogonalizeShare = 1.0 / 101;  // as in cayley.hpp
constexpr Index kHeldOutEvery = 5;
constexpr Index kRuns = 20;  // of rows, where there are too few sequences

// Rows in a new random order every epoch, cut into batches; what is left over at the end of an
// order is not used.
class Batches {
 public:
  Batches(Stream stream, Index rows, Index batch)
      : stream_(std::move(stream)), rows_(rows), batch_(std::min(rows, batch)) {}

  std::span<const Index> next() {
    if (order_.empty() || at_ + batch_ > rows_) {
      order_ = stream_.permutation(rows_);
      at_ = 0;
    }
    const auto rows =
        std::span(order_).subspan(static_cast<std::size_t>(at_), static_cast<std::size_t>(batch_));
    at_ += batch_;
    return rows;
  }
  Index batch() const { return batch_; }

 private:
  Stream stream_;
  Index rows_, batch_;
  std::vector<Index> order_;
  Index at_ = 0;
};

// The gradient as a turn Ω = ½(G·Qᵀ − Q·Gᵀ) of every map: moving to Q − t·Ω·Q changes the loss by
// −t·‖Ω‖² to first order.
Maps tangents(const Maps& gradient, const Maps& maps) {
  Maps turns;
  for (std::size_t m = 0; m < maps.size(); ++m) {
    const Matrix<double> moved = product_transposed<double>(gradient[m], maps[m]);
    turns.push_back(0.5 * (moved - moved.transpose()));
  }
  return turns;
}

double squared_norm(const Maps& maps) {
  double sum = 0;
  for (const Matrix<double>& map : maps) sum += map.squaredNorm();
  return sum;
}

// The t at which the turns t·Ω move channels by one radian, rms; 0 without turns.
double unit_turn(const Maps& turns) {
  Index channels = 0;
  for (const Matrix<double>& turn : turns) channels += turn.rows();
  const double length = squared_norm(turns);
  return length > 0 ? std::sqrt(static_cast<double>(channels) / length) : 0;
}

struct GradientMeasures {
  double noise = 0;
  double kept_promise = 0;
};

// The decrease of the mean loss over `rows` when all maps follow `turns`, over what they foretell.
double kept_promise(const RotationObjective& objective, const Maps& maps, const Maps& turns,
                    const std::vector<std::vector<Index>>& batches, double loss) {
  const double t = kProbeAngle * unit_turn(turns);
  if (t == 0) return 1;
  Maps ahead = maps;
  for (std::size_t m = 0; m < maps.size(); ++m) {
    ahead[m] -= t * product<double>(turns[m], maps[m]);
    orthonormalize_rows(ahead[m]);
  }
  double after = 0;
  for (const auto& rows : batches) after += objective.evaluate(ahead, rows, nullptr);
  return (loss - after / static_cast<double>(batches.size())) / (t * squared_norm(turns));
}

GradientMeasures measure_gradient(const RotationObjective& objective, const Maps& maps,
                                  Batches batches, Index count) {
  std::vector<Maps> samples;
  std::vector<std::vector<Index>> used;
  double loss = 0;
  for (Index k = 0; k < count; ++k) {
    const auto rows = batches.next();
    used.emplace_back(rows.begin(), rows.end());
    Maps gradient;
    loss += objective.evaluate(maps, rows, &gradient) / static_cast<double>(count);
    samples.push_back(tangents(gradient, maps));
  }
  Maps mean = samples[0];
  for (std::size_t m = 0; m < mean.size(); ++m) {
    for (std::size_t k = 1; k < samples.size(); ++k) mean[m] += samples[k][m];
    mean[m] /= static_cast<double>(count);
  }
  double trace = 0;
  for (const Maps& sample : samples) {
    for (std::size_t m = 0; m < mean.size(); ++m) trace += (sample[m] - mean[m]).squaredNorm();
  }
  trace /= static_cast<double>(std::max<Index>(count - 1, 1));
  return {trace / std::max(squared_norm(mean), 1e-300),
          kept_promise(objective, maps, mean, used, loss)};
}

double total_variation_over_drop(const std::vector<double>& losses) {
  double variation = 0;
  for (std::size_t i = 1; i < losses.size(); ++i) variation += std::abs(losses[i] - losses[i - 1]);
  const double drop = std::abs(losses.back() - losses.front());
  return variation / std::max(drop, 1e-12 * std::abs(losses.front()) + 1e-300);
}

std::vector<Index> spaced(Index rows, Index limit) {
  const Index count = std::min(rows, limit);
  std::vector<Index> all;
  for (Index i = 0; i < count; ++i) all.push_back(i * rows / count);
  return all;
}

// All steps; maps on different threads, each with its own optimizer.
void descend(const RotationObjective& objective, const RotationOptions& options, Batches batches,
             Stream draws, Maps& maps, LearningRecord& record) {
  std::vector<CayleySgd> optimizers(maps.size(), CayleySgd({.learning_rate = options.rate_start}));
  std::vector<Index> limited(maps.size(), 0);
  Maps gradient;
  double scale = 1;
  StepLog log(objective.name(), options.steps);
  for (Index step = 0; step < options.steps; ++step) {
    const double along =
        options.steps > 1 ? static_cast<double>(step) / static_cast<double>(options.steps - 1) : 0;
    const double rate = options.rate_start + along * (options.rate_end - options.rate_start);
    record.losses.push_back(objective.evaluate(maps, batches.next(), &gradient));
    if (options.rate_in_radian) {
      if (step == 0) scale = unit_turn(tangents(gradient, maps));
      for (Matrix<double>& g : gradient) g *= scale;
    }
    const Vector<double> chance = draws.uniform(std::ssize(maps));
    parallel_for(std::ssize(maps), [&](Index index) {
      const auto m = static_cast<std::size_t>(index);
      optimizers[m].set_learning_rate(rate);
      const bool renew = chance(index) < kReorthogonalizeShare;
      if (optimizers[m].step(maps[m], gradient[m], renew) == rate) ++limited[m];
    });
    log.after(step + 1);
  }
  Index sum = 0;
  for (const Index count : limited) sum += count;
  if (options.steps > 0) {
    record.details["rate_limited_steps"] =
        static_cast<double>(sum) / static_cast<double>(options.steps * std::ssize(maps));
  }
}

}  // namespace

LearningRecord learn_rotation(const RotationObjective& objective, const RotationOptions& options,
                              const Stream& stream, Maps& maps) {
  const Index rows = objective.rows();
  if (rows == 0) fail("rotation: found no rows to learn from");
  LearningRecord record;
  record.optimizer = "cayley sgd";
  record.objective = objective.name();
  record.termination = "all steps taken";
  const std::vector<Index> judged = spaced(rows, kJudgedRows);
  const auto batches = [&](const char* purpose) {
    return Batches(stream.child(purpose), rows, options.batch_rows);
  };
  const auto measure = [&](const std::string& when) {
    if (options.noise_batches == 0) return;
    const GradientMeasures seen =
        measure_gradient(objective, maps, batches("noise"), options.noise_batches);
    record.details["gradient_noise_" + when] = seen.noise;
    record.details["kept_promise_" + when] = seen.kept_promise;
    record.evaluations += options.noise_batches;
  };

  record.initial_loss = objective.evaluate(maps, judged, nullptr);
  measure("start");
  descend(objective, options, batches("rows"), stream.child("renewal"), maps, record);
  // Cayley steps leave the manifold a little.
  for (Matrix<double>& map : maps) orthonormalize_rows(map);
  measure("end");
  record.final_loss = objective.evaluate(maps, judged, nullptr);
  record.steps = options.steps;
  record.evaluations += options.steps;
  record.tokens = options.steps * batches("rows").batch();
  if (options.steps > 1) {
    record.details["loss_total_variation_over_drop"] = total_variation_over_drop(record.losses);
  }
  return record;
}

void judge_held_out(const SiteRows& held_out, const Matrix<double>& weights,
                    const QuantSettings& quant, const RotationObjective* objective,
                    const Maps& start, const Maps& learned, LearningRecord& record) {
  if (held_out.x.rows() == 0) return;
  const std::vector<Index> all = spaced(held_out.x.rows(), held_out.x.rows());
  const auto error = [&](const Maps& maps) {
    return quantized_output_error(rotated(held_out, maps), rotated({weights, held_out.which}, maps),
                                  quant);
  };
  record.held_out_initial = error(start);
  record.held_out_final = error(learned);
  if (objective == nullptr) return;
  record.details["held_out_loss_start"] = objective->evaluate(start, all, nullptr);
  record.details["held_out_loss_end"] = objective->evaluate(learned, all, nullptr);
}

bool held_out_sequence(Index sequence) { return sequence % kHeldOutEvery == kHeldOutEvery - 1; }

RowSplit split_rows(Index rows, Index sequence) {
  const bool whole = sequence > 0 && rows / sequence >= kHeldOutEvery;
  const Index run = whole ? sequence : std::max<Index>(rows / kRuns, 1);
  RowSplit split;
  for (Index row = 0; row < rows; ++row) {
    (held_out_sequence(row / run) ? split.held_out : split.train).push_back(row);
  }
  return split;
}

Matrix<double> gathered(const Matrix<double>& x, std::span<const Index> rows) {
  Matrix<double> some(static_cast<Index>(rows.size()), x.cols());
  for (std::size_t i = 0; i < rows.size(); ++i) some.row(static_cast<Index>(i)) = x.row(rows[i]);
  return some;
}

}  // namespace ruq
