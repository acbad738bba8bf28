#include "ruquant/eval/distortion.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/model/fuse.hpp"
#include "ruquant/quant/rounding.hpp"
#include "ruquant/quant/row_levels.hpp"

namespace ruq {
namespace {

constexpr Index kPositions = 16;  // in which the inside of a bin is cut

double decibels(double error, double signal) { return 10 * std::log10(error / signal); }

// Mean of `measure(row)` over the rows that are not all zero.
template <class Measure>
double mean_over_rows(const Matrix<double>& x, const Measure& measure) {
  double sum = 0;
  Index counted = 0;
  for (Index r = 0; r < x.rows(); ++r) {
    if ((x.row(r).array() == 0).all()) continue;
    sum += measure(x.row(r));
    ++counted;
  }
  return counted > 0 ? sum / static_cast<double>(counted) : 0;
}

}  // namespace

double uniformity_distance(const Matrix<double>& x) {
  return mean_over_rows(x, [](const auto& row) {
    std::vector<double> sorted(row.begin(), row.end());
    std::sort(sorted.begin(), sorted.end());
    const double low = sorted.front();
    const double range = sorted.back() - low;
    if (range == 0) return 1.0;
    const auto n = static_cast<double>(sorted.size());
    double distance = 0;
    for (std::size_t i = 0; i < sorted.size(); ++i) {
      const double expected = (sorted[i] - low) / range;
      distance = std::max({distance, std::abs(expected - static_cast<double>(i) / n),
                           std::abs(expected - static_cast<double>(i + 1) / n)});
    }
    return distance;
  });
}

double mean_kurtosis(const Matrix<double>& x) {
  return mean_over_rows(x, [](const auto& row) {
    const double second = row.array().square().mean();
    return row.array().square().square().mean() / (second * second);
  });
}

double mean_range_over_rms(const Matrix<double>& x) {
  return mean_over_rows(x, [](const auto& row) {
    return (row.maxCoeff() - row.minCoeff()) / std::sqrt(row.array().square().mean());
  });
}

double centroid_shift(const Matrix<double>& x, const QuantSpec& spec) {
  const Grid<double> grid = fit_grid(x, spec);
  const Codes codes = encode(x, grid);
  const Matrix<double> midpoints = decode(codes, grid);
  const Index width = group_width(spec, x.cols());
  double sum = 0;
  std::unordered_map<std::int32_t, std::pair<double, double>> bins;  // code → (Σ offset, count)
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); c += width) {
      bins.clear();
      for (Index j = c; j < c + width; ++j) {
        auto& [offset, count] = bins[codes(r, j)];
        offset += (x(r, j) - midpoints(r, j)) / grid.scale(r, c / width);
        count += 1;
      }
      // Summed in code order, so that the result does not depend on the hash table.
      std::vector<std::pair<std::int32_t, double>> shifts;
      for (const auto& [code, bin] : bins) {
        shifts.emplace_back(code, bin.first * bin.first / bin.second);
      }
      std::sort(shifts.begin(), shifts.end());
      for (const auto& [code, squared] : shifts) sum += squared;
    }
  }
  return std::sqrt(sum / static_cast<double>(x.size()));
}

BinProfile bin_profile(const Matrix<double>& x, const QuantSpec& spec) {
  const Grid<double> grid = fit_grid(x, spec);
  const Codes codes = encode(x, grid);
  const Index width = group_width(spec, x.cols());
  const Index levels = grid.code_max - grid.code_min + 1;
  BinProfile bins{Vector<double>::LinSpaced(levels, static_cast<double>(grid.code_min),
                                            static_cast<double>(grid.code_max)),
                  Vector<double>::Zero(levels), Vector<double>::Zero(levels),
                  Vector<double>::Zero(kPositions)};
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) {
      const Index bin = codes(r, c) - grid.code_min;
      const double position =
          x(r, c) / grid.scale(r, c / width) + grid.zero(r, c / width) - codes(r, c);
      bins.share(bin) += 1;
      bins.shift(bin) += position;
      if (bin == 0 || bin == levels - 1) continue;
      const auto place = static_cast<Index>((position + 0.5) * kPositions);
      bins.within(std::clamp<Index>(place, 0, kPositions - 1)) += 1;
    }
  }
  bins.shift.array() /= bins.share.array().max(1);
  bins.share /= static_cast<double>(x.size());
  if (bins.within.sum() > 0) bins.within /= bins.within.mean();
  return bins;
}

double lloyd_max_error_db(const Matrix<float>& x, Index bits) {
  const Matrix<double> wide = x.cast<double>();
  const Matrix<double> rounded = round_to_best_levels(wide, {.bits = bits});
  return decibels((rounded - wide).squaredNorm(), wide.squaredNorm());
}

std::map<std::string, double> site_distortion(const Plan& plan, const ModelConfig& config,
                                              const Site& site, const Matrix<float>& activations,
                                              const std::map<Linear, Matrix<float>>& weights) {
  const Transform<double> transform = site_transform(plan, config, site);
  const QuantSpec spec = plan.quant.of(site.kind);
  const Matrix<double> original = activations.cast<double>();
  Matrix<double> x = original;
  transform.apply(x);
  Matrix<double> rounded = x;
  const LayerPlan& here = plan.layers.at(static_cast<std::size_t>(site.layer));
  fake_quantize(rounded, spec, here[site.kind].clips, here[site.kind].levels);

  // Roundings that need data of the whole network are judged by what they start from.
  const bool alone = rounding_needs(plan.quant.rounding) == RoundingNeeds::weight;
  const std::string rounding = alone ? plan.quant.rounding : "rtn";
  double output_error = 0, output_power = 0, weight_error = 0, weight_power = 0;
  for (const auto& [linear, stored] : weights) {
    const Matrix<double> weight = stored.cast<double>();
    Matrix<double> turned = weight;
    transform.apply_dual(turned);
    const auto& clips = here.weight_clips[linear];
    const Matrix<double> kept =
        round_weight<double>(rounding, {turned, plan.quant.weight, nullptr,
                                        plan.quant.rounding_options, clips ? &*clips : nullptr})
            .weight;
    const Matrix<double> expected = product_transposed<double>(original, weight);
    output_error += (product_transposed<double>(rounded, kept) - expected).squaredNorm();
    output_power += expected.squaredNorm();
    weight_error += (kept - turned).squaredNorm();
    weight_power += turned.squaredNorm();
  }

  std::map<std::string, double> measures = {{"range_over_rms", mean_range_over_rms(x)},
                                            {"kurtosis", mean_kurtosis(x)},
                                            {"uniformity_ks", uniformity_distance(x)}};
  const auto add_error = [&](const char* name, double error, double power) {
    if (error > 0 && power > 0) measures[name] = decibels(error, power);
  };
  if (spec.rounds()) {
    add_error("activation_error_db", (rounded - x).squaredNorm(), x.squaredNorm());
    const auto error = measures.find("activation_error_db");
    if (error != measures.end()) {
      measures["uniform_gap_db"] =
          error->second + 20 * std::log10(2.0) * static_cast<double>(spec.bits);
    }
    measures["centroid_shift"] = centroid_shift(x, spec);
  }
  if (plan.quant.weight.rounds()) add_error("weight_error_db", weight_error, weight_power);
  if (spec.rounds() || plan.quant.weight.rounds()) {
    add_error("output_error_db", output_error, output_power);
  }
  return measures;
}

}  // namespace ruq
