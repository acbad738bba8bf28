// Recorded draws, read front to back, in place of a random stream.
#pragma once

#include <doctest/doctest.h>

#include <vector>

#include "ruquant/base/rng.hpp"

namespace ruq::test {

class Tape final : public Draws {
 public:
  Tape(Vector<double> uniforms, std::vector<Index> permutations)
      : uniforms_(std::move(uniforms)), permutations_(std::move(permutations)) {}

  Vector<double> uniform(Index n) override {
    REQUIRE(next_uniform_ + n <= uniforms_.size());
    next_uniform_ += n;
    return uniforms_.segment(next_uniform_ - n, n);
  }
  std::vector<Index> permutation(Index n) override {
    REQUIRE(next_permutation_ + n <= std::ssize(permutations_));
    next_permutation_ += n;
    const auto begin = permutations_.begin() + (next_permutation_ - n);
    return {begin, begin + n};
  }
  Matrix<double> normal(Index, Index) override {
    FAIL("the tape holds no normal draws");
    return {};
  }

  bool used_up() const {
    return next_uniform_ == uniforms_.size() && next_permutation_ == std::ssize(permutations_);
  }

 private:
  Vector<double> uniforms_;
  std::vector<Index> permutations_;
  Index next_uniform_ = 0;
  Index next_permutation_ = 0;
};

}  // namespace ruq::test
