#include "ruquant/transform/givens_chain.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

constexpr double kPi = std::numbers::pi;

Vector<double> vector(Index n, const std::string& name) { return gaussian(n, 1, name).col(0); }

double peak(const Vector<double>& x) { return x.cwiseAbs().maxCoeff(); }

GivensChain random_chain(Index n, Index turns, const std::string& name) {
  Stream stream(3, name);
  GivensChain chain(n);
  for (Index k = 0; k < turns; ++k) {
    const auto order = stream.permutation(n);
    const double angle = 2 * kPi * stream.uniform(1)(0);
    chain.append({order[0], order[1], std::cos(angle), std::sin(angle)});
  }
  return chain;
}

// Σ over rows of the fourth powers of channels i and j after a turn by `angle`.
double fourth_powers(const Matrix<double>& x, Index i, Index j, double angle) {
  double sum = 0;
  for (Index t = 0; t < x.rows(); ++t) {
    const double a = x(t, i) * std::cos(angle) + x(t, j) * std::sin(angle);
    const double b = x(t, j) * std::cos(angle) - x(t, i) * std::sin(angle);
    sum += a * a * a * a + b * b * b * b;
  }
  return sum;
}

double fourth_powers(const Matrix<double>& x) { return x.array().square().square().sum(); }

TEST_CASE("a chain is its matrix, whichever way it is applied") {
  for (const Index n : {2, 3, 5, 12, 20, 28, 46, 96}) {
    CAPTURE(n);
    const GivensChain chain = random_chain(n, 3 * n, "chain");
    const Matrix<double> m = chain.to_matrix();
    CHECK(orthogonality_error(m) < 1e-12);
    CHECK(Eigen::MatrixXd(m).determinant() == doctest::Approx(1));
    Matrix<double> rows = gaussian(300, n, "rows");
    const Matrix<double> expected = rows * m;
    Matrix<double> columns = rows.transpose();
    Vector<double> first = rows.row(0).transpose();
    chain.apply_rows(rows);
    chain.apply_columns(columns);
    chain.apply(first);
    CHECK(relative_error(rows, expected) < 1e-12);
    CHECK(relative_error(columns, expected.transpose().eval()) < 1e-12);
    CHECK(first == rows.row(0).transpose());
  }
}

TEST_CASE("chains compose and invert") {
  const GivensChain a = random_chain(9, 20, "a");
  const GivensChain b = random_chain(9, 15, "b");
  CHECK(a.then(b).turns().size() == 35);
  CHECK(relative_error(a.then(b).to_matrix(), (a.to_matrix() * b.to_matrix()).eval()) < 1e-12);
  CHECK(relative_error(a.then(a.inverse()).to_matrix(), Matrix<double>::Identity(9, 9)) < 1e-12);
  CHECK(relative_error(a.inverse().to_matrix(), a.to_matrix().transpose().eval()) < 1e-13);
}

TEST_CASE("planes outside a chain are refused") {
  GivensChain chain(3);
  for (const auto& [i, j] : {std::pair<Index, Index>{1, 1}, {0, 3}, {-1, 0}}) {
    check_error([&] { chain.append({i, j, 1, 0}); }, {"plane", "width 3"});
  }
  check_error([&] { chain.then(GivensChain(4)); }, {"4", "3"});
  CHECK(chain.turns().empty());
}

TEST_CASE("an alignment turn makes both entries ρ/√2, the least peak of its plane") {
  for (int draw = 0; draw < 50; ++draw) {
    const Vector<double> x = vector(4, "pair" + std::to_string(draw));
    const double length = std::hypot(x(3), x(1));
    GivensChain chain(4);
    chain.append(alignment_turn(x, 3, 1));
    Vector<double> y = x;
    chain.apply(y);
    CHECK(y(3) == doctest::Approx(length / std::sqrt(2)).epsilon(1e-14));
    CHECK(y(1) == doctest::Approx(length / std::sqrt(2)).epsilon(1e-14));
    CHECK(y(0) == x(0));
    double least = length;
    for (int k = 0; k < 2000; ++k) {
      const double angle = kPi / 2000 * k;
      least = std::min(least, std::max(std::abs(x(3) * std::cos(angle) + x(1) * std::sin(angle)),
                                       std::abs(x(1) * std::cos(angle) - x(3) * std::sin(angle))));
    }
    CHECK(least >= y(3) * (1 - 1e-14));
    CHECK(least < y(3) * 1.002);
  }
  const PlaneTurn none = alignment_turn(Vector<double>::Zero(2), 0, 1);
  CHECK(none.cosine == 1);
  CHECK(none.sine == 0);
}

