// The tensor of one site on the float stream, and what a method planned for it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "support/laws.hpp"

namespace ruq::test {

struct WalkedSite {
  Matrix<double> tensor;  ///< before any transform, all calibration tokens of layer 0, attn_in
  Transform<double> online;
};

/// Draws up a plan on float samples without smoothing, so that the method sees the tensor itself.
inline WalkedSite walk_one_site(const std::string& method, const std::string& shape,
                                std::vector<std::pair<std::string, std::string>> settings = {}) {
  settings.insert(settings.begin(), {{"smoothing", "none"}, {"calibration", "float"}});
  TinyBench<double> bench(tiny_config(shape));
  const auto small = small_method(method, settings);
  WalkedSite walked;
  walked.online = bench.plan(*small, quant_settings()).layers[0][SiteKind::attn_in].online;
  Plan nothing = Plan::identity("none", bench.model.config.layers, QuantSettings{});
  bench.session.walk(CalibrationStream::float_samples, nothing,
                     [&](const Site& site, const Matrix<double>& tensor, Plan&) {
                       if (site == Site{0, SiteKind::attn_in}) walked.tensor = tensor;
                     });
  return walked;
}

/// The tensor after the first `steps` steps of its transform.
inline Matrix<double> after_steps(const WalkedSite& walked, std::size_t steps) {
  Transform<double> part(walked.online.width());
  for (std::size_t i = 0; i < steps; ++i) part.append(walked.online.steps().at(i));
  Matrix<double> moved = walked.tensor;
  part.apply(moved);
  return moved;
}

/// Cut into rows of one block each.
inline Matrix<double> in_blocks(const Matrix<double>& tensor, Index width) {
  return tensor.reshaped<Eigen::RowMajor>(tensor.size() / width, width);
}

/// The row with the largest |entry|.
inline Index extreme_row(const Matrix<double>& x) {
  Index row = 0;
  x.cwiseAbs().rowwise().maxCoeff().maxCoeff(&row);
  return row;
}

}  // namespace ruq::test
