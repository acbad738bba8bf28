#include "ruquant/quant/hessian.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <numeric>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kPanel = 128;     // channels of one strip of H, or columns of one panel
constexpr Index kTokenRun = 512;  // tokens whose products are summed in S before they join the sum

// The lower Cholesky factor of H, in place, panel by panel on all threads: the diagonal block, the
// strips below it, and what they take from the strips to their right. False where H is not positive
// definite. The strict upper triangle is left as it was.
bool cholesky_in_place(Matrix<double>& h) {
  const Index n = h.rows();
  for (Index begin = 0; begin < n; begin += kPanel) {
    const Index count = std::min(kPanel, n - begin);
    const Eigen::LLT<Matrix<double>> diagonal(h.block(begin, begin, count, count));
    if (diagonal.info() != Eigen::Success) return false;
    h.block(begin, begin, count, count).triangularView<Eigen::Lower>() = diagonal.matrixLLT();
    const Index next = begin + count;
    const Index strips = (n - next + kPanel - 1) / kPanel;
    const auto strip = [&](Index i) {
      const Index row = next + i * kPanel;
      return std::pair{row, std::min(kPanel, n - row)};
    };
    parallel_for(strips, [&](Index i) {
      const auto [row, rows] = strip(i);
      diagonal.matrixU().solveInPlace<Eigen::OnTheRight>(h.block(row, begin, rows, count));
    });
    parallel_for(strips, [&](Index i) {
      const auto [row, rows] = strip(strips - 1 - i);  // the longest first
      const Index cols = row + rows - next;
      Matrix<double> taken(rows, cols);
      product_transposed_into<double>(h.block(row, begin, rows, count),
                                      h.block(next, begin, cols, count), taken);
      h.block(row, next, rows, cols) -= taken;
    });
  }
  return true;
}

// U = J·L⁻¹·J for the Cholesky factor L of J·H·J, J the reversal: H = (JLJ)(JLJ)ᵀ with JLJ upper,
// so one factorization and one triangular inverse do, and H⁻¹ itself is never formed. H is used up.
Matrix<double> upper_factor_of_inverse(Matrix<double>& h, double damping) {
  const Index n = h.rows();
  h.reverseInPlace();
  if (!cholesky_in_place(h)) {
    fail("the Hessian is not positive definite with damping {}; raise the damping", damping);
  }
  Matrix<double> upper = Matrix<double>::Zero(n, n);
  parallel_rows(n, kPanel, [&](Index begin, Index end) {
    // Columns [begin, end) of L⁻¹ are zero above row `begin`.
    Eigen::MatrixXd columns = Eigen::MatrixXd::Identity(n - begin, end - begin);
    h.bottomRightCorner(n - begin, n - begin).triangularView<Eigen::Lower>().solveInPlace(columns);
    upper.block(0, n - end, n - begin, end - begin) = columns.reverse();
  });
  return upper;
}

}  // namespace

HessianAccumulator::HessianAccumulator(Index width) : sum_(Matrix<double>::Zero(width, width)) {}

template <class S>
void HessianAccumulator::add(const Matrix<S>& x, Index samples) {
  RUQ_CHECK(x.cols() == width(), "{} channels, expected {}", x.cols(), width());
  RUQ_CHECK(samples > 0, "{} samples", samples);
  samples_ += samples;
  const Index strips = (width() + kPanel - 1) / kPanel;
  parallel_for(strips, [&](Index i) {
    // The longest strips first, so that the threads finish together.
    const Index begin = (strips - 1 - i) * kPanel;
    const Index count = std::min(kPanel, width() - begin);
    Matrix<S> products(count, begin + count);
    for (Index token = 0; token < x.rows(); token += kTokenRun) {
      const auto run = x.middleRows(token, std::min(kTokenRun, x.rows() - token));
      const Matrix<S> strip = run.middleCols(begin, count).transpose();
      product_into<S>(strip, run.leftCols(begin + count), products);
      sum_.block(begin, 0, count, begin + count) += products.template cast<double>();
    }
  });
}

Matrix<double> HessianAccumulator::hessian() const {
  if (samples_ == 0) fail("the Hessian of a layer was asked for before it saw any inputs");
  Matrix<double> h = sum_.selfadjointView<Eigen::Lower>();
  h *= 2.0 / static_cast<double>(samples_);
  return h;
}

HessianFactor factor_hessian(Matrix<double> h, double damping, bool act_order) {
  const Index n = h.rows();
  if (h.cols() != n) fail("a Hessian is square; found [{},{}]", n, h.cols());
  HessianFactor factor;
  for (Index c = 0; c < n; ++c) {
    if (h(c, c) != 0) continue;
    h(c, c) = 1;
    factor.dead.push_back(c);
  }
  factor.order.resize(static_cast<std::size_t>(n));
  std::iota(factor.order.begin(), factor.order.end(), Index{0});
  if (act_order) {
    const Vector<double> diagonal = h.diagonal();
    std::stable_sort(factor.order.begin(), factor.order.end(),
                     [&](Index a, Index b) { return diagonal(a) > diagonal(b); });
    h = Matrix<double>(h(factor.order, factor.order));
  }
  h.diagonal().array() += damping * h.diagonal().mean();
  factor.upper = upper_factor_of_inverse(h, damping);
  return factor;
}

template <class S>
double output_loss(const Matrix<S>& change, const Matrix<double>& hessian) {
  const Matrix<double> wide = change.template cast<double>();
  return product<double>(wide, hessian).cwiseProduct(wide).sum();
}

#define RUQ_INSTANTIATE(S)                                        \
  template void HessianAccumulator::add(const Matrix<S>&, Index); \
  template double output_loss(const Matrix<S>&, const Matrix<double>&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
