// Speed of the forward pass beside its floor: floating-point operations over the product rate
// measured on this machine a moment before, at the shapes of the model's own linears.
//
//   ruq_forward_bench MODEL_DIR [window_tokens] [threads]
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "ruquant/base/error.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/eval/language.hpp"
#include "ruquant/model/forward.hpp"

namespace ruq {
namespace {

template <class Body>
double seconds(const Body& body) {
  double best = 1e300;
  for (int i = 0; i < 3; ++i) {
    const double begin = now_seconds();
    body();
    best = std::min(best, now_seconds() - begin);
  }
  return best;
}

// Multiply-adds of all linears of one layer, per token.
double linear_work(const ModelConfig& config) {
  double work = 0;
  for (const Linear linear : kLinears) {
    work += static_cast<double>(config.in_width(linear) * config.out_width(linear));
  }
  return work;
}

// Multiply-adds per second of the linears of one layer, at a window of tokens.
double product_rate(const Model<float>& model, Index tokens) {
  const double time = seconds([&] {
    for (const Linear linear : kLinears) {
      const Matrix<float> x = Matrix<float>::Ones(tokens, model.config.in_width(linear));
      product_transposed<float>(x, model.layers[0][linear].weight);
    }
  });
  return static_cast<double>(tokens) * linear_work(model.config) / time;
}

void run(const char* directory, Index tokens) {
  const Model<float> model = load_model<float>(directory);
  const ModelConfig& config = model.config;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(i * 7919 % static_cast<std::size_t>(config.vocabulary));
  }
  const double rate = product_rate(model, tokens);
  const double n = static_cast<double>(tokens);
  const double attention =
      n * n * static_cast<double>(config.query_width()) * static_cast<double>(config.layers);
  const double body = n * linear_work(config) * static_cast<double>(config.layers) + attention;
  const double head =
      n * static_cast<double>(config.vocabulary) * static_cast<double>(config.width);

  Matrix<float> states;
  const double forward = seconds([&] { states = final_hidden<float>(model, ids, tokens, {}); });
  const Hidden<float> hidden{states, model.head_weight()};
  const double scoring = seconds([&] { score_windows<float>(hidden, ids, tokens, &hidden); });
  std::cout << fmt::format(
      "{} on {} threads, windows of {}\nproducts at the model's shapes: {:.0f} GFLOP/s\n"
      "forward  {:8.1f} tokens/s  floor {:.3f} s, taken {:.3f} s: {:.2f} of the floor's speed\n"
      "scoring  {:8.1f} tokens/s  floor {:.3f} s, taken {:.3f} s: {:.2f} of the floor's speed\n",
      math_backend(), threads(), tokens, 2e-9 * rate, n / forward, body / rate, forward,
      body / rate / forward, n / scoring, 2 * head / rate, scoring, 2 * head / rate / scoring);
}

}  // namespace
}  // namespace ruq

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: ruq_forward_bench MODEL_DIR [window_tokens] [threads]\n";
    return 2;
  }
  ruq::set_threads(argc > 3 ? std::atoi(argv[3])
                            : static_cast<int>(std::thread::hardware_concurrency()));
  ruq::run(argv[1], argc > 2 ? std::atol(argv[2]) : 1024);
}
