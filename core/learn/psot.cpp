#include "ruquant/learn/psot.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

void check_shapes(const Matrix<double>& x, const std::vector<Matrix<double>>& blocks,
                  const std::vector<bool>& outlier, const PsotOptions& options) {
  if (blocks.empty()) fail("PSOT: no blocks");
  const Index d = blocks[0].rows();
  for (const Matrix<double>& q : blocks) {
    if (q.rows() != d || q.cols() != d) {
      fail("PSOT: a block of {}x{} beside one of width {}", q.rows(), q.cols(), d);
    }
  }
  if (d * std::ssize(blocks) != x.cols()) {
    fail("PSOT: {} blocks of {} channels do not make {}", blocks.size(), d, x.cols());
  }
  if (!outlier.empty() && std::ssize(outlier) != x.rows()) {
    fail("PSOT: {} rows, but a mask of {}", x.rows(), outlier.size());
  }
  if (!(options.temperature > 0)) fail("PSOT: the temperature must be positive");
}

// Takes the mean of each run of d channels from every row; its own adjoint.
void subtract_block_means(Matrix<double>& y, Index d) {
  for (Index begin = 0; begin < y.cols(); begin += d) {
    auto block = y.middleCols(begin, d);
    const Vector<double> means = block.rowwise().mean();
    block.colwise() -= means;
  }
}

RowVector<double> softmax(const RowVector<double>& x) {
  const RowVector<double> e = (x.array() - x.maxCoeff()).exp();
  return e / e.sum();
}

bool beyond(const Matrix<double>& row, double mean, double distance) {
  return ((row.array() - mean).abs() > distance).any();
}

struct MarkedPositions {
  std::vector<std::vector<bool>> mask;
  Index in_any = 0;     // u
  double a_sample = 0;  // m
  double share() const {
    return in_any == 0 ? 0 : (static_cast<double>(in_any) - a_sample) / static_cast<double>(in_any);
  }
};

MarkedPositions mark(const std::vector<Matrix<double>>& samples, double mean, double distance) {
  const Index positions = samples[0].rows();
  MarkedPositions result;
  std::vector<bool> any(static_cast<std::size_t>(positions), false);
  Index count = 0;
  for (const Matrix<double>& sample : samples) {
    auto& mask = result.mask.emplace_back(static_cast<std::size_t>(positions), false);
    for (Index t = 0; t < positions; ++t) {
      if (!beyond(sample.row(t), mean, distance)) continue;
      mask[static_cast<std::size_t>(t)] = any[static_cast<std::size_t>(t)] = true;
      ++count;
    }
  }
  result.in_any = std::count(any.begin(), any.end(), true);
  result.a_sample = static_cast<double>(count) / static_cast<double>(samples.size());
  return result;
}

}  // namespace

PsotLoss psot_loss(const Matrix<double>& x, const std::vector<Matrix<double>>& blocks,
                   const std::vector<bool>& outlier, const PsotOptions& options) {
  check_shapes(x, blocks, outlier, options);
  const Index d = blocks[0].rows();
  Matrix<double> y(x.rows(), x.cols());
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const Index begin = static_cast<Index>(b) * d;
    y.middleCols(begin, d) = product<double>(x.middleCols(begin, d), blocks[b]);
  }
  if (options.subtract_mean) subtract_block_means(y, d);

  // First z = a·p ⊙ |y|, then in its place dL/dy, row by row.
  Matrix<double> p(x.rows(), x.cols());
  Matrix<double> z(x.rows(), x.cols());
  Vector<double> weight = Vector<double>::Ones(x.rows());
  for (Index t = 0; t < x.rows(); ++t) {
    if (!outlier.empty() && outlier[static_cast<std::size_t>(t)])
      weight(t) = options.outlier_weight;
    p.row(t) = softmax(y.row(t).cwiseAbs() / options.temperature);
    z.row(t) = weight(t) * p.row(t).cwiseProduct(y.row(t).cwiseAbs());
  }
  PsotLoss result{.loss = z.norm(), .gradient = {}};
  for (Index t = 0; t < x.rows(); ++t) {
    const RowVector<double> size = y.row(t).cwiseAbs();
    const RowVector<double> g = z.row(t) / std::max(result.loss, 1e-300);
    const double pull = g.cwiseProduct(p.row(t)).dot(size);
    const auto by_size = weight(t) * p.row(t).array() *
                         (g.array() + (g.array() * size.array() - pull) / options.temperature);
    z.row(t) = by_size * y.row(t).array().sign();
  }
  if (options.subtract_mean) subtract_block_means(z, d);
  for (Index begin = 0; begin < x.cols(); begin += d) {
    result.gradient.push_back(x.middleCols(begin, d).transpose() * z.middleCols(begin, d));
  }
  return result;
}

OutlierTokens outlier_tokens(const std::vector<Matrix<double>>& samples,
                             const OutlierTokenOptions& options) {
  if (samples.empty() || samples[0].size() == 0) fail("outlier tokens: no samples");
  double sum = 0;
  double squares = 0;
  Index count = 0;
  for (const Matrix<double>& sample : samples) {
    if (sample.rows() != samples[0].rows() || sample.cols() != samples[0].cols()) {
      fail("outlier tokens: a sample of {}x{} beside one of {}x{}", sample.rows(), sample.cols(),
           samples[0].rows(), samples[0].cols());
    }
    sum += sample.sum();
    count += sample.size();
  }
  const double mean = sum / static_cast<double>(count);
  for (const Matrix<double>& sample : samples) squares += (sample.array() - mean).square().sum();
  const double sigma = std::sqrt(squares / static_cast<double>(count));

  const double most = options.largest_share * static_cast<double>(samples[0].rows());
  MarkedPositions marked = mark(samples, mean, sigma);
  double share = marked.share();
  Index k = 1;
  while (k < options.largest_multiple) {
    marked = mark(samples, mean, static_cast<double>(++k) * sigma);
    const double change = std::abs(marked.share() - share);
    share = marked.share();
    if (change < options.settled && static_cast<double>(marked.in_any) < most) break;
  }
  return {std::move(marked.mask), k, mean, sigma};
}

}  // namespace ruq
