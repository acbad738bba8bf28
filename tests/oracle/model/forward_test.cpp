#include "ruquant/model/forward.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ruquant/eval/language.hpp"
#include "ruquant/io/tensor_store.hpp"
#include "support/oracle.hpp"

namespace ruq::test {
namespace {

namespace fs = std::filesystem;

// Every model directory of the set, in the order of their names.
void for_each_model(const std::function<void(const fs::path&)>& body) {
  const auto directory = oracle_directory();
  if (!directory) return skip_without_oracle();
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(*directory / "models")) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  REQUIRE(!folders.empty());
  for (const fs::path& folder : folders) {
    const std::string name = folder.filename().string();
    INFO(name);
    CHECK_NOTHROW(body(folder));
  }
}

// Logits, next-token losses and the residual stream after one block; `tolerance` is relative to the
// largest logit, that of the residual stream to its own largest entry.
template <class S>
void compare(const fs::path& folder, double tolerance) {
  const TensorReader reference(folder / "reference.h5");
  const auto stored = reference.integers("ids");
  const std::vector<std::int32_t> ids(stored.begin(), stored.end());
  const Model<S> model = load_model<S>(folder);
  const Index length = std::ssize(ids);

  Matrix<S> x = embed<S>(model, ids);
  block_forward<S>(model.config, model.layers.at(0), 0, length, {}, x);
  check_close(x, reference.matrix<double>("hidden_after_block1"), tolerance, "hidden_after_block1");

  const Matrix<S> states = final_hidden<S>(model, ids, length, {});
  const Matrix<double> logits = reference.matrix<double>("logits");
  const double scale = logits.cwiseAbs().maxCoeff();
  check_close_at(product_transposed<S>(states, model.head_weight()), logits, tolerance, scale,
                 "logits");
  const Hidden<S> hidden{states, model.head_weight()};
  const Vector<double> nll = -next_token_log_probabilities(hidden, ids);
  const Vector<double> expected = reference.vector<double>("nll");
  check_close_at(nll, expected, tolerance, scale, "nll");

  const WindowScores scores = score_windows<S>(hidden, ids, length, nullptr);
  REQUIRE(scores.nll.size() == 1);
  CHECK(std::abs(scores.nll[0] - expected.mean()) <= tolerance * scale);
}

TEST_CASE("every kind of model computes what transformers computes") {
  for_each_model([](const fs::path& folder) {
    const std::string name = "models/" + folder.filename().string();
    compare<double>(folder, 1e-9);
    report_worst(name + ", double");
    compare<float>(folder, 1e-4);
    report_worst(name + ", float");
  });
}

}  // namespace
}  // namespace ruq::test
