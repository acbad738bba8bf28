#include "ruquant/learn/transform_grad.hpp"

#include <utility>
#include <variant>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

template <class S>
Transform<S> single(const Step<S>& step, Index width) {
  Transform<S> transform(width);
  transform.append(step);
  return transform;
}

template <class S>
using Grid2 = Eigen::Map<const Matrix<S>>;  // one row as [n1, n2]

template <class S>
void add_kronecker(const Kronecker<S>& step, const Matrix<S>& x, const Matrix<S>& gradient,
                   StepGradient& sum) {
  const bool has_left = step.left.map.size() > 0;
  const bool has_right = step.right.map.size() > 0;
  Matrix<S> left = Matrix<S>::Zero(sum.maps[0].rows(), sum.maps[0].cols());
  Matrix<S> right = Matrix<S>::Zero(sum.maps[1].rows(), sum.maps[1].cols());
  for (Index t = 0; t < x.rows(); ++t) {
    const Grid2<S> in(x.row(t).data(), step.left_width, step.right_width);
    const Grid2<S> g(gradient.row(t).data(), step.left_width, step.right_width);
    if (has_left) {
      const Matrix<S> turned = has_right ? Matrix<S>(in * step.right.map) : Matrix<S>(in);
      left.noalias() += turned * g.transpose();
    }
    if (has_right) {
      const Matrix<S> turned = has_left ? Matrix<S>(step.left.map.transpose() * in) : Matrix<S>(in);
      right.noalias() += turned.transpose() * g;
    }
  }
  sum.maps[0] += left.template cast<double>();
  sum.maps[1] += right.template cast<double>();
}

template <class S>
void add_blocks(const BlockDiagonal<S>& step, const Matrix<S>& x, const Matrix<S>& gradient,
                StepGradient& sum) {
  Index begin = 0;
  for (const Index which : step.which) {
    Matrix<double>& map = sum.maps[static_cast<std::size_t>(which)];
    const Index width = map.rows();
    const Matrix<S> product =
        x.middleCols(begin, width).transpose() * gradient.middleCols(begin, width);
    map += product.template cast<double>();
    begin += width;
  }
}

// Adds the gradient of one step's parameters: x is its input, `gradient` that of its output.
template <class S>
void add_step(const Step<S>& step, const Matrix<S>& x, const Matrix<S>& gradient,
              StepGradient& sum) {
  std::visit(Overloaded{[&](const Reflection<S>& r) {
                          const Vector<S> slope =
                              x.transpose() * (gradient * r.v) + gradient.transpose() * (x * r.v);
                          sum.vector -= 2 * slope.template cast<double>();
                        },
                        [&](const Scale<S>&) {
                          const Vector<S> slope =
                              x.cwiseProduct(gradient).colwise().sum().transpose();
                          sum.vector += slope.template cast<double>();
                        },
                        [&](const BlockDiagonal<S>& b) { add_blocks(b, x, gradient, sum); },
                        [&](const Kronecker<S>& k) { add_kronecker(k, x, gradient, sum); },
                        [](const auto&) {}},
             step);
}

// From the gradient of a dual map to that of the map.
template <class S>
Matrix<double> through_dual(const SquareMap<S>& square, const Matrix<double>& gradient) {
  if (square.dual.size() == 0) return gradient;
  const Matrix<double> dual = square.dual.template cast<double>();
  return -dual * gradient.transpose() * dual;
}

template <class S>
void add_dual_step(const Step<S>& step, const StepGradient& dual, StepGradient& sum) {
  std::visit(Overloaded{[&](const Reflection<S>&) { sum.vector += dual.vector; },
                        [&](const Scale<S>& s) {
                          sum.vector.array() -= dual.vector.array() /
                                                s.factor.template cast<double>().array().square();
                        },
                        [&](const BlockDiagonal<S>& b) {
                          for (std::size_t i = 0; i < b.maps.size(); ++i) {
                            sum.maps[i] += through_dual(b.maps[i], dual.maps[i]);
                          }
                        },
                        [&](const Kronecker<S>& k) {
                          sum.maps[0] += through_dual(k.left, dual.maps[0]);
                          sum.maps[1] += through_dual(k.right, dual.maps[1]);
                        },
                        [](const auto&) {}},
             step);
}

Matrix<double> zero_like(const SquareMap<double>& square) {
  return Matrix<double>::Zero(square.map.rows(), square.map.cols());
}

}  // namespace

TransformGradient zero_gradient(const Transform<double>& transform) {
  TransformGradient zero;
  for (const Step<double>& step : transform.steps()) {
    StepGradient gradient;
    std::visit(Overloaded{[&](const Reflection<double>& r) { gradient.vector.setZero(r.v.size()); },
                          [&](const Scale<double>& s) { gradient.vector.setZero(s.factor.size()); },
                          [&](const BlockDiagonal<double>& b) {
                            for (const auto& map : b.maps) gradient.maps.push_back(zero_like(map));
                          },
                          [&](const Kronecker<double>& k) {
                            gradient.maps = {zero_like(k.left), zero_like(k.right)};
                          },
                          [](const auto&) {}},
               step);
    zero.push_back(std::move(gradient));
  }
  return zero;
}

void add_to(TransformGradient& sum, const TransformGradient& part) {
  RUQ_CHECK(sum.size() == part.size(), "{} gradients added to {}", part.size(), sum.size());
  for (std::size_t i = 0; i < sum.size(); ++i) {
    if (part[i].vector.size() > 0) sum[i].vector += part[i].vector;
    for (std::size_t m = 0; m < sum[i].maps.size(); ++m) sum[i].maps[m] += part[i].maps[m];
  }
}

template <class S>
void transform_backward(const Transform<S>& transform, Matrix<S> x, Matrix<S>& gradient,
                        TransformGradient& sum) {
  const std::vector<Step<S>>& steps = transform.steps();
  RUQ_CHECK(sum.size() == steps.size(), "{} gradients for {} steps", sum.size(), steps.size());
  std::vector<Matrix<S>> inputs;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (i > 0) single(steps[i - 1], transform.width()).apply(x);
    inputs.push_back(i + 1 < steps.size() ? x : std::move(x));
  }
  for (std::size_t i = steps.size(); i-- > 0;) {
    add_step(steps[i], inputs[i], gradient, sum[i]);
    single(steps[i], transform.width()).apply_transpose(gradient);
  }
}

template <class S>
void dual_backward(const Transform<S>& transform, Matrix<S> w, Matrix<S>& gradient,
                   TransformGradient& sum) {
  if (transform.is_identity()) return;
  const Transform<S> dual = transform.inverse_transpose();
  TransformGradient own = zero_gradient(dual.template cast<double>());
  transform_backward(dual, std::move(w), gradient, own);
  for (std::size_t i = 0; i < own.size(); ++i) {
    add_dual_step(transform.steps()[i], own[i], sum[i]);
  }
}

#define RUQ_INSTANTIATE(S)                                                     \
  template void transform_backward(const Transform<S>&, Matrix<S>, Matrix<S>&, \
                                   TransformGradient&);                        \
  template void dual_backward(const Transform<S>&, Matrix<S>, Matrix<S>&, TransformGradient&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
