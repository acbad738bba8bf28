// RUQuant (arXiv 2604.04013): block maps towards uniformly sampled targets, zigzag, and a global
// reflection, at every linear site (specification §1).
#pragma once

#include <string>
#include <vector>

#include "ruquant/learn/fine_tune.hpp"
#include "ruquant/method/block_rotation.hpp"
#include "ruquant/method/common.hpp"
#include "ruquant/transform/block_map.hpp"

namespace ruq {

/// The switches of §1.11; presets of §1.12. `official` is the published code, `paper` the smallest
/// change that makes it do what the abstract says (givens = mapped, omega_floor = 0).
struct RuquantOptions {
  std::string preset = "official";
  SmoothingOptions smoothing{.alpha = 0.6, .grouped = "online"};
  Index block_size = 128;              ///< B
  bool ragged = true;                  ///< allow a narrower last block
  std::string rotation = "composite";  ///< composite, householder, givens, hadamard
  Index steps = 16;                    ///< K
  Index givens_per_step = 3;           ///< λ
  std::string givens = "code";         ///< Q1: code, mapped
  std::string target = "u01";          ///< Q2: a name of block_map.hpp
  std::string pick = "maxabs";         ///< Q3: the sample that is mapped
  BlockRotationOptions blocks;         ///< T, zigzag, Q4
  /// Q6: none; init: towards a drawn target; optimized: by the smooth objective of §1.14, site by
  /// site; finetuned: the four of a block by the straight-through error of its output, §1.10.
  std::string global_reflection = "init";
  std::string calibration = "mean";  ///< Q7: mean, samples, float
  double omega_floor = 0.01;         ///< Q10: while AdamW tunes
  Index reflection_iterations = 30;
  Index reflection_tokens = 256;
  std::string schedule =
      "short";  ///< of "finetuned": short, paper (20 epochs of 128 x 2048 tokens)
  FineTuneOptions finetune{.epochs = 3};
  LearningWindows finetune_windows;
};

/// The rotation of one site, and how its block maps came about.
template <class S>
struct SiteRotation {
  Transform<double> transform;  ///< block maps and permutations
  Vector<double> direction;     ///< ω of the global reflection; empty without one
  BlockMapTrace trace;          ///< of all maps, in order
};

/// Stage 1 on one tensor, which becomes tensor·transform (without the reflection). Draw order per
/// tensor: map 1, ..., map T+1, then u(d).
template <class S>
SiteRotation<S> ruquant_site(Matrix<S>& tensor, const RuquantOptions& options, Draws& draws);

/// ω of the sites that have been visited, not normalised: AdamW's steps depend on its length.
using SiteDirections = std::vector<Directions>;

/// Where the visitor of a walk finds the draws of a site.
using SiteDraws = std::function<Draws&(const Site&)>;

/// The visitor that builds one site after another during a walk and sets its `online` transform.
/// `directions`, one entry a layer, keeps the drawn ω if given.
template <class S>
SiteVisitor<S> ruquant_visitor(const RuquantOptions& options, CalibrationSession<S>& session,
                               SiteDraws draws, SiteDirections* directions = nullptr);

/// The whole plan: smoothing, queries and keys, then the walk. `name` labels it.
template <class S>
Plan ruquant_plan(const std::string& name, const RuquantOptions& options,
                  CalibrationSession<S>& session, const QuantSettings& quant, const Stream& stream);

class Ruquant final : public MethodBase<Ruquant> {
 public:
  void bind(Fields& fields) override;
  void check(const ModelConfig& config, const QuantSettings& quant) const override;
  bool is_random() const override { return true; }
  int revision(const QuantSettings&) const override {
    if (needs_model()) return held_out_revision(options_.schedule);
    return options_.global_reflection == "optimized" ? 2 : 0;
  }
  bool needs_model() const override { return options_.global_reflection == "finetuned"; }
  bool cuts_windows() const override {
    return needs_model() || options_.global_reflection == "optimized";
  }
  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant,
               const Stream& stream) const;

 private:
  void apply_preset(const std::string& name);
  void apply_schedule(const std::string& name);
  RuquantOptions options_;
};

CalibrationStream calibration_stream(const std::string& name);

}  // namespace ruq
