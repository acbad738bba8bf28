#include "ruquant/quant/gptq.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

// Rows swept together by one thread: enough for an efficient product, few enough to share out.
constexpr Index kTile = 48;

template <class S>
S nearest(S w, S scale, S zero, S low, S high) {
  return (std::clamp(std::rint(w / scale) + zero, low, high) - zero) * scale;
}

template <class S>
class Sweep {
 public:
  Sweep(const Matrix<S>& weight, const QuantSpec& spec, const HessianFactor& factor,
        const GptqOptions& options, const KeepMask* keep, const Grid<S>* row_grid,
        const RowClips<S>* clips)
      : spec_(spec),
        order_(factor.order),
        upper_(factor.upper.cast<S>()),
        rows_(weight.rows()),
        block_(options.block_columns),
        width_(group_width(spec, weight.cols())),
        fits_on_the_way_(spec.group_size != 0 && !options.static_groups),
        keep_(keep),
        clips_(clips) {
    Matrix<S> alive = weight;
    for (const Index channel : factor.dead) alive.col(channel).setZero();
    if (fits_on_the_way_) {
      result_.grid = unfitted_grid();
    } else if (spec.group_size != 0) {
      result_.grid = fit_grid(alive, spec, clips);
    } else {
      result_.grid = row_grid != nullptr ? *row_grid : fit_grid(weight, spec, clips);
    }
    ordered_ = alive(Eigen::all, order_);
    result_.weight.resize(weight.rows(), weight.cols());
    result_.losses.resize(weight.rows(), weight.cols());
    group_.resize(order_.size());
    for (std::size_t j = 0; j < order_.size(); ++j) {
      group_[j] = (fits_on_the_way_ ? static_cast<Index>(j) : order_[j]) / width_;
    }
  }

  GptqResult<S> run() {
    parallel_rows(rows_, kTile, [this](Index begin, Index end) { sweep_tile(begin, end - begin); });
    return std::move(result_);
  }

 private:
  void sweep_tile(Index first, Index rows) {
    const Index cols = ordered_.cols();
    Matrix<S> pending;
    for (Index begin = 0; begin < cols; begin += block_) {
      const Index count = std::min(block_, cols - begin);
      if (fits_on_the_way_) fit_groups(first, rows, begin, count);
      Matrix<S> errors(rows, count);
      for (Index r = 0; r < rows; ++r) sweep_row(first + r, begin, errors.row(r));
      const Index rest = cols - begin - count;
      if (rest == 0) continue;
      pending.resize(rows, rest);
      product_into<S>(errors, upper_.block(begin, begin + count, count, rest), pending);
      ordered_.block(first, begin + count, rows, rest) -= pending;
    }
  }

  // Codes of the spec and room for every group's step and zero point.
  Grid<S> unfitted_grid() const {
    QuantSpec cheap = spec_;
    cheap.search = false;
    const Index groups = static_cast<Index>(order_.size()) / width_;
    Grid<S> grid = fit_grid<S>(Matrix<S>::Zero(1, width_), cheap);
    grid.spec = spec_;
    grid.scale.resize(rows_, groups);
    grid.zero.resize(rows_, groups);
    return grid;
  }

  // The groups that begin inside the block; none of the block's own corrections has been made yet.
  void fit_groups(Index first, Index rows, Index begin, Index count) {
    RowClips<S> clips;
    if (clips_ != nullptr) {
      clips = {clips_->low.segment(first, rows), clips_->high.segment(first, rows)};
    }
    for (Index c = (begin + width_ - 1) / width_ * width_; c < begin + count; c += width_) {
      const Grid<S> grid = fit_grid<S>(ordered_.block(first, c, rows, width_), spec_,
                                       clips_ != nullptr ? &clips : nullptr);
      result_.grid.scale.block(first, c / width_, rows, 1) = grid.scale;
      result_.grid.zero.block(first, c / width_, rows, 1) = grid.zero;
    }
  }

  template <class Row>
  void sweep_row(Index r, Index begin, Row errors) {
    const Index count = errors.cols();
    const S low = static_cast<S>(result_.grid.code_min);
    const S high = static_cast<S>(result_.grid.code_max);
    auto w = ordered_.row(r).segment(begin, count);
    for (Index i = 0; i < count; ++i) {
      const auto j = static_cast<std::size_t>(begin + i);
      const bool kept = keep_ != nullptr && (*keep_)(r, order_[j]) != 0;
      const S value = kept ? w(i)
                           : nearest(w(i), result_.grid.scale(r, group_[j]),
                                     result_.grid.zero(r, group_[j]), low, high);
      const S error = (w(i) - value) / upper_(begin + i, begin + i);
      result_.weight(r, order_[j]) = value;
      result_.losses(r, begin + i) = error * error / 2;
      errors(i) = error;
      const Index rest = count - i - 1;
      w.tail(rest) -= error * upper_.row(begin + i).segment(begin + i + 1, rest);
    }
  }

  const QuantSpec spec_;
  const std::vector<Index>& order_;
  const Matrix<S> upper_;
  const Index rows_;
  const Index block_;
  const Index width_;
  const bool fits_on_the_way_;
  const KeepMask* keep_;
  const RowClips<S>* clips_;
  Matrix<S> ordered_;         // the weight in sweep order, corrected as the sweep goes
  std::vector<Index> group_;  // group of the column swept j-th
  GptqResult<S> result_;
};

}  // namespace

void bind(Fields& fields, GptqOptions& options, const std::string& prefix) {
  fields.add(prefix + "damping", options.damping, {.min = 0, .max = 1e3},
             "lambda over the mean diagonal of the Hessian");
  fields.add(prefix + "block_columns", options.block_columns, {.min = 1},
             "columns swept between two lazy updates");
  fields.add(prefix + "act_order", options.act_order,
             "sweep columns by falling diagonal of the Hessian");
  fields.add(prefix + "static_groups", options.static_groups,
             "fit the grids of all groups before the sweep");
}

template <class S>
GptqResult<S> gptq(const Matrix<S>& weight, const QuantSpec& spec, const HessianFactor& factor,
                   const GptqOptions& options, const KeepMask* keep, const Grid<S>* row_grid,
                   const RowClips<S>* clips) {
  if (factor.upper.rows() != weight.cols()) {
    fail("the Hessian has {} channels, the weight {}", factor.upper.rows(), weight.cols());
  }
  RUQ_CHECK(options.block_columns > 0, "block of {} columns", options.block_columns);
  RUQ_CHECK(keep == nullptr || (keep->rows() == weight.rows() && keep->cols() == weight.cols()),
            "mask [{},{}]", keep->rows(), keep->cols());
  return Sweep<S>(weight, spec, factor, options, keep, row_grid, clips).run();
}

#define RUQ_INSTANTIATE(S)                                                              \
  template GptqResult<S> gptq(const Matrix<S>&, const QuantSpec&, const HessianFactor&, \
                              const GptqOptions&, const KeepMask*, const Grid<S>*,      \
                              const RowClips<S>*);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
