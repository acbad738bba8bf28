#include "ruquant/transform/transform.hpp"

#include <doctest/doctest.h>

#include <Eigen/LU>
#include <Eigen/QR>
#include <string>
#include <vector>

#include "ruquant/base/rng.hpp"
#include "ruquant/transform/hadamard.hpp"
#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

// The widths of law 7, and one with a large odd factor.
constexpr std::array<Index, 11> kWidths = {1, 2, 3, 5, 12, 20, 28, 96, 172, 344, 46};

Transform<double> of(Step<double> step) {
  Transform<double> transform;
  transform.append(std::move(step));
  return transform;
}

Matrix<double> orthogonal(Index n, const std::string& name) {
  Stream stream(5, name);
  const Eigen::MatrixXd gauss = stream.normal(n, n);
  return gauss.householderQr().householderQ() * Eigen::MatrixXd::Identity(n, n);
}

// A well-conditioned map that is not orthogonal, with its dual.
SquareMap<double> skewed(Index n, const std::string& name) {
  const Matrix<double> map =
      orthogonal(n, name) + 0.2 * gaussian(n, n, name + "/skew") / std::sqrt(double(n));
  return {map, map.inverse().transpose()};
}

Vector<double> unit_vector(Index n, const std::string& name) {
  return gaussian(n, 1, name).col(0).normalized();
}

TEST_CASE("permutations, reflections and scales obey the laws at every width") {
  for (const Index d : kWidths) {
    Stream stream(2, "steps");
    check_transform_laws(of(Permutation{stream.permutation(d)}), d);
    check_transform_laws(of(Reflection<double>{unit_vector(d, "reflection")}), d);
    check_transform_laws(of(Scale<double>{stream.signs(d)}), d);
    check_transform_laws(of(Scale<double>{(stream.uniform(d).array() + 0.3).matrix()}), d);
  }
}

TEST_CASE("a Hadamard step obeys the laws on every width it divides, either way round") {
  for (const Index d : kWidths) {
    for (Index order = 1; order <= d; ++order) {
      if (d % order != 0 || !hadamard_exists(order)) continue;
      if (order > 1 && order < 12 && d > 100) continue;
      check_transform_laws(of(HadamardStep{order, false}).then(Transform<double>(d)), d);
      check_transform_laws(of(HadamardStep{order, true}), d);
    }
  }
}

TEST_CASE("block diagonal maps obey the laws: shared, one each, ragged, with duals") {
  const auto map = [](Index n, const char* name) {
    return SquareMap<double>{orthogonal(n, name), {}};
  };
  check_transform_laws(of(BlockDiagonal<double>{{map(4, "a")}, {0, 0, 0}}), 12);
  check_transform_laws(
      of(BlockDiagonal<double>{{map(4, "a"), map(4, "b"), map(4, "c")}, {2, 0, 1}}), 12);
  check_transform_laws(of(BlockDiagonal<double>{{map(8, "a"), map(4, "b")}, {0, 0, 1}}), 20);
  check_transform_laws(of(BlockDiagonal<double>{{map(1, "one")}, {0}}), 1);
  check_transform_laws(of(BlockDiagonal<double>{{skewed(7, "s")}, {0, 0, 0, 0}}), 28);
  check_transform_laws(of(BlockDiagonal<double>{{skewed(8, "s"), map(4, "b")}, {1, 0, 0}}), 20);
  check_transform_laws(of(BlockDiagonal<double>{{map(43, "large")}, {0, 0, 0, 0}}), 172);
}

TEST_CASE("Kronecker products obey the laws, with either factor missing or not orthogonal") {
  const auto map = [](Index n) { return SquareMap<double>{orthogonal(n, "factor"), {}}; };
  check_transform_laws(of(Kronecker<double>{map(3), map(4), 3, 4}), 12);
  check_transform_laws(of(Kronecker<double>{map(5), {}, 5, 4}), 20);
  check_transform_laws(of(Kronecker<double>{{}, map(7), 4, 7}), 28);
  check_transform_laws(of(Kronecker<double>{skewed(4, "l"), skewed(7, "r"), 4, 7}), 28);
  check_transform_laws(of(Kronecker<double>{skewed(8, "l"), map(12), 8, 12}), 96);
  check_transform_laws(of(Kronecker<double>{map(2), skewed(23, "r"), 2, 23}), 46);
  check_transform_laws(of(Kronecker<double>{map(1), map(1), 1, 1}), 1);
}

