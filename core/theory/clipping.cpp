#include "ruquant/theory/clipping.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/theory/quadrature.hpp"

namespace ruq {
namespace {

void require_bits(Index bits, Index least) {
  if (bits < least || bits > 16) fail("bits must be {} to 16, found {}", least, bits);
}

double power_of_four(Index bits) { return std::ldexp(1.0, static_cast<int>(2 * bits)); }

// Ascending |x| with the sums over everything from each on.
struct Magnitudes {
  explicit Magnitudes(std::span<const double> data) {
    if (data.empty()) fail("a clip point needs data");
    for (const double x : data) {
      if (!std::isfinite(x)) fail("a clip point needs finite data, found {}", x);
      values.push_back(std::abs(x));
    }
    std::sort(values.begin(), values.end());
    from.assign(values.size() + 1, 0);
    for (std::size_t i = values.size(); i-- > 0;) from[i] = from[i + 1] + values[i];
  }
  /// How many are at most s.
  std::size_t upto(double s) const {
    return static_cast<std::size_t>(std::upper_bound(values.begin(), values.end(), s) -
                                    values.begin());
  }
  std::vector<double> values, from;
};

// The row on the grid of this search, |error|^p summed.
double row_error(const Eigen::Ref<const RowVector<double>>& row, const ShrinkSearch& search,
                 double ratio) {
  const double codes = std::ldexp(1.0, static_cast<int>(search.bits)) - 1;
  const double half = (codes + 1) / 2;
  const double low = row.minCoeff();
  const double high = row.maxCoeff();
  const double scale =
      search.symmetric ? ratio * std::max(-low, high) / (half - 1) : ratio * (high - low) / codes;
  if (!(scale > 0)) return 0;
  const double zero = search.symmetric ? half : std::nearbyint(-ratio * low / scale);
  double sum = 0;
  for (const double x : row) {
    const double code = std::clamp(std::nearbyint(x / scale) + zero, 0.0, codes);
    const double error = std::abs(x - (code - zero) * scale);
    sum += search.power == 2 ? error * error : std::pow(error, search.power);
  }
  return sum;
}

void require_search(const Matrix<double>& rows, const ShrinkSearch& search) {
  require_bits(search.bits, 2);
  if (!(search.power > 0) || search.grid < 1) {
    fail("a range search needs a power and a grid above zero, found {} and {}", search.power,
         search.grid);
  }
  if (rows.size() == 0 || !rows.allFinite()) fail("a range search needs data, all of it finite");
}

std::vector<double> ratios(const ShrinkSearch& search) {
  std::vector<double> all;
  for (Index i = 0; i < search.grid; ++i) {
    const double ratio = 1 - double(i) / double(search.grid);
    if (i > 0 && ratio < search.smallest - 1e-12) break;
    all.push_back(ratio);
  }
  return all;
}

double upper_tail(double x) { return std::erfc(x / std::numbers::sqrt2) / 2; }
double bell(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi); }

// 1 − (1 − q)^n without losing small q.
double any_of(Index n, double q) { return q >= 1 ? 1 : -std::expm1(double(n) * std::log1p(-q)); }

}  // namespace

double aciq_error(const Density& density, Index bits, double clip) {
  require_bits(bits, 1);
  return density.moments(-kInfinity, -clip, -clip).m2 + density.moments(clip, kInfinity, clip).m2 +
         clip * clip / (3 * power_of_four(bits));
}

double aciq_clip(const Density& density, Index bits) {
  require_bits(bits, 1);
  // −½ of the derivative falls from above zero to below it, once.
  const auto pull = [&](double clip) {
    return density.moments(clip, kInfinity, clip).m1 -
           density.moments(-kInfinity, -clip, -clip).m1 - clip / (3 * power_of_four(bits));
  };
  double high = density.deviation() + std::abs(density.mean());
  if (!(high > 0)) fail("a density that is a point at zero has no clip point");
  while (pull(high) > 0) high *= 2;
  return falling_root(pull, 0, high);
}

double octav_error(std::span<const double> data, Index bits, double clip) {
  require_bits(bits, 1);
  if (data.empty()) fail("a clip point needs data");
  double sum = 0;
  for (const double x : data) {
    const double over = std::abs(x) - clip;
    sum += over > 0 ? over * over : clip * clip / (3 * power_of_four(bits));
  }
  return sum / double(data.size());
}

