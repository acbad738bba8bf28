#include "ruquant/transform/target_rotation.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

Vector<double> vector(Index n, const std::string& name) { return gaussian(n, 1, name).col(0); }

std::vector<Index> ascending(const Vector<double>& x) {
  std::vector<Index> order(std::size_t(x.size()));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](Index a, Index b) { return x(a) < x(b); });
  return order;
}

TEST_CASE("a ramp has the norm and the order of its vector, even steps and the crest of uniform") {
  for (const Index n : {2, 3, 5, 12, 64, 129}) {
    CAPTURE(n);
    const Vector<double> x = vector(n, "ramp");
    const Vector<double> y = ramp_target(x);
    CHECK(y.norm() == doctest::Approx(x.norm()).epsilon(1e-14));
    CHECK(std::abs(y.sum()) < 1e-12 * x.norm());
    const auto order = ascending(x);
    CHECK(order == ascending(y));
    const double step = y(order[1]) - y(order[0]);
    for (std::size_t k = 1; k < order.size(); ++k) {
      CHECK(y(order[k]) - y(order[k - 1]) == doctest::Approx(step).epsilon(1e-12));
    }
    const double crest = y.cwiseAbs().maxCoeff() / (y.norm() / std::sqrt(double(n)));
    CHECK(crest == doctest::Approx(std::sqrt(3.0 * double(n - 1) / double(n + 1))).epsilon(1e-13));
  }
  CHECK(ramp_target(Vector<double>::Constant(1, 4)) == Vector<double>::Zero(1));
}

TEST_CASE("no permutation of the ramp is nearer") {
  const Vector<double> x = vector(6, "nearest");
  const Vector<double> y = ramp_target(x);
  Vector<double> other = y;
  std::sort(other.begin(), other.end());
  do {
    CHECK((x - other).norm() >= (x - y).norm() * (1 - 1e-14));
  } while (std::next_permutation(other.begin(), other.end()));
}

// The chain of the specification in its trigonometric form, with no look ahead: false as soon as an
// arc cosine has no value.
bool attempt(const Vector<double>& x, const Vector<double>& y) {
  std::vector<Index> order(std::size_t(x.size()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](Index a, Index b) { return std::abs(x(a)) > std::abs(x(b)); });
  double u = x(order[0]);
  for (std::size_t k = 0; k + 1 < order.size(); ++k) {
    const double v = x(order[k + 1]);
    const double rho = std::hypot(u, v);
    const double arc = std::acos(y(order[k]) / rho);
    // The last turn is possible by equal norms; rounding may say otherwise by a hair.
    if (std::isnan(arc) && std::abs(y(order[k])) > rho * (1 + 1e-7)) return false;
    const double phi = std::atan2(v, u);
    const auto carry = [&](double t) { return -u * std::sin(t) + v * std::cos(t); };
    const double a = std::isnan(arc) ? 0 : arc;
    const double one = carry(phi - a);
    const double two = carry(phi + a);
    u = (one < 0) == (y(order[k + 1]) < 0) ? one : two;
  }
  CHECK(std::abs(u - y(order.back())) < 1e-6 * x.norm());
  return true;
}

// Draws with the tails of a Gaussian, and others with none, which seldom have a chain.
Vector<double> draw_for_chain(Index n, int draw) {
  const Vector<double> x = vector(n, "chain" + std::to_string(n) + "/" + std::to_string(draw));
  if (draw % 4 == 3) return x.array().sign() * (2 + 0.1 * x.array());
  return x;
}

TEST_CASE("the predicate says when a chain exists, and the chain then ends at its target") {
  int with = 0;
  int without = 0;
  for (const Index n : {2, 3, 5, 8, 64, 128}) {
    for (int draw = 0; draw < 80; ++draw) {
      CAPTURE(n);
      CAPTURE(draw);
      const Vector<double> x = draw_for_chain(n, draw);
      const Vector<double> y = ramp_target(x);
      const auto chain = target_chain(x, y);
      CHECK(chain.has_value() == chain_feasible(x, y));
      CHECK(chain.has_value() == attempt(x, y));
      if (!chain) {
        ++without;
        continue;
      }
      ++with;
      CHECK(std::ssize(chain->turns()) == n - 1);
      CHECK(orthogonality_error(chain->to_matrix()) < 1e-12);
      Vector<double> reached = x;
      chain->apply(reached);
      CHECK((reached - y).cwiseAbs().maxCoeff() < 1e-10);
    }
  }
  CHECK(with > 100);
  CHECK(without > 50);
}