// One transform with every kind of step.
Transform<double> everything(Index d) {
  Stream stream(9, "everything");
  Transform<double> t(d);
  t.append(Scale<double>{(stream.uniform(d).array() + 0.5).matrix()});
  t.append(Permutation{stream.permutation(d)});
  t.append(HadamardStep{4, false});
  t.append(Reflection<double>{unit_vector(d, "everything")});
  t.append(BlockDiagonal<double>{{skewed(d / 4, "everything")}, {0, 0, 0, 0}});
  t.append(Kronecker<double>{skewed(4, "left"), {}, 4, d / 4});
  return t;
}

TEST_CASE("a list of all kinds of steps obeys the laws") {
  for (const Index d : {4, 12, 20, 28, 96}) check_transform_laws(everything(d), d);
}

TEST_CASE("then composes in order and keeps the parts as they were") {
  Stream stream(4, "then");
  const Transform<double> a = of(Permutation{stream.permutation(12)});
  const Transform<double> b = of(Reflection<double>{unit_vector(12, "then")});
  const Matrix<double> product = dense_matrix(a, 12) * dense_matrix(b, 12);
  CHECK(relative_error(a.then(b).to_matrix(12), product) < 1e-13);
  CHECK(relative_error(b.then(a).to_matrix(12), product) > 1e-2);
  CHECK(a.steps().size() == 1);
  const Transform<double> identity;
  CHECK(same_transform(identity.then(a), a));
  CHECK(same_transform(a.then(identity), a));
}

TEST_CASE("the identity of width 0 leaves any matrix alone") {
  const Transform<double> identity;
  Matrix<double> x = gaussian(3, 7, "identity");
  const Matrix<double> before = x;
  identity.apply(x);
  identity.apply_dual(x);
  identity.apply_transpose(x);
  identity.apply_to_outputs(x);
  CHECK(x == before);
  CHECK(identity.is_identity());
  CHECK(identity.is_orthogonal());
}

TEST_CASE("is_orthogonal tells signs from scales and maps with duals from those without") {
  CHECK(of(Scale<double>{Vector<double>{{1, -1, 1}}}).is_orthogonal());
  CHECK_FALSE(of(Scale<double>{Vector<double>{{1, -1, 1.5}}}).is_orthogonal());
  CHECK(of(BlockDiagonal<double>{{{orthogonal(3, "o"), {}}}, {0}}).is_orthogonal());
  CHECK_FALSE(of(BlockDiagonal<double>{{skewed(3, "o")}, {0}}).is_orthogonal());
  CHECK_FALSE(of(Kronecker<double>{{}, skewed(3, "o"), 2, 3}).is_orthogonal());
  CHECK_FALSE(everything(12).is_orthogonal());
}

TEST_CASE("describe names every step") {
  CHECK(Transform<double>().describe() == "identity");
  CHECK(everything(96).describe() ==
        "scale, permutation, hadamard(4), reflection, blocks(4x24), kronecker(4x24)");
  CHECK(of(Scale<double>{Vector<double>{{1, -1}}}).describe() == "signs");
}