double octav_clip(std::span<const double> data, Index bits) {
  require_bits(bits, 1);
  const Magnitudes x(data);
  const double n = double(x.values.size());
  // The next s depends on s only through how many values are at most s: the iteration ends when
  // that count stays, and runs in a circle when it comes back.
  double s = x.from[0] / n;
  std::vector<std::size_t> seen;
  std::vector<double> visited;
  for (;;) {
    const std::size_t inside = x.upto(s);
    if (inside == x.values.size()) return x.values.back();
    const auto before = std::find(seen.begin(), seen.end(), inside);
    if (before != seen.end()) {
      visited.erase(visited.begin(), visited.begin() + (before - seen.begin()));
      break;
    }
    seen.push_back(inside);
    s = x.from[inside] / (double(inside) / (3 * power_of_four(bits)) + n - double(inside));
    visited.push_back(s);
  }
  return *std::min_element(visited.begin(), visited.end(), [&](double a, double b) {
    return octav_error(data, bits, a) < octav_error(data, bits, b);
  });
}

double shrink_error(const Matrix<double>& rows, const ShrinkSearch& search, double ratio) {
  require_search(rows, search);
  if (!(ratio > 0)) fail("a range is shrunk by a ratio above zero, found {}", ratio);
  double sum = 0;
  for (Index r = 0; r < rows.rows(); ++r) sum += row_error(rows.row(r), search, ratio);
  return sum / double(rows.size());
}

Shrink best_shrink(const Matrix<double>& rows, const ShrinkSearch& search) {
  require_search(rows, search);
  Shrink best{1, kInfinity};
  for (const double ratio : ratios(search)) {
    const double error = shrink_error(rows, search, ratio);
    if (error < best.error) best = {ratio, error};
  }
  return best;
}

Shrink best_shrink_per_row(const Matrix<double>& rows, const ShrinkSearch& search) {
  require_search(rows, search);
  const std::vector<double> tried = ratios(search);
  Shrink mean{0, 0};
  for (Index r = 0; r < rows.rows(); ++r) {
    Shrink best{1, kInfinity};
    for (const double ratio : tried) {
      const double error = row_error(rows.row(r), search, ratio);
      if (error < best.error) best = {ratio, error};
    }
    mean.ratio += best.ratio / double(rows.rows());
    mean.error += best.error / double(rows.size());
  }
  return mean;
}

RangeMoments gaussian_range(Index n) {
  if (n < 1) fail("a range needs at least one value, found {}", n);
  constexpr double kEnd = 12;  // P(|x| > 12) is below 10^-32
  constexpr int kPanels = 24;
  const auto max_over = [&](double x) { return any_of(n, 2 * upper_tail(x)); };
  RangeMoments moments{};
  moments.max_abs = integrate(max_over, 0, kEnd, kPanels);
  moments.max_abs_squared =
      integrate([&](double x) { return 2 * x * max_over(x); }, 0, kEnd, kPanels);
  // 1 − P(no value above x) and its mirror: E max − E min.
  moments.range = 2 * integrate(
                          [&](double x) {
                            return any_of(n, upper_tail(x)) - std::pow(upper_tail(x), double(n));
                          },
                          0, kEnd, kPanels);
  // P(R ≤ r) = n·∫ φ(x)·(Φ(x + r) − Φ(x))^(n−1) dx over the place x of the least value.
  const auto within = [&](double r) {
    return integrate(
        [&](double x) {
          const double between = upper_tail(x) - upper_tail(x + r);
          return double(n) * bell(x) * std::pow(between, double(n - 1));
        },
        -kEnd, kEnd, 2 * kPanels);
  };
  if (n > 1) {
    moments.range_squared =
        integrate([&](double r) { return 2 * r * (1 - within(r)); }, 0, 2 * kEnd, 2 * kPanels);
  }
  return moments;
}

double min_max_sqnr_db(Index n, Index bits, bool symmetric) {
  require_bits(bits, symmetric ? 2 : 1);
  const RangeMoments moments = gaussian_range(n);
  const double steps = std::ldexp(1.0, static_cast<int>(symmetric ? bits - 1 : bits)) - 1;
  const double square = symmetric ? moments.max_abs_squared : moments.range_squared;
  return -10 * std::log10(square / (12 * steps * steps));
}

}  // namespace ruq
