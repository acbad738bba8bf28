#include "experiments/kept.hpp"

#include "experiments/home.hpp"
#include "experiments/record.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq {

namespace fs = std::filesystem;

fs::path kept_file(const std::string& kind, const std::string& key) {
  const std::string all = fmt::format("{} executor {} {}", key, kExecutorVersion, RUQ_PRESET);
  return cache_folder("shared") / fmt::format("{}-{:016x}.h5", kind, hash_text(all));
}

void write_maxima(const ChannelMaxima& maxima, const fs::path& file) {
  TensorWriter out(file);
  for (std::size_t l = 0; l < maxima.size(); ++l) {
    for (std::size_t k = 0; k < maxima[l].size(); ++k) {
      out.write(fmt::format("{}/{}", l, k), maxima[l][k]);
    }
  }
  out.commit();
}

ChannelMaxima read_maxima(const fs::path& file) {
  const TensorReader in(file);
  ChannelMaxima maxima;
  for (Index l = 0; in.has(fmt::format("{}/0", l)); ++l) {
    maxima.emplace_back();
    for (std::size_t k = 0; k < kLinearSites.size(); ++k) {
      maxima.back()[k] = in.vector<double>(fmt::format("{}/{}", l, k));
    }
  }
  return maxima;
}

void write_choices(const ChoiceScores& scores, const fs::path& file) {
  TensorWriter out(file);
  for (std::size_t i = 0; i < scores.log_likelihood.size(); ++i) {
    const auto& values = scores.log_likelihood[i];
    out.write(fmt::format("{}/log_likelihood", i), values.data(), {std::ssize(values)});
    out.write(fmt::format("{}/greedy", i),
              std::vector<Index>(scores.greedy[i].begin(), scores.greedy[i].end()));
  }
  out.attribute("", "items", static_cast<std::int64_t>(scores.log_likelihood.size()));
  out.commit();
}

ChoiceScores read_choices(const fs::path& file) {
  const TensorReader in(file);
  ChoiceScores scores;
  for (Index i = 0; i < in.integer_attribute("", "items"); ++i) {
    const auto values = in.vector<double>(fmt::format("{}/log_likelihood", i));
    scores.log_likelihood.emplace_back(values.begin(), values.end());
    const auto greedy = in.integers(fmt::format("{}/greedy", i));
    scores.greedy.emplace_back(greedy.begin(), greedy.end());
  }
  return scores;
}

}  // namespace ruq
