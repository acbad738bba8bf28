// The default model in float: RUQ_MODEL_DIR names its directory, RUQ_TOKENS_DIR the folder that
// holds wikitext2.h5. Each comparison is left out, in words, where its variable is not set.
// RUQ_PPL_WINDOWS sets how many windows of each split are scored (2; 0 all).
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ruquant/eval/language.hpp"
#include "ruquant/io/tensor_store.hpp"
#include "ruquant/model/forward.hpp"
#include "support/oracle.hpp"

namespace ruq::test {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 1e-4;

// Loaded once for all cases.
const Model<float>& default_model(const fs::path& folder) {
  static const Model<float> model = load_model<float>(folder);
  return model;
}

std::vector<std::int32_t> token_ids(const TensorReader& file, const std::string& name) {
  const auto stored = file.integers(name);
  return {stored.begin(), stored.end()};
}

const std::map<std::string, SiteKind>& reference_sites() {
  static const std::map<std::string, SiteKind> sites = {{"qkv_in", SiteKind::attn_in},
                                                        {"o_in", SiteKind::attn_out},
                                                        {"gate_up_in", SiteKind::mlp_in},
                                                        {"down_in", SiteKind::mlp_out}};
  return sites;
}

// Compares the tensor of a site [tokens, channels] where the reference has its block.
void check_site(const TensorReader& reference, const Site& site, const Matrix<float>& tensor) {
  const std::string block = "sites/block" + std::to_string(site.layer);
  if (!reference.has(block)) return;
  for (const auto& [name, kind] : reference_sites()) {
    if (kind != site.kind) continue;
    const std::string prefix = block + "/" + name;
    const Matrix<double> x = tensor.cast<double>();
    const Vector<double> rms = x.rowwise().norm() / std::sqrt(static_cast<double>(x.cols()));
    const Vector<double> largest = x.cwiseAbs().rowwise().maxCoeff();
    check_close(rms, reference.vector<double>(prefix + "_rms"), kTolerance, prefix + "_rms");
    check_close(largest, reference.vector<double>(prefix + "_absmax"), kTolerance,
                prefix + "_absmax");
    const Matrix<double> rows = reference.matrix<double>(prefix + "_tokens");
    const auto positions = reference.integers("positions");
    for (Index i = 0; i < rows.rows(); ++i) {
      check_close(x.row(positions.at(static_cast<std::size_t>(i))), rows.row(i), kTolerance,
                  prefix + "_tokens");
    }
  }
}

// The reference's most likely token may differ from ours only where ours scores it as high as the
// tolerance can tell.
void check_top(const TensorReader& reference, const Matrix<float>& logits) {
  const auto top = reference.integers("top1");
  REQUIRE(std::ssize(top) == logits.rows());
  const double scale = reference.matrix<double>("logits").cwiseAbs().maxCoeff();
  Index same = 0;
  for (Index t = 0; t < logits.rows(); ++t) {
    const auto row = logits.row(t);
    Index mine = 0;
    const double best = static_cast<double>(row.maxCoeff(&mine));
    const Index theirs = top[static_cast<std::size_t>(t)];
    INFO("position " << t << ": most likely " << mine << ", expected " << theirs);
    CHECK(best - static_cast<double>(row(theirs)) <= 2 * kTolerance * scale);
    if (mine == theirs) ++same;
  }
  std::cout << "smollm2/window512: top1 the same at " << same << " of " << top.size()
            << " positions\n";
}

TEST_CASE("the default model on one window of 512 tokens") {
  const auto directory = oracle_directory();
  if (!directory) return skip_without_oracle();
  const auto folder = folder_or_skip("RUQ_MODEL_DIR");
  if (!folder) return;
  const TensorReader reference(*directory / "smollm2/window512.h5");
  const Model<float>& model = default_model(*folder);
  const std::vector<std::int32_t> ids = token_ids(reference, "ids");
  Index sites = 0;
  const SiteHook<float> capture = [&](const Site& site, Matrix<float>& tensor) {
    check_site(reference, site, tensor);
    ++sites;
  };
  const Matrix<float> states = final_hidden<float>(model, ids, std::ssize(ids), capture);
  CHECK(sites > 0);
  for (const std::string& block : reference.children("sites")) {
    CHECK(std::stoll(block.substr(std::string("block").size())) < model.config.layers);
  }

  const Matrix<float> logits = product_transposed<float>(states, model.head_weight());
  const auto positions = reference.integers("positions");
  const Matrix<double> expected = reference.matrix<double>("logits");
  REQUIRE(std::ssize(positions) == expected.rows());
  Matrix<float> rows(expected.rows(), logits.cols());
  for (Index i = 0; i < rows.rows(); ++i) {
    rows.row(i) = logits.row(positions[static_cast<std::size_t>(i)]);
  }
  check_close(rows, expected, kTolerance, "logits");
  const Hidden<float> hidden{states, model.head_weight()};
  const Vector<double> nll = -next_token_log_probabilities(hidden, ids);
  check_close(nll, reference.vector<double>("nll"), kTolerance, "nll");
  check_top(reference, logits);
  report_worst("smollm2/window512");
}

// The first windows of one split against the reference's.
void check_split(const Model<float>& model, const TensorReader& text, const std::string& split,
                 const TensorReader& reference, const std::string& group) {
  constexpr Index kWindow = 2048;
  INFO(group);
  const auto range = text.integers("splits/" + split);
  REQUIRE(range.size() == 2);
  CHECK(range[1] - range[0] == reference.integer_attribute(group, "tokens"));
  const std::vector<std::int32_t> all = token_ids(text, "tokens/ids");
  const Vector<double> expected = reference.vector<double>(group + "/window_nll");
  Vector<double> nll(asked_count("RUQ_PPL_WINDOWS", 2, expected.size()));
  REQUIRE(range[0] + nll.size() * kWindow <= range[1]);
  for (Index w = 0; w < nll.size(); ++w) {
    const std::span<const std::int32_t> ids(all.data() + range[0] + w * kWindow, kWindow);
    const Matrix<float> states = final_hidden<float>(model, ids, kWindow, {});
    nll(w) = score_windows<float>({states, model.head_weight()}, ids, kWindow, nullptr).nll.at(0);
  }
  check_close(nll, expected.head(nll.size()).eval(), kTolerance, "window_nll");
  std::cout << "smollm2/perplexity: " << nll.size() << " of " << expected.size() << " windows of "
            << group << "\n";
  // A perplexity is the exponential of the mean over all windows, there as here.
  CHECK(std::exp(expected.mean()) ==
        doctest::Approx(reference.real_attribute(group, "ppl")).epsilon(1e-6));
}

TEST_CASE("the default model's loss on the first windows of WikiText-2") {
  const auto directory = oracle_directory();
  if (!directory) return skip_without_oracle();
  const auto folder = folder_or_skip("RUQ_MODEL_DIR");
  const auto tokens = folder_or_skip("RUQ_TOKENS_DIR");
  if (!folder || !tokens) return;
  const TensorReader reference(*directory / "smollm2/perplexity.h5");
  const TensorReader text(*tokens / "wikitext2.h5");
  const Model<float>& model = default_model(*folder);
  check_split(model, text, "test", reference, "wikitext2_test");
  check_split(model, text, "validation", reference, "wikitext2_valid");
  report_worst("smollm2/perplexity");
}

}  // namespace
}  // namespace ruq::test
