// The loss of InfoQuant's peak-suppression rotation, PSOT (arXiv 2605.26175; specification §4.2).
//
// Rows x [h] are cut into blocks of d channels, each with its own matrix Q_b [d,d]: y =
// x·diag(Q_b), from which the mean of each block is taken. With p = softmax(|y| / temperature) over
// all h channels and a weight a_t for each row,
//
//   L = ‖ p ⊙ |y| · a ‖_F   over all rows and channels.
//
// The softmax is a smooth maximum: the loss presses on the largest coordinates only. The gradient
// is that of unconstrained Q; at y = 0, |y| has slope 0.
#pragma once

#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

struct PsotOptions {
  double temperature = 2;
  bool subtract_mean = true;   ///< of every block of every row
  double outlier_weight = 30;  ///< a of the rows marked in the mask; 1 elsewhere
};

struct PsotLoss {
  double loss = 0;
  std::vector<Matrix<double>> gradient;  ///< dL/dQ_b
};

/// Loss and gradient for x [rows, h], blocks of equal width with blocks·d = h, and a mask of rows
/// (empty: no outliers). Error if the shapes do not fit or the temperature is not positive.
PsotLoss psot_loss(const Matrix<double>& x, const std::vector<Matrix<double>>& blocks,
                   const std::vector<bool>& outlier, const PsotOptions& options = {});

struct OutlierTokenOptions {
  Index largest_multiple = 50;  ///< k stops here
  double settled = 0.02;        ///< change of the share from one k to the next
  double largest_share = 0.4;   ///< positions that may be marked in any sample, of all positions
};

struct OutlierTokens {
  std::vector<std::vector<bool>> mask;  ///< [sample][position]
  Index multiple = 0;                   ///< k
  double mean = 0, deviation = 0;       ///< of all samples: mean and σ
};

/// Tokens that carry massive activations, in samples of equal shape [positions, h]. A token is
/// marked when a coordinate lies beyond mean ± kσ of all samples. k = 1, 2, ... until the share (u
/// − m)/u changes by less than `settled` and u is below `largest_share` of the positions, where u
/// counts the positions marked in any sample and m is the mean count of a sample: positions then
/// are marked in most samples or in few, whatever k. Where k starts, and the reading of u and m,
/// are ours.
OutlierTokens outlier_tokens(const std::vector<Matrix<double>>& samples,
                             const OutlierTokenOptions& options = {});

}  // namespace ruq
