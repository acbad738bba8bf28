#include "ruquant/learn/sphere.hpp"

#include <cmath>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

using ConstMap = Eigen::Map<const Vector<double>>;
using Map = Eigen::Map<Vector<double>>;

// H = I − factor·w wᵀ takes the last unit vector to x. Of the two reflections that do so up to sign
// the one without cancellation is used; `sign` undoes its sign on the last axis.
struct Frame {
  Vector<double> w;
  double factor = 0;
  double sign = 1;

  explicit Frame(ConstMap x) : w(x) {
    const Index last = x.size() - 1;
    sign = x(last) > 0 ? -1 : 1;  // H e_d = sign·x
    w = -sign * x;
    w(last) += 1;
    const double squared = w.squaredNorm();
    factor = squared > 0 ? 2 / squared : 0;
  }
  Vector<double> reflect(const Vector<double>& y) const { return y - (factor * w.dot(y)) * w; }
};

}  // namespace

SphereManifold::SphereManifold(int dimension) : dimension_(dimension) {
  if (dimension < 2) fail("sphere: found {} coordinates, expected at least 2", dimension);
}

bool SphereManifold::Plus(const double* x, const double* delta, double* x_plus_delta) const {
  const ConstMap at(x, dimension_);
  const ConstMap step(delta, dimension_ - 1);
  const Frame frame(at);
  const double length = step.norm();
  Vector<double> local(dimension_);
  local.head(dimension_ - 1) = (length > 0 ? std::sin(length) / length : 1.0) * step;
  local(dimension_ - 1) = frame.sign * std::cos(length);
  Map(x_plus_delta, dimension_) = frame.reflect(local).normalized();
  return true;
}

bool SphereManifold::Minus(const double* y, const double* x, double* y_minus_x) const {
  const Frame frame{ConstMap(x, dimension_)};
  const Vector<double> local = frame.reflect(ConstMap(y, dimension_));
  const auto tangent = local.head(dimension_ - 1);
  const double sine = tangent.norm();
  const double angle = std::atan2(sine, frame.sign * local(dimension_ - 1));
  Map(y_minus_x, dimension_ - 1) = (sine > 0 ? angle / sine : 1.0) * tangent;
  return true;
}

bool SphereManifold::PlusJacobian(const double* x, double* jacobian) const {
  const Frame frame{ConstMap(x, dimension_)};
  Eigen::Map<Matrix<double>> dense(jacobian, dimension_, dimension_ - 1);
  dense.setIdentity();
  dense -= frame.factor * frame.w * frame.w.head(dimension_ - 1).transpose();
  return true;
}

bool SphereManifold::MinusJacobian(const double* x, double* jacobian) const {
  const Frame frame{ConstMap(x, dimension_)};
  Eigen::Map<Matrix<double>> dense(jacobian, dimension_ - 1, dimension_);
  dense.setIdentity();
  dense -= frame.factor * frame.w.head(dimension_ - 1) * frame.w.transpose();
  return true;
}

bool SphereManifold::RightMultiplyByPlusJacobian(const double* x, int num_rows,
                                                 const double* ambient, double* tangent) const {
  for (int r = 0; r < num_rows; ++r) {
    multiply_by_minus_jacobian(x, ambient + std::ptrdiff_t{r} * dimension_,
                               tangent + std::ptrdiff_t{r} * (dimension_ - 1));
  }
  return true;
}

void SphereManifold::multiply_by_minus_jacobian(const double* x, const double* ambient,
                                                double* tangent) const {
  const Frame frame{ConstMap(x, dimension_)};
  Map(tangent, dimension_ - 1) = frame.reflect(ConstMap(ambient, dimension_)).head(dimension_ - 1);
}

}  // namespace ruq
