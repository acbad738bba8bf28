#include "ruquant/base/rng.hpp"

#include <Random123/philox.h>

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {

std::uint64_t hash_bytes(const void* data, std::size_t size, std::uint64_t start) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  std::uint64_t hash = start;
  for (std::size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
  return hash;
}

Stream::Stream(std::uint64_t seed, std::string name)
    : seed_(seed), name_(std::move(name)), key_(hash_text(name_)) {}

Stream Stream::child(std::string_view suffix) const {
  return {seed_, fmt::format("{}/{}", name_, suffix)};
}

std::uint64_t Stream::next() {
  const std::uint64_t lane = drawn_ % 4;
  if (lane == 0) {
    const auto block = r123::Philox4x64{}({{drawn_ / 4, 0, 0, 0}}, {{seed_, key_}});
    for (std::size_t i = 0; i < 4; ++i) buffer_[i] = block[i];
  }
  ++drawn_;
  return buffer_[lane];
}

double Stream::next_uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

// Lemire's multiply-shift with rejection: exactly uniform on [0, bound).
std::uint64_t Stream::next_below(std::uint64_t bound) {
  RUQ_CHECK(bound > 0, "empty range");
  const std::uint64_t threshold = (0 - bound) % bound;
  while (true) {
    __extension__ using Wide = unsigned __int128;
    const Wide wide = static_cast<Wide>(next()) * bound;
    if (static_cast<std::uint64_t>(wide) >= threshold)
      return static_cast<std::uint64_t>(wide >> 64);
  }
}

Vector<double> Stream::uniform(Index n) {
  Vector<double> values(n);
  for (double& value : values) value = next_uniform();
  return values;
}

std::vector<Index> Stream::permutation(Index n) {
  std::vector<Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[next_below(i)]);
  return order;
}

// Box-Muller; 1 - u lies in (0, 1], so the logarithm is finite.
Matrix<double> Stream::normal(Index rows, Index cols) {
  Matrix<double> values(rows, cols);
  double spare = 0;
  bool has_spare = false;
  for (double& value : values.reshaped<Eigen::RowMajor>()) {
    if (has_spare) {
      value = spare;
      has_spare = false;
      continue;
    }
    const double radius = std::sqrt(-2 * std::log(1 - next_uniform()));
    const double angle = 2 * std::numbers::pi * next_uniform();
    value = radius * std::cos(angle);
    spare = radius * std::sin(angle);
    has_spare = true;
  }
  return values;
}

Vector<double> Stream::signs(Index n) {
  Vector<double> values(n);
  for (double& value : values) value = (next() >> 63) == 0 ? 1.0 : -1.0;
  return values;
}

}  // namespace ruq
