#include "support/naive_forward.hpp"

#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

namespace ruq::test {
namespace {

using Row = std::vector<double>;

Row apply_linear(const LinearWeights<double>& linear, const Row& x) {
  Row y(static_cast<std::size_t>(linear.weight.rows()));
  for (std::size_t o = 0; o < y.size(); ++o) {
    if (linear.bias.size() > 0) y[o] = linear.bias(static_cast<Index>(o));
    for (std::size_t i = 0; i < x.size(); ++i) {
      y[o] += linear.weight(static_cast<Index>(o), static_cast<Index>(i)) * x[i];
    }
  }
  return y;
}

Row normed(const Row& x, const Vector<double>& gain, double epsilon) {
  double mean = 0;
  for (const double value : x) mean += value * value / static_cast<double>(x.size());
  Row y = x;
  for (std::size_t i = 0; i < x.size(); ++i) {
    y[i] *= gain(static_cast<Index>(i)) / std::sqrt(mean + epsilon);
  }
  return y;
}

// The angle per position of one plane.
double frequency(const ModelConfig& config, std::size_t plane) {
  const double e = static_cast<double>(config.head_width);
  const double f = 1 / std::pow(config.rope_base, 2 * static_cast<double>(plane) / e);
  const RopeScaling& s = config.rope_scaling;
  if (s.kind == RopeScaling::Kind::linear) return f / s.factor;
  if (s.kind == RopeScaling::Kind::none) return f;
  const double wavelength = 2 * std::numbers::pi / f;
  const double context = static_cast<double>(s.original_context);
  if (wavelength < context / s.high_freq_factor) return f;
  if (wavelength > context / s.low_freq_factor) return f / s.factor;
  const double smooth =
      (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * f / s.factor + smooth * f;
}

// One head of one token: coordinates (i, i + e/2) as a complex number, turned by its position.
Row rotated(const ModelConfig& config, const Row& head, std::size_t position) {
  const std::size_t half = head.size() / 2;
  Row result(head.size());
  for (std::size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * frequency(config, i);
    const auto turned = std::complex<double>(head[i], head[i + half]) * std::polar(1.0, angle);
    result[i] = turned.real();
    result[i + half] = turned.imag();
  }
  return result;
}

Row head_of(const Row& row, std::size_t head, std::size_t width) {
  const auto begin = row.begin() + static_cast<std::ptrdiff_t>(head * width);
  return {begin, begin + static_cast<std::ptrdiff_t>(width)};
}

double dot(const Row& a, const Row& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Attention of the last token of `keys` for one head.
Row attend(const Row& query, const std::vector<Row>& keys, const std::vector<Row>& values) {
  Row weights;
  double total = 0;
  for (const Row& key : keys) {
    weights.push_back(std::exp(dot(query, key) / std::sqrt(static_cast<double>(query.size()))));
    total += weights.back();
  }
  Row result(query.size());
  for (std::size_t s = 0; s < keys.size(); ++s) {
    for (std::size_t i = 0; i < result.size(); ++i) result[i] += weights[s] / total * values[s][i];
  }
  return result;
}

void add_attention(const ModelConfig& config, const LayerWeights<double>& layer,
                   std::vector<Row>& x) {
  const auto heads = static_cast<std::size_t>(config.heads);
  const auto kv_heads = static_cast<std::size_t>(config.kv_heads);
  const auto e = static_cast<std::size_t>(config.head_width);
  std::vector<std::vector<Row>> keys(kv_heads), values(kv_heads);
  for (std::size_t t = 0; t < x.size(); ++t) {
    const Row u = normed(x[t], layer.attn_norm, config.norm_epsilon);
    const Row q = apply_linear(layer[Linear::q_proj], u);
    const Row k = apply_linear(layer[Linear::k_proj], u);
    const Row v = apply_linear(layer[Linear::v_proj], u);
    const auto prepared = [&](const Row& row, std::size_t head, const Vector<double>& gain) {
      Row part = head_of(row, head, e);
      if (gain.size() > 0) part = normed(part, gain, config.norm_epsilon);
      return rotated(config, part, t);
    };
    for (std::size_t g = 0; g < kv_heads; ++g) {
      keys[g].push_back(prepared(k, g, layer.k_norm));
      values[g].push_back(head_of(v, g, e));
    }
    Row joined;
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t g = h * kv_heads / heads;
      const Row part = attend(prepared(q, h, layer.q_norm), keys[g], values[g]);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    const Row out = apply_linear(layer[Linear::o_proj], joined);
    for (std::size_t i = 0; i < out.size(); ++i) x[t][i] += out[i];
  }
}

void add_mlp(const ModelConfig& config, const LayerWeights<double>& layer, Row& x) {
  const Row u = normed(x, layer.mlp_norm, config.norm_epsilon);
  const Row gates = apply_linear(layer[Linear::gate_proj], u);
  Row hidden = apply_linear(layer[Linear::up_proj], u);
  for (std::size_t i = 0; i < hidden.size(); ++i) {
    hidden[i] *= gates[i] / (1 + std::exp(-gates[i]));
  }
  const Row out = apply_linear(layer[Linear::down_proj], hidden);
  for (std::size_t i = 0; i < out.size(); ++i) x[i] += out[i];
}

}  // namespace

Matrix<double> naive_logits(const Model<double>& model, std::span<const std::int32_t> ids) {
  std::vector<Row> x;
  for (const std::int32_t id : ids) {
    const RowVector<double> row = model.embedding.row(id);
    x.emplace_back(row.begin(), row.end());
  }
  for (const LayerWeights<double>& layer : model.layers) {
    add_attention(model.config, layer, x);
    for (Row& row : x) add_mlp(model.config, layer, row);
  }
  Matrix<double> logits(std::ssize(x), model.config.vocabulary);
  const LinearWeights<double> head{model.head.size() > 0 ? model.head : model.embedding, {}};
  for (std::size_t t = 0; t < x.size(); ++t) {
    const Row row = apply_linear(head, normed(x[t], model.final_norm, model.config.norm_epsilon));
    for (std::size_t v = 0; v < row.size(); ++v) {
      logits(static_cast<Index>(t), static_cast<Index>(v)) = row[v];
    }
  }
  return logits;
}

}  // namespace ruq::test
