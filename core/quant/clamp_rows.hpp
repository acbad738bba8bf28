// FlatQuant's clipping of weights (arXiv 2410.09426; specification §2.4): every row is clamped to
// [low·min, high·max] before a grid is fitted to it, so that the grid sees the clamped row.
// OmniQuant only narrows the grid's range instead; with a symmetric grid that leaves the shorter
// side as it is.
#pragma once

#include "ruquant/quant/quantizer.hpp"

namespace ruq {

/// Whether learned factors of weight rows clamp the row (quarot_weight, the quantizer of
/// FlatQuant's weights) or only narrow the range of its grid (omniquant and the rest).
inline bool clamps_rows(const QuantSpec& spec) { return spec.rule == GridRule::quarot_weight; }

/// Clamps every row of w [rows, cols] in place; factors [rows] each.
template <class S>
void clamp_rows(Matrix<S>& w, const RowClips<S>& clips);

/// Factors of one: a grid of the rows as they are, whatever the clip ratio.
template <class S>
RowClips<S> unclipped_rows(Index rows) {
  return {Vector<S>::Ones(rows), Vector<S>::Ones(rows)};
}

/// The factors for the grid of w: the learned ones, or, where they clamp, ones after clamping w.
template <class S>
RowClips<S> grid_clips(Matrix<S>& w, const RowClips<S>& learned, const QuantSpec& spec) {
  if (!clamps_rows(spec)) return learned;
  clamp_rows(w, learned);
  return unclipped_rows<S>(w.rows());
}

}  // namespace ruq
