// What it costs to draw up the transform of one site, against the width of the site: closed-form
// methods on seeded activations with massive outliers, on one thread.
//
//   ruq_construction_bench OUT.json [widths 576,1024,...]
//
// OUT.json: {"format": "ruquant-construction", "format_version": 1, "machine": {processor, math,
// threads}, "block_size", "rows": [{method, width, tokens, seconds: [each repetition], flops,
// bytes, floor_seconds}]}. Tokens are as many as the method calibrates on by default: the mean
// sequence of 512, or eight such. What a method cannot do without: DuQuant multiplies all
// calibration tokens by a block map at every step; RUQuant reads, changes and writes all of them
// for every reflection and every round of turns, as the next one starts from the largest entry; the
// others read them once or not at all. The floor is the time of these products, or of as many
// copies of the tokens, the larger, measured a moment before.
#include <algorithm>
#include <iostream>

#include "bench/record.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/method/method.hpp"
#include "ruquant/model/activations.hpp"

namespace ruq {
namespace {

using bench::best;
using bench::Json;
using bench::timed;

constexpr Index kMeanTokens = 512;     // of the mean sequence
constexpr Index kSampleTokens = 4096;  // of eight sequences
constexpr Index kBlock = 64;
constexpr Index kOutputs = 64;  // rows of the weight; few, for it is the activations that cost

// One layer whose only site is the input of down_proj: Gaussian tokens, channels of uneven size,
// and every 64th token with one massive entry.
ActivationSet one_site(Index width, Index tokens) {
  ActivationSet set{"float_samples", "seeded", {}, {}};
  set.config.layers = 1;
  set.config.width = kOutputs;
  set.config.mlp_width = width;
  set.config.heads = set.config.kv_heads = 1;
  set.config.head_width = kOutputs;
  Stream stream(1, "construction");
  SiteActivations site;
  site.site = {0, SiteKind::mlp_out};
  Matrix<double> x = stream.child("x").normal(2 * tokens, width);
  x *= stream.child("channels").normal(width, 1).col(0).array().exp().matrix().asDiagonal();
  for (Index row = 0; row < x.rows(); row += 64) x(row, width / 3) = 500;
  site.calibration = x.topRows(tokens).cast<float>();
  site.test = x.bottomRows(tokens).cast<float>();
  site.maxima = x.cwiseAbs().colwise().maxCoeff().transpose();
  site.weights[Linear::down_proj] = stream.child("w").normal(kOutputs, width).cast<float>();
  set.sites.push_back(std::move(site));
  return set;
}

struct Subject {
  std::string method;
  std::vector<std::pair<std::string, std::string>> options;
  Index tokens;
  double flops;   ///< on each entry of the tokens
  double passes;  ///< over all tokens
};

constexpr double kMaps = 2;                // one permutation between them
constexpr double kSearchSteps = 64;        // DuQuant's N
constexpr double kSteps = 16, kTurns = 3;  // RUQuant's K and lambda, as it has them by default
constexpr double kReflectionFlops = 4;     // on an entry: a dot product and an update
constexpr double kTurnFlops = 3;           // six on a pair

std::vector<Subject> subjects() {
  const std::string block = std::to_string(kBlock);
  return {{"smoothquant", {}, kMeanTokens, 0, 0},
          {"quarot", {}, kMeanTokens, 0, 0},
          {"singlequant", {}, kSampleTokens, 0, 1},
          {"duquant",
           {{"block_size", block}, {"search_steps", fmt::format("{}", kSearchSteps)}},
           kMeanTokens,
           kMaps * kSearchSteps * 2 * kBlock,
           kMaps * kSearchSteps},
          {"ruquant",
           {{"block_size", block}},
           kMeanTokens,
           kMaps * kSteps * (kReflectionFlops + kTurns * kTurnFlops),
           kMaps * kSteps * (1 + kTurns)}};
}

// Seconds of a floating-point operation on every entry, at the rate of a product with a block map,
// and of one pass, over all of some tokens.
struct Floor {
  double flop, pass;
};

Floor measured_floor(Index width, Index tokens) {
  const Matrix<float> x = Matrix<float>::Ones(tokens * width / kBlock, kBlock);
  const Matrix<float> map = Matrix<float>::Ones(kBlock, kBlock);
  Matrix<float> y = x;
  return {best(timed([&] { product_into<float>(x, map, y); })) / (2 * kBlock),
          best(timed([&] { y.noalias() = x; }))};
}

Json measure(const Subject& subject, const ActivationSet& set, Floor floor) {
  const auto method = make_method(subject.method);
  Fields fields;
  method->bind(fields);
  for (const auto& [name, value] : subject.options) fields.find(name)->set(value);
  QuantSettings quant;
  quant.set_widths(bit_widths("W4A4-Q16K16V16"));
  const std::vector<double> taken = timed([&] {
    DumpSession session(set);
    method->plan(session, quant, Stream(1, "plan"));
  });
  const Index width = set.config.mlp_width;
  const auto entries = static_cast<double>(subject.tokens * width);
  return {{"method", subject.method},
          {"width", width},
          {"tokens", subject.tokens},
          {"seconds", taken},
          {"flops", subject.flops * entries},
          {"bytes", subject.passes * 2 * entries * sizeof(float)},
          {"floor_seconds", std::max(subject.flops * floor.flop, subject.passes * floor.pass)}};
}

void run(const std::string& out, std::vector<Index> widths) {
  set_threads(1);
  Json rows = Json::array();
  for (const Index width : widths) {
    for (const Subject& subject : subjects()) {
      rows.push_back(
          measure(subject, one_site(width, subject.tokens), measured_floor(width, subject.tokens)));
      const Json& row = rows.back();
      const double seconds = best(row["seconds"].get<std::vector<double>>());
      const double floor = row["floor_seconds"];
      std::cout << fmt::format("{:>12} {:>6} channels {:9.4f} s", subject.method, width, seconds);
      if (floor > 0) std::cout << fmt::format("  {:.2f} of the floor's speed", floor / seconds);
      std::cout << "\n" << std::flush;
    }
  }
  bench::write_record(out, "ruquant-construction",
                      {{"block_size", kBlock}, {"rows", std::move(rows)}});
}

}  // namespace
}  // namespace ruq

int main(int argc, char** argv) {
  return ruq::bench::record_main(argc, argv, "ruq_construction_bench", "widths",
                                 "576,1024,1536,2048,4096,8192,11008,14336", ruq::run);
}
