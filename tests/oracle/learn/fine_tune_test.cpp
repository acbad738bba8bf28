#include "ruquant/learn/fine_tune.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "ruquant/transform/hadamard.hpp"
#include "support/layer_case.hpp"
#include "support/oracle.hpp"

namespace ruq::test {
namespace {

// The fixture names a shape by the layer it was taken from, and holds weights already smoothed.
LayerWeights<double> folded_layer(const OracleCase& c) {
  LayerWeights<double> weights;
  weights.attn_norm = c.vector("folded_gamma_in");
  weights.mlp_norm = c.vector("folded_gamma_post");
  for (const Linear linear : kLinears) {
    weights[linear].weight = c.matrix("folded_W_" + to_string(linear));
  }
  return weights;
}

// Map 1, then permutation i and map i + 1, then a reflection in the direction given.
Transform<double> site_rotation(const OracleCase& c, SiteKind kind, const Vector<double>& omega) {
  const std::string name = first_linear(kind);
  const Index width = omega.size();
  const Index maps = c.shape("M_" + name).at(0);
  const std::vector<Index> permutations = c.integers("perm_" + name);
  Transform<double> rotation(width);
  for (Index i = 0; i < maps; ++i) {
    if (i > 0) {
      const auto begin = permutations.begin() + (i - 1) * width;
      rotation.append(Permutation{{begin, begin + width}});
    }
    const Matrix<double> map = c.slice("M_" + name, i);
    const auto blocks = static_cast<std::size_t>(width / map.rows());
    rotation.append(BlockDiagonal<double>{{{map, {}}}, std::vector<Index>(blocks, 0)});
  }
  rotation.append(Reflection<double>{omega.normalized()});
  return rotation;
}

// All sequences [S,T,h] under each other.
Matrix<double> stacked(const OracleCase& c, const std::string& name) {
  const Shape shape = c.shape(name);
  Matrix<double> all(shape.at(0) * shape.at(1), shape.at(2));
  for (Index s = 0; s < shape.at(0); ++s) {
    all.middleRows(s * shape.at(1), shape.at(1)) = c.slice(name, s);
  }
  return all;
}

TEST_CASE("fine-tuning the reflections of a block follows the official code") {
  for_each_case("ruquant_ft", [](const OracleCase& c) {
    const ModelConfig config = layer_config(c);
    LayerPlan plan;
    const Index order = largest_power_of_two(config.head_width, c.integer("block_size"));
    plan.query_key.append(HadamardStep{order});
    Directions omega;
    for (const SiteKind kind : kLinearSites) {
      omega[kind] = c.vector("omega_init_" + group_name(kind));
      plan[kind].online = site_rotation(c, kind, omega[kind]);
    }
    const BlockSamples<double> samples{.float_input = {},
                                       .quantized_input = stacked(c, "student_in"),
                                       .target = stacked(c, "teacher_out"),
                                       .length = c.shape("student_in").at(1)};
    ReflectionObjective<double> objective(config, folded_layer(c), plan, official_quantizers(c));
    const std::vector<Index> windows = c.integers("sample_index");
    const std::span<const Index> order_of_windows(windows);

    FineTuneOptions options;
    options.adamw = {.learning_rate = c.real("lr"),
                     .beta1 = c.real("beta1"),
                     .beta2 = c.real("beta2"),
                     .epsilon = c.real("eps"),
                     .weight_decay = c.real("weight_decay")};
    options.omega_floor = c.real("omega_floor");

    Directions floored = omega;
    for (const SiteKind kind : kLinearSites) {
      const std::string name = "omega_floored_" + group_name(kind);
      floored[kind] = raised_to_floor(omega[kind], options.omega_floor);
      check_close(floored[kind], c.vector(name), 1e-15, name);
    }
    Directions gradient;
    objective.evaluate(floored, samples, order_of_windows.first(1), &gradient);
    check_close(objective.output(samples, windows[0]), c.matrix("out_step0"), 1e-9, "out_step0");
    for (const SiteKind kind : kLinearSites) {
      const std::string name = "grad_" + group_name(kind);
      check_close(gradient[kind], c.vector(name), 1e-9, name);
    }

    const Index steps = c.integer("steps");
    Index step = 0;
    LearningRecord report =
        tune_by_adamw(objective, samples, order_of_windows.first(static_cast<std::size_t>(steps)),
                      options, omega, [&](const Directions& now) {
                        for (const SiteKind kind : kLinearSites) {
                          const std::string name = "omega_steps_" + group_name(kind);
                          check_close(now[kind], c.matrix(name).row(step).transpose(), 1e-8, name);
                        }
                        ++step;
                      });
    CHECK(step == steps);
    CHECK(report.evaluations == steps);
    report.losses.push_back(objective.evaluate(
        omega, samples, order_of_windows.subspan(static_cast<std::size_t>(steps), 1)));
    const Vector<double> losses =
        Eigen::Map<const Vector<double>>(report.losses.data(), std::ssize(report.losses));
    check_close(losses, c.vector("losses"), 1e-8, "losses");
  });
}

}  // namespace
}  // namespace ruq::test
