#include "ruquant/transform/transform.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>

#include "ruquant/base/error.hpp"
#include "ruquant/transform/hadamard.hpp"

namespace ruq {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

// Which of the three right-multiplications of a step is meant: T, Tᵀ or T⁻ᵀ.
enum class Mode { map, transpose, dual };

template <class S>
const Matrix<S>& dual_of(const SquareMap<S>& square) {
  return square.dual.size() > 0 ? square.dual : square.map;
}

// X ← X·m for X seen as rows of m.rows() channels.
template <class S>
void multiply_right(const Matrix<S>& m, bool transposed, MatrixView<S> x) {
  Matrix<S> result(x.rows(), x.cols());
  if (transposed) {
    product_transposed_into<S>(x, m, result);
  } else {
    product_into<S>(x, m, result);
  }
  x = result;
}

template <class S>
void apply_square(const SquareMap<S>& square, Mode mode, MatrixView<S> x) {
  multiply_right<S>(mode == Mode::dual ? dual_of(square) : square.map, mode == Mode::transpose, x);
}

template <class S>
void apply_step(const Permutation& step, Mode mode, MatrixView<S> x) {
  RowVector<S> row(x.cols());
  for (Index t = 0; t < x.rows(); ++t) {
    row = x.row(t);
    for (Index j = 0; j < x.cols(); ++j) {
      const Index source = step.index[static_cast<std::size_t>(j)];
      if (mode == Mode::transpose) {
        x(t, source) = row(j);
      } else {
        x(t, j) = row(source);
      }
    }
  }
}

template <class S>
void apply_step(const Reflection<S>& step, Mode, MatrixView<S> x) {
  for (Index t = 0; t < x.rows(); ++t) {
    const S projection = x.row(t).dot(step.v.transpose());
    x.row(t) -= S(2) * projection * step.v.transpose();
  }
}

template <class S>
void apply_step(const HadamardStep& step, Mode mode, MatrixView<S> x) {
  hadamard_in_place<S>(x, step.order, step.transposed != (mode == Mode::transpose));
}

template <class S>
void apply_step(const Scale<S>& step, Mode mode, MatrixView<S> x) {
  if (mode == Mode::dual) {
    x.array().rowwise() /= step.factor.transpose().array();
  } else {
    x.array().rowwise() *= step.factor.transpose().array();
  }
}

template <class S>
bool one_shared_map(const BlockDiagonal<S>& step) {
  return std::all_of(step.which.begin(), step.which.end(), [](Index w) { return w == 0; });
}

template <class S>
void apply_step(const BlockDiagonal<S>& step, Mode mode, MatrixView<S> x) {
  // A map shared by all blocks of contiguous rows is one product over rows·blocks short rows.
  if (one_shared_map(step) && x.outerStride() == x.cols()) {
    const Index block = step.maps[0].map.rows();
    Eigen::Map<Matrix<S>> runs(x.data(), x.size() / block, block);
    apply_square<S>(step.maps[0], mode, runs);
    return;
  }
  Index begin = 0;
  for (const Index which : step.which) {
    const SquareMap<S>& square = step.maps[static_cast<std::size_t>(which)];
    apply_square<S>(square, mode, x.middleCols(begin, square.map.rows()));
    begin += square.map.rows();
  }
}

template <class S>
void apply_step(const Kronecker<S>& step, Mode mode, MatrixView<S> x) {
  const bool transposed = mode == Mode::transpose;
  for (Index t = 0; t < x.rows(); ++t) {
    Eigen::Map<Matrix<S>> grid(x.row(t).data(), step.left_width, step.right_width);
    if (step.right.map.size() > 0) apply_square<S>(step.right, mode, grid);
    if (step.left.map.size() > 0) {
      const Matrix<S>& left = mode == Mode::dual ? dual_of(step.left) : step.left.map;
      if (transposed) {
        grid = (left * grid).eval();
      } else {
        grid = (left.transpose() * grid).eval();
      }
    }
  }
}

template <class S>
bool orthogonal(const Step<S>& step) {
  return std::visit(
      Overloaded{[](const Scale<S>& scale) { return (scale.factor.array().abs() == S(1)).all(); },
                 [](const BlockDiagonal<S>& blocks) {
                   return std::all_of(blocks.maps.begin(), blocks.maps.end(),
                                      [](const auto& map) { return map.dual.size() == 0; });
                 },
                 [](const Kronecker<S>& factors) {
                   return factors.left.dual.size() == 0 && factors.right.dual.size() == 0;
                 },
                 [](const auto&) { return true; }},
      step);
}

void check_permutation(const std::vector<Index>& index) {
  const Index n = std::ssize(index);
  std::vector<bool> taken(index.size());
  for (const Index source : index) {
    const bool usable = source >= 0 && source < n && !taken[static_cast<std::size_t>(source)];
    if (!usable) {
      fail("a permutation takes channel {}, expected each of 0 to {} once", source, n - 1);
    }
    taken[static_cast<std::size_t>(source)] = true;
  }
}

template <class S>
void check_square(const SquareMap<S>& square) {
  const auto& [map, dual] = square;
  if (map.rows() != map.cols()) {
    fail("found a map of {}x{}, expected a square one", map.rows(), map.cols());
  }
  if (dual.size() > 0 && (dual.rows() != map.rows() || dual.cols() != map.cols())) {
    fail("found a dual of {}x{}, expected {}x{} like its map", dual.rows(), dual.cols(), map.rows(),
         map.cols());
  }
}

template <class S>
void check_blocks(const BlockDiagonal<S>& step) {
  for (const SquareMap<S>& square : step.maps) {
    if (square.map.size() == 0) fail("found a block without channels, expected at least one");
    check_square(square);
  }
  for (const Index which : step.which) {
    if (which >= 0 && which < std::ssize(step.maps)) continue;
    fail("a block is mapped by map {}, expected one of the {} maps", which, step.maps.size());
  }
}

template <class S>
void check_factor(const SquareMap<S>& factor, Index width, const char* side) {
  // As for the widths of a model; the product of two is an Index.
  constexpr Index kWidest = std::numeric_limits<std::int32_t>::max();
  if (width < 1 || width > kWidest) {
    fail("{} Kronecker factor: found width {}, expected 1 to {}", side, width, kWidest);
  }
  check_square(factor);
  if (factor.map.size() > 0 && factor.map.rows() != width) {
    fail("{} Kronecker factor: found a map of width {}, expected {}", side, factor.map.rows(),
         width);
  }
}

// What a step must be whatever the width of the transform.
template <class S>
void check_step(const Step<S>& step) {
  std::visit(Overloaded{[](const Permutation& p) { check_permutation(p.index); },
                        [](const BlockDiagonal<S>& b) { check_blocks(b); },
                        [](const Kronecker<S>& k) {
                          check_factor(k.left, k.left_width, "left");
                          check_factor(k.right, k.right_width, "right");
                        },
                        [](const auto&) {}},
             step);
}

// The only width that a step fits, or nothing when every multiple of something will do.
template <class S>
std::optional<Index> exact_width(const Step<S>& step) {
  return std::visit(
      Overloaded{[](const Permutation& p) -> std::optional<Index> { return std::ssize(p.index); },
                 [](const Reflection<S>& r) -> std::optional<Index> { return r.v.size(); },
                 [](const HadamardStep&) -> std::optional<Index> { return std::nullopt; },
                 [](const Scale<S>& s) -> std::optional<Index> { return s.factor.size(); },
                 [](const BlockDiagonal<S>& b) -> std::optional<Index> {
                   Index width = 0;
                   for (const Index which : b.which) {
                     width += b.maps[static_cast<std::size_t>(which)].map.rows();
                   }
                   return width;
                 },
                 [](const Kronecker<S>& k) -> std::optional<Index> {
                   return k.left_width * k.right_width;
                 }},
      step);
}

template <class S>
void apply_all(const std::vector<Step<S>>& steps, Mode mode, Matrix<S>& x) {
  parallel_rows(x.rows(), kRowTile, [&](Index begin, Index end) {
    MatrixView<S> tile = x.middleRows(begin, end - begin);
    const auto apply_one = [&](const Step<S>& step) {
      std::visit([&](const auto& s) { apply_step<S>(s, mode, tile); }, step);
    };
    if (mode == Mode::transpose) {
      std::for_each(steps.rbegin(), steps.rend(), apply_one);
    } else {
      std::for_each(steps.begin(), steps.end(), apply_one);
    }
  });
}

template <class S>
SquareMap<S> dual_map(const SquareMap<S>& square) {
  return square.dual.size() == 0 ? square : SquareMap<S>{square.dual, square.map};
}

template <class S>
Step<S> dual_step(const Step<S>& step) {
  return std::visit(
      Overloaded{
          [](const Scale<S>& s) -> Step<S> { return Scale<S>{s.factor.cwiseInverse()}; },
          [](const BlockDiagonal<S>& b) -> Step<S> {
            BlockDiagonal<S> dual = b;
            for (SquareMap<S>& map : dual.maps) map = dual_map(map);
            return dual;
          },
          [](const Kronecker<S>& k) -> Step<S> {
            return Kronecker<S>{dual_map(k.left), dual_map(k.right), k.left_width, k.right_width};
          },
          [](const auto& s) -> Step<S> { return s; }},
      step);
}

template <class U, class S>
SquareMap<U> cast_map(const SquareMap<S>& square) {
  return {square.map.template cast<U>(), square.dual.template cast<U>()};
}

template <class U, class S>
Step<U> cast_step(const Step<S>& step) {
  return std::visit(
      Overloaded{
          [](const Permutation& p) -> Step<U> { return p; },
          [](const HadamardStep& h) -> Step<U> { return h; },
          [](const Reflection<S>& r) -> Step<U> { return Reflection<U>{r.v.template cast<U>()}; },
          [](const Scale<S>& s) -> Step<U> { return Scale<U>{s.factor.template cast<U>()}; },
          [](const BlockDiagonal<S>& b) -> Step<U> {
            BlockDiagonal<U> result{{}, b.which};
            for (const auto& map : b.maps) result.maps.push_back(cast_map<U>(map));
            return result;
          },
          [](const Kronecker<S>& k) -> Step<U> {
            return Kronecker<U>{cast_map<U>(k.left), cast_map<U>(k.right), k.left_width,
                                k.right_width};
          }},
      step);
}

template <class S>
std::string describe_step(const Step<S>& step) {
  return std::visit(
      Overloaded{[](const Permutation&) -> std::string { return "permutation"; },
                 [](const Reflection<S>&) -> std::string { return "reflection"; },
                 [](const HadamardStep& h) { return fmt::format("hadamard({})", h.order); },
                 [](const Scale<S>& s) -> std::string {
                   return (s.factor.array().abs() == S(1)).all() ? "signs" : "scale";
                 },
                 [](const BlockDiagonal<S>& b) {
                   return fmt::format("blocks({}x{})", b.which.size(), b.maps[0].map.rows());
                 },
                 [](const Kronecker<S>& k) {
                   return fmt::format("kronecker({}x{})", k.left_width, k.right_width);
                 }},
      step);
}

}  // namespace

