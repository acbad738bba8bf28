// The objectives of site_rotation.hpp.
#include <algorithm>
#include <cmath>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/reflection.hpp"
#include "ruquant/learn/site_rotation.hpp"
#include "ruquant/learn/straight_through.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 32;         // rows of one parallel range
constexpr Index kEnergyRows = 4096;  // that give the energy of the output
constexpr double kLeastEnergy = 1e-300;

Index run_width(const SiteRows& site) {
  return site.x.cols() / static_cast<Index>(site.which.size());
}

Matrix<double> rotate(const Matrix<double>& x, const std::vector<Index>& which, const Maps& maps) {
  Matrix<double> y(x.rows(), x.cols());
  const Index d = x.cols() / static_cast<Index>(which.size());
  for (std::size_t b = 0; b < which.size(); ++b) {
    const Index begin = static_cast<Index>(b) * d;
    y.middleCols(begin, d) =
        product<double>(x.middleCols(begin, d), maps[static_cast<std::size_t>(which[b])]);
  }
  return y;
}

// Adds Xᵀ·dY, run by run, to the gradient of the maps.
void add_gradient(const Matrix<double>& x, const Matrix<double>& dy,
                  const std::vector<Index>& which, Maps& gradient) {
  const Index d = x.cols() / static_cast<Index>(which.size());
  for (std::size_t b = 0; b < which.size(); ++b) {
    const Index begin = static_cast<Index>(b) * d;
    gradient[static_cast<std::size_t>(which[b])].noalias() +=
        x.middleCols(begin, d).transpose() * dy.middleCols(begin, d);
  }
}

Maps zeros_like(const Maps& maps) {
  Maps zeros;
  for (const Matrix<double>& map : maps) {
    zeros.push_back(Matrix<double>::Zero(map.rows(), map.cols()));
  }
  return zeros;
}

// Mean of ‖x·Wᵀ‖² over rows, from evenly spaced ones.
double output_energy(const Matrix<double>& x, const Matrix<double>& weights) {
  const Index count = std::min(x.rows(), kEnergyRows);
  if (count == 0) fail("rotation: found no rows to learn from");
  std::vector<Index> rows;
  for (Index i = 0; i < count; ++i) rows.push_back(i * x.rows() / count);
  const double energy = product_transposed<double>(gathered(x, rows), weights).squaredNorm();
  return std::max(energy / static_cast<double>(count), kLeastEnergy);
}

void check_rounds(const QuantSettings& quant, const std::string& objective) {
  if (quant.activation.rounds() || quant.weight.rounds()) return;
  fail("{}: nothing is rounded at 16 bits, so nothing to learn", objective);
}

class Psot final : public RotationObjective {
 public:
  Psot(SiteRows site, std::vector<bool> outlier, const PsotOptions& options)
      : site_(std::move(site)), outlier_(std::move(outlier)), options_(options) {}

  std::string name() const override { return "psot"; }
  Index rows() const override { return site_.x.rows(); }

  double evaluate(const Maps& maps, std::span<const Index> rows, Maps* gradient) const override {
    Maps blocks;
    for (const Index map : site_.which) blocks.push_back(maps[static_cast<std::size_t>(map)]);
    std::vector<bool> outlier;
    if (!outlier_.empty()) {
      for (const Index row : rows) outlier.push_back(outlier_[static_cast<std::size_t>(row)]);
    }
    const PsotLoss loss = psot_loss(gathered(site_.x, rows), blocks, outlier, options_);
    const double per_row = 1 / std::sqrt(static_cast<double>(rows.size()));
    if (gradient != nullptr) {
      *gradient = zeros_like(maps);
      for (std::size_t b = 0; b < site_.which.size(); ++b) {
        (*gradient)[static_cast<std::size_t>(site_.which[b])] += per_row * loss.gradient[b];
      }
    }
    return per_row * loss.loss;
  }

 private:
  SiteRows site_;
  std::vector<bool> outlier_;
  PsotOptions options_;
};

class StraightThrough final : public RotationObjective {
 public:
  StraightThrough(SiteRows site, Matrix<double> weights, const QuantSettings& quant)
      : site_(std::move(site)),
        weights_(std::move(weights)),
        quant_(quant),
        energy_(output_energy(site_.x, weights_)) {}

  std::string name() const override { return "straight_through"; }
  Index rows() const override { return site_.x.rows(); }

  double evaluate(const Maps& maps, std::span<const Index> rows, Maps* gradient) const override {
    const Matrix<double> x = gathered(site_.x, rows);
    const Matrix<double> y = rotate(x, site_.which, maps);
    const Matrix<double> w = rotate(weights_, site_.which, maps);
    Matrix<double> rounded_y = y;
    Matrix<double> rounded_w = w;
    round_rows(rounded_y, quant_.activation);
    round_rows(rounded_w, quant_.weight);
    Matrix<double> error = product_transposed<double>(rounded_y, rounded_w);
    error -= product_transposed<double>(x, weights_);
    const double scale = 1 / (static_cast<double>(rows.size()) * energy_);
    const double loss = scale * error.squaredNorm();
    if (gradient == nullptr) return loss;
    error *= 2 * scale;
    Matrix<double> dy = product<double>(error, rounded_w);
    Matrix<double> dw = product<double>(Matrix<double>(error.transpose()), rounded_y);
    round_rows_backward(y, quant_.activation, dy);
    round_rows_backward(w, quant_.weight, dw);
    *gradient = zeros_like(maps);
    add_gradient(x, dy, site_.which, *gradient);
    add_gradient(weights_, dw, site_.which, *gradient);
    return loss;
  }