// The greedy chain with a full scan for both ends at every step.
std::vector<PlaneTurn> scanned_chain(Vector<double> x, Index steps, double crest) {
  std::vector<PlaneTurn> turns;
  const double target = crest * x.norm() / std::sqrt(double(x.size()));
  for (Index step = 0; step < std::min(steps, x.size() - 1); ++step) {
    Index i = 0;
    Index j = 0;
    for (Index k = 1; k < x.size(); ++k) {
      if (std::abs(x(k)) > std::abs(x(i))) i = k;
      if (std::abs(x(k)) < std::abs(x(j))) j = k;
    }
    if (std::abs(x(i)) <= target || std::abs(x(i)) == std::abs(x(j))) break;
    turns.push_back(alignment_turn(x, i, j));
    GivensChain one(x.size());
    one.append(turns.back());
    one.apply(x);
  }
  return turns;
}

TEST_CASE("the greedy chain takes the turns that a full scan takes") {
  for (const Index n : {1, 2, 3, 5, 12, 64, 128}) {
    for (const Index steps : {0, 1, 8, 200}) {
      CAPTURE(n);
      CAPTURE(steps);
      Vector<double> x = vector(n, "greedy");
      x(n / 2) *= 30;
      const auto expected = scanned_chain(x, steps, 1.2);
      const auto turns = alignment_chain(x, {.steps = steps}).turns();
      REQUIRE(turns.size() == expected.size());
      for (std::size_t k = 0; k < turns.size(); ++k) {
        CHECK(turns[k].i == expected[k].i);
        CHECK(turns[k].j == expected[k].j);
        CHECK(turns[k].sine == expected[k].sine);
      }
    }
  }
}

TEST_CASE("the greedy chain never raises the peak and stops at its crest") {
  Vector<double> x = vector(64, "stop");
  x(5) = 40;
  const double rms = x.norm() / 8;
  const GivensChain chain = alignment_chain(x, {.steps = 1000, .crest = 1.5});
  double before = peak(x);
  for (const PlaneTurn& turn : chain.turns()) {
    CHECK(before > 1.5 * rms);
    GivensChain one(64);
    one.append(turn);
    one.apply(x);
    CHECK(peak(x) <= before * (1 + 1e-15));
    before = peak(x);
  }
  CHECK(before <= 1.5 * rms);
  CHECK(chain.turns().size() > 3);
  CHECK(chain.turns().size() < 63);
}

TEST_CASE("K = 1 brings a lone spike A to A/√2") {
  const Vector<double> x = -7 * Vector<double>::Unit(16, 3);
  Vector<double> y = x;
  alignment_chain(x, {.steps = 1}).apply(y);
  CHECK(peak(y) == doctest::Approx(7 / std::sqrt(2)).epsilon(1e-14));
}

TEST_CASE("zeros, equal entries and one channel need no turn; NaN is refused") {
  CHECK(alignment_chain(Vector<double>::Zero(8)).turns().empty());
  CHECK(alignment_chain(Vector<double>::Constant(8, -2), {.crest = 0.5}).turns().empty());
  CHECK(alignment_chain(Vector<double>::Constant(1, 3), {.crest = 0.5}).turns().empty());
  CHECK(alignment_tree(Vector<double>::Constant(1, 3)).turns().empty());
  Vector<double> x = vector(4, "nan");
  x(2) = std::numeric_limits<double>::quiet_NaN();
  check_error([&] { alignment_chain(x); }, {"finite"});
}

TEST_CASE("the tree shares a spike A out as A/√n on any number of channels") {
  for (const Index n : {2, 3, 5, 12, 20, 28, 46, 64, 96}) {
    CAPTURE(n);
    const Vector<double> x = -9 * Vector<double>::Unit(n, n / 3);
    const GivensChain chain = alignment_tree(x);
    CHECK(std::ssize(chain.turns()) == n - 1);
    Vector<double> y = x;
    chain.apply(y);
    CHECK(relative_error(y, Vector<double>::Constant(n, 9 / std::sqrt(double(n)))) < 1e-13);
    CHECK(orthogonality_error(chain.to_matrix()) < 1e-12);
  }
}

