// UniQuanF (arXiv 2506.03781): the learnable transform of FlexRound in front of the levels of
// binary coding. For a weight w in a group with step D = e^{d1}, k bits and h = (2^k − 1)/2:
//
//   centred  v = w·exp(−(d1 + d2 + d3)) + z − t − h     d2 one a weight, d3 one an output row
//   map      c = the code whose level l_c = Σ_i α_i s_i is near v
//   value    ŵ = (l_c + t + h − z)·e^{d1}
//
// z and t are not learned; only d1 undoes the transform, so d2 and d3 merely nudge codes. With
// α_i = 2^{k−2−i}, t = 0 and integer z this is uniform quantization, and with those factors held it
// is FlexRound. Deployed it is plain binary coding: ŵ = Σ (e^{d1} α_i) s_i + e^{d1}(t + h − z).
//
// Gradients pass the map straight through (dl/dv = 1). With W0 = w·exp(−d2 − d3):
//   ∂ŵ/∂d1 = ŵ − W0,   ∂ŵ/∂d2 = ∂ŵ/∂d3 = −W0,   ∂ŵ/∂α_i = e^{d1} s_i
// The filter cuts the path through the map where |v − l_c| > min|α|, a weight beyond the outermost
// levels or between far ones: there only ∂ŵ/∂d1 = ŵ remains.
//
// A weight [out, in] is seen as groups [out·in/width, width], row by row; so are its codes.
#pragma once

#include <string>

#include "ruquant/quant/binary_coding.hpp"

namespace ruq {

struct UniquanfOptions {
  Index rounds = 15;              ///< T, alternations of the start
  Index scale_grid = 1;           ///< G, ranges tried; 0: the whole range and a fitted shift
  std::string mapping = "local";  ///< "direct": any code; "local": the last code or a neighbour
  Index mapping_period = 2;       ///< p, steps from one refresh of the codes to the next
  bool gradient_filter = true;
  friend bool operator==(const UniquanfOptions&, const UniquanfOptions&) = default;
};

void bind(Fields& fields, UniquanfOptions& options, const std::string& prefix);

template <class S>
struct UniquanfParameters {
  Vector<S> d1;     ///< [groups], log D
  Matrix<S> d2;     ///< [out, in]
  Vector<S> d3;     ///< [out]
  Matrix<S> alpha;  ///< [groups, bits]
  Vector<S> zero;   ///< [groups], z, held
  Vector<S> shift;  ///< [groups], t, held
};

/// Unified initialisation: for γ = i/G the range is shrunk, D = γ(max − min)/(2^k − 1), z = −min/D,
/// t = 0, and α is fitted by alternation to w/D + z − h; the γ with the least Σ|ŵ − w|^2.4 is kept,
/// the first of equals. Of the spec it uses bits and group_size. `clips`, learned factors of every
/// row's ends, take the place of both ends before γ shrinks them.
template <class S>
UniquanfParameters<S> unified_start(const Matrix<S>& weight, const QuantSpec& spec,
                                    const UniquanfOptions& options,
                                    const RowClips<S>* clips = nullptr);

/// Uniform levels on the grid that the spec and the clips fit: where FlexRound starts.
template <class S>
UniquanfParameters<S> uniform_start(const Matrix<S>& weight, const QuantSpec& spec,
                                    const RowClips<S>* clips = nullptr);

/// Codes of the present parameters. Step 0 takes the nearest of all levels; later steps keep the
/// codes, or every mapping_period-th step renew them: from all levels ("direct") or from the last
/// code and its two neighbours ("local", exact while levels fall as codes rise and no weight moves
/// further than one level). Of equally near codes the smallest.
template <class S>
void map_codes(const Matrix<S>& weight, const UniquanfParameters<S>& parameters,
               const UniquanfOptions& options, Index step, Codes& codes);

/// ŵ [out, in].
template <class S>
Matrix<S> uniquanf_values(const UniquanfParameters<S>& parameters, const Codes& codes);

template <class S>
struct UniquanfGradients {
  Vector<S> d1;
  Matrix<S> d2;
  Vector<S> d3;
  Matrix<S> alpha;
};

/// Gradients of a loss whose gradient by ŵ is `upstream` [out, in].
template <class S>
UniquanfGradients<S> uniquanf_gradients(const Matrix<S>& weight,
                                        const UniquanfParameters<S>& parameters, const Codes& codes,
                                        const Matrix<S>& upstream, bool gradient_filter);

/// The form to deploy, with the same values up to rounding.
template <class S>
BinaryCode<S> to_binary_code(const UniquanfParameters<S>& parameters, const Codes& codes);

}  // namespace ruq
