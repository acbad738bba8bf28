#include "ruquant/transform/kronecker.hpp"

#include <Eigen/LU>
#include <cmath>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr double kSmallestScale = 1e-5;
constexpr double kSingular = 1e-14;

Index integer_root(Index n) {
  auto root = static_cast<Index>(std::sqrt(static_cast<double>(n)));
  while (root * root > n) --root;
  while ((root + 1) * (root + 1) <= n) ++root;
  return root;
}

Matrix<double> skew(const Matrix<double>& raw) {
  RUQ_CHECK(raw.rows() == raw.cols(), "{}x{}", raw.rows(), raw.cols());
  const Matrix<double> lower = raw.triangularView<Eigen::StrictlyLower>();
  return lower - lower.transpose();
}

}  // namespace

KroneckerSizes balanced_sizes(Index n) {
  if (n < 1) fail("a Kronecker product needs a width of at least 1, not {}", n);
  Index left = integer_root(n);
  while (n % left != 0) --left;
  return {left, n / left};
}

bool has_flatquant_sizes(Index n) { return n % 4 != 2; }

KroneckerSizes flatquant_sizes(Index n) {
  if (n < 1 || !has_flatquant_sizes(n)) return balanced_sizes(n);
  // a − b divides n and has the parity of n / (a − b); a grows as a − b falls.
  for (Index left = integer_root(n); left >= 1; --left) {
    if (n % left == 0 && (n / left - left) % 2 == 0) return {left, n / left};
  }
  fail("no factors of one parity for {}", n);
}

Kronecker<double> kronecker_step(SquareMap<double> left, SquareMap<double> right) {
  RUQ_CHECK(left.map.rows() == left.map.cols() && right.map.rows() == right.map.cols(),
            "{}x{}, {}x{}", left.map.rows(), left.map.cols(), right.map.rows(), right.map.cols());
  const Index left_width = left.map.rows();
  const Index right_width = right.map.rows();
  return {std::move(left), std::move(right), left_width, right_width};
}

SquareMap<double> invertible_map(const Matrix<double>& map) {
  if (map.rows() != map.cols()) fail("a map of {}x{} has no inverse", map.rows(), map.cols());
  // From the inverse itself: Eigen's estimate does not see a pivot that is exactly zero.
  const Matrix<double> inverse = Eigen::MatrixXd(map).partialPivLu().inverse();
  const auto norm = [](const Matrix<double>& m) { return m.cwiseAbs().colwise().sum().maxCoeff(); };
  const double condition = inverse.allFinite() ? 1 / (norm(map) * norm(inverse)) : 0;
  if (!(condition >= kSingular)) {
    fail("a map of width {} is singular: reciprocal condition number {:.3g}", map.rows(),
         condition);
  }
  return {map, inverse.transpose()};
}

Matrix<double> cayley_map(const Matrix<double>& raw) {
  const Matrix<double> half = skew(raw) / 2;
  const auto identity = Matrix<double>::Identity(raw.rows(), raw.rows());
  const Eigen::MatrixXd system = identity - half;
  return system.partialPivLu().solve(Eigen::MatrixXd(identity + half));
}

// dQ = (I − A/2)⁻¹ (dA/2) (I + Q), and dA = dL − dLᵀ for the lower part L of raw.
Matrix<double> cayley_map_gradient(const Matrix<double>& raw, const Matrix<double>& upstream) {
  const Matrix<double> a = skew(raw);
  const auto identity = Matrix<double>::Identity(raw.rows(), raw.rows());
  const Matrix<double> q = cayley_map(raw);
  const Eigen::MatrixXd system = (identity - a / 2).transpose();
  const Eigen::MatrixXd by_skew =
      system.partialPivLu().solve(Eigen::MatrixXd(upstream * (identity + q).transpose())) / 2;
  return Matrix<double>(by_skew - by_skew.transpose()).triangularView<Eigen::StrictlyLower>();
}

SquareMap<double> svd_map(const Matrix<double>& u, const Vector<double>& sigma,
                          const Matrix<double>& v) {
  if ((sigma.array() == 0).any()) fail("a singular value of a Kronecker factor is zero");
  return {u * sigma.asDiagonal() * v.transpose(),
          u * sigma.cwiseInverse().asDiagonal() * v.transpose()};
}

Vector<double> flatquant_init_scale(const Vector<double>& weight_maxima,
                                    const Vector<double>& activation_maxima, double alpha) {
  RUQ_CHECK(weight_maxima.size() == activation_maxima.size(), "{} weights, {} activations",
            weight_maxima.size(), activation_maxima.size());
  return (weight_maxima.array().pow(1 - alpha) / activation_maxima.array().pow(alpha))
      .max(kSmallestScale)
      .matrix();
}

}  // namespace ruq
