#include "ruquant/quant/code_levels.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ruquant/base/error.hpp"
#include "ruquant/theory/kmeans.hpp"

namespace ruq {
namespace {

constexpr Index kCells = 64;  // cells of one code

}  // namespace

LevelFit::LevelFit(const QuantSpec& spec, const std::optional<ClipPair>& clips)
    : spec_(spec), clips_(clips) {
  // The code range is that of any grid of this spec.
  QuantSpec whole_row = spec;
  whole_row.group_size = 0;
  const Grid<double> grid = fit_grid<double>(Matrix<double>::Ones(1, 1), whole_row);
  code_min_ = grid.code_min;
  code_max_ = grid.code_max;
  bins_.resize(static_cast<std::size_t>(codes()));
  cells_.resize(static_cast<std::size_t>(codes() * kCells));
}

template <class S>
void LevelFit::add(const Matrix<S>& x) {
  RowClips<S> clips;
  if (clips_) {
    clips = {Vector<S>::Constant(x.rows(), static_cast<S>(clips_->low)),
             Vector<S>::Constant(x.rows(), static_cast<S>(clips_->high))};
  }
  const Grid<S> grid = fit_grid(x, spec_, clips_ ? &clips : nullptr);
  const Index width = x.cols() / grid.scale.cols();
  const auto put = [](std::vector<Cell>& into, double at, double weight, double t) {
    const auto last = static_cast<double>(into.size() - 1);
    Cell& cell = into[static_cast<std::size_t>(std::clamp(at, 0.0, last))];
    cell.weight += weight;
    cell.moment += weight * t;
  };
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) {
      const auto scale = static_cast<double>(grid.scale(r, c / width));
      const auto zero = static_cast<double>(grid.zero(r, c / width));
      const double t = static_cast<double>(x(r, c)) / scale + zero;
      const double above = t - static_cast<double>(code_min_) + 0.5;  // codes above the lowest edge
      put(bins_, std::floor(above), scale * scale, t);
      put(cells_, std::floor(above * kCells), scale * scale, t);
    }
  }
}

CodeLevels LevelFit::centroids() const {
  CodeLevels fitted{Vector<double>(codes() - 1), Vector<double>(codes())};
  for (Index i = 0; i < codes(); ++i) {
    const Cell& bin = bins_[static_cast<std::size_t>(i)];
    const auto code = static_cast<double>(code_min_ + i);
    fitted.levels(i) = bin.weight > 0 ? bin.moment / bin.weight : code;
    if (i > 0) fitted.thresholds(i - 1) = code - 0.5;
  }
  return fitted;
}

CodeLevels LevelFit::lloyd_max() const {
  std::vector<double> positions, weights;
  for (const Cell& cell : cells_) {
    if (cell.weight <= 0) continue;
    positions.push_back(cell.moment / cell.weight);
    weights.push_back(cell.weight);
  }
  if (positions.empty()) fail("levels of a site: found no rows to fit them to");
  const Codebook best = kmeans(positions, codes(), weights).codebook;
  // Fewer levels than codes where there are fewer occupied cells: the last one stands for the rest.
  CodeLevels fitted{Vector<double>::Constant(codes() - 1, std::numeric_limits<double>::infinity()),
                    Vector<double>::Constant(codes(), best.levels.back())};
  std::copy(best.levels.begin(), best.levels.end(), fitted.levels.begin());
  std::copy(best.thresholds.begin(), best.thresholds.end(), fitted.thresholds.begin());
  return fitted;
}

CodeLevels fitted_levels(const LevelFit& fit, const std::string& name) {
  if (name == "centroid") return fit.centroids();
  RUQ_CHECK(name == "lloyd_max", "no levels are called '{}'", name);
  return fit.lloyd_max();
}

template void LevelFit::add(const Matrix<float>&);
template void LevelFit::add(const Matrix<double>&);

}  // namespace ruq
