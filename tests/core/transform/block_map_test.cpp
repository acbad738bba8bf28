#include "ruquant/transform/block_map.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>
#include <algorithm>
#include <cmath>

#include "support/errors.hpp"
#include "support/laws.hpp"
#include "support/tape.hpp"

namespace ruq::test {
namespace {

// Counts what is asked of it.
class CountingDraws final : public Draws {
 public:
  Vector<double> uniform(Index n) override {
    ++uniforms;
    return stream_.uniform(n);
  }
  std::vector<Index> permutation(Index n) override {
    ++permutations;
    return stream_.permutation(n);
  }
  Matrix<double> normal(Index, Index) override {
    FAIL("block maps draw no normal numbers");
    return {};
  }
  Index uniforms = 0;
  Index permutations = 0;

 private:
  Stream stream_{8, "counted"};
};

Index extreme_row(const Matrix<double>& x) {
  Index row = 0;
  x.cwiseAbs().rowwise().maxCoeff().maxCoeff(&row);
  return row;
}

TEST_CASE("a reflection sends the extreme sample exactly to its drawn target") {
  for (const Index width : {2, 3, 5, 12, 28, 96}) {
    CAPTURE(width);
    const Matrix<double> before = gaussian(40, width, "samples", 1);
    const Vector<double> u = Stream(1, "target").uniform(width);
    Matrix<double> after = before;
    Tape tape(u, {});
    BlockMapTrace trace;
    const Matrix<double> map =
        build_block_map(after, {.steps = 1, .givens_per_step = 0}, tape, &trace);
    const Index row = extreme_row(before);
    const Vector<double> target = before.row(row).norm() / u.norm() * u;
    CHECK(trace.chosen == std::vector<Index>{row});
    CHECK(relative_error(after.row(row), target.transpose()) < 1e-13);
    CHECK((map - Matrix<double>(map.transpose())).cwiseAbs().maxCoeff() < 1e-14);
    CHECK(map.determinant() == doctest::Approx(-1));
    REQUIRE(trace.peaks.size() == 1);
    CHECK(trace.peaks[0] == after.cwiseAbs().maxCoeff());
    CHECK(tape.used_up());
  }
}

TEST_CASE("targets on [-1,1) leave the positive orthant") {
  Matrix<double> x = gaussian(10, 4, "samples");
  const Index row = extreme_row(x);
  const double norm = x.row(row).norm();
  const Vector<double> u{{0.1, 0.9, 0.5, 0.2}};
  Tape tape(u, {});
  build_block_map(x, {.steps = 1, .givens_per_step = 0, .target = Target::u11}, tape);
  const Vector<double> centred{{-0.8, 0.8, 0, -0.6}};
  CHECK((x.row(row).transpose() - norm * centred.normalized()).cwiseAbs().maxCoeff() < 1e-13);
}

TEST_CASE("every target has the sample's norm and its own shape") {
  const auto reached = [](Target target) {
    Matrix<double> x = gaussian(10, 8, "samples");
    const Matrix<double> before = x;
    const Index row = extreme_row(x);
    Stream draws(3, "targets");
    build_block_map(x, {.steps = 1, .givens_per_step = 0, .target = target}, draws);
    CHECK(x.row(row).norm() == doctest::Approx(before.row(row).norm()));
    return std::pair<RowVector<double>, RowVector<double>>(before.row(row), x.row(row));
  };
  const auto corner = reached(Target::corner).second;
  CHECK((corner.cwiseAbs().array() - corner.norm() / std::sqrt(8)).abs().maxCoeff() < 1e-12);
  CHECK(corner.minCoeff() < 0);
  CHECK(corner.maxCoeff() > 0);
  const auto ones = reached(Target::ones).second;
  CHECK((ones.array() - ones.norm() / std::sqrt(8)).abs().maxCoeff() < 1e-12);
  // The ramp keeps the order of the sample and is evenly spaced.
  const auto [sample, ramp] = reached(Target::ramp);
  RowVector<double> sorted = ramp;
  std::sort(sorted.begin(), sorted.end());
  for (Index i = 0; i + 1 < 8; ++i) {
    CHECK(sorted(i + 1) - sorted(i) == doctest::Approx(sorted(1) - sorted(0)));
    for (Index j = 0; j < 8; ++j) {
      if (sample(i) < sample(j)) CHECK(ramp(i) < ramp(j));
    }
  }
  const auto sphere = reached(Target::sphere).second;
  CHECK(sphere.minCoeff() < 0);
  const Vector<double> direction = Stream(3, "targets").normal(8, 1).col(0);
  CHECK((sphere.transpose() - sphere.norm() * direction.normalized()).norm() < 1e-12);
}

TEST_CASE("each pick maps the sample that it looks for") {
  Matrix<double> x = 0.1 * gaussian(6, 4, "quiet");
  x.row(1) << 5, 4.9, 4.9, 5;  // the largest entry, a narrow range
  x.row(2) << 3, -3, 3, -3;    // the widest range
  x.row(4) << 0, 0, 1, 0;      // the largest kurtosis
  const auto chosen = [&](Pick pick) {
    Matrix<double> samples = x;
    BlockMapTrace trace;
    Stream draws(1, "picks");
    build_block_map(samples, {.steps = 1, .givens_per_step = 0, .pick = pick}, draws, &trace);
    return trace.chosen.at(0);
  };
  CHECK(chosen(Pick::maxabs) == 1);
  CHECK(chosen(Pick::range) == 2);
  CHECK(chosen(Pick::kurtosis) == 4);
  CHECK(chosen(Pick::random) == static_cast<Index>(Stream(1, "picks").uniform(1)(0) * 6));
}

TEST_CASE("targets and picks by name") {
  CHECK(target("ramp") == Target::ramp);
  CHECK(target_names().at(static_cast<std::size_t>(Target::corner)) == "corner");
  CHECK(pick("kurtosis") == Pick::kurtosis);
  check_error([] { target("ramb"); }, {"unknown target 'ramb'", "ramp"});
  check_error([] { pick("largest"); }, {"unknown pick 'largest'"});
}

// One round of Givens rotations on samples whose extreme row is row 0.
struct GivensRound {
  Matrix<double> before = gaussian(20, 6, "givens");
  Vector<double> u{{0.3, 0.4, 0.9, 0.1, 0.5, 0.5}};
  std::vector<Index> order{4, 0, 3, 5, 2, 1};
  Matrix<double> after, map;

