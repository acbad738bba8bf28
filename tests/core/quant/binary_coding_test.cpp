#include "ruquant/quant/binary_coding.hpp"

#include <doctest/doctest.h>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

RowVector<double> factors(std::initializer_list<double> values) {
  RowVector<double> alpha(static_cast<Index>(values.size()));
  std::copy(values.begin(), values.end(), alpha.begin());
  return alpha;
}

/// The first code, in order, whose level is nearest.
Index naive_nearest(const RowVector<double>& alpha, double value) {
  Index best = 0;
  double best_distance = 1e300;
  for (Index code = 0; code < (Index{1} << alpha.size()); ++code) {
    double level = 0;
    for (Index i = 0; i < alpha.size(); ++i)
      level += alpha(i) * code_sign<double>(code, i, alpha.size());
    if (std::abs(value - level) < best_distance) {
      best = code;
      best_distance = std::abs(value - level);
    }
  }
  return best;
}

TEST_CASE("codes count from all +1 downward") {
  CHECK(code_sign<double>(0, 0, 3) == 1);
  CHECK(code_sign<double>(0, 2, 3) == 1);
  CHECK(code_sign<double>(4, 0, 3) == -1);
  CHECK(code_sign<double>(4, 1, 3) == 1);
  CHECK(code_sign<double>(1, 2, 3) == -1);
  const LevelTable<double> levels(factors({4, 2, 1}));
  CHECK(levels.size() == 8);
  for (Index code = 0; code < 8; ++code) CHECK(levels.level(code) == 7 - 2 * double(code));
}

TEST_CASE("the nearest level is found, ordered factors or not, ties to the smaller code") {
  for (const auto& alpha : {factors({4, 2, 1}), factors({1, 1, 1}), factors({1, -3, 0.5, 0.75}),
                            factors({0.25}), factors({2, 0, 1})}) {
    const LevelTable<double> levels(alpha);
    for (int i = -80; i <= 80; ++i) {
      const double value = i / 8.0;
      CAPTURE(alpha);
      CAPTURE(value);
      CHECK(levels.nearest(value) == naive_nearest(alpha, value));
    }
  }
}

TEST_CASE("one bit takes the mean magnitude and the sign") {
  const Matrix<double> weight = gaussian(5, 30, "weight");
  const BinaryCode<double> code = binary_coding(weight, {.bits = 1}, {});
  for (Index r = 0; r < 5; ++r) {
    const double mean = weight.row(r).cwiseAbs().mean();
    CHECK(code.alpha(r, 0) == doctest::Approx(mean).epsilon(1e-6));
    for (Index c = 0; c < 30; ++c) CHECK((code.codes(r, c) == 0) == (weight(r, c) > 0));
  }
}

TEST_CASE("values that are in binary coding come back") {
  const RowVector<double> alpha = factors({2.1, 0.9, 0.3});
  const LevelTable<double> levels(alpha);
  for (const double shift : {0.0, 0.2}) {
    Matrix<double> weight(3, 64);
    const Vector<double> draws = Stream(3, "codes").uniform(weight.size());
    for (Index i = 0; i < weight.size(); ++i) {
      weight.data()[i] = levels.level(static_cast<Index>(draws(i) * 8)) + shift;
    }
    const BinaryCode<double> code =
        binary_coding(weight, {.bits = 3}, {.rounds = 60, .fit_shift = shift != 0});
    CHECK(relative_error(code.decode(64), weight) < 1e-4);
  }
}

TEST_CASE("factors end as the least squares of their codes, and alternation gains on greed") {
  const Matrix<double> weight = gaussian(20, 96, "weight");
  for (const Index bits : {2, 3, 4}) {
    const BinaryCode<double> code = binary_coding(weight, {.bits = bits}, {.rounds = 100});
    const BinaryCode<double> greedy = binary_coding(weight, {.bits = bits}, {.rounds = 0});
    CHECK((code.decode(96) - weight).squaredNorm() <
          0.95 * (greedy.decode(96) - weight).squaredNorm());
    const Matrix<double> residual = code.decode(96) - weight;
    for (Index r = 0; r < 20; ++r) {
      for (Index i = 0; i < bits; ++i) {
        double slope = 0;
        for (Index c = 0; c < 96; ++c)
          slope += residual(r, c) * code_sign<double>(code.codes(r, c), i, bits);
        CHECK(std::abs(slope) < 1e-3 * weight.row(r).norm());
      }
    }
    for (Index i = 1; i < bits; ++i) {
      CHECK((code.alpha.col(i).array() <= code.alpha.col(i - 1).array()).all());
    }
  }
}

TEST_CASE("the fit scales with the weight and runs group by group") {
  const Matrix<double> weight = gaussian(4, 24, "weight", 1);
  const BinaryCodingOptions options{.fit_shift = true};
  const QuantSpec grouped{.bits = 3, .group_size = 8};
  const BinaryCode<double> code = binary_coding(weight, grouped, options);
  CHECK(code.codes.rows() == 12);
  CHECK(relative_error(binary_coding<double>(weight * 1e-6, grouped, options).decode(24),
                       Matrix<double>(code.decode(24) * 1e-6)) < 1e-12);
  const BinaryCode<double> part =
      binary_coding<double>(weight.middleCols(8, 8), {.bits = 3}, options);
  CHECK(part.decode(8) == Matrix<double>(code.decode(24).middleCols(8, 8)));
  CHECK(relative_error(binary_coding<float>(weight.cast<float>(), grouped, options).decode(24),
                       code.decode(24)) < 1e-5);
}

TEST_CASE("rows of zeros and rows of one value are met") {
  Matrix<double> weight = Matrix<double>::Zero(2, 8);
  weight.row(1).setConstant(0.3);
  CHECK(relative_error(binary_coding(weight, {.bits = 3}, {}).decode(8), weight) < 1e-12);
}

TEST_CASE("too many bits are refused") {
  const Matrix<double> weight = Matrix<double>::Ones(1, 4);
  check_error([&] { binary_coding(weight, {.bits = 9}, {}); }, {"1 to 8 bits", "found 9"});
}

}  // namespace
}  // namespace ruq::test