TEST_CASE("steps that do not fit are refused with both widths") {
  Transform<double> t(12);
  check_error([&] { t.append(Permutation{{0, 1, 2}}); }, {"3", "12"});
  check_error([&] { t.append(Reflection<double>{unit_vector(13, "x")}); }, {"13", "12"});
  check_error([&] { t.append(HadamardStep{8}); }, {"8", "12"});
  check_error([&] { t.append(HadamardStep{6}); }, {"no Hadamard matrix of order 6"});
  check_error([&] { t.append(Scale<double>{Vector<double>::Ones(5)}); }, {"5", "12"});
  check_error(
      [&] {
        t.append(BlockDiagonal<double>{{{orthogonal(5, "b"), {}}}, {0, 0}});
      },
      {"10", "12"});
  check_error([&] { t.append(Kronecker<double>{{}, {}, 3, 5}); }, {"15", "12"});
  CHECK(t.is_identity());
  check_error([&] { t.then(Transform<double>(5)).append(Permutation{{0}}); }, {"1", "12"});
}

TEST_CASE("permutations that are none are refused") {
  Transform<double> t(3);
  const std::vector<std::vector<Index>> none = {{0, 1, 3}, {0, 1, -1}, {2, 1, 2}, {0, 0, 0}};
  for (const auto& index : none) {
    check_error([&] { t.append(Permutation{index}); },
                {"a permutation", "expected each of 0 to 2 once"});
  }
  check_error([&] { t.append(Permutation{}); }, {"width 0", "at least one channel"});
  CHECK(t.is_identity());
}

TEST_CASE("maps and duals that are not square or of two sizes are refused") {
  const Matrix<double> square = orthogonal(3, "whole");
  const Matrix<double> flat = Matrix<double>::Ones(3, 4);
  const Matrix<double> small = Matrix<double>::Ones(2, 2);
  const auto refuse = [](const SquareMap<double>& map, std::initializer_list<std::string> words) {
    check_error([&] { of(BlockDiagonal<double>{{map}, {0}}); }, words);
    check_error([&] { of(Kronecker<double>{map, {}, 3, 2}); }, words);
    check_error([&] { of(Kronecker<double>{{}, map, 2, 3}); }, words);
  };
  refuse({flat, {}}, {"3x4", "square"});
  refuse({square, flat}, {"dual of 3x4", "3x3"});
  refuse({square, small}, {"dual of 2x2", "3x3"});
  check_error([&] { of(Kronecker<double>{{{}, square}, {}, 3, 2}); }, {"dual of 3x3", "0x0"});
}

TEST_CASE("blocks that are mapped by nothing are refused") {
  const SquareMap<double> map = {orthogonal(2, "block"), {}};
  for (const Index which : {Index{-1}, Index{2}}) {
    check_error(
        [&] {
          of(BlockDiagonal<double>{{map, map}, {0, which}});
        },
        {std::to_string(which), "one of the 2 maps"});
  }
  check_error([&] { of(BlockDiagonal<double>{{map}, {}}); }, {"width 0"});
  check_error([&] { of(BlockDiagonal<double>{{}, {}}); }, {"width 0"});
  check_error([&] { of(BlockDiagonal<double>{{map, {}}, {0}}); }, {"block without channels"});
}

TEST_CASE("Kronecker factors of other widths than told are refused") {
  const SquareMap<double> map = {orthogonal(3, "factor"), {}};
  check_error([&] { of(Kronecker<double>{map, {}, 4, 5}); }, {"left", "width 3", "expected 4"});
  check_error([&] { of(Kronecker<double>{{}, map, 5, 2}); }, {"right", "width 3", "expected 2"});
  for (const Index width : {Index{0}, Index{-3}, Index{1} << 40}) {
    const std::string found = "width " + std::to_string(width);
    check_error([&] { of(Kronecker<double>{{}, map, width, 3}); }, {"left", found});
    check_error([&] { of(Kronecker<double>{map, {}, 3, width}); }, {"right", found});
  }
}

TEST_CASE("applying a transform to a matrix of another width is caught") {
  const Transform<double> t = of(Permutation{{1, 0, 2}});
  Matrix<double> x = Matrix<double>::Ones(2, 4);
  check_error([&] { t.apply(x); }, {"4 channels", "transform 3"});
  check_error([&] { t.apply_dual(x); }, {"4 columns", "transform 3"});
}

}  // namespace
}  // namespace ruq::test
