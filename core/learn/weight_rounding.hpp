// Weights on their way to codes: round_rows, with learned factors as the grid rule reads them
// (quant/clamp_rows.hpp): omniquant narrows the range, quarot_weight clamps the row and then takes
// its own range. The straight-through rules are those of straight_through.hpp; a clamped entry
// passes its gradient to the bound that it was moved to.
#pragma once

#include "ruquant/base/matrix.hpp"
#include "ruquant/quant/quantizer.hpp"

namespace ruq {

/// Rounds w [out, in] in place; nothing at 16 bits.
template <class S>
void round_weight_rows(Matrix<S>& w, const QuantSpec& spec, const RowClips<S>* clips = nullptr);

/// As round_rows_backward, for round_weight_rows.
template <class S>
void round_weight_rows_backward(const Matrix<S>& w, const QuantSpec& spec, Matrix<S>& gradient,
                                const RowClips<S>* clips = nullptr,
                                RowClips<S>* clip_gradient = nullptr);

/// The derivative of clamp_rows alone: `gradient` [rows, cols] goes in with respect to the clamped
/// rows and comes out with respect to w; adds to `clip_gradient`, one entry a row.
template <class S>
void clamp_rows_backward(const Matrix<S>& w, const RowClips<S>& clips, Matrix<S>& gradient,
                         RowClips<S>& clip_gradient);

}  // namespace ruq