  explicit GivensRound(GivensDirection direction) {
    before.row(0) << 9, -2, 1, 3, -40, 6;
    after = before;
    Tape tape(u, order);
    map = build_block_map(
        after, {.steps = 1, .givens_per_step = 1, .reflections = false, .givens = direction}, tape);
    CHECK(tape.used_up());
  }
  Eigen::Vector2d source(Index pair) const {
    return {before(0, order[std::size_t(2 * pair)]), before(0, order[std::size_t(2 * pair + 1)])};
  }
  Eigen::Vector2d target(Index pair) const {
    return u.segment<2>(2 * pair).normalized() * source(pair).norm();
  }
};

TEST_CASE("a mapped Givens rotation sends each pair of the extreme sample to its target") {
  const GivensRound round(GivensDirection::mapped);
  for (Index pair = 0; pair < 3; ++pair) {
    const Eigen::Vector2d reached = round.after.block<1, 2>(0, 2 * pair).transpose();
    CHECK((reached - round.target(pair)).norm() < 1e-13 * round.source(pair).norm());
  }
}

TEST_CASE("the published direction turns each pair by the same angle the other way (Q1)") {
  const GivensRound round(GivensDirection::code);
  const auto angle = [](const Eigen::Vector2d& v) { return std::atan2(v(1), v(0)); };
  for (Index pair = 0; pair < 3; ++pair) {
    const Eigen::Vector2d reached = round.after.block<1, 2>(0, 2 * pair).transpose();
    const double expected = 2 * angle(round.source(pair)) - angle(round.target(pair));
    CHECK(std::abs(std::remainder(angle(reached) - expected, 2 * M_PI)) < 1e-12);
    CHECK((reached - round.target(pair)).norm() > 1e-2 * round.source(pair).norm());
  }
}

TEST_CASE("a zero pair and a zero target rotate nothing (Q12)") {
  for (const GivensDirection direction : {GivensDirection::code, GivensDirection::mapped}) {
    Matrix<double> x = gaussian(8, 4, "zero pair");
    x.row(0) << 50, 7, 0, 0;
    const Matrix<double> before = x;
    Tape tape(Vector<double>{{0.5, 0.1, 0.3, 0.8}}, {0, 1, 2, 3});
    const BlockMapOptions one = {
        .steps = 1, .givens_per_step = 1, .reflections = false, .givens = direction};
    const Matrix<double> map = build_block_map(x, one, tape);
    CHECK(x.rightCols(2) == before.rightCols(2));
    CHECK(x.leftCols(2) != before.leftCols(2));
    CHECK(map.allFinite());

    Matrix<double> y = before;
    Tape zeros(Vector<double>::Zero(4), {0, 1, 2, 3});
    build_block_map(y, one, zeros);
    CHECK(y == before);
  }
  CHECK(plane_rotation(0, 0, 0, 0).cosine == 1);
  CHECK(plane_rotation(0, 0, 1, 2).sine == 0);
}

TEST_CASE("a plane rotation takes the target to the source") {
  const PlaneRotation r = plane_rotation(3, 4, -5, 0);
  CHECK(r.cosine * -5 + r.sine * 0 == doctest::Approx(3));
  CHECK(-r.sine * -5 + r.cosine * 0 == doctest::Approx(4));
  CHECK(r.cosine * r.cosine + r.sine * r.sine == doctest::Approx(1));
}

TEST_CASE("no steps: the identity, and no draws") {
  Matrix<double> x = gaussian(5, 6, "none");
  const Matrix<double> before = x;
  Tape empty({}, {});
  CHECK(build_block_map(x, {.steps = 0}, empty) == Matrix<double>::Identity(6, 6));
  CHECK(x == before);
}

TEST_CASE("a sample that already is its target skips the step after one draw") {
  Matrix<double> x = 0.1 * gaussian(5, 4, "near");
  x.row(2) << 4, 3, 2, 1;
  const Matrix<double> before = x;
  Tape tape(Vector<double>{{0.8, 0.6, 0.4, 0.2}}, {});
  const Matrix<double> map = build_block_map(x, {.steps = 1, .givens_per_step = 3}, tape);
  CHECK(map == Matrix<double>::Identity(4, 4));
  CHECK(x == before);
  CHECK(tape.used_up());
}

TEST_CASE("samples of zeros give the identity") {
  Matrix<double> x = Matrix<double>::Zero(3, 4);
  CountingDraws draws;
  CHECK(build_block_map(x, {.steps = 5}, draws) == Matrix<double>::Identity(4, 4));
}

TEST_CASE("the lowest row wins a tie") {
  Matrix<double> x = gaussian(1500, 4, "tie").cwiseMin(3).cwiseMax(-3);
  for (const Index row : {1200, 700, 90}) x(row, row % 4) = row == 700 ? -9 : 9;
  Tape tape(Vector<double>{{0.8, 0.6, 0.4, 0.2}}, {});
  BlockMapTrace trace;
  build_block_map(x, {.steps = 1, .givens_per_step = 0}, tape, &trace);
  CHECK(trace.chosen.front() == 90);
}

TEST_CASE("a map is orthogonal, does what the samples say, and draws K(1 + 2λ) times") {
  for (const Index width : {1, 2, 3, 5, 12, 20, 28, 46, 96}) {
    CAPTURE(width);
    const Matrix<double> before = gaussian(700, width, "map", 2);
    Matrix<double> after = before;
    CountingDraws draws;
    BlockMapTrace trace;
    const Matrix<double> map =
        build_block_map(after, {.steps = 6, .givens_per_step = 3}, draws, &trace);
    CHECK(orthogonality_error(map) < 1e-12);
    CHECK(relative_error(after, (before * map).eval()) < 1e-12);
    // At width 1 a target is the sample or its negative, so later steps are skipped.
    if (width == 1) continue;
    CHECK(draws.uniforms == 6 * (1 + 3));
    CHECK(draws.permutations == 6 * 3);
    CHECK(trace.chosen.size() == 6 * (1 + 3));
    CHECK(trace.peaks.size() == 6);
  }
}

TEST_CASE("in float the map is still orthogonal to double precision") {
  const Matrix<float> before = gaussian(300, 16, "float", 1).cast<float>();
  Matrix<float> after = before;
  Stream draws(3, "float");
  const Matrix<double> map = build_block_map(after, {.steps = 8}, draws);
  CHECK(orthogonality_error(map) < 1e-12);
  CHECK(relative_error(after, (before.cast<double>() * map).eval()) < 1e-5);
}

TEST_CASE("outliers are spread") {
  Matrix<double> x = gaussian(400, 32, "spread", 1);
  const double before = x.cwiseAbs().maxCoeff();
  Stream draws(3, "spread");
  build_block_map(x, {}, draws);
  CHECK(x.cwiseAbs().maxCoeff() < 0.6 * before);
}

TEST_CASE("the global reflection sends the extreme token to its target") {
  for (const Target range : {Target::u01, Target::u11}) {
    const Matrix<double> y = gaussian(30, 12, "global", 1);
    Stream draws(6, "global");
    Index row = -1;
    const Vector<double> v = global_reflection_direction(y, range, draws, &row).normalized();
    CHECK(row == extreme_row(y));
    Vector<double> u = Stream(6, "global").uniform(12);
    if (range == Target::u11) u = 2 * u.array() - 1;
    const RowVector<double> reached = y.row(row) - 2 * y.row(row).dot(v) * v.transpose();
    const RowVector<double> target = y.row(row).norm() * u.normalized().transpose();
    CHECK(relative_error(reached, target) < 1e-13);
  }
}

TEST_CASE("there is no map of no samples") {
  Matrix<double> none(0, 4);
  Stream draws(1, "none");
  check_error([&] { build_block_map(none, {}, draws); },
              {"internal check", "no rows of 4 channels"});
}

TEST_CASE("two threads build the map of one") {
  const Matrix<double> samples = gaussian(5000, 16, "threads", 1);
  Matrix<double> one = samples, two = samples;
  Stream draws(1, "threads"), again(1, "threads");
  const Matrix<double> map = build_block_map(one, {}, draws);
  set_threads(2);
  CHECK(build_block_map(two, {}, again) == map);
  set_threads(1);
  CHECK(one == two);
}

}  // namespace
}  // namespace ruq::test
