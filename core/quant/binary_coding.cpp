#include "ruquant/quant/binary_coding.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 16;
constexpr double kDenominatorFloor = 1e-6;

// Per code, how many values carry it and their sum: all that least squares needs of the values.
struct CodeSums {
  explicit CodeSums(Index bits) : count(Index{1} << bits), sum(Index{1} << bits) { clear(); }
  void clear() {
    count.setZero();
    sum.setZero();
  }
  void add(Index code, double value) {
    count(code) += 1;
    sum(code) += value;
  }
  Vector<double> count, sum;
};

// k steps of conjugate gradients on (SᵀS)α = Sᵀ(x − t), from the present α.
void solve_factors(const CodeSums& sums, const Matrix<double>& signs, double shift,
                   Vector<double>& alpha) {
  const Matrix<double> gram = signs.transpose() * sums.count.asDiagonal() * signs;
  const Vector<double> target = signs.transpose() * (sums.sum - shift * sums.count);
  Vector<double> residual = target - gram * alpha;
  Vector<double> direction = residual;
  double power = residual.squaredNorm();
  for (Index i = 0; i < alpha.size(); ++i) {
    const Vector<double> image = gram * direction;
    const double step = power / (direction.dot(image) + kDenominatorFloor);
    alpha += step * direction;
    residual -= step * image;
    const double next = residual.squaredNorm();
    direction = residual + next / (power + kDenominatorFloor) * direction;
    power = next;
  }
}

// Greedy factors; a residual of zero takes the sign +1.
Vector<double> greedy_factors(const Eigen::Ref<const RowVector<double>>& values, Index bits,
                              CodeSums& sums) {
  Vector<double> alpha(bits);
  RowVector<double> residual = values;
  Eigen::Matrix<Index, 1, Eigen::Dynamic> codes =
      Eigen::Matrix<Index, 1, Eigen::Dynamic>::Zero(values.size());
  for (Index i = 0; i < bits; ++i) {
    alpha(i) = residual.cwiseAbs().mean();
    for (Index j = 0; j < values.size(); ++j) {
      const bool negative = residual(j) < 0;
      codes(j) = 2 * codes(j) + (negative ? 1 : 0);
      residual(j) += negative ? alpha(i) : -alpha(i);
    }
  }
  for (Index j = 0; j < values.size(); ++j) sums.add(codes(j), values(j));
  return alpha;
}

Matrix<double> sign_table(Index bits) {
  Matrix<double> signs(Index{1} << bits, bits);
  for (Index code = 0; code < signs.rows(); ++code) {
    for (Index i = 0; i < bits; ++i) signs(code, i) = code_sign<double>(code, i, bits);
  }
  return signs;
}

void check_bits(Index bits) {
  if (bits < 1 || bits > kMaxCodingBits) {
    fail("binary coding takes 1 to {} bits, found {}", kMaxCodingBits, bits);
  }
}

}  // namespace

template <class S>
LevelTable<S>::LevelTable(const Eigen::Ref<const RowVector<S>>& alpha)
    : size_(Index{1} << alpha.size()) {
  check_bits(alpha.size());
  for (Index code = 0; code < size_; ++code) {
    S level = 0;
    for (Index i = 0; i < alpha.size(); ++i) {
      level += alpha(i) * code_sign<S>(code, i, alpha.size());
    }
    level_[static_cast<std::size_t>(code)] = level;
  }
  const auto count = static_cast<std::size_t>(size_);
  std::iota(code_.begin(), code_.begin() + size_, Index{0});
  // By value, equal values by falling code, so that a code can be handed down a run of equals.
  std::sort(code_.begin(), code_.begin() + size_, [this](Index a, Index b) {
    return level(a) != level(b) ? level(a) < level(b) : a > b;
  });
  for (std::size_t r = count - 1; r-- > 0;) {
    const S here = level(code_[r]);
    const S next = level(code_[r + 1]);
    middle_[r] = (here + next) / 2;
    if (here == next) code_[r] = code_[r + 1];
  }
}

CodingFactors alternating_coding(const Eigen::Ref<const RowVector<double>>& values, Index bits,
                                 Index rounds, bool fit_shift) {
  check_bits(bits);
  const Matrix<double> signs = sign_table(bits);
  CodeSums sums(bits);
  Vector<double> alpha = greedy_factors(values, bits, sums);
  CodingFactors factors;
  for (Index round = 0; round < rounds; ++round) {
    solve_factors(sums, signs, factors.shift, alpha);
    alpha = alpha.cwiseAbs().eval();
    std::sort(alpha.begin(), alpha.end(), std::greater<>());
    const LevelTable<double> levels(alpha.transpose());
    sums.clear();
    for (Index j = 0; j < values.size(); ++j) {
      sums.add(levels.nearest(values(j) - factors.shift), values(j));
    }
    if (fit_shift) {
      factors.shift =
          (sums.sum.sum() - sums.count.dot(signs * alpha)) / static_cast<double>(values.size());
    }
  }
  factors.alpha = alpha.transpose();
  return factors;
}

template <class S>
Matrix<S> BinaryCode<S>::decode(Index cols) const {
  Matrix<S> values(codes.size() / cols, cols);
  Eigen::Map<Matrix<S>> groups(values.data(), codes.rows(), codes.cols());
  parallel_rows(codes.rows(), kGrain, [&](Index begin, Index end) {
    for (Index g = begin; g < end; ++g) {
      const LevelTable<S> levels(alpha.row(g));
      for (Index c = 0; c < codes.cols(); ++c) groups(g, c) = levels.level(codes(g, c)) + shift(g);
    }
  });
  return values;
}

void bind(Fields& fields, BinaryCodingOptions& options, const std::string& prefix) {
  fields.add(prefix + "rounds", options.rounds, {.min = 0, .max = 1000},
             "alternations of binary coding between factors and codes");
  fields.add(prefix + "fit_shift", options.fit_shift, "fit a shift t beside the factors");
}

template <class S>
BinaryCode<S> binary_coding(const Matrix<S>& weight, const QuantSpec& spec,
                            const BinaryCodingOptions& options) {
  check_bits(spec.bits);
  const Index width = group_width(spec, weight.cols());
  const Eigen::Map<const Matrix<S>> groups(weight.data(), weight.size() / width, width);
  BinaryCode<S> code{Codes(groups.rows(), width), Matrix<S>(groups.rows(), spec.bits),
                     Vector<S>(groups.rows())};
  parallel_rows(groups.rows(), kGrain, [&](Index begin, Index end) {
    for (Index g = begin; g < end; ++g) {
      const RowVector<double> values = groups.row(g).template cast<double>();
      const double rms = values.norm() / std::sqrt(static_cast<double>(width));
      const double scale = rms > 0 ? rms : 1;
      const CodingFactors factors =
          alternating_coding(values / scale, spec.bits, options.rounds, options.fit_shift);
      code.alpha.row(g) = (scale * factors.alpha).template cast<S>();
      code.shift(g) = static_cast<S>(scale * factors.shift);
      const LevelTable<S> levels(code.alpha.row(g));
      for (Index c = 0; c < width; ++c) {
        code.codes(g, c) = static_cast<std::int32_t>(levels.nearest(groups(g, c) - code.shift(g)));
      }
    }
  });
  return code;
}

#define RUQ_INSTANTIATE(S)                                                 \
  template class LevelTable<S>;                                            \
  template struct BinaryCode<S>;                                           \
  template BinaryCode<S> binary_coding(const Matrix<S>&, const QuantSpec&, \
                                       const BinaryCodingOptions&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
