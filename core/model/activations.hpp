// Activations of chosen sites in one HDF5 file, and calibration on such a file alone.
//
// Layout (format "ruquant-activations", version 1): root attributes format, format_version, stream
// (float_samples, or mean: the mean sequence through the float network), model (its name), and the
// shape of the model (layers, width, mlp_width, heads, kv_heads, head_width); a group a site,
// "layers.3.mlp_out":
//   calibration  float32 [tokens, channels]   what calibrates a transform
//   test         float32 [tokens, channels]   other tokens, what the transform is judged on
//   maxima       float64 [channels]           largest |activation| over the calibration windows
//   norm_gain    float32 [channels]           gain of the producing norm (attn_in, mlp_in)
//   weights/<linear>  float32 [out, channels] the linears that the site feeds
// The test rows are always those of the float stream.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "ruquant/model/calibration.hpp"
#include "ruquant/model/model.hpp"

namespace ruq {

struct SiteActivations {
  Site site;
  Matrix<float> calibration;
  Matrix<float> test;
  Vector<double> maxima;
  Vector<float> norm_gain;
  std::map<Linear, Matrix<float>> weights;
};

struct ActivationSet {
  std::string stream;
  std::string model;
  ModelConfig config;  ///< shapes only
  std::vector<SiteActivations> sites;
};

/// What to capture: rows of the calibration stream and of the test tokens, taken evenly spaced.
struct CaptureOptions {
  std::vector<Site> sites;
  CalibrationStream stream = CalibrationStream::float_samples;
  Index calibration_tokens = 512;
  Index test_tokens = 512;
};

/// Captures from a model. `test` is cut into windows of `window_tokens`; as many of them are run as
/// the test rows need. The prefix streams need a plan and are not captured here: Error.
ActivationSet capture_activations(const Model<float>& model, ModelSession<float>& session,
                                  std::span<const std::int32_t> test, Index window_tokens,
                                  const CaptureOptions& options, const std::string& model_name);

void save_activations(const ActivationSet& set, const std::filesystem::path& file);

/// Error naming file and place for a wrong format, shapes that no model has, datasets of other
/// shapes than theirs or without rows, and NaN or infinity.
ActivationSet load_activations(const std::filesystem::path& file);
/// Whether the file says that it is a dump.
bool is_activation_dump(const std::filesystem::path& file);

/// Calibration on a dump: methods see the dumped sites and nothing else. Whatever stream a method
/// asks for, it walks the one that the dump holds.
class DumpSession final : public CalibrationSession<float> {
 public:
  explicit DumpSession(const ActivationSet& set);

  const ModelConfig& config() const override { return set_.config; }
  std::vector<Site> sites() const override;
  const Matrix<float>& weight(Index layer, Linear linear) const override;
  const Vector<float>& norm_gain(Index layer, SiteKind kind) const override;
  const ChannelMaxima& channel_maxima() override { return maxima_; }

 private:
  void walk_sites(CalibrationStream stream, Plan& plan, const SiteVisitor<float>& visit,
                  const WalkOptions& options) override;
  const SiteActivations& find(const Site& site) const;
  const ActivationSet& set_;
  ChannelMaxima maxima_;
};

}  // namespace ruq
