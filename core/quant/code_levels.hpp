// Levels for the row quantizer of one site, fitted to calibration rows: what RUQuant's motive says
// a bin's level should be.
//
// A value x of a row with step Δ and zero point z stands at t = x/Δ + z on the axis of codes, where
// all rows of a site can be pooled; an error there costs Δ² as much in x. With weights Δ²,
//   centroid    the bins of the uniform grid, each with the mean position of what fell into it:
//               the best levels for these thresholds (Lloyd's centroid condition)
//   lloyd_max   thresholds and levels together, found exactly on cells of 1/64 code
// A bin that nothing fell into keeps its code as level.
#pragma once

#include <string>
#include <vector>

#include "ruquant/quant/quantizer.hpp"

namespace ruq {

class LevelFit {
 public:
  /// For rows that `spec` quantizes, with these clip factors if any. Error at 16 bits.
  explicit LevelFit(const QuantSpec& spec, const std::optional<ClipPair>& clips = {});

  /// Adds rows [n, channels].
  template <class S>
  void add(const Matrix<S>& x);

  CodeLevels centroids() const;
  CodeLevels lloyd_max() const;

 private:
  struct Cell {
    double weight = 0, moment = 0;  // Σ Δ², Σ Δ²·t
  };
  Index codes() const { return code_max_ - code_min_ + 1; }

  QuantSpec spec_;
  std::optional<ClipPair> clips_;
  Index code_min_, code_max_;
  std::vector<Cell> bins_;   // by code
  std::vector<Cell> cells_;  // kCells to a code, the ends open
};

/// By the name of QuantSettings::activation_levels other than "midpoint".
CodeLevels fitted_levels(const LevelFit& fit, const std::string& name);

}  // namespace ruq
