#include "ruquant/quant/uniquanf.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

constexpr Index kGrain = 16;
constexpr double kErrorNorm = 2.4;

template <class S>
using Groups = Eigen::Map<const Matrix<S>>;

template <class S>
Groups<S> groups_of(const Matrix<S>& weight, Index groups) {
  return {weight.data(), groups, weight.size() / groups};
}

template <class S>
S half_range(Index bits) {
  return static_cast<S>((Index{1} << bits) - 1) / 2;
}

template <class S>
UniquanfParameters<S> blank_parameters(Index rows, Index cols, Index groups, Index bits) {
  return {Vector<S>(groups),       Matrix<S>::Zero(rows, cols), Vector<S>::Zero(rows),
          Matrix<S>(groups, bits), Vector<S>(groups),           Vector<S>::Zero(groups)};
}

struct GroupStart {
  double step = 1, zero = 0;
  CodingFactors factors;
  double error = std::numeric_limits<double>::infinity();
};

GroupStart start_at(const RowVector<double>& values, double low, double step, Index bits,
                    Index rounds, bool fit_shift) {
  GroupStart start;
  start.step = step;
  start.zero = -low / step;
  const double half = half_range<double>(bits);
  const RowVector<double> centred = ((values.array() / step) + (start.zero - half)).matrix();
  start.factors = alternating_coding(centred, bits, rounds, fit_shift);
  const LevelTable<double> levels(start.factors.alpha);
  const double offset = start.factors.shift + half - start.zero;
  start.error = 0;
  for (Index j = 0; j < values.size(); ++j) {
    const double level = levels.level(levels.nearest(centred(j) - start.factors.shift));
    start.error += std::pow(std::abs((level + offset) * step - values(j)), kErrorNorm);
  }
  return start;
}

GroupStart best_start(const RowVector<double>& values, ClipPair clips, Index bits,
                      const UniquanfOptions& options) {
  const double low = clips.low * values.minCoeff();
  const double range = clips.high * values.maxCoeff() - low;
  // A constant group is met exactly by any step.
  const double widest = range > 0 ? range / (2 * half_range<double>(bits)) : 1;
  if (options.scale_grid == 0) return start_at(values, low, widest, bits, options.rounds, true);
  GroupStart best;
  for (Index i = 1; i <= options.scale_grid; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(options.scale_grid);
    GroupStart trial = start_at(values, low, share * widest, bits, options.rounds, false);
    if (trial.error < best.error) best = std::move(trial);
  }
  return best;
}

// One group at the present parameters; `at` are the positions of its weights in [out, in] order.
template <class S>
class GroupView {
 public:
  GroupView(const Matrix<S>& weight, const UniquanfParameters<S>& p, Index group)
      : levels(p.alpha.row(group)),
        weight_(groups_of(weight, p.d1.size()).row(group)),
        nudge_(groups_of(p.d2, p.d1.size()).row(group)),
        row_nudge_(p.d3(group * p.d3.size() / p.d1.size())),
        shrink_(p.d1(group)),
        offset_(p.zero(group) - p.shift(group) - half_range<S>(p.alpha.cols())) {}

  Index width() const { return weight_.size(); }
  /// v of the c-th weight.
  S centred(Index c) const {
    return weight_(c) * std::exp(-(shrink_ + nudge_(c) + row_nudge_)) + offset_;
  }
  /// W0 of the c-th weight.
  S nudged(Index c) const { return weight_(c) * std::exp(-nudge_(c) - row_nudge_); }

  const LevelTable<S> levels;

 private:
  const RowVector<S> weight_, nudge_;
  const S row_nudge_, shrink_, offset_;
};

template <class S>
std::int32_t nearest_neighbour(const LevelTable<S>& levels, S value, std::int32_t code) {
  const auto top = static_cast<std::int32_t>(levels.size() - 1);
  std::int32_t best = std::max(code - 1, 0);
  for (std::int32_t next = best + 1; next <= std::min(code + 1, top); ++next) {
    if (std::abs(value - levels.level(next)) < std::abs(value - levels.level(best))) best = next;
  }
  return best;
}

