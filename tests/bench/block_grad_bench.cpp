// Milliseconds of one training step of a decoder block, part by part, beside its floor: the
// products of forward and backward at the product rate measured on this machine a moment before.
//
//   ruq_block_grad_bench [window_tokens] [threads] [steps]
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "ruquant/base/error.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/learn/block_grad.hpp"

namespace ruq {
namespace {

// The shape of SmolLM2-135M.
ModelConfig default_shape() {
  ModelConfig config;
  config.layers = 1;
  config.width = 576;
  config.mlp_width = 1536;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_width = 64;
  return config;
}

LayerWeights<float> random_layer(const ModelConfig& config, Stream stream) {
  LayerWeights<float> layer;
  layer.attn_norm = layer.mlp_norm = Vector<float>::Ones(config.width);
  for (const Linear linear : kLinears) {
    const Index in = config.in_width(linear);
    layer[linear].weight =
        (stream.normal(config.out_width(linear), in) / std::sqrt(static_cast<double>(in)))
            .cast<float>();
  }
  return layer;
}

// What RUQuant leaves fixed: block maps, a permutation, block maps.
PerSite<Transform<double>> fixed_maps(const ModelConfig& config, Stream stream) {
  constexpr Index kBlock = 64;
  PerSite<Transform<double>> fixed;
  for (const SiteKind kind : kLinearSites) {
    const Index width = config.site_width(kind);
    const auto blocks = [&] {
      Matrix<double> map = Matrix<double>::Identity(kBlock, kBlock);
      map += 0.01 * stream.normal(kBlock, kBlock);
      return BlockDiagonal<double>{{{map, {}}},
                                   std::vector<Index>(static_cast<std::size_t>(width / kBlock), 0)};
    };
    Transform<double>& maps = fixed[kind];
    maps.append(blocks());
    maps.append(Permutation{stream.permutation(width)});
    maps.append(blocks());
  }
  return fixed;
}

BlockParameters reflections(const ModelConfig& config, Stream stream) {
  BlockParameters parameters;
  for (const SiteKind kind : kLinearSites) {
    const Vector<double> v = stream.normal(config.site_width(kind), 1).col(0).normalized();
    parameters.online[kind].append(Reflection<double>{v});
  }
  parameters.query_key.append(HadamardStep{64});
  return parameters;
}

double now() { return 1e3 * now_seconds(); }  // milliseconds

struct Parts {
  double install = 1e300, forward = 1e300, backward = 1e300, take = 1e300, whole = 1e300;
};

// The best of several steps, part by part.
Parts time_steps(const ModelConfig& config, Index tokens, int steps) {
  QuantSettings quant;
  quant.set_widths(bit_widths("W4A4-Q4K4V4"));
  const Stream stream(1, "bench");
  BlockGrad<float> block(config, random_layer(config, stream.child("layer")),
                         fixed_maps(config, stream.child("maps")), quant);
  const BlockParameters parameters = reflections(config, stream.child("reflections"));
  const Matrix<float> x = stream.child("x").normal(tokens, config.width).cast<float>();
  const Matrix<float> upstream = stream.child("g").normal(tokens, config.width).cast<float>();
  Parts best;
  for (int i = 0; i < steps; ++i) {
    const double start = now();
    block.install(parameters);
    const double installed = now();
    BlockRecord<float> record;
    block.forward(x, tokens, &record);
    const double forward = now();
    block.backward(record, upstream);
    const double backward = now();
    block.take_gradients();
    const double end = now();
    best.install = std::min(best.install, installed - start);
    best.forward = std::min(best.forward, forward - installed);
    best.backward = std::min(best.backward, backward - forward);
    best.take = std::min(best.take, end - backward);
    best.whole = std::min(best.whole, end - start);
  }
  return best;
}

// Multiplications of a step: three products of every linear (forward, by input, by weight), and
// seven of every head (two forward, one of them again, four backward) over the keys that a query
// sees.
double multiplications(const ModelConfig& config, Index tokens) {
  double of_a_token = 0;
  for (const Linear linear : kLinears) {
    of_a_token += 3.0 * static_cast<double>(config.out_width(linear) * config.in_width(linear));
  }
  const double keys = 0.5 * static_cast<double>(tokens + 1);
  of_a_token += 7.0 * keys * static_cast<double>(config.heads * config.head_width);
  return of_a_token * static_cast<double>(tokens);
}

// Milliseconds that they take at the rate of the linears' products.
double floor_of(const ModelConfig& config, Index tokens) {
  const LayerWeights<float> layer = random_layer(config, Stream(1, "floor"));
  double best = 1e300, count = 0;
  for (int i = 0; i < 3; ++i) {
    double sum = 0;
    count = 0;
    for (const Linear linear : kLinears) {
      const Matrix<float> x = Matrix<float>::Ones(tokens, config.in_width(linear));
      const double start = now();
      product_transposed<float>(x, layer[linear].weight);
      sum += now() - start;
      count += static_cast<double>(layer[linear].weight.size() * tokens);
    }
    best = std::min(best, sum);
  }
  return best * multiplications(config, tokens) / count;
}

void run(Index tokens, int steps) {
  const ModelConfig config = default_shape();
  const double floor = floor_of(config, tokens);
  const Parts best = time_steps(config, tokens, steps);
  std::cout << fmt::format(
      "{} on {} threads, a window of {} tokens, milliseconds\n"
      "install {:.1f}  forward {:.1f}  backward {:.1f}  take_gradients {:.1f}  step {:.1f}\n"
      "floor of the products {:.1f}: {:.2f} of its speed\n",
      math_backend(), threads(), tokens, best.install, best.forward, best.backward, best.take,
      best.whole, floor, floor / best.whole);
}

}  // namespace
}  // namespace ruq

int main(int argc, char** argv) {
  ruq::keep_freed_memory();
  ruq::set_threads(argc > 2 ? std::atoi(argv[2])
                            : static_cast<int>(std::thread::hardware_concurrency()));
  ruq::run(argc > 1 ? std::atol(argv[1]) : 256, argc > 3 ? std::atoi(argv[3]) : 10);
}
