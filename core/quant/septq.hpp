// SEPTQ (arXiv 2604.10091): GPTQ in which a small share of the weights, those whose rounding would
// cost most, stays in floating point.
//
//   s_ij = (W_ij − Q(W_ij))² / U_jj²  the loss of rounding W_ij when the columns before j are done;
//   keep W_ij where s_ij >= the value at rank floor(p·N/100) of all N, largest first; then sweep.
//
// The mask is fixed before the sweep ("static") and, in the paper, ranks the whole matrix
// ("global"); ranking each row by itself gives every row its share. Since the entry at the
// threshold is kept, floor(p·N/100) + 1 weights are, more if several tie there. A share of 0 keeps
// none and makes the method GPTQ to the last bit; 100 keeps all.
//
// The paper's grid is one a row, asymmetric, range-searched (GridRule::quarot_weight with
// `search`); its code ignores groups and act-order, which work here. Unlike GPTQ's, grids are
// fitted after dead channels have been zeroed.
#pragma once

#include <string>

#include "ruquant/quant/gptq.hpp"

namespace ruq {

struct SeptqOptions {
  double kept_percent = 1;            ///< p, 0 to 100
  std::string mask_scope = "global";  ///< what is ranked: "global" (the matrix) or "row"
  friend bool operator==(const SeptqOptions&, const SeptqOptions&) = default;
};

void bind(Fields& fields, SeptqOptions& options, const std::string& prefix);

/// s [out, in] in channel order, on a grid fitted to this weight; 0 in dead channels.
template <class S>
Matrix<S> rounding_importance(const Matrix<S>& weight, const Grid<S>& grid,
                              const HessianFactor& factor);

/// Where to keep weights, by the rank of their importance.
template <class S>
KeepMask keep_mask(const Matrix<S>& importance, const SeptqOptions& options);

template <class S>
struct SeptqResult {
  GptqResult<S> sweep;  ///< dead channels end as zeros
  KeepMask mask;
  Index kept = 0;
};

template <class S>
SeptqResult<S> septq(const Matrix<S>& weight, const QuantSpec& spec, const HessianFactor& factor,
                     const GptqOptions& gptq_options, const SeptqOptions& options,
                     const RowClips<S>* clips = nullptr);

}  // namespace ruq
