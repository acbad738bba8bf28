// Exact k-means on a line. The best clusters of sorted numbers are runs, and the best start of the
// last run moves right as the end does, so dynamic programming with divide and conquer finds the
// global optimum in O(k·n·log n) time and O(k·n) memory for n distinct values.
#pragma once

#include <vector>

#include "ruquant/theory/density.hpp"
#include "ruquant/theory/lloyd_max.hpp"

namespace ruq {

struct Clusters {
  Codebook codebook;         ///< min(k, n) means, ascending
  std::vector<Index> first;  ///< where each cluster starts among the distinct ascending values
  double error;              ///< weighted mean of (x − mean of its cluster)²
};

/// The best k clusters of the samples (each with its weight, or all alike). Errors as of
/// Density::empirical; Error when k < 1 or k·n is past 2^30.
Clusters kmeans(const std::vector<double>& samples, Index k,
                const std::vector<double>& weights = {});
Clusters kmeans(const EmpiricalDensity& atoms, Index k);

}  // namespace ruq
