#include "support/laws.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>
#include <cmath>
#include <cstring>

#include "ruquant/base/rng.hpp"
#include "ruquant/transform/hadamard.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

Matrix<double> identity(Index n) { return Matrix<double>::Identity(n, n); }

Matrix<double> kronecker(const Matrix<double>& a, const Matrix<double>& b) {
  Matrix<double> result(a.rows() * b.rows(), a.cols() * b.cols());
  for (Index i = 0; i < a.rows(); ++i) {
    for (Index j = 0; j < a.cols(); ++j) {
      result.block(i * b.rows(), j * b.cols(), b.rows(), b.cols()) = a(i, j) * b;
    }
  }
  return result;
}

Matrix<double> sylvester(Index n) {
  Matrix<double> h(n, n);
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j < n; ++j) {
      h(i, j) = __builtin_parityll(static_cast<unsigned long long>(i & j)) != 0 ? -1 : 1;
    }
  }
  return h;
}

// The matrix of one step, from its definition in transform.hpp.
struct Dense {
  Index width;

  Matrix<double> operator()(const Permutation& step) const {
    Matrix<double> m = Matrix<double>::Zero(width, width);
    for (Index j = 0; j < width; ++j) m(step.index[static_cast<std::size_t>(j)], j) = 1;
    return m;
  }
  Matrix<double> operator()(const Reflection<double>& step) const {
    return identity(width) - 2 * step.v * step.v.transpose();
  }
  Matrix<double> operator()(const HadamardStep& step) const {
    const auto [base, power] = hadamard_order(step.order);
    Matrix<double> had = hadamard_base(base);
    if (!step.transposed) had = had.transpose().eval();
    const Matrix<double> run =
        kronecker(had, sylvester(power)) / std::sqrt(static_cast<double>(step.order));
    return kronecker(identity(width / step.order), run);
  }
  Matrix<double> operator()(const Scale<double>& step) const { return step.factor.asDiagonal(); }
  Matrix<double> operator()(const BlockDiagonal<double>& step) const {
    Matrix<double> m = Matrix<double>::Zero(width, width);
    Index begin = 0;
    for (const Index which : step.which) {
      const Matrix<double>& map = step.maps[static_cast<std::size_t>(which)].map;
      m.block(begin, begin, map.rows(), map.rows()) = map;
      begin += map.rows();
    }
    return m;
  }
  Matrix<double> operator()(const Kronecker<double>& step) const {
    return kronecker(step.left.map.size() > 0 ? step.left.map : identity(step.left_width),
                     step.right.map.size() > 0 ? step.right.map : identity(step.right_width));
  }
};

template <class S>
void check_in(const Transform<S>& transform, const Matrix<double>& dense, double tolerance) {
  const Index width = dense.rows();
  const Matrix<S> eye = Matrix<S>::Identity(width, width);
  Matrix<S> forward = eye;
  transform.apply(forward);
  CHECK(relative_error(forward, dense) < tolerance);
  CHECK(relative_error(transform.to_matrix(width), dense) < tolerance);
  Matrix<S> backward = eye;
  transform.apply_transpose(backward);
  CHECK(relative_error(backward, dense.transpose()) < tolerance);

  // More rows than one tile of a product, so that tiles are seen too.
  const Matrix<S> x = gaussian(kRowTile + 5, width, "laws/x").cast<S>();
  const Matrix<S> w = gaussian(7, width, "laws/w").cast<S>();
  Matrix<S> x_moved = x;
  Matrix<S> w_moved = w;
  transform.apply(x_moved);
  transform.apply_dual(w_moved);
  CHECK(relative_error(x_moved, (x.template cast<double>() * dense).eval()) < tolerance);
  const Matrix<double> outputs = x.template cast<double>() * w.template cast<double>().transpose();
  CHECK(relative_error(
            (x_moved.template cast<double>() * w_moved.template cast<double>().transpose()).eval(),
            outputs) < 10 * tolerance);

  Matrix<S> producer = x.topRows(4).transpose();
  transform.apply_to_outputs(producer);
  CHECK(
      relative_error(
          producer, (dense.transpose() * x.topRows(4).transpose().template cast<double>()).eval()) <
      tolerance);
  if (!transform.is_orthogonal()) return;
  const auto norms = x.rowwise().norm();
  CHECK((x_moved.rowwise().norm() - norms).cwiseAbs().maxCoeff() <
        static_cast<S>(tolerance) * norms.maxCoeff());
}

template <class S>
void check_grid_in(const Matrix<S>& x, const QuantSpec& spec) {
  const Grid<S> grid = fit_grid(x, spec);
  const Index group = group_width(spec, x.cols());
  const Codes codes = encode(x, grid);
  const Matrix<S> decoded = decode(codes, grid);
  Matrix<S> rounded = x;
  round_to_grid(rounded, grid);
  CHECK((decoded == rounded));
  Matrix<S> in_one_pass = x;
  fake_quantize(in_one_pass, spec);
  CHECK((in_one_pass == rounded));
  Matrix<S> again = rounded;
  round_to_grid(again, grid);
  CHECK((again == rounded));

  CHECK(codes.minCoeff() >= grid.code_min);
  CHECK(codes.maxCoeff() <= grid.code_max);
  CHECK(grid.code_max - grid.code_min == (Index{1} << spec.bits) - 1);
  const S roughly = S(1) + 64 * std::numeric_limits<S>::epsilon();
  Index too_far = 0;
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) {
      const S step = grid.scale(r, c / group);
      const S zero = grid.zero(r, c / group);
      const S lowest = (static_cast<S>(grid.code_min) - zero) * step;
      const S highest = (static_cast<S>(grid.code_max) - zero) * step;
      const S error = std::abs(x(r, c) - rounded(r, c));
      const S slack = step / 2 * roughly + std::abs(x(r, c)) * (roughly - 1);
      const S outside = std::max({S(0), lowest - x(r, c), x(r, c) - highest});
      if (!(error <= std::max(slack, outside * roughly))) ++too_far;
    }
  }
  CHECK(too_far == 0);
}

