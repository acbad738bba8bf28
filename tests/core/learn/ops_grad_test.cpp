#include "ruquant/learn/ops_grad.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "support/differences.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

// Attention as its definition says, for one window.
Matrix<double> plain_attention(const ModelConfig& config, const Matrix<double>& q,
                               const Matrix<double>& k, const Matrix<double>& v) {
  const Index e = config.head_width;
  const Index group = config.heads / config.kv_heads;
  Matrix<double> out = Matrix<double>::Zero(q.rows(), q.cols());
  for (Index head = 0; head < config.heads; ++head) {
    for (Index t = 0; t < q.rows(); ++t) {
      Vector<double> weight(t + 1);
      for (Index s = 0; s <= t; ++s) {
        const double score =
            q.row(t).segment(head * e, e).dot(k.row(s).segment(head / group * e, e));
        weight(s) = std::exp(score / std::sqrt(static_cast<double>(e)));
      }
      weight /= weight.sum();
      for (Index s = 0; s <= t; ++s) {
        out.row(t).segment(head * e, e) += weight(s) * v.row(s).segment(head / group * e, e);
      }
    }
  }
  return out;
}

TEST_CASE("the derivative of RMSNorm") {
  Matrix<double> x = gaussian(3, 7, "x");
  x.row(1) *= 1e-3;  // where epsilon matters
  const Vector<double> gain = gaussian(7, 1, "gain").col(0);
  const Matrix<double> upstream = gaussian(3, 7, "upstream");
  const auto loss = [&] { return rms_norm(x, gain, 1e-5).cwiseProduct(upstream).sum(); };
  check_gradient(loss, x, rms_norm_backward(x, gain, 1e-5, upstream), 1e-7, 3e-7);
}

TEST_CASE("the derivative of causal attention with grouped heads over several windows") {
  ModelConfig config;
  config.heads = 6;
  config.kv_heads = 2;
  config.head_width = 5;
  const Index length = 4;
  Matrix<double> q = gaussian(2 * length, 30, "q");
  Matrix<double> k = gaussian(2 * length, 10, "k");
  Matrix<double> v = gaussian(2 * length, 10, "v");
  const Matrix<double> upstream = gaussian(2 * length, 30, "upstream");
  const auto loss = [&] {
    double sum = 0;
    for (Index row = 0; row < q.rows(); row += length) {
      sum += plain_attention(config, q.middleRows(row, length), k.middleRows(row, length),
                             v.middleRows(row, length))
                 .cwiseProduct(upstream.middleRows(row, length))
                 .sum();
    }
    return sum;
  };
  const auto gradients = attention_backward(config, length, q, k, v, upstream);
  check_gradient(loss, q, gradients.queries, 1e-7);
  check_gradient(loss, k, gradients.keys, 1e-7);
  check_gradient(loss, v, gradients.values, 1e-7);
}

TEST_CASE("attention over more rows than a tile has the gradient of its windows' rows") {
  ModelConfig config;
  config.heads = config.kv_heads = 1;
  config.head_width = 3;
  const Index length = 131;  // a tile of query rows and three more
  Matrix<double> q = gaussian(length, 3, "q");
  Matrix<double> k = gaussian(length, 3, "k");
  Matrix<double> v = gaussian(length, 3, "v");
  const Matrix<double> upstream = gaussian(length, 3, "upstream");
  const auto loss = [&] { return plain_attention(config, q, k, v).cwiseProduct(upstream).sum(); };
  const auto gradients = attention_backward(config, length, q, k, v, upstream);
  const std::vector<Index> some = {0, 1, 126, 127, 128, 130};
  check_gradient_of_rows(loss, q, gradients.queries, some, 1e-7);
  check_gradient_of_rows(loss, k, gradients.keys, some, 1e-7);
  check_gradient_of_rows(loss, v, gradients.values, some, 1e-7);
}

TEST_CASE("the derivative of the gate, also far out where the exponential overflows") {
  Matrix<double> gates = gaussian(3, 5, "gates");
  Matrix<double> up = gaussian(3, 5, "up");
  const Matrix<double> upstream = gaussian(3, 5, "upstream");
  const auto loss = [&] {
    const auto g = gates.array();
    return (g / (1 + (-g).exp()) * up.array() * upstream.array()).sum();
  };
  const auto gradients = gate_backward(gates, up, upstream);
  check_gradient(loss, gates, gradients.gates, 1e-7);
  check_gradient(loss, up, gradients.up, 1e-7);

  const Matrix<double> far = (Matrix<double>(1, 2) << -1000, 1000).finished();
  const Matrix<double> one = Matrix<double>::Ones(1, 2);
  const auto ends = gate_backward(far, one, one);
  CHECK(ends.gates(0, 0) == 0);
  CHECK(ends.gates(0, 1) == 1);
  CHECK(ends.up(0, 0) == 0);
  CHECK(ends.up(0, 1) == 1000);
}

}  // namespace
}  // namespace ruq::test