TEST_CASE("the tree starts at the largest entry and flattens what is spiky") {
  Vector<double> x = vector(64, "tree");
  x(40) = 30;
  const GivensChain chain = alignment_tree(x);
  CHECK(chain.turns().front().i == 40);
  Vector<double> y = x;
  chain.apply(y);
  CHECK(peak(y) < 0.35 * peak(x));
}

TEST_CASE("the quartimax turn is the optimum of a fine grid, at the closed minimum") {
  for (const Index rows : {1, 2, 7, 100}) {
    for (int draw = 0; draw < 10; ++draw) {
      CAPTURE(rows);
      const Matrix<double> x =
          gaussian(rows, 3, "quartimax" + std::to_string(draw)).array().cube().matrix();
      const PlaneTurn turn = quartimax_turn(x, 2, 0);
      const double angle = std::atan2(turn.sine, turn.cosine);
      CHECK(std::abs(angle) <= kPi / 4 + 1e-15);
      const double reached = fourth_powers(x, 2, 0, angle);
      double least = reached;
      for (int k = 0; k < 4000; ++k) {
        least = std::min(least, fourth_powers(x, 2, 0, kPi / 2 / 4000 * k));
      }
      CHECK(reached <= least * (1 + 1e-13));
      std::complex<double> s4 = 0;
      double sizes = 0;
      for (Index t = 0; t < rows; ++t) {
        const std::complex<double> z(x(t, 2), x(t, 0));
        s4 += std::pow(z, 4);
        sizes += std::pow(std::abs(z), 4);
      }
      CHECK(reached == doctest::Approx(0.75 * sizes - std::abs(s4) / 4).epsilon(1e-12));
    }
  }
}

TEST_CASE("of one row the quartimax turn aligns like ART; zeros stay") {
  const Matrix<double> x = gaussian(1, 2, "one row");
  const PlaneTurn turn = quartimax_turn(x, 0, 1);
  const double length = x.norm() / std::sqrt(2);
  CHECK(std::abs(turn.cosine * x(0) + turn.sine * x(1)) == doctest::Approx(length).epsilon(1e-14));
  CHECK(std::abs(turn.cosine * x(1) - turn.sine * x(0)) == doctest::Approx(length).epsilon(1e-14));
  CHECK(quartimax_turn(Matrix<double>::Zero(5, 2), 0, 1).sine == 0);
}

TEST_CASE("sweeps never raise the sum of fourth powers, and return what they did") {
  const Matrix<double> start = gaussian(50, 12, "sweeps", 2);
  double before = fourth_powers(start);
  for (const Index sweeps : {1, 2, 3, 6}) {
    Matrix<double> x = start;
    const GivensChain chain = quartimax_sweeps(x, {.sweeps = sweeps, .settled = 0});
    CHECK(relative_error(x, (start * chain.to_matrix()).eval()) < 1e-12);
    CHECK(orthogonality_error(chain.to_matrix()) < 1e-12);
    CHECK(fourth_powers(x) <= before * (1 + 1e-14));
    before = fourth_powers(x);
  }
  CHECK(before < 0.5 * fourth_powers(start));
  Matrix<double> untouched = start;
  CHECK(quartimax_sweeps(untouched, {.sweeps = 0}).turns().empty());
  CHECK(untouched == start);
}

TEST_CASE("sweeps end where every pair is at its optimum") {
  // Without a dominant channel: with one, the sum is nearly flat in the turns of all others, and
  // sweeps need thousands of rounds.
  Matrix<double> x = gaussian(40, 6, "optimum");
  quartimax_sweeps(x, {.sweeps = 400, .settled = 1e-15});
  const double reached = fourth_powers(x);
  for (Index i = 0; i < 6; ++i) {
    for (Index j = i + 1; j < 6; ++j) {
      const PlaneTurn turn = quartimax_turn(x, i, j);
      GivensChain one(6);
      one.append(turn);
      Matrix<double> better = x;
      one.apply_rows(better);
      CHECK(fourth_powers(better) > reached * (1 - 1e-9));
    }
  }
}

}  // namespace
}  // namespace ruq::test
