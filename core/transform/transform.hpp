// Invertible linear maps on channels, as values.
//
// A Transform T of width d acts on activation rows, x ↦ x·T, and dually on weight rows,
// w ↦ w·T⁻ᵀ, so that (X T)(W T⁻ᵀ)ᵀ = X Wᵀ: a transform alone changes no output. It is a list of
// steps applied left to right. An orthogonal T has T⁻ᵀ = T.
//
// Laws: apply(I) == to_matrix(); apply(X)·apply_dual(W)ᵀ == X·Wᵀ; orthogonal steps keep row norms;
// a.then(b).to_matrix() == a.to_matrix()·b.to_matrix(). Width 0 is the identity of any width.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

/// (x P)_j = x_{index[j]}.
struct Permutation {
  std::vector<Index> index;
};

/// x − 2(x·v)v for a unit vector v (Householder).
template <class S>
struct Reflection {
  Vector<S> v;
};

/// Normalised Hadamard on consecutive runs of `order` channels: each run x ↦ x·(had_kᵀ ⊗
/// H_{2^m})/√n. `transposed` uses had_k instead. Orders: hadamard_exists().
struct HadamardStep {
  Index order = 1;
  bool transposed = false;
};

/// y_j = x_j · factor_j.
template <class S>
struct Scale {
  Vector<S> factor;
};

/// A square map m and its dual m⁻ᵀ; an empty dual says that m is orthogonal.
template <class S>
struct SquareMap {
  Matrix<S> map;
  Matrix<S> dual;
};

/// Consecutive runs of channels, run b mapped by maps[which[b]]; run widths follow from the maps.
template <class S>
struct BlockDiagonal {
  std::vector<SquareMap<S>> maps;
  std::vector<Index> which;
};

/// x ↦ x·(left ⊗ right): x as a [n1, n2] row-major matrix becomes leftᵀ·x·right. An empty map
/// stands for the identity of width `left_width` or `right_width`.
template <class S>
struct Kronecker {
  SquareMap<S> left;
  SquareMap<S> right;
  Index left_width = 0;
  Index right_width = 0;
};

template <class S>
using Step = std::variant<Permutation, Reflection<S>, HadamardStep, Scale<S>, BlockDiagonal<S>,
                          Kronecker<S>>;

template <class S>
class Transform {
 public:
  Transform() = default;  ///< the identity
  explicit Transform(Index width) : width_(width) {}

  /// Appends a step. Error unless it fits the width (names both) and is whole: a permutation of
  /// 0..n−1; square maps, duals of their size; blocks of maps that are there; Kronecker maps of
  /// the widths told.
  void append(Step<S> step);
  /// This map followed by `next`.
  Transform then(const Transform& next) const;

  Index width() const { return width_; }
  bool is_identity() const { return steps_.empty(); }
  bool is_orthogonal() const;
  const std::vector<Step<S>>& steps() const { return steps_; }

  /// X ← X·T for X [rows, width].
  void apply(Matrix<S>& x) const;
  /// X ← X·Tᵀ.
  void apply_transpose(Matrix<S>& x) const;
  /// W ← W·T⁻ᵀ for W [out, width].
  void apply_dual(Matrix<S>& w) const;
  /// Mᵀ-side: W ← Tᵀ·W for W [width, in]: folds T into the linear that produces the channels.
  void apply_to_outputs(Matrix<S>& w) const;

  Matrix<S> to_matrix(Index width) const;
  Transform<S> inverse_transpose() const;

  template <class U>
  Transform<U> cast() const;

  /// One word a step: "scale, blocks(9x64), permutation, blocks(9x64), reflection".
  std::string describe() const;

 private:
  template <class U>
  friend class Transform;
  Index width_ = 0;
  std::vector<Step<S>> steps_;
};

}  // namespace ruq
