// A Plan says which transform and which grid go where. Methods return plans; one executor applies
// them all. It is pure data: saved, compared, edited by an ablation, applied twice with one result.
//
// Where transforms act (T_site below acts on activation rows x, its dual on weight rows):
//   residual            basis of the residual stream: R1 of QuaRot; folded into every weight that
//                       reads or writes the stream. Needs norm gains of one, see SitePlan::folded.
//   sites[s].folded     absorbed by the producer of the tensor at s. At attn_in and mlp_in a Scale,
//                       absorbed by the norm's gain; at mlp_out a Scale, absorbed by up_proj's
//                       rows; at attn_out a head-local map of the value space [kv_heads·e],
//                       absorbed by v_proj's rows. "Fusing the norm" is the scale 1/γ.
//   sites[s].online     applied to activations at run time, after `folded` and `residual`.
//   query_key           applied to every head of q and, dually, of k after RoPE.
// The linears fed by s get the dual of folded·(residual at attn_in, mlp_in)·online.
//
// Beside transforms a plan holds what else was fitted or learned: clip factors of sites and of
// weight rows, levels of single sites, and a record of every optimization.
#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ruquant/quant/quantizer.hpp"
#include "ruquant/quant/rounding.hpp"
#include "ruquant/quant/site.hpp"
#include "ruquant/transform/transform.hpp"

namespace ruq {

/// Five widths, written "W4A4-Q4K4V4": weights, linear inputs, queries, keys, values.
struct BitWidths {
  Index weight = 16, activation = 16, queries = 16, keys = 16, values = 16;
  friend bool operator==(const BitWidths&, const BitWidths&) = default;
};
std::string to_string(const BitWidths& widths);
/// Error unless the text has the full form with widths of 2 to 8, or 16.
BitWidths bit_widths(const std::string& text);

/// The quantizers of all operands; a method copies them into its plan.
struct QuantSettings {
  QuantSpec weight, activation, queries, keys, values;
  /// Channels of one group of o_proj's input: the head width in SpinQuant's and InfoQuant's codes.
  /// 0: grouped as every linear input.
  Index attn_out_group_size = 0;
  std::string rounding = "rtn";  ///< name of the weight rounding
  RoundingOptions rounding_options;
  /// Levels of the linear sites: "midpoint" (the uniform grid), "centroid" (its bins with their
  /// calibrated means) or "lloyd_max" (calibrated thresholds and levels); code_levels.hpp.
  std::string activation_levels = "midpoint";

  BitWidths widths() const {
    return {weight.bits, activation.bits, queries.bits, keys.bits, values.bits};
  }
  void set_widths(const BitWidths& widths);
  bool rounds() const;                        ///< anything at all
  QuantSpec of(SiteKind kind) const;          ///< of what is quantized at a site
  QuantSettings single(SiteKind kind) const;  ///< with `activation` as at this linear site
};

class TensorWriter;
class TensorReader;

struct SitePlan {
  Transform<double> folded;
  Transform<double> online;
  std::optional<ClipPair> clips;  ///< learned factors instead of the clip ratio
  CodeLevels levels;              ///< empty: the uniform grid
};

struct LayerPlan {
  PerSite<SitePlan> sites;
  Transform<double> query_key;  ///< of width head_width, or a Hadamard step of an order dividing it
  PerLinear<std::optional<RowClips<double>>> weight_clips;  ///< [out] each, learned

  SitePlan& operator[](SiteKind kind) { return sites[kind]; }
  const SitePlan& operator[](SiteKind kind) const { return sites[kind]; }
};

/// What an optimization did: with which loss, from where to where.
struct LearningRecord {
  std::string where{};           ///< "model", "layers.3", "layers.3.attn_in"
  std::string optimizer{};       ///< such as "adamw"
  std::string objective{};       ///< such as "block output"
  std::vector<double> losses{};  ///< of each step or evaluation, on what that step saw
  double initial_loss = 0;       ///< at the start and at the result, on the same training tokens
  double final_loss = 0;
  /// On sequences that nothing was learned from, at start and result: the objective where a whole
  /// block or model is learned (error of its output, cross entropy), the quantized output error of
  /// the site where a rotation is learned site by site.
  std::optional<double> held_out_initial{}, held_out_final{};
  Index steps = 0;
  Index evaluations = 0;  ///< of the loss with its gradient
  Index tokens = 0;       ///< seen by all steps together, repetitions counted
  std::string termination{};
  std::map<std::string, double> details{};
  friend bool operator==(const LearningRecord&, const LearningRecord&) = default;
};

struct Plan {
  std::string method;
  QuantSettings quant;
  Transform<double> residual;
  std::vector<LayerPlan> layers;
  std::vector<std::string>
      fallbacks;  ///< what could not be done as the paper says, and what was done
  std::vector<LearningRecord> learning;

  /// An empty plan for a model of this many layers.
  static Plan identity(std::string method, Index layers, const QuantSettings& quant);
  void note_fallback(const std::string& text);  ///< kept once
};

/// Saves beside and renames; every bit comes back.
void save_plan(const Plan& plan, const std::filesystem::path& file);
/// Error naming file and place for another format or version, steps that are not whole
/// (Transform::append), row clips or levels whose lengths do not go together, negative counts, and
/// a number of layers that is not that of their groups. Whether a plan fits a model is seen where
/// it is applied.
Plan load_plan(const std::filesystem::path& file);
/// The same in a file that says other things too; the group "aside" is theirs.
void write_plan(const Plan& plan, TensorWriter& file);
Plan read_plan(const TensorReader& file);

/// A line a layer and site: which steps are folded and which run online.
std::string describe(const Plan& plan);

}  // namespace ruq
