#include "ruquant/transform/target_rotation.hpp"

#include <Eigen/SVD>
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr double kSameNorm = 1e-9;
constexpr double kSameVector = 1e-12;
constexpr double kRounding = 1e-12;  // of the squared norm: what a feasible chain may lack

std::vector<Index> sorted_indices(Index n, const std::function<bool(Index, Index)>& before) {
  std::vector<Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(), before);
  return order;
}

std::vector<Index> by_descending_size(const Vector<double>& x) {
  return sorted_indices(x.size(),
                        [&](Index a, Index b) { return std::abs(x(a)) > std::abs(x(b)); });
}

void check_same_norm(const Vector<double>& x, const Vector<double>& y) {
  RUQ_CHECK(x.size() == y.size(), "{} and {} entries", x.size(), y.size());
  const double largest = std::max(x.norm(), y.norm());
  if (std::abs(x.norm() - y.norm()) > kSameNorm * largest) {
    fail("no rotation takes a vector of norm {:.6g} to one of norm {:.6g}", x.norm(), y.norm());
  }
}

// x to ‖x‖·e_1, the last coordinate first.
GivensChain chain_to_axis(const Vector<double>& x) {
  GivensChain chain(x.size());
  double carry = x.size() > 0 ? x(x.size() - 1) : 0;
  for (Index i = x.size() - 2; i >= 0; --i) {
    const double length = std::hypot(x(i), carry);
    if (length > 0) chain.append({i, i + 1, x(i) / length, carry / length});
    carry = length;
  }
  if (x.size() == 1 && x(0) < 0) fail("a chain of one channel cannot change a sign");
  return chain;
}

Matrix<double> nearest_corner(const Matrix<double>& z) {
  const double root = std::sqrt(static_cast<double>(z.cols()));
  Matrix<double> y(z.rows(), z.cols());
  for (Index t = 0; t < z.rows(); ++t) {
    const double each = z.row(t).norm() / root;
    y.row(t) = z.row(t).unaryExpr([each](double v) { return v < 0 ? -each : each; });
  }
  return y;
}

Matrix<double> nearest_ramp(const Matrix<double>& z) {
  Matrix<double> y(z.rows(), z.cols());
  for (Index t = 0; t < z.rows(); ++t) y.row(t) = ramp_target(z.row(t).transpose()).transpose();
  return y;
}

// Rounding adapts its grid to the row, so that a new target may be further than the last one.
Matrix<double> nearest_level(const Matrix<double>& z, Index bits, const Matrix<double>& last) {
  const double levels = std::exp2(static_cast<double>(bits)) - 1;
  Matrix<double> y(z.rows(), z.cols());
  for (Index t = 0; t < z.rows(); ++t) {
    const double low = z.row(t).minCoeff();
    const double step = (z.row(t).maxCoeff() - low) / levels;
    y.row(t) = z.row(t);
    if (step > 0) {
      y.row(t) = ((z.row(t).array() - low) / step).unaryExpr([](double v) {
        return std::nearbyint(v);
      }) * step + low;
    }
    const bool further =
        last.size() > 0 && (z.row(t) - last.row(t)).norm() < (z.row(t) - y.row(t)).norm();
    if (further) y.row(t) = last.row(t);
  }
  return y;
}

Matrix<double> targets_of(const Matrix<double>& z, const ProcrustesOptions& options,
                          const Matrix<double>& last) {
  switch (options.target) {
    case ProcrustesTarget::corner:
      return nearest_corner(z);
    case ProcrustesTarget::ramp:
      return nearest_ramp(z);
    default:
      return nearest_level(z, options.bits, last);
  }
}

Eigen::MatrixXd grid_of(const Vector<double>& x, Index left_width) {
  RUQ_CHECK(left_width > 0 && x.size() % left_width == 0, "{} channels, {} rows", x.size(),
            left_width);
  return x.reshaped<Eigen::RowMajor>(left_width, x.size() / left_width);
}

}  // namespace

Vector<double> ramp_target(const Vector<double>& x) {
  const Index n = x.size();
  Vector<double> y = Vector<double>::Zero(n);
  if (n < 2) return y;
  const auto width = static_cast<double>(n);
  const double c = x.norm() / std::sqrt(width * (width * width - 1) / 3);
  const auto order = sorted_indices(n, [&](Index a, Index b) { return x(a) < x(b); });
  for (Index k = 0; k < n; ++k) {
    y(order[static_cast<std::size_t>(k)]) = c * static_cast<double>(2 * k - n + 1);
  }
  return y;
}