// Adds the gradients of one group; its rows of d3 are shared with its neighbours and come back.
template <class S>
double group_gradients(const GroupView<S>& group, const UniquanfParameters<S>& p,
                       const Codes& codes, const Groups<S>& upstream, bool gradient_filter, Index g,
                       Eigen::Map<Matrix<S>>& d2, UniquanfGradients<S>& gradients) {
  const Index bits = p.alpha.cols();
  const S step = std::exp(p.d1(g));
  const S offset = p.shift(g) + half_range<S>(bits) - p.zero(g);
  const S reach = p.alpha.row(g).cwiseAbs().minCoeff();
  Vector<double> by_code = Vector<double>::Zero(group.levels.size());
  double d1 = 0;
  double d3 = 0;
  for (Index c = 0; c < group.width(); ++c) {
    const Index code = codes(g, c);
    const S level = group.levels.level(code);
    const double slope = static_cast<double>(upstream(g, c));
    const double value = static_cast<double>((level + offset) * step);
    d2(g, c) = 0;
    d1 += slope * value;
    if (gradient_filter && std::abs(group.centred(c) - level) > reach) continue;
    const double through = slope * static_cast<double>(group.nudged(c));
    d2(g, c) = static_cast<S>(-through);
    d1 -= through;
    d3 -= through;
    by_code(code) += slope;
  }
  gradients.d1(g) = static_cast<S>(d1);
  for (Index i = 0; i < bits; ++i) {
    double sum = 0;
    for (Index code = 0; code < by_code.size(); ++code) {
      sum += code_sign<double>(code, i, bits) * by_code(code);
    }
    gradients.alpha(g, i) = static_cast<S>(static_cast<double>(step) * sum);
  }
  return d3;
}

}  // namespace

void bind(Fields& fields, UniquanfOptions& options, const std::string& prefix) {
  fields.add(prefix + "start_rounds", options.rounds, {.min = 0, .max = 1000},
             "alternations of the unified start, T");
  fields.add(prefix + "scale_grid", options.scale_grid, {.min = 0, .max = 1000},
             "ranges tried by the unified start, G; 0 fits a shift instead");
  fields.add_choice(prefix + "mapping", options.mapping, {"direct", "local"},
                    "codes from all levels, or from the last code and its neighbours");
  fields.add(prefix + "mapping_period", options.mapping_period, {.min = 1},
             "steps from one refresh of the codes to the next, p");
  fields.add(prefix + "gradient_filter", options.gradient_filter,
             "cut the gradient of weights that lie far from their level");
}

template <class S>
UniquanfParameters<S> unified_start(const Matrix<S>& weight, const QuantSpec& spec,
                                    const UniquanfOptions& options, const RowClips<S>* clips) {
  const Index groups = weight.size() / group_width(spec, weight.cols());
  const Index per_row = groups / weight.rows();
  auto p = blank_parameters<S>(weight.rows(), weight.cols(), groups, spec.bits);
  parallel_rows(groups, kGrain, [&](Index begin, Index end) {
    for (Index g = begin; g < end; ++g) {
      ClipPair ends;
      if (clips != nullptr) {
        ends = {static_cast<double>(clips->low(g / per_row)),
                static_cast<double>(clips->high(g / per_row))};
      }
      const GroupStart start = best_start(groups_of(weight, groups).row(g).template cast<double>(),
                                          ends, spec.bits, options);
      p.d1(g) = static_cast<S>(std::log(start.step));
      p.zero(g) = static_cast<S>(start.zero);
      p.shift(g) = static_cast<S>(start.factors.shift);
      p.alpha.row(g) = start.factors.alpha.template cast<S>();
    }
  });
  return p;
}

template <class S>
UniquanfParameters<S> uniform_start(const Matrix<S>& weight, const QuantSpec& spec,
                                    const RowClips<S>* clips) {
  const Grid<S> grid = fit_grid(weight, spec, clips);
  auto p = blank_parameters<S>(weight.rows(), weight.cols(), grid.scale.size(), spec.bits);
  p.d1 = grid.scale.template reshaped<Eigen::RowMajor>().array().log();
  // The levels count from code_min upward; codes of this file count from the top downward.
  p.zero = grid.zero.template reshaped<Eigen::RowMajor>().array() - static_cast<S>(grid.code_min);
  for (Index i = 0; i < spec.bits; ++i) {
    p.alpha.col(i).setConstant(std::ldexp(S(1), static_cast<int>(spec.bits - 2 - i)));
  }
  return p;
}

