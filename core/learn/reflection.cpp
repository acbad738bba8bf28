#include "ruquant/learn/reflection.hpp"

#include <cmath>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/learn/lbfgs.hpp"
#include "ruquant/learn/sphere.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 32;       // rows of one parallel range; partial sums follow its order
constexpr double kSharpness = 20;  // β·range of every row at the start

double levels_minus_one(Index bits) { return static_cast<double>((Index{1} << bits) - 1); }

class Cost final : public ceres::FirstOrderFunction {
 public:
  Cost(const SmoothRangeObjective& objective, Index dimension, Index& evaluations)
      : objective_(objective), dimension_(dimension), evaluations_(evaluations) {}

  bool Evaluate(const double* parameters, double* cost, double* gradient) const override {
    ++evaluations_;
    const Vector<double> v = Eigen::Map<const Vector<double>>(parameters, dimension_);
    Vector<double> slope;
    *cost = objective_.evaluate(v, gradient == nullptr ? nullptr : &slope);
    if (gradient != nullptr) Eigen::Map<Vector<double>>(gradient, dimension_) = slope;
    return std::isfinite(*cost);
  }
  int NumParameters() const override { return static_cast<int>(dimension_); }

 private:
  const SmoothRangeObjective& objective_;
  Index dimension_;
  Index& evaluations_;
};

}  // namespace

double smooth_range(const RowVector<double>& z, double beta, RowVector<double>* slope) {
  const double top = z.maxCoeff();
  const double bottom = z.minCoeff();
  const RowVector<double> up = (beta * (z.array() - top)).exp();
  const RowVector<double> down = (beta * (bottom - z.array())).exp();
  const double up_sum = up.sum();
  const double down_sum = down.sum();
  if (slope != nullptr) *slope = up / up_sum - down / down_sum;
  return top - bottom + (std::log(up_sum) + std::log(down_sum)) / beta;
}

double range_sharpness(const RowVector<double>& z) {
  const double range = z.maxCoeff() - z.minCoeff();
  return range > 0 ? kSharpness / range : kSharpness;
}

SmoothRangeObjective::Term SmoothRangeObjective::term(const Matrix<double>& rows, double weight,
                                                      const Vector<double>& start) {
  Term result{&rows, weight, Vector<double>(rows.rows())};
  for (Index r = 0; r < rows.rows(); ++r) {
    const RowVector<double> z =
        rows.row(r) - 2 * rows.row(r).dot(start.transpose()) * start.transpose();
    result.sharpness(r) = range_sharpness(z);
  }
  return result;
}

SmoothRangeObjective::SmoothRangeObjective(const Matrix<double>& y, const Matrix<double>& w,
                                           const Vector<double>& start,
                                           const ReflectionOptions& options) {
  if (y.rows() == 0) fail("reflection: found no activations, expected at least one token");
  RUQ_CHECK(y.cols() == start.size() && w.cols() == start.size(), "{} and {} channels, v of {}",
            y.cols(), w.cols(), start.size());
  const double tokens = static_cast<double>(y.rows());
  if (options.activation_bits < 16) {
    const double q = levels_minus_one(options.activation_bits);
    terms_.push_back(term(y, w.squaredNorm() / (12 * tokens * q * q), start));
  }
  if (options.weight_bits < 16) {
    const double q = levels_minus_one(options.weight_bits);
    terms_.push_back(term(w, y.squaredNorm() / (12 * tokens * q * q), start));
  }
  if (terms_.empty()) fail("reflection: nothing is rounded at 16 bits, so nothing to optimize");
}

// z = y − 2(y·v)v, hence dJ/dv = −2·Σ [ (g·v)·y + (y·v)·g ] with g = dJ/dz of each row.
double SmoothRangeObjective::evaluate(const Vector<double>& v, Vector<double>* gradient) const {
  struct Partial {
    double cost = 0;
    RowVector<double> gradient;
  };
  double cost = 0;
  RowVector<double> total = RowVector<double>::Zero(v.size());
  const RowVector<double> direction = v.transpose();
  for (const Term& term : terms_) {
    const Index ranges = (term.rows->rows() + kGrain - 1) / kGrain;
    std::vector<Partial> partials(static_cast<std::size_t>(ranges));
    parallel_for(ranges, [&](Index range) {
      Partial& mine = partials[static_cast<std::size_t>(range)];
      mine.gradient = RowVector<double>::Zero(v.size());
      RowVector<double> slope;
      const Index end = std::min(term.rows->rows(), (range + 1) * kGrain);
      for (Index r = range * kGrain; r < end; ++r) {
        const RowVector<double> y = term.rows->row(r);
        const double along = y.dot(direction);
        const double width = smooth_range(y - 2 * along * direction, term.sharpness(r),
                                          gradient == nullptr ? nullptr : &slope);
        mine.cost += width * width;
        if (gradient == nullptr) continue;
        slope *= 2 * width;
        mine.gradient -= 2 * (slope.dot(direction) * y + along * slope);
      }
    });
    for (const Partial& partial : partials) {
      cost += term.weight * partial.cost;
      total += term.weight * partial.gradient;
    }
  }
  if (gradient != nullptr) *gradient = total.transpose();
  return cost;
}

ReflectionFit optimize_reflection(const Matrix<double>& y, const Matrix<double>& w,
                                  const Vector<double>& start, const ReflectionOptions& options) {
  const SmoothRangeObjective objective(y, w, start, options);
  ReflectionFit fit{start, {}};
  // The problem owns cost and manifold.
  const ceres::GradientProblem problem(new Cost(objective, start.size(), fit.report.evaluations),
                                       new SphereManifold(static_cast<int>(start.size())));
  Vector<double> v = start;
  const auto summary = minimize_lbfgs(problem, options.max_iterations, v);

  fit.report.initial_cost = summary.initial_cost;
  fit.report.iterations = iterations_of(summary);
  fit.report.termination = summary.message;
  const bool better = summary.IsSolutionUsable() && summary.final_cost <= summary.initial_cost;
  fit.report.final_cost = better ? summary.final_cost : summary.initial_cost;
  if (better) fit.v = v.normalized();
  return fit;
}

}  // namespace ruq
