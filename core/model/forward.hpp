// The forward pass: the only one. Capture, fake quantization and plain float differ in their hooks.
//
// A batch is a list of segments laid under each other (Segment), most often `windows` sequences of
// equal length: X is [windows·length, h], positions restart at 0 and attention is causal within
// each window.
//
//   u = RMSNorm(x)·γ;  q,k,v = u·Wᵀ + b;  (q,k normed per head);  RoPE (rotate-half);
//   a = softmax(q kᵀ/√e) v;  x += a·W_oᵀ;  u = RMSNorm(x)·γ';  x += (SiLU(u·W_gᵀ) ⊙ u·W_uᵀ)·W_dᵀ
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "ruquant/base/matrix.hpp"
#include "ruquant/model/model.hpp"
#include "ruquant/quant/site.hpp"

namespace ruq {

/// Called when the tensor of a site is ready and before it is used; may change it in place. It is
/// called before the linears that the site feeds are read, so a hook that owns the layer's weights
/// may also install them (calibration does). Tensors: attn_in, mlp_in [n,h]; attn_out, queries
/// [n, heads·e]; keys, values [n, kv_heads·e]; mlp_out [n,f]; n = windows·length. Queries and keys
/// are given after RoPE. Order in a block: attn_in, queries, keys, values, attn_out, mlp_in,
/// mlp_out.
template <class S>
using SiteHook = std::function<void(const Site& site, Matrix<S>& tensor)>;

/// Consecutive rows that attend to themselves, causally, and before that to all rows of a prefix:
/// positions run on from there. A context that several continuations share is one segment, and each
/// continuation another with the context as prefix, so that the context is computed once.
struct Segment {
  Index begin = 0, rows = 0;
  Index prefix_begin = 0, prefix_rows = 0;  ///< a segment without prefix of its own; before `begin`
};
using Layout = std::vector<Segment>;

/// `count` windows of `length` rows without prefixes.
Layout windows_layout(Index count, Index length);

/// Rows of the embedding: [ids.size(), h]. Error if an id lies outside the vocabulary.
template <class S>
Matrix<S> embed(const Model<S>& model, std::span<const std::int32_t> ids);

/// What a block computes between its sites, for whoever would have to compute it again.
template <class S>
struct BlockTrace {
  Matrix<S> queries, keys;  ///< u·W_qᵀ + b and u·W_kᵀ + b, where these are normed; else empty
  Matrix<S> stream;         ///< the residual stream between attention and MLP [n, h]
  Matrix<S> gates, up;      ///< u·W_gᵀ and u·W_uᵀ [n, f]
};

/// One decoder block over the residual stream x, in place. The segments must cover the rows in
/// order. Fills `trace` if there is one.
template <class S>
void block_forward(const ModelConfig& config, const LayerWeights<S>& weights, Index layer,
                   const Layout& layout, const SiteHook<S>& hook, Matrix<S>& x,
                   BlockTrace<S>* trace = nullptr);
/// The same for x [windows·length, h].
template <class S>
void block_forward(const ModelConfig& config, const LayerWeights<S>& weights, Index layer,
                   Index length, const SiteHook<S>& hook, Matrix<S>& x,
                   BlockTrace<S>* trace = nullptr);

/// Embedding, all blocks and the final norm: [ids.size(), h]; logits are this times head_weight()ᵀ.
/// Error naming the site when the hook's tensor holds NaN or infinity; the last
/// block's output is checked too.
template <class S>
Matrix<S> final_hidden(const Model<S>& model, std::span<const std::int32_t> ids,
                       const Layout& layout, const SiteHook<S>& hook);
template <class S>
Matrix<S> final_hidden(const Model<S>& model, std::span<const std::int32_t> ids, Index length,
                       const SiteHook<S>& hook);

/// RMSNorm: x_i / sqrt(mean(x²) + ε) · gain, row by row.
template <class S>
Matrix<S> rms_norm(const Matrix<S>& x, const Vector<S>& gain, double epsilon);

/// Cosine and sine of the angle by which a position turns each plane (i, i + e/2) of a head;
/// both [length, e/2].
template <class S>
struct RopeTable {
  Matrix<S> cosine, sine;
};
template <class S>
RopeTable<S> rope_table(const ModelConfig& config, Index length);

}  // namespace ruq