TEST_CASE("about nine Gaussian vectors in ten have a chain") {
  for (const Index n : {8, 64, 128}) {
    const Matrix<double> draws = gaussian(1000, n, "share");
    int feasible = 0;
    for (Index t = 0; t < draws.rows(); ++t) {
      const Vector<double> x = draws.row(t).transpose();
      feasible += chain_feasible(x, ramp_target(x)) ? 1 : 0;
    }
    CAPTURE(n);
    CHECK(feasible > 850);
    CHECK(feasible < 970);
  }
}

TEST_CASE("through the axis every target is reached, in 2(n − 1) turns") {
  for (const Index n : {2, 3, 5, 12, 96}) {
    for (int draw = 0; draw < 8; ++draw) {
      const Vector<double> x = draw_for_chain(n, draw);
      const Vector<double> y = x.norm() * vector(n, "axis" + std::to_string(draw)).normalized();
      const GivensChain chain = target_chain_through_axis(x, y);
      CHECK(std::ssize(chain.turns()) == 2 * (n - 1));
      Vector<double> reached = x;
      chain.apply(reached);
      CHECK((reached - y).norm() < 1e-13 * x.norm());
      CHECK(orthogonality_error(chain.to_matrix()) < 1e-12);
      const Vector<double> ramp = ramp_target(x);
      reached = x;
      uniformity_chain(x, ramp).apply(reached);
      CHECK((reached - ramp).cwiseAbs().maxCoeff() < 1e-10);
    }
  }
}

TEST_CASE("zeros, a zero middle and unequal norms") {
  const Vector<double> zero = Vector<double>::Zero(5);
  CHECK(uniformity_chain(zero, zero).to_matrix() == Matrix<double>::Identity(5, 5));
  CHECK(target_chain_through_axis(zero, zero).to_matrix() == Matrix<double>::Identity(5, 5));
  CHECK_FALSE(target_reflection(zero, zero).has_value());
  const Vector<double> x{{0, 0, 3, 0, 4}};
  Vector<double> y = x;
  uniformity_chain(x, ramp_target(x)).apply(y);
  CHECK((y - ramp_target(x)).norm() < 1e-13);
  for (const double factor : {0.5, 2.0}) {
    check_error([&] { target_chain(x, factor * x); }, {"no rotation", "5"});
    check_error([&] { target_chain_through_axis(x, factor * x); }, {"no rotation"});
    check_error([&] { target_reflection(x, factor * x); }, {"no rotation"});
  }
}

TEST_CASE("one reflection reaches the target; equal vectors need none") {
  const Vector<double> x = vector(20, "reflected");
  const Vector<double> y = ramp_target(x);
  const auto step = target_reflection(x, y);
  REQUIRE(step.has_value());
  CHECK(step->v.norm() == doctest::Approx(1).epsilon(1e-14));
  CHECK((x - 2 * x.dot(step->v) * step->v - y).norm() < 1e-13 * x.norm());
  CHECK_FALSE(target_reflection(x, x).has_value());
}

TEST_CASE(
    "the reflection to ones makes a mean equal in all channels, keeping the sign of its sum") {
  for (const double sign : {1.0, -1.0}) {
    const Vector<double> mean = sign * (vector(12, "mean").array() + 0.5);
    const auto step = reflection_to_ones(mean);
    REQUIRE(step.has_value());
    const Vector<double> reached = mean - 2 * mean.dot(step->v) * step->v;
    const double each = (mean.sum() < 0 ? -1 : 1) * mean.norm() / std::sqrt(12.0);
    CHECK((reached.array() - each).abs().maxCoeff() < 1e-13);
  }
  CHECK_FALSE(reflection_to_ones(Vector<double>::Constant(4, -2)).has_value());
}

