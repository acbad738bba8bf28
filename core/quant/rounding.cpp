#include "ruquant/quant/rounding.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/quant/clamp_rows.hpp"
#include "ruquant/quant/hessian.hpp"
#include "ruquant/quant/row_levels.hpp"

namespace ruq {
namespace {

constexpr double kFloatBits = 16;
constexpr double kPositionBits = 32;

double binary_entropy(double share) {
  if (share <= 0 || share >= 1) return 0;
  return -share * std::log2(share) - (1 - share) * std::log2(1 - share);
}

template <class S>
double total_loss(const GptqResult<S>& sweep) {
  return sweep.losses.template cast<double>().sum();
}

template <class S>
RoundedWeight<S> round_to_nearest(const RoundingInputs<S>& in) {
  RoundedWeight<S> rounded{in.weight, uniform_bits(in.spec, in.weight.cols()), {}};
  round_to_grid(rounded.weight, fit_grid(in.weight, in.spec, in.clips));
  return rounded;
}

// The bins of round to nearest, each with the mean of the values in it.
template <class S>
RoundedWeight<S> round_to_centroids(const RoundingInputs<S>& in) {
  const Index cols = in.weight.cols();
  return {bin_centroids(in.weight, fit_grid(in.weight, in.spec, in.clips)),
          stored_bits(in.spec, cols, Index{1} << in.spec.bits),
          {}};
}

template <class S>
RoundedWeight<S> round_by_gptq(const RoundingInputs<S>& in) {
  GptqResult<S> sweep =
      gptq<S>(in.weight, in.spec, *in.hessian, in.options.gptq, nullptr, nullptr, in.clips);
  const double loss = total_loss(sweep);
  return {std::move(sweep.weight), uniform_bits(in.spec, in.weight.cols()), {{"loss", loss}}};
}

template <class S>
RoundedWeight<S> round_by_septq(const RoundingInputs<S>& in) {
  SeptqResult<S> result =
      septq(in.weight, in.spec, *in.hessian, in.options.gptq, in.options.septq, in.clips);
  const double share = static_cast<double>(result.kept) / static_cast<double>(in.weight.size());
  StoredBits bits = uniform_bits(in.spec, in.weight.cols());
  bits.kept = share * kFloatBits;
  bits.positions = share * kPositionBits;
  return {std::move(result.sweep.weight),
          bits,
          {{"loss", total_loss(result.sweep)},
           {"kept_share", share},
           {"mask_entropy_bits", binary_entropy(share)}}};
}

template <class S>
RoundedWeight<S> round_by_binary_coding(const RoundingInputs<S>& in) {
  const BinaryCode<S> code = binary_coding(in.weight, in.spec, in.options.bcq);
  const Index parameters = in.spec.bits + (in.options.bcq.fit_shift ? 1 : 0);
  return {code.decode(in.weight.cols()), stored_bits(in.spec, in.weight.cols(), parameters), {}};
}

template <class S>
RoundedWeight<S> round_by_lloyd_max(const RoundingInputs<S>& in) {
  return {round_to_best_levels(in.weight, in.spec),
          stored_bits(in.spec, in.weight.cols(), Index{1} << in.spec.bits),
          {}};
}

template <class S>
RoundedWeight<S> round_by_unified_start(const RoundingInputs<S>& in) {
  const auto parameters = unified_start(in.weight, in.spec, in.options.uniquanf, in.clips);
  Codes codes;
  map_codes(in.weight, parameters, in.options.uniquanf, 0, codes);
  return {to_binary_code(parameters, codes).decode(in.weight.cols()),
          stored_bits(in.spec, in.weight.cols(), in.spec.bits + 1),
          {}};
}

template <class S>
struct Entry {
  const char* name;
  RoundingNeeds needs;
  RoundedWeight<S> (*round)(const RoundingInputs<S>&);
  int result_version = 1;
};

template <class S>
constexpr std::array kRoundings = {
    Entry<S>{"rtn", RoundingNeeds::weight, round_to_nearest<S>},
    Entry<S>{"centroid", RoundingNeeds::weight, round_to_centroids<S>},
    Entry<S>{"lloyd_max", RoundingNeeds::weight, round_by_lloyd_max<S>},
    Entry<S>{"gptq", RoundingNeeds::hessian, round_by_gptq<S>},
    Entry<S>{"septq", RoundingNeeds::hessian, round_by_septq<S>},
    Entry<S>{"bcq", RoundingNeeds::weight, round_by_binary_coding<S>},
    Entry<S>{"uniquanf_init", RoundingNeeds::weight, round_by_unified_start<S>},
    Entry<S>{"uniquanf", RoundingNeeds::block, nullptr, 3},
    Entry<S>{"flexround", RoundingNeeds::block, nullptr, 3},
};

template <class S>
const Entry<S>& entry(const std::string& name) {
  const auto& entries = kRoundings<S>;
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const auto& known) { return known.name == name; });
  if (found == entries.end()) {
    fail("unknown weight rounding '{}'{}", name, suggestion(name, rounding_names()));
  }
  return *found;
}

}  // namespace

