// Gradients of a Transform's parameters. Activations see T (x ↦ x·T) and weights its dual
// (w ↦ w·T⁻ᵀ); both paths add to one gradient of the parameters of T.
#pragma once

#include <vector>

#include "ruquant/base/matrix.hpp"
#include "ruquant/transform/transform.hpp"

namespace ruq {

/// Of one step: Reflection::v or Scale::factor in `vector`; the maps of BlockDiagonal, or the left
/// and the right map of Kronecker (empty for the identity), in `maps`. Nothing for other steps.
///
/// Entries are free: a reflection is differentiated as x − 2(x·v)v off the sphere too. A map with a
/// dual is free and its dual follows it, ∂L/∂M = −D·(∂L/∂D)ᵀ·D; of a map without one (orthogonal)
/// both paths count as uses of M itself, which is right for moves along the orthogonal group.
struct StepGradient {
  Vector<double> vector;
  std::vector<Matrix<double>> maps;
};

/// One entry a step.
using TransformGradient = std::vector<StepGradient>;

TransformGradient zero_gradient(const Transform<double>& transform);
/// sum += part; both of the same transform.
void add_to(TransformGradient& sum, const TransformGradient& part);

/// `x` [n, width] is what the transform was applied to; `gradient` goes in with respect to x·T and
/// comes out with respect to x; the parameters' part is added to `sum`.
template <class S>
void transform_backward(const Transform<S>& transform, Matrix<S> x, Matrix<S>& gradient,
                        TransformGradient& sum);

/// The same for w·T⁻ᵀ, w [out, width]; the parameters are still those of T.
template <class S>
void dual_backward(const Transform<S>& transform, Matrix<S> w, Matrix<S>& gradient,
                   TransformGradient& sum);

}  // namespace ruq