bool same_bits(const double* a, const double* b, Index count) {
  return count == 0 || std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(double)) == 0;
}

template <class M>
bool same_numbers(const M& a, const M& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && same_bits(a.data(), b.data(), a.size());
}

bool same_map(const SquareMap<double>& a, const SquareMap<double>& b) {
  return same_numbers(a.map, b.map) && same_numbers(a.dual, b.dual);
}

// Equality of two steps of one kind.
struct SameStep {
  const Step<double>& other;

  bool operator()(const Permutation& a) const {
    return a.index == std::get<Permutation>(other).index;
  }
  bool operator()(const Reflection<double>& a) const {
    return same_numbers(a.v, std::get<Reflection<double>>(other).v);
  }
  bool operator()(const HadamardStep& a) const {
    const auto& b = std::get<HadamardStep>(other);
    return a.order == b.order && a.transposed == b.transposed;
  }
  bool operator()(const Scale<double>& a) const {
    return same_numbers(a.factor, std::get<Scale<double>>(other).factor);
  }
  bool operator()(const BlockDiagonal<double>& a) const {
    const auto& b = std::get<BlockDiagonal<double>>(other);
    return a.which == b.which &&
           std::equal(a.maps.begin(), a.maps.end(), b.maps.begin(), b.maps.end(), same_map);
  }
  bool operator()(const Kronecker<double>& a) const {
    const auto& b = std::get<Kronecker<double>>(other);
    return same_map(a.left, b.left) && same_map(a.right, b.right) && a.left_width == b.left_width &&
           a.right_width == b.right_width;
  }
};

bool same_step(const Step<double>& a, const Step<double>& b) {
  return a.index() == b.index() && std::visit(SameStep{b}, a);
}

bool same_settings(const QuantSettings& a, const QuantSettings& b) {
  return a.weight == b.weight && a.activation == b.activation && a.queries == b.queries &&
         a.keys == b.keys && a.values == b.values && a.rounding == b.rounding &&
         a.rounding_options == b.rounding_options && a.activation_levels == b.activation_levels &&
         a.attn_out_group_size == b.attn_out_group_size;
}

}  // namespace

Matrix<double> gaussian(Index rows, Index cols, const std::string& name, Index spikes) {
  Matrix<double> x = Stream(11, name).normal(rows, cols);
  for (Index i = 0; i < spikes; ++i) x.col((3 + 7 * i) % cols) *= 20;
  return x;
}

double orthogonality_error(const Matrix<double>& m) {
  return (m * m.transpose() - identity(m.rows())).cwiseAbs().maxCoeff();
}

Matrix<double> dense_matrix(const Transform<double>& transform, Index width) {
  Matrix<double> product = identity(width);
  for (const Step<double>& step : transform.steps()) {
    product = (product * std::visit(Dense{width}, step)).eval();
  }
  return product;
}

void check_transform_laws(const Transform<double>& transform, Index width) {
  CAPTURE(width);
  INFO("transform: " << transform.describe());
  const Matrix<double> dense = dense_matrix(transform, width);
  check_in<double>(transform, dense, 1e-12);
  check_in<float>(transform.cast<float>(), dense, 1e-5);
  if (transform.is_orthogonal()) CHECK(orthogonality_error(dense) < 1e-12);

  const Matrix<double> dual = dense.inverse().transpose();
  CHECK(relative_error(transform.inverse_transpose().to_matrix(width), dual) < 1e-10);
  const Transform<double> twice = transform.then(transform);
  CHECK(relative_error(twice.to_matrix(width), (dense * dense).eval()) < 1e-11);
  CHECK(twice.steps().size() == 2 * transform.steps().size());

  const TemporaryFolder folder;
  Plan plan = Plan::identity("laws", 1, QuantSettings{});
  plan.residual = transform;
  save_plan(plan, folder / "plan.h5");
  CHECK(same_transform(load_plan(folder / "plan.h5").residual, transform));
}

void check_grid_laws(const Matrix<double>& x, const QuantSpec& spec) {
  INFO(to_string(spec.rule) << ", bits " << spec.bits << ", symmetric " << spec.symmetric
                            << ", group " << spec.group_size << ", clip " << spec.clip_ratio
                            << ", search " << spec.search);
  check_grid_in<double>(x, spec);
  check_grid_in<float>(x.cast<float>(), spec);
}

bool same_transform(const Transform<double>& a, const Transform<double>& b) {
  return a.width() == b.width() && std::equal(a.steps().begin(), a.steps().end(), b.steps().begin(),
                                              b.steps().end(), same_step);
}

bool same_plan(const Plan& a, const Plan& b) {
  const auto same_layer = [](const LayerPlan& x, const LayerPlan& y) {
    bool same = same_transform(x.query_key, y.query_key);
    for (const SiteKind kind : kLinearSites) {
      same = same && same_transform(x[kind].folded, y[kind].folded) &&
             same_transform(x[kind].online, y[kind].online) && x[kind].clips == y[kind].clips &&
             x[kind].levels == y[kind].levels;
    }
    same = same && x.weight_clips == y.weight_clips;
    return same;
  };
  return a.method == b.method && a.fallbacks == b.fallbacks && same_settings(a.quant, b.quant) &&
         same_transform(a.residual, b.residual) && a.learning == b.learning &&
         std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(), same_layer);
}

}  // namespace ruq::test