 private:
  SiteRows site_;
  Matrix<double> weights_;
  QuantSettings quant_;
  double energy_;
};

class SmoothRange final : public RotationObjective {
 public:
  SmoothRange(SiteRows site, Matrix<double> weights, const QuantSettings& quant, const Maps& start)
      : site_(std::move(site)), weights_(std::move(weights)) {
    const double energy = output_energy(site_.x, weights_);
    const auto factor = [&](const QuantSpec& spec, double other) {
      const double levels = static_cast<double>((Index{1} << spec.bits) - 1);
      return spec.rounds() ? other / (12 * levels * levels * energy) : 0;
    };
    row_factor_ = factor(quant.activation, weights_.squaredNorm());
    weight_factor_ =
        factor(quant.weight, site_.x.squaredNorm() / static_cast<double>(site_.x.rows()));
    row_sharpness_ = sharpness(rotate(site_.x, site_.which, start));
    weight_sharpness_ = sharpness(rotate(weights_, site_.which, start));
  }

  std::string name() const override { return "smooth_range"; }
  Index rows() const override { return site_.x.rows(); }

  double evaluate(const Maps& maps, std::span<const Index> rows, Maps* gradient) const override {
    if (gradient != nullptr) *gradient = zeros_like(maps);
    double loss = 0;
    const auto add = [&](const Matrix<double>& x, const Vector<double>& beta, double factor) {
      if (factor == 0) return;
      Matrix<double> y = rotate(x, site_.which, maps);
      loss += squared_ranges(y, beta, factor);
      if (gradient != nullptr) add_gradient(x, y, site_.which, *gradient);
    };
    Vector<double> beta(static_cast<Index>(rows.size()));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      beta(static_cast<Index>(i)) = row_sharpness_(rows[i]);
    }
    add(gathered(site_.x, rows), beta, row_factor_ / static_cast<double>(rows.size()));
    add(weights_, weight_sharpness_, weight_factor_);
    return loss;
  }

 private:
  static Vector<double> sharpness(const Matrix<double>& y) {
    Vector<double> beta(y.rows());
    for (Index r = 0; r < y.rows(); ++r) beta(r) = range_sharpness(y.row(r));
    return beta;
  }

  // factor·Σ r(y)²; y becomes its gradient.
  static double squared_ranges(Matrix<double>& y, const Vector<double>& beta, double factor) {
    Vector<double> squares(y.rows());
    parallel_rows(y.rows(), kGrain, [&](Index begin, Index end) {
      RowVector<double> slope;
      for (Index r = begin; r < end; ++r) {
        const double range = smooth_range(y.row(r), beta(r), &slope);
        squares(r) = range * range;
        y.row(r) = 2 * factor * range * slope;
      }
    });
    return factor * squares.sum();
  }

  SiteRows site_;
  Matrix<double> weights_;
  double row_factor_, weight_factor_;
  Vector<double> row_sharpness_, weight_sharpness_;
};

}  // namespace

std::unique_ptr<RotationObjective> psot_objective(SiteRows site, std::vector<bool> outlier,
                                                  const PsotOptions& options) {
  return std::make_unique<Psot>(std::move(site), std::move(outlier), options);
}

std::unique_ptr<RotationObjective> smooth_range_objective(SiteRows site, Matrix<double> weights,
                                                          const QuantSettings& quant,
                                                          const Maps& start) {
  check_rounds(quant, "smooth_range");
  return std::make_unique<SmoothRange>(std::move(site), std::move(weights), quant, start);
}

std::unique_ptr<RotationObjective> straight_through_objective(SiteRows site, Matrix<double> weights,
                                                              const QuantSettings& quant) {
  check_rounds(quant, "straight_through");
  return std::make_unique<StraightThrough>(std::move(site), std::move(weights), quant);
}

Matrix<double> rotated(const SiteRows& site, const Maps& maps) {
  RUQ_CHECK(!site.which.empty() && run_width(site) * std::ssize(site.which) == site.x.cols(),
            "{} runs of {} channels", site.which.size(), site.x.cols());
  return rotate(site.x, site.which, maps);
}

double quantized_output_error(const Matrix<double>& x, const Matrix<double>& weights,
                              const QuantSettings& quant) {
  const Matrix<double> exact = product_transposed<double>(x, weights);
  Matrix<double> rounded_x = x;
  Matrix<double> rounded_w = weights;
  round_rows(rounded_x, quant.activation);
  round_rows(rounded_w, quant.weight);
  return (product_transposed<double>(rounded_x, rounded_w) - exact).squaredNorm() /
         std::max(exact.squaredNorm(), kLeastEnergy);
}

}  // namespace ruq