StoredBits stored_bits(const QuantSpec& spec, Index cols, Index parameters) {
  const double width = static_cast<double>(group_width(spec, cols));
  return {.codes = static_cast<double>(spec.bits),
          .grid = kFloatBits * static_cast<double>(parameters) / width};
}

StoredBits uniform_bits(const QuantSpec& spec, Index cols) {
  return stored_bits(spec, cols, spec.symmetric ? 1 : 2);
}

void bind(Fields& fields, RoundingOptions& options, const std::string& prefix) {
  fields.add_choice(prefix + "hessian_inputs", options.hessian_inputs, {"float", "quantized"},
                    "Hessians of the inputs before or after they are rounded");
  // Qualified: a std::string among the arguments would make std::bind the better match.
  ruq::bind(fields, options.gptq, prefix + "gptq.");
  ruq::bind(fields, options.septq, prefix + "septq.");
  ruq::bind(fields, options.bcq, prefix + "bcq.");
  ruq::bind(fields, options.uniquanf, prefix + "uniquanf.");
  BlockLearningOptions& learning = options.learning;
  fields.add(prefix + "learning.epochs", learning.epochs, {.min = 0, .max = 10000},
             "uniquanf, flexround: passes over the calibration windows");
  fields.add(prefix + "learning.learning_rate", learning.learning_rate, {.min = 0, .max = 1},
             "uniquanf, flexround: rate of the transform's parameters");
  fields.add(prefix + "learning.level_learning_rate", learning.level_learning_rate,
             {.min = 0, .max = 1}, "uniquanf: rate of the levels");
  fields.add(prefix + "learning.mixing", learning.mixing, {.min = 0, .max = 1},
             "share of a block's input taken from the float stream");
  fields.add(prefix + "learning.blocks", learning.blocks, {.min = 0},
             "uniquanf, flexround: blocks that are learned, from the first on, to try a long "
             "schedule; 0: all");
  fields.add(prefix + "learning.held_out", learning.held_out, {.min = 0, .max = 4096},
             "calibration windows that judge and do not teach");
}

std::vector<std::string> rounding_names() {
  std::vector<std::string> names;
  for (const auto& known : kRoundings<float>) names.emplace_back(known.name);
  return names;
}

RoundingNeeds rounding_needs(const std::string& name) { return entry<float>(name).needs; }
int rounding_version(const std::string& name) { return entry<float>(name).result_version; }

template <class S>
RoundedWeight<S> round_weight(const std::string& name, const RoundingInputs<S>& inputs) {
  const Entry<S>& rounding = entry<S>(name);
  if (!inputs.spec.rounds()) {
    return {inputs.weight, {.codes = static_cast<double>(inputs.spec.bits)}, {}};
  }
  if (rounding.needs == RoundingNeeds::block) {
    fail("weight rounding '{}' learns from samples of a whole block, and none were given", name);
  }
  if (rounding.needs == RoundingNeeds::hessian && inputs.hessian == nullptr) {
    fail("weight rounding '{}' needs the Hessian of the layer's inputs, and none was given", name);
  }
  if (inputs.clips == nullptr || !clamps_rows(inputs.spec)) return rounding.round(inputs);
  Matrix<S> clamped = inputs.weight;
  const RowClips<S> ones = grid_clips(clamped, *inputs.clips, inputs.spec);
  return rounding.round({clamped, inputs.spec, inputs.hessian, inputs.options, &ones});
}

template <class S>
Matrix<S> round_weight(const std::string& name, const Matrix<S>& weight, const QuantSpec& spec) {
  const RoundingOptions options;
  return round_weight<S>(name, {weight, spec, nullptr, options, nullptr}).weight;
}

#define RUQ_INSTANTIATE(S)                                                              \
  template RoundedWeight<S> round_weight(const std::string&, const RoundingInputs<S>&); \
  template Matrix<S> round_weight(const std::string&, const Matrix<S>&, const QuantSpec&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
