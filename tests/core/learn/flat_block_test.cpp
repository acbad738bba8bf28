#include "ruquant/learn/flat_block.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "ruquant/learn/clip_logits.hpp"
#include "support/differences.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

SvdFactor some_factor(Index n) {
  return {gaussian(n, n, "u"), gaussian(n, n, "v"), 1 + 0.2 * gaussian(n, 1, "s").col(0).array()};
}

void check_factor(const std::function<double()>& loss, SvdFactor& factor, const SvdFactor& slope) {
  check_gradient(loss, factor.raw_u, slope.raw_u, 1e-7);
  check_gradient(loss, factor.raw_v, slope.raw_v, 1e-7);
  check_gradient(loss, factor.sigma, slope.sigma, 1e-7);
}

TEST_CASE("a factor and its dual, and their derivatives by the raw numbers") {
  const Index n = 5;
  SvdFactor factor = some_factor(n);
  const SquareMap<double> map = factor.build();
  const Matrix<double> identity = Matrix<double>::Identity(n, n);
  CHECK((map.map * map.dual.transpose() - identity).cwiseAbs().maxCoeff() < 1e-13);

  const Matrix<double> upstream = gaussian(n, n, "upstream");
  check_factor([&] { return factor.build().map.cwiseProduct(upstream).sum(); }, factor,
               factor.gradient(upstream));
  check_factor([&] { return factor.build().dual.cwiseProduct(upstream).sum(); }, factor,
               factor.gradient_by_dual(upstream));
}

// A random derivative by everything that the parameters of a flat block consist of.
BlockGradients random_gradients(const BlockParameters& p) {
  BlockGradients g;
  const auto fill = [](TransformGradient& gradient, const std::string& name) {
    for (StepGradient& step : gradient) {
      if (step.vector.size() > 0) step.vector = gaussian(step.vector.size(), 1, name).col(0);
      for (Matrix<double>& map : step.maps) map = gaussian(map.rows(), map.cols(), name);
    }
  };
  for (const SiteKind kind : kLinearSites) {
    fill(g.online[kind] = zero_gradient(p.online[kind]), to_string(kind));
    g.activation_clips[kind] = {1.5, -0.5};
  }
  fill(g.values = zero_gradient(p.values), "values");
  fill(g.query_key = zero_gradient(p.query_key), "query key");
  for (const Linear linear : kLinears) {
    const auto& clips = p.weight_clips[linear];
    g.weight_clips[linear] = {gaussian(clips->low.size(), 1, "low").col(0),
                              gaussian(clips->low.size(), 1, "high").col(0)};
  }
  return g;
}

double paired(const Transform<double>& transform, const TransformGradient& gradient) {
  double sum = 0;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    const Step<double>& step = transform.steps()[i];
    if (const auto* scale = std::get_if<Scale<double>>(&step)) {
      sum += scale->factor.dot(gradient[i].vector);
    } else if (const auto* kron = std::get_if<Kronecker<double>>(&step)) {
      sum += kron->left.map.cwiseProduct(gradient[i].maps[0]).sum();
      sum += kron->right.map.cwiseProduct(gradient[i].maps[1]).sum();
    } else {
      sum +=
          std::get<BlockDiagonal<double>>(step).maps[0].map.cwiseProduct(gradient[i].maps[0]).sum();
    }
  }
  return sum;
}

// Σ parameter·derivative: the linear function with these derivatives.
double paired(const BlockParameters& p, const BlockGradients& g) {
  double sum = paired(p.values, g.values) + paired(p.query_key, g.query_key);
  for (const SiteKind kind : kLinearSites) {
    const ClipPair& slope = g.activation_clips[kind];
    const ClipPair& clips = *p.activation_clips[kind];
    sum += paired(p.online[kind], g.online[kind]) + clips.low * slope.low + clips.high * slope.high;
  }
  for (std::size_t i = 0; i < kLinears.size(); ++i) {
    sum += p.weight_clips[i]->low.dot(g.weight_clips[i].low) +
           p.weight_clips[i]->high.dot(g.weight_clips[i].high);
  }
  return sum;
}

TEST_CASE("the chain rule reaches every number that is trained, and the right one") {
  const ModelConfig config = tiny_config("biases");
  FlatBlock block =
      flat_start(config, [](const std::string& place, Index n) { return gaussian(n, n, place); });
  const BlockGradients g = random_gradients(flat_parameters(block, config, true));
  FlatBlock slope = flat_gradient(block, g);
  std::vector<Vector<double>> slopes;
  visit_flat_parts(slope, {}, [&](const std::string&, Eigen::Map<Vector<double>> v, bool) {
    slopes.push_back(v);
  });
  std::size_t i = 0;
  visit_flat_parts(block, {}, [&](const std::string& name, Eigen::Map<Vector<double>> v, bool) {
    INFO(name);
    REQUIRE(slopes.at(i).size() == v.size());
    const auto loss = [&] { return paired(flat_parameters(block, config, true), g); };
    const double scale = slopes[i].cwiseAbs().maxCoeff();
    CHECK(scale > 0);
    for (const Index entry : {Index{0}, v.size() / 2, v.size() - 1}) {
      CHECK(std::abs(difference(loss, v(entry), 1e-5) - slopes[i](entry)) < 1e-6 * scale);
    }
    ++i;
  });
  CHECK(i == slopes.size());
}

TEST_CASE("parts name what is trained") {
  const ModelConfig config = tiny_config("grouped");
  FlatBlock block =
      flat_start(config, [](const std::string& place, Index n) { return gaussian(n, n, place); });
  const auto count = [&](const FlatParts& parts) {
    int all = 0;
    int clips = 0;
    visit_flat_parts(block, parts, [&](const std::string&, Eigen::Map<Vector<double>>, bool clip) {
      ++all;
      clips += clip ? 1 : 0;
    });
    return std::pair(all, clips);
  };
  // Two factors at three sites, P_o, P_v and P_h, of three parts each; three scales; a pair of
  // factors a site in one vector, two vectors a linear.
  CHECK(count({true, false, false}) == std::pair(27, 0));
  CHECK(count({false, true, false}) == std::pair(3, 0));
  CHECK(count({false, false, true}) == std::pair(18, 18));
}

}  // namespace
}  // namespace ruq::test
