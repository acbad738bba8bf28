// GPTQ (Frantar et al., arXiv 2210.17323): round the columns of W [out, in] one after another and
// let the columns still to come make up for the error, by the curvature H of the layer's loss.
//
//   UᵀU = (H + λI)⁻¹, then for column j:  q = Q(w_j),  e = (w_j − q)/U_jj,  W_{:,j:} −= e·U_{j,j:}
//
// Inside a block of columns the correction is applied at once, beyond it as one product at the end
// of the block. Every row is swept on its own, and ½Σe² is its loss ½·Δ(H + λI)Δᵀ.
//
// Grids, as in the official code: one grid a row is fitted to the weight as given; static groups
// (groups of channels) to the weight with dead channels zeroed, before the sweep; other groups
// (groups of the sweep order) when the sweep reaches them, to weights that hold the corrections of
// all earlier blocks and none of the block in progress.
#pragma once

#include <cstdint>

#include "ruquant/base/fields.hpp"
#include "ruquant/base/matrix.hpp"
#include "ruquant/quant/hessian.hpp"
#include "ruquant/quant/quantizer.hpp"

namespace ruq {

struct GptqOptions {
  double damping = 0.01;       ///< λ / mean(diag H)
  Index block_columns = 128;   ///< columns between two lazy updates
  bool act_order = false;      ///< sweep by falling diagonal of H
  bool static_groups = false;  ///< fit all groups before the sweep
  friend bool operator==(const GptqOptions&, const GptqOptions&) = default;
};

void bind(Fields& fields, GptqOptions& options, const std::string& prefix);

/// Weights kept in floating point: 1 where kept, [out, in] in channel order.
using KeepMask = Matrix<std::uint8_t>;

template <class S>
struct GptqResult {
  Matrix<S> weight;  ///< rounded, [out, in], channel order
  Matrix<S> losses;  ///< ½e², [out, in], sweep order
  Grid<S> grid;      ///< columns: groups, of channels when static and of the sweep order otherwise
};

/// Sweeps the weight. A weight under `keep` stays as it is when the sweep reaches it, with all
/// corrections of the columns before it and no error of its own. Dead channels end as Q(0). Error
/// if the Hessian has another width than the weight or the groups do not divide it. `row_grid` is
/// what fit_grid(weight, spec, clips) gives, for a caller that has it; only a spec without groups
/// uses it. `clips`: factors of the ends of every row, or of every group in it.
template <class S>
GptqResult<S> gptq(const Matrix<S>& weight, const QuantSpec& spec, const HessianFactor& factor,
                   const GptqOptions& options, const KeepMask* keep = nullptr,
                   const Grid<S>* row_grid = nullptr, const RowClips<S>* clips = nullptr);

}  // namespace ruq
