// Random draws. A Stream is a counter-based generator (Philox 4x64, Salmon et al. 2011) keyed by a
// seed and a name such as "layer3/attn_in/map1": its numbers depend on nothing else, neither on
// the standard library nor on what was drawn elsewhere before.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

/// Where algorithms take their randomness from. Streams in production; recorded tapes in tests.
class Draws {
 public:
  virtual ~Draws() = default;
  /// n independent values, uniform on [0, 1).
  virtual Vector<double> uniform(Index n) = 0;
  /// A uniformly random permutation of 0..n-1.
  virtual std::vector<Index> permutation(Index n) = 0;
  /// [rows, cols] independent standard normal values.
  virtual Matrix<double> normal(Index rows, Index cols) = 0;
};

class Stream final : public Draws {
 public:
  Stream(std::uint64_t seed, std::string name);

  /// The stream named "<this>/<suffix>" of the same seed, at its start.
  Stream child(std::string_view suffix) const;

  Vector<double> uniform(Index n) override;
  std::vector<Index> permutation(Index n) override;
  Matrix<double> normal(Index rows, Index cols) override;

  /// n values of +1 or -1 with equal probability.
  Vector<double> signs(Index n);

  const std::string& name() const { return name_; }

 private:
  std::uint64_t next();
  double next_uniform();
  std::uint64_t next_below(std::uint64_t bound);

  std::uint64_t seed_;
  std::string name_;
  std::uint64_t key_;
  std::uint64_t drawn_ = 0;
  std::uint64_t buffer_[4] = {};
};

/// 64-bit FNV-1a hash of bytes; used to name streams and trials.
std::uint64_t hash_bytes(const void* data, std::size_t size,
                         std::uint64_t start = 0xcbf29ce484222325ULL);
inline std::uint64_t hash_text(std::string_view text) {
  return hash_bytes(text.data(), text.size());
}

}  // namespace ruq
