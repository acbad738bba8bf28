// What it costs to round one weight matrix, and what it costs to hold it: every rounding of the
// registry that needs no model, and one learning step of those that do, on seeded weights in the
// shapes of a small model, on one thread.
//
//   ruq_rounding_bench OUT.json [bits 4,3,2]
//
// OUT.json: {"format": "ruquant-rounding", "format_version": 1, "machine": {processor, math,
// threads}, "rows": [{rounding, what, bits, rows, columns, bytes, seconds: [each repetition],
// floor_seconds}]}. `what` is "round", or "step": codes from the parameters, values from the codes,
// and the gradients of both, as a step of UniQuanF or FlexRound takes them for each matrix beside
// the block's own passes. `bytes` are those of the stored form with its steps, factors and levels
// of 16 bits. No rounding can do without reading the weight and writing it: the floor is a copy,
// measured a moment before, of four bytes a weight, or for a step of the eight-byte weight, nudge
// and upstream gradient to values and gradients.
#include <cmath>
#include <iostream>

#include "bench/record.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/learn/learned_rounding.hpp"
#include "ruquant/quant/rounding.hpp"

namespace ruq {
namespace {

using bench::best;
using bench::Json;
using bench::timed;

constexpr Index kTokens = 2048;  // behind the Hessian

struct Shape {
  Index rows, columns;
};
// q_proj and o_proj, k_proj and v_proj, gate_proj and up_proj, down_proj of the default model.
constexpr Shape kShapes[] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}};

// Seconds to copy so many matrices.
template <class S>
double copy_floor(const Matrix<S>& matrix, double copies) {
  Matrix<S> to = matrix;
  return copies * best(timed([&] { to.noalias() = matrix; }));
}

QuantSpec spec_of(Index bits) {
  QuantSpec spec;
  spec.bits = bits;
  return spec;
}

// One matrix with what its roundings may need.
class Subject {
 public:
  Subject(Shape shape, Index bits)
      : spec_(spec_of(bits)),
        weight_(Stream(1, "weight").normal(shape.rows, shape.columns).cast<float>()),
        hessian_(hessian(shape.columns)) {}

  Json round(const std::string& name) const {
    const RoundingInputs<float> inputs{weight_, spec_, &hessian_, options_};
    RoundedWeight<float> rounded;
    const std::vector<double> seconds = timed([&] { rounded = round_weight<float>(name, inputs); });
    return row(name, "round", rounded.bits.total() * static_cast<double>(weight_.size()) / 8,
               seconds, copy_floor(weight_, 1));
  }

  // `levels`: those of UniQuanF, or the even ones of FlexRound, mapped as each of them does.
  Json step(const std::string& name) const {
    const bool levels = name == "uniquanf";
    const Matrix<double> weight = weight_.cast<double>();
    const Matrix<double> upstream = Stream(1, "upstream").normal(weight.rows(), weight.cols());
    const UniquanfOptions options = levels ? options_.uniquanf : flexround_options();
    const UniquanfParameters<double> parameters =
        levels ? unified_start(weight, spec_, options) : uniform_start(weight, spec_);
    Codes codes;
    map_codes(weight, parameters, options, 0, codes);
    // Both steps of a period, halved: one of them renews the codes.
    const Index period = options.mapping_period;
    std::vector<double> seconds = timed([&] {
      for (Index step = 1; step <= period; ++step) {
        map_codes(weight, parameters, options, step, codes);
        const Matrix<double> values = uniquanf_values(parameters, codes);
        const auto gradients =
            uniquanf_gradients(weight, parameters, codes, upstream, options.gradient_filter);
        if (!std::isfinite(values(0, 0) + gradients.d1(0)))
          fail("found values that are not finite");
      }
    });
    for (double& one : seconds) one /= static_cast<double>(period);
    const StoredBits bits = levels ? stored_bits(spec_, weight.cols(), spec_.bits + 1)
                                   : uniform_bits(spec_, weight.cols());
    return row(name, "step", bits.total() * static_cast<double>(weight.size()) / 8, seconds,
               copy_floor(weight, 3));
  }

 private:
  static HessianFactor hessian(Index width) {
    const Matrix<double> x = Stream(1, "inputs").normal(kTokens, width);
    return factor_hessian(x.transpose() * x, GptqOptions{}.damping);
  }

  Json row(const std::string& name, const char* what, double bytes,
           const std::vector<double>& seconds, double floor) const {
    return {{"rounding", name},          {"what", what},
            {"bits", spec_.bits},        {"rows", weight_.rows()},
            {"columns", weight_.cols()}, {"bytes", bytes},
            {"seconds", seconds},        {"floor_seconds", floor}};
  }

  QuantSpec spec_;
  RoundingOptions options_;
  Matrix<float> weight_;
  HessianFactor hessian_;
};

void run(const std::string& out, const std::vector<Index>& widths) {
  set_threads(1);
  Json rows = Json::array();
  for (const Index bits : widths) {
    for (const Shape shape : kShapes) {
      const Subject subject(shape, bits);
      for (const std::string& name : rounding_names()) {
        const bool learns = rounding_needs(name) == RoundingNeeds::block;
        rows.push_back(learns ? subject.step(name) : subject.round(name));
        const Json& row = rows.back();
        const double seconds = best(row["seconds"].get<std::vector<double>>());
        std::cout << fmt::format(
                         "{:>14} {:5} {} bits {:>4} x {:<4} {:8.0f} bytes {:9.3f} ms  {:.4f} of "
                         "the floor's speed",
                         name, row["what"].get<std::string>(), bits, shape.rows, shape.columns,
                         row["bytes"].get<double>(), 1e3 * seconds,
                         row["floor_seconds"].get<double>() / seconds)
                  << "\n"
                  << std::flush;
      }
    }
  }
  bench::write_record(out, "ruquant-rounding", {{"rows", std::move(rows)}});
}

}  // namespace
}  // namespace ruq

int main(int argc, char** argv) {
  return ruq::bench::record_main(argc, argv, "ruq_rounding_bench", "bits", "4,3,2", ruq::run);
}
