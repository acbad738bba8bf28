// Fits what a method trains in one decoder block by AdamW on the block's output error
// (block_error.hpp). A step sees `batch` windows, in order, epoch after epoch, as the published
// recipes do. θ is a list of groups of numbers, each with a rate of its own; a chart says which
// block parameters they stand for and pulls the block's gradient back to them.
#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "ruquant/base/fields.hpp"
#include "ruquant/learn/block_error.hpp"
#include "ruquant/model/calibration.hpp"

namespace ruq {

/// Numbers that are trained together.
struct FitGroup {
  std::string name;
  Vector<double> value;
  double learning_rate = 0;
  double weight_decay = 0;
  double lowest = -std::numeric_limits<double>::infinity();  ///< what a step leaves below is raised
};

/// From numbers to what the block takes, and the chain rule back.
struct BlockChart {
  std::function<BlockParameters(const std::vector<FitGroup>&)> build;
  /// ∂L/∂value of every group from ∂L/∂ of the parameters that build() made of these groups.
  std::function<std::vector<Vector<double>>(const std::vector<FitGroup>&, const BlockGradients&)>
      pull_back;
};

struct BlockFitOptions {
  std::string objective = "block output";  ///< what the record calls it
  Index epochs = 1;                        ///< passes over the training windows
  Index batch = 1;                         ///< windows of a step; the last of an epoch may be fewer
  /// The block sees the float stream, or what the blocks quantized so far give it.
  bool float_stream = false;
  bool relative = false;  ///< the loss is divided by its own value, held constant
  /// Half a cosine from each group's rate to this one; none: constant rates.
  std::optional<double> final_rate = std::nullopt;
};

/// How much a method learns from; `preset` stands for the rest.
struct LearningSchedule {
  std::string preset = "short";  ///< short, paper
  LearningWindows windows{.train = 8, .held_out = 2, .tokens = 256};
  Index epochs = 4;
  Index batch = 1;
};

/// Lists the options `learning_windows`, `held_out_windows`, `learning_tokens` and
/// `learning_blocks`.
void bind(Fields& fields, LearningWindows& windows);
/// These and `schedule`, `epochs` and `learning_batch`, with what the two presets mean. `also` sets
/// what else a preset stands for, given whether it is the paper's.
void bind(Fields& fields, LearningSchedule& schedule, const LearningSchedule& brief,
          const LearningSchedule& paper, const std::function<void(bool)>& also = {});

/// Moves `groups` in place and leaves the last of them installed. The record has the losses (not
/// divided) of every step's windows before the step, L over all training windows before and after,
/// and the same of `held_out` where it has rows. Error if there is nothing to learn from.
template <class S>
LearningRecord fit_block(BlockGrad<S>& block, const BlockChart& chart, const BlockSamples<S>& train,
                         const BlockSamples<S>& held_out, const BlockFitOptions& options,
                         std::vector<FitGroup>& groups);

}  // namespace ruq
