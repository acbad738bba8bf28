// The quantizers of quant/quantizer.hpp with a backward rule, so that what stands before them can
// be trained (specification §1.10). Forward values are those of the quantizer itself.
//
// With x̃ = (q − z)·Δ, q = clamp(rint(x/Δ) + z, code_min, code_max) and g = ∂L/∂x̃:
//   rint is straight-through, the clamp passes gradient only inside, z has none, hence
//   ∂x̃/∂x = 1 inside, 0 where clipped;   ∂x̃/∂Δ = (q − z) − x/Δ inside, q − z where clipped;
//   Δ depends on x through the row's minimum and maximum (on all equal ones in equal parts) and on
//   the clip factors: lo = low·min, hi = high·max. No gradient where Δ is held at a bound, or where
//   an end of the range is held at zero (quarot rules). A searched shrink factor counts as
//   constant.
#pragma once

#include "ruquant/base/matrix.hpp"
#include "ruquant/quant/quantizer.hpp"

namespace ruq {

/// Fits and rounds every row of x in place: fake_quantize, or with learned factors in place of the
/// clip ratio where `clips` is given. Nothing at 16 bits.
template <class S>
void round_rows(Matrix<S>& x, const QuantSpec& spec, const RowClips<S>* clips = nullptr);

/// `x` is what round_rows was given; `gradient` [rows, cols] goes in with respect to the rounded
/// values and comes out with respect to x. With `clips`, adds to `clip_gradient`, one entry a row.
template <class S>
void round_rows_backward(const Matrix<S>& x, const QuantSpec& spec, Matrix<S>& gradient,
                         const RowClips<S>* clips = nullptr, RowClips<S>* clip_gradient = nullptr);

}  // namespace ruq
