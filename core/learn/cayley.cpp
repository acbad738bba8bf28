#include "ruquant/learn/cayley.hpp"

#include <Eigen/QR>
#include <algorithm>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr double kEpsilon = 1e-8;
constexpr int kRounds = 5;
constexpr double kReorthogonalizeShare = 1.0 / 101;

void normalize_rows(Matrix<double>& x) {
  const Vector<double> norms = x.rowwise().norm().array() + kEpsilon;
  x.array().colwise() /= norms.array();
}

}  // namespace

void orthonormalize_rows(Matrix<double>& x) {
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(Eigen::MatrixXd(x.transpose()));
  Eigen::MatrixXd q = qr.householderQ() * Eigen::MatrixXd::Identity(x.cols(), x.rows());
  for (Index j = 0; j < x.rows(); ++j) {
    if (qr.matrixQR()(j, j) < 0) q.col(j) = -q.col(j);
  }
  x = q.transpose();
}

double CayleySgd::step(Matrix<double>& x, const Matrix<double>& gradient, bool reorthogonalize) {
  if (x.rows() > x.cols() || gradient.rows() != x.rows() || gradient.cols() != x.cols()) {
    fail(
        "Cayley step: {}x{} parameters need no more rows than columns and a gradient of their "
        "shape, "
        "found {}x{}",
        x.rows(), x.cols(), gradient.rows(), gradient.cols());
  }
  if (!gradient.allFinite()) fail("Cayley step: the gradient is not finite");
  normalize_rows(x);
  if (reorthogonalize) orthonormalize_rows(x);
  Matrix<double> v = -gradient.transpose();
  if (velocity_.size() > 0) v += options_.momentum * velocity_;

  const Matrix<double> start = x.transpose();
  const Matrix<double> vx = v * x;
  const Matrix<double> half = vx - 0.5 * (start * (x * vx));
  const Matrix<double> w = half - half.transpose();
  const double norm = w.cwiseAbs().colwise().sum().maxCoeff();
  const double alpha = std::min(1 / (norm + kEpsilon), options_.learning_rate);
  Matrix<double> y = start + alpha * v;
  for (int round = 0; round < kRounds; ++round)
    y = (start + (alpha / 2) * (w * (start + y))).eval();
  x = y.transpose();
  if (options_.keep_momentum) velocity_ = w * start;
  return alpha;
}

double CayleySgd::step(Matrix<double>& x, const Matrix<double>& gradient, Draws& draws) {
  return step(x, gradient, draws.uniform(1)(0) < kReorthogonalizeShare);
}

Matrix<double> nearest_orthogonal(Matrix<double> x) {
  RUQ_CHECK(x.rows() == x.cols(), "[{}, {}] is not square", x.rows(), x.cols());
  const Matrix<double> identity = Matrix<double>::Identity(x.rows(), x.cols());
  constexpr int kMostRounds = 30;
  constexpr double kStill = 1e-13;
  for (int round = 0; round < kMostRounds; ++round) {
    const Matrix<double> error = identity - x.transpose() * x;
    x += 0.5 * (x * error);
    if (error.cwiseAbs().maxCoeff() < kStill) return x;
  }
  fail("a matrix of width {} is too far from orthogonal to be made so", x.rows());
}

}  // namespace ruq
