#include "ruquant/learn/cayley.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>
#include <Eigen/SVD>
#include <cmath>
#include <limits>

#include "support/errors.hpp"
#include "support/laws.hpp"
#include "support/tape.hpp"

namespace ruq::test {
namespace {

Matrix<double> orthonormal_rows(Index rows, Index cols, const std::string& name) {
  const Eigen::MatrixXd draw = gaussian(rows, cols, name);
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(draw, Eigen::ComputeThinU | Eigen::ComputeThinV);
  return svd.matrixU() * svd.matrixV().transpose();
}

// (I − αW/2)⁻¹(I + αW/2)Xᵀ, with W as in the header of the optimizer and V = −Gᵀ.
Matrix<double> exact_step(const Matrix<double>& x, const Matrix<double>& gradient, double alpha) {
  const Eigen::MatrixXd v = -gradient.transpose();
  const Eigen::MatrixXd half = v * x - 0.5 * x.transpose() * (x * (v * x));
  const Eigen::MatrixXd w = alpha / 2 * (half - half.transpose());
  const auto identity = Eigen::MatrixXd::Identity(x.cols(), x.cols());
  const Eigen::MatrixXd stepped =
      (identity - w).partialPivLu().solve(Eigen::MatrixXd((identity + w) * x.transpose()));
  return stepped.transpose();
}

double largest_column_sum(const Matrix<double>& x, const Matrix<double>& gradient) {
  const Matrix<double> v = -gradient.transpose();
  const Matrix<double> half = v * x - 0.5 * x.transpose() * (x * (v * x));
  return (half - half.transpose()).cwiseAbs().colwise().sum().maxCoeff();
}

TEST_CASE("small steps follow the exact Cayley transform to the sixth order") {
  const Matrix<double> start = orthonormal_rows(12, 12, "start");
  const Matrix<double> gradient = gaussian(12, 12, "gradient");
  const double size = largest_column_sum(start, gradient);
  double last = 0;
  for (const double share : {0.2, 0.1}) {
    const double rate = share / size;
    Matrix<double> x = start;
    CHECK(CayleySgd({.learning_rate = rate}).step(x, gradient, false) == rate);
    // Rows of unit length come out of the normalization a little shorter.
    const Matrix<double> normalized = start / (1 + 1e-8);
    const double error = (x - exact_step(normalized, gradient, rate)).norm();
    CHECK(error < 2 * std::pow(share, 6));
    CHECK(orthogonality_error(x) < 2 * std::pow(share, 6));
    if (last > 0) CHECK(error < last / 40);
    last = error;
  }
}

TEST_CASE("orthogonality is kept over many steps, whatever the shape") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {8, 8}, {3, 10}, {20, 20}}) {
    CAPTURE(rows);
    Matrix<double> x = orthonormal_rows(rows, cols, "kept");
    const Matrix<double> target = gaussian(rows, cols, "target");
    CayleySgd optimizer({.learning_rate = 0.02});
    for (int i = 0; i < 100; ++i) optimizer.step(x, -target, false);
    CHECK(orthogonality_error(x) < 1e-4);
    optimizer.step(x, Matrix<double>::Zero(rows, cols), true);
    CHECK(orthogonality_error(x) < 1e-13);
  }
}

TEST_CASE("the step length is the learning rate or the reciprocal of the largest column sum") {
  const Matrix<double> start = orthonormal_rows(6, 9, "length");
  const Matrix<double> gradient = gaussian(6, 9, "gradient");
  const double reciprocal = 1 / largest_column_sum(start, gradient);
  for (const double rate : {0.5 * reciprocal, 2 * reciprocal}) {
    Matrix<double> x = start;
    const double length = CayleySgd({.learning_rate = rate}).step(x, gradient, false);
    CHECK(length == doctest::Approx(std::min(rate, reciprocal)).epsilon(1e-7));
  }
}