bool chain_feasible(const Vector<double>& x, const Vector<double>& y) {
  RUQ_CHECK(x.size() == y.size(), "{} and {} entries", x.size(), y.size());
  const auto order = by_descending_size(x);
  const double slack = kRounding * x.squaredNorm();
  double spare = 0;  // energy of the first k + 1 of x, less that of the first k of y
  for (std::size_t k = 0; k + 1 < order.size(); ++k) {
    if (k == 0) spare = x(order[0]) * x(order[0]);
    spare += x(order[k + 1]) * x(order[k + 1]) - y(order[k]) * y(order[k]);
    if (spare < -slack) return false;
  }
  return true;
}

std::optional<GivensChain> target_chain(const Vector<double>& x, const Vector<double>& y) {
  check_same_norm(x, y);
  if (!chain_feasible(x, y)) return std::nullopt;
  const auto order = by_descending_size(x);
  GivensChain chain(x.size());
  if (x.size() < 2) return chain;
  double u = x(order[0]);
  for (std::size_t k = 0; k + 1 < order.size(); ++k) {
    const double v = x(order[k + 1]);
    const double wanted = y(order[k]);
    const double length = std::hypot(u, v);
    const double spare = (length - std::abs(wanted)) * (length + std::abs(wanted));
    double carry = std::copysign(std::sqrt(std::max(spare, 0.0)), y(order[k + 1]));
    // By equal norms the last carry is the last target; the root of a difference would lose digits.
    if (k + 2 == order.size()) carry = y(order[k + 1]);
    const double c = u * wanted + v * carry;
    const double s = v * wanted - u * carry;
    const double scale = std::hypot(c, s);
    if (scale > 0) chain.append({order[k], order[k + 1], c / scale, s / scale});
    u = carry;
  }
  return chain;
}

GivensChain target_chain_through_axis(const Vector<double>& x, const Vector<double>& y) {
  check_same_norm(x, y);
  return chain_to_axis(x).then(chain_to_axis(y).inverse());
}

GivensChain uniformity_chain(const Vector<double>& x, const Vector<double>& y) {
  if (auto chain = target_chain(x, y)) return *std::move(chain);
  return target_chain_through_axis(x, y);
}

std::optional<Reflection<double>> target_reflection(const Vector<double>& x,
                                                    const Vector<double>& y) {
  check_same_norm(x, y);
  const Vector<double> w = x - y;
  if (w.norm() <= kSameVector * x.norm()) return std::nullopt;
  return Reflection<double>{w.normalized()};
}

std::optional<Reflection<double>> reflection_to_ones(const Vector<double>& mean) {
  const double each = mean.norm() / std::sqrt(static_cast<double>(mean.size()));
  return target_reflection(mean,
                           Vector<double>::Constant(mean.size(), mean.sum() < 0 ? -each : each));
}

ProcrustesFit procrustes_rotation(const Matrix<double>& x, const ProcrustesOptions& options) {
  if (x.rows() == 0) fail("a Procrustes rotation needs rows");
  ProcrustesFit fit{.map = Matrix<double>::Identity(x.cols(), x.cols()), .objectives = {}};
  Matrix<double> y = targets_of(x, options, {});
  fit.objectives.push_back((x - y).squaredNorm());
  for (Index i = 0; i < options.iterations; ++i) {
    const Eigen::MatrixXd moment = x.transpose() * y;
    const Eigen::BDCSVD<Eigen::MatrixXd> svd(moment, Eigen::ComputeFullU | Eigen::ComputeFullV);
    fit.map = svd.matrixU() * svd.matrixV().transpose();
    const Matrix<double> z = product<double>(x, fit.map);
    y = targets_of(z, options, y);
    const double before = fit.objectives.back();
    fit.objectives.push_back((z - y).squaredNorm());
    if (before - fit.objectives.back() <= options.settled * before) break;
  }
  return fit;
}

GivensChain align(const Vector<double>& x, const AlignmentForm& form) {
  return form.tree ? alignment_tree(x) : alignment_chain(x, form.greedy);
}

GridVectors peak_vectors(const Vector<double>& x, Index left_width) {
  const Eigen::MatrixXd grid = grid_of(x, left_width);
  Index row = 0;
  Index column = 0;
  grid.cwiseAbs().maxCoeff(&row, &column);
  return {grid.col(column), grid.row(row).transpose()};
}

GridVectors leading_vectors(const Vector<double>& x, Index left_width) {
  const Eigen::MatrixXd grid = grid_of(x, left_width);
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(grid, Eigen::ComputeThinU | Eigen::ComputeThinV);
  return {svd.matrixU().col(0), svd.matrixV().col(0)};
}

}  // namespace ruq