TEST_CASE("a Procrustes objective never grows, and is that of the map") {
  const Matrix<double> x = gaussian(60, 10, "procrustes", 1).rowwise().normalized();
  for (const auto target :
       {ProcrustesTarget::corner, ProcrustesTarget::ramp, ProcrustesTarget::quantized}) {
    CAPTURE(int(target));
    const ProcrustesFit fit =
        procrustes_rotation(x, {.target = target, .iterations = 25, .bits = 3, .settled = 0});
    CHECK(orthogonality_error(fit.map) < 1e-12);
    REQUIRE(fit.objectives.size() > 3);
    for (std::size_t i = 1; i < fit.objectives.size(); ++i) {
      CHECK(fit.objectives[i] <= fit.objectives[i - 1] * (1 + 1e-12));
    }
    CHECK(fit.objectives.back() < 0.9 * fit.objectives.front());
  }
  const ProcrustesFit fit = procrustes_rotation(x, {.target = ProcrustesTarget::ramp});
  const Matrix<double> z = x * fit.map;
  double objective = 0;
  for (Index t = 0; t < z.rows(); ++t) {
    const Vector<double> row = z.row(t).transpose();
    objective += (row - ramp_target(row)).squaredNorm();
  }
  CHECK(objective == doctest::Approx(fit.objectives.back()).epsilon(1e-12));
  CHECK(procrustes_rotation(x, {.iterations = 0}).map == Matrix<double>::Identity(10, 10));
  check_error([] { procrustes_rotation(Matrix<double>(0, 4)); }, {"rows"});
}

TEST_CASE("corners turned a little are turned back") {
  const Matrix<double> corners = gaussian(80, 6, "corners").array().sign();
  GivensChain turn(6);
  for (Index i = 0; i + 1 < 6; ++i) turn.append({i, i + 1, std::cos(0.1), std::sin(0.1)});
  Matrix<double> x = corners;
  turn.apply_rows(x);
  const ProcrustesFit fit = procrustes_rotation(x, {.target = ProcrustesTarget::corner});
  CHECK(fit.objectives.back() < 1e-20);
  CHECK(relative_error(fit.map, turn.to_matrix().transpose().eval()) < 1e-12);
}

TEST_CASE("rounding targets lie on an even grid from the least to the largest entry") {
  // Rows that are on such a grid already are their own targets.
  const Matrix<double> codes{{0, 3, 1, 2, 2}, {5, 5, 5, 5, 5}, {-1.5, 4.5, 0.5, 2.5, 0.5}};
  const ProcrustesFit fit =
      procrustes_rotation(codes, {.target = ProcrustesTarget::quantized, .bits = 2});
  CHECK(fit.objectives.front() == 0);
}

TEST_CASE("ART on the factors spreads a spike over the whole grid") {
  for (const auto& [left, right] : {std::pair<Index, Index>{8, 8}, {4, 6}, {2, 23}, {1, 7}}) {
    const Index n = left * right;
    const Vector<double> x = 5 * Vector<double>::Unit(n, n / 2);
    const GridVectors vectors = peak_vectors(x, left);
    const GivensChain l = align(vectors.left, {.tree = true, .greedy = {}});
    const GivensChain r = align(vectors.right, {.tree = true, .greedy = {}});
    Matrix<double> grid = x.reshaped<Eigen::RowMajor>(left, right);
    l.apply_columns(grid);
    r.apply_rows(grid);
    CHECK((grid.array() - 5 / std::sqrt(double(n))).abs().maxCoeff() < 1e-13);
  }
  const Vector<double> x = vector(12, "form");
  CHECK(align(x, {.tree = false, .greedy = {.steps = 2}}).turns().size() == 2);
}

TEST_CASE("URT on the factors of a rank-one grid gives the product of two ramps") {
  const Vector<double> a = vector(5, "a");
  const Vector<double> b = vector(8, "b");
  const Matrix<double> outer = a * b.transpose();
  const GridVectors vectors = leading_vectors(outer.reshaped<Eigen::RowMajor>(), 5);
  Matrix<double> grid = outer;
  uniformity_chain(vectors.left, ramp_target(vectors.left)).apply_columns(grid);
  uniformity_chain(vectors.right, ramp_target(vectors.right)).apply_rows(grid);
  CHECK(relative_error(grid, (ramp_target(a) * ramp_target(b).transpose()).eval()) < 1e-11);
}

}  // namespace
}  // namespace ruq::test