TEST_CASE("steps descend to the rotation that is nearest to a matrix") {
  const Matrix<double> start = orthonormal_rows(6, 6, "start");
  // A target in the same component of the orthogonal group, without a distant twin.
  const Matrix<double> target = start + 0.5 * gaussian(6, 6, "near");
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(Eigen::MatrixXd(target),
                                              Eigen::ComputeFullU | Eigen::ComputeFullV);
  const Matrix<double> nearest = svd.matrixU() * svd.matrixV().transpose();
  REQUIRE(Eigen::MatrixXd(nearest * start.transpose()).determinant() > 0);
  Matrix<double> x = start;
  CayleySgd optimizer({.learning_rate = 0.1});
  double before = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 400; ++i) {
    optimizer.step(x, x - target, i % 20 == 0);
    const double cost = (x - target).squaredNorm();
    if (i % 20 == 0) CHECK(cost <= before * (1 + 1e-9));
    if (i % 20 == 0) before = cost;
  }
  CHECK(relative_error(x, nearest) < 1e-6);
}

TEST_CASE("rows are normalized first, and a draw below 1/101 orthogonalizes them") {
  const Matrix<double> start = gaussian(5, 7, "rough");
  const Matrix<double> none = Matrix<double>::Zero(5, 7);
  const auto stepped = [&](double draw) {
    Matrix<double> x = start;
    Tape tape(Vector<double>::Constant(1, draw), {});
    CayleySgd({}).step(x, none, tape);
    CHECK(tape.used_up());
    return x;
  };
  const Matrix<double> plain = stepped(0.0100);
  CHECK(relative_error(plain, start.rowwise().normalized().eval()) < 1e-7);
  CHECK(orthogonality_error(plain) > 0.1);
  const Matrix<double> orthogonal = stepped(0.0098);
  CHECK(orthogonality_error(orthogonal) < 1e-13);
  // Gram-Schmidt from the first row on: row i points the way of its part off the rows before.
  for (Index i = 0; i < 5; ++i) {
    CHECK(orthogonal.row(i).dot(plain.row(i)) > 0);
    for (Index j = 0; j < i; ++j) CHECK(std::abs(orthogonal.row(i).dot(plain.row(j))) < 1e-13);
  }
}

TEST_CASE("momentum does nothing as published, and something when kept") {
  const Matrix<double> start = orthonormal_rows(5, 5, "momentum");
  const auto run = [&](const CayleyOptions& options) {
    Matrix<double> x = start;
    CayleySgd optimizer(options);
    for (int i = 0; i < 3; ++i) optimizer.step(x, gaussian(5, 5, "g" + std::to_string(i)), false);
    return x;
  };
  const Matrix<double> plain = run({.learning_rate = 0.1});
  CHECK(run({.learning_rate = 0.1, .momentum = 0.9}) == plain);
  CHECK(run({.learning_rate = 0.1, .momentum = 0, .keep_momentum = true}) == plain);
  const Matrix<double> kept = run({.learning_rate = 0.1, .momentum = 0.9, .keep_momentum = true});
  CHECK(relative_error(kept, plain) > 1e-2);
}

TEST_CASE("shapes that do not fit and gradients that are not finite are refused") {
  CayleySgd optimizer({});
  Matrix<double> tall = gaussian(4, 3, "tall");
  check_error([&] { optimizer.step(tall, tall, false); }, {"Cayley", "4x3"});
  Matrix<double> x = gaussian(3, 4, "wide");
  check_error([&] { optimizer.step(x, gaussian(4, 4, "other"), false); }, {"3x4", "4x4"});
  Matrix<double> gradient = x;
  gradient(1, 1) = std::numeric_limits<double>::infinity();
  check_error([&] { optimizer.step(x, gradient, false); }, {"finite"});
}

TEST_CASE("the nearest orthogonal matrix is the polar factor, and far matrices are refused") {
  const Matrix<double> x = orthonormal_rows(7, 7, "polar") + 0.02 * gaussian(7, 7, "off");
  const Matrix<double> near = nearest_orthogonal(x);
  CHECK(orthogonality_error(near) < 1e-13);
  // x = near·P with a symmetric positive P is what makes it the nearest one.
  const Matrix<double> p = near.transpose() * x;
  CHECK(relative_error(p, p.transpose().eval()) < 1e-12);
  CHECK(p.diagonal().minCoeff() > 0.8);
  check_error([&] { nearest_orthogonal(100 * x); }, {"too far from orthogonal"});
}

}  // namespace
}  // namespace ruq::test