template <class S>
void Transform<S>::append(Step<S> step) {
  check_step<S>(step);
  if (const auto* hadamard = std::get_if<HadamardStep>(&step)) {
    if (!hadamard_exists(hadamard->order)) fail("no Hadamard matrix of order {}", hadamard->order);
    if (width_ > 0 && width_ % hadamard->order != 0) {
      fail("a Hadamard step of order {} does not fit width {}", hadamard->order, width_);
    }
  } else {
    const Index width = *exact_width(step);
    if (width == 0) fail("a step of width 0, expected at least one channel");
    if (width_ == 0) width_ = width;
    if (width != width_)
      fail("a step of width {} does not fit a transform of width {}", width, width_);
  }
  steps_.push_back(std::move(step));
}

template <class S>
Transform<S> Transform<S>::then(const Transform& next) const {
  Transform result = *this;
  if (result.width_ == 0) result.width_ = next.width_;
  for (const Step<S>& step : next.steps_) result.append(step);
  return result;
}

template <class S>
bool Transform<S>::is_orthogonal() const {
  return std::all_of(steps_.begin(), steps_.end(), [](const auto& s) { return orthogonal<S>(s); });
}

template <class S>
void Transform<S>::apply(Matrix<S>& x) const {
  RUQ_CHECK(is_identity() || width_ == 0 || x.cols() == width_, "{} channels, transform {}",
            x.cols(), width_);
  apply_all(steps_, Mode::map, x);
}

