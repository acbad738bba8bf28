// Matrices and the few products that everything else is made of.
//
// Activations are row-major, one token a row: X is [tokens, channels]. Weights are stored
// [out, in] as in Hugging Face files, so a linear layer is X·Wᵀ.
//
// Determinism: products run over fixed tiles of kRowTile rows, each computed by one thread, so a
// result depends neither on the number of threads nor on which thread took which tile. Float goes
// through oneDNN where it was found at build time, everything else through Eigen.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <functional>
#include <string>

namespace ruq {

using Index = Eigen::Index;

template <class S>
using Matrix = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class S>
using Vector = Eigen::Matrix<S, Eigen::Dynamic, 1>;
template <class S>
using RowVector = Eigen::Matrix<S, 1, Eigen::Dynamic>;

/// A view of a row-major matrix whose rows may lie apart (a block of columns of a wider one).
template <class S>
using MatrixView = Eigen::Ref<Matrix<S>, 0, Eigen::OuterStride<>>;
template <class S>
using ConstMatrixView = Eigen::Ref<const Matrix<S>, 0, Eigen::OuterStride<>>;

/// Rows of one tile of a product. Part of the numbers: changing it may change last bits.
inline constexpr Index kRowTile = 256;

/// Sets how many threads parallel_for uses (at least 1). Not thread-safe: call it at start-up.
void set_threads(int count);
int threads();

/// Calls body(i) once for each i in [0, count), on threads() threads, in no promised order. The
/// first exception is rethrown here. Nested calls run on the calling thread.
void parallel_for(Index count, const std::function<void(Index)>& body);

/// Seconds that processors have spent on what the caller does: within parallel_for on its thread
/// alone, elsewhere on all threads of the process. Differences count.
double work_seconds();

/// Calls body(begin, end) for consecutive ranges of at most `grain` out of [0, rows).
void parallel_rows(Index rows, Index grain, const std::function<void(Index, Index)>& body);

/// A·B for A [m,k], B [k,n].
template <class S>
Matrix<S> product(const ConstMatrixView<S>& a, const ConstMatrixView<S>& b);

/// A·Bᵀ for A [m,k], B [n,k]: the product of a linear layer.
template <class S>
Matrix<S> product_transposed(const ConstMatrixView<S>& a, const ConstMatrixView<S>& b);

/// C ← A·B and C ← A·Bᵀ on the calling thread alone; C must not overlap A or B.
template <class S>
void product_into(const ConstMatrixView<S>& a, const ConstMatrixView<S>& b, MatrixView<S> c);
template <class S>
void product_transposed_into(const ConstMatrixView<S>& a, const ConstMatrixView<S>& b,
                             MatrixView<S> c);

/// "onednn 2.6.3 / AVX512..." or "eigen 3.4.0 / AVX2": what computes float products. Named in
/// results.
std::string math_backend();

}  // namespace ruq