template <class S>
void map_codes(const Matrix<S>& weight, const UniquanfParameters<S>& p,
               const UniquanfOptions& options, Index step, Codes& codes) {
  if (step % options.mapping_period != 0) return;
  const Index groups = p.d1.size();
  const bool local = step > 0 && options.mapping == "local";
  if (!local) codes.resize(groups, weight.size() / groups);
  RUQ_CHECK(codes.size() == weight.size(), "{} codes for {} weights", codes.size(), weight.size());
  parallel_rows(groups, kGrain, [&](Index begin, Index end) {
    for (Index g = begin; g < end; ++g) {
      const GroupView<S> group(weight, p, g);
      for (Index c = 0; c < group.width(); ++c) {
        const S v = group.centred(c);
        codes(g, c) = local ? nearest_neighbour(group.levels, v, codes(g, c))
                            : static_cast<std::int32_t>(group.levels.nearest(v));
      }
    }
  });
}

template <class S>
Matrix<S> uniquanf_values(const UniquanfParameters<S>& p, const Codes& codes) {
  Matrix<S> values(p.d2.rows(), p.d2.cols());
  Eigen::Map<Matrix<S>> groups(values.data(), codes.rows(), codes.cols());
  parallel_rows(codes.rows(), kGrain, [&](Index begin, Index end) {
    for (Index g = begin; g < end; ++g) {
      const LevelTable<S> levels(p.alpha.row(g));
      const S offset = p.shift(g) + half_range<S>(p.alpha.cols()) - p.zero(g);
      const S step = std::exp(p.d1(g));
      for (Index c = 0; c < codes.cols(); ++c) {
        groups(g, c) = (levels.level(codes(g, c)) + offset) * step;
      }
    }
  });
  return values;
}

template <class S>
UniquanfGradients<S> uniquanf_gradients(const Matrix<S>& weight, const UniquanfParameters<S>& p,
                                        const Codes& codes, const Matrix<S>& upstream,
                                        bool gradient_filter) {
  const Index groups = p.d1.size();
  const Index per_row = groups / weight.rows();
  UniquanfGradients<S> gradients{Vector<S>(groups), Matrix<S>(weight.rows(), weight.cols()),
                                 Vector<S>(weight.rows()), Matrix<S>(groups, p.alpha.cols())};
  Eigen::Map<Matrix<S>> d2(gradients.d2.data(), groups, codes.cols());
  const Groups<S> slopes = groups_of(upstream, groups);
  parallel_rows(weight.rows(), kGrain, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      double d3 = 0;
      for (Index g = r * per_row; g < (r + 1) * per_row; ++g) {
        d3 += group_gradients(GroupView<S>(weight, p, g), p, codes, slopes, gradient_filter, g, d2,
                              gradients);
      }
      gradients.d3(r) = static_cast<S>(d3);
    }
  });
  return gradients;
}

template <class S>
BinaryCode<S> to_binary_code(const UniquanfParameters<S>& p, const Codes& codes) {
  const Vector<S> step = p.d1.array().exp();
  const auto offset = p.shift.array() + half_range<S>(p.alpha.cols()) - p.zero.array();
  return {codes, step.asDiagonal() * p.alpha, (step.array() * offset).matrix()};
}

#define RUQ_INSTANTIATE(S)                                                                         \
  template UniquanfParameters<S> unified_start(const Matrix<S>&, const QuantSpec&,                 \
                                               const UniquanfOptions&, const RowClips<S>*);        \
  template UniquanfParameters<S> uniform_start(const Matrix<S>&, const QuantSpec&,                 \
                                               const RowClips<S>*);                                \
  template void map_codes(const Matrix<S>&, const UniquanfParameters<S>&, const UniquanfOptions&,  \
                          Index, Codes&);                                                          \
  template Matrix<S> uniquanf_values(const UniquanfParameters<S>&, const Codes&);                  \
  template UniquanfGradients<S> uniquanf_gradients(const Matrix<S>&, const UniquanfParameters<S>&, \
                                                   const Codes&, const Matrix<S>&, bool);          \
  template BinaryCode<S> to_binary_code(const UniquanfParameters<S>&, const Codes&);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