template <class S>
void Transform<S>::apply_transpose(Matrix<S>& x) const {
  RUQ_CHECK(is_identity() || width_ == 0 || x.cols() == width_, "{} channels, transform {}",
            x.cols(), width_);
  apply_all(steps_, Mode::transpose, x);
}

template <class S>
void Transform<S>::apply_dual(Matrix<S>& w) const {
  RUQ_CHECK(is_identity() || width_ == 0 || w.cols() == width_, "{} columns, transform {}",
            w.cols(), width_);
  apply_all(steps_, Mode::dual, w);
}

template <class S>
void Transform<S>::apply_to_outputs(Matrix<S>& w) const {
  if (is_identity()) return;
  Matrix<S> columns = w.transpose();
  apply(columns);
  w = columns.transpose();
}

template <class S>
Matrix<S> Transform<S>::to_matrix(Index width) const {
  Matrix<S> result = Matrix<S>::Identity(width, width);
  apply(result);
  return result;
}

template <class S>
Transform<S> Transform<S>::inverse_transpose() const {
  Transform result(width_);
  for (const Step<S>& step : steps_) result.steps_.push_back(dual_step<S>(step));
  return result;
}

template <class S>
template <class U>
Transform<U> Transform<S>::cast() const {
  Transform<U> result(width_);
  for (const Step<S>& step : steps_) result.steps_.push_back(cast_step<U, S>(step));
  return result;
}

template <class S>
std::string Transform<S>::describe() const {
  std::vector<std::string> words;
  for (const Step<S>& step : steps_) words.push_back(describe_step<S>(step));
  return words.empty() ? "identity" : fmt::format("{}", fmt::join(words, ", "));
}

template class Transform<float>;
template class Transform<double>;
template Transform<float> Transform<float>::cast<float>() const;
template Transform<float> Transform<double>::cast<float>() const;
template Transform<double> Transform<double>::cast<double>() const;
template Transform<double> Transform<float>::cast<double>() const;

}  // namespace ruq
