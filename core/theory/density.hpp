// A one-dimensional density as a value: what the theory of scalar quantizers needs to know of a
// source, and nothing else. All of it comes down to the partial moments
//
//   m_k(a, b; c) = ∫_a^b (x − c)^k f(x) dx,   k = 0, 1, 2,
//
// since the cell (a, b] with the level c has probability m0, squared error m2 and centroid c +
// m1/m0. Taking them about the level keeps the relative accuracy of a narrow cell far from zero,
// where m2 − 2c·m1 + c²·m0 of plain moments would lose it. Half-lines and wide cells use closed
// forms (Student-t: a power series beyond a few scales), narrow cells Gauss-Legendre panels, whose
// width grows with |x| in the tails of Student-t.
//
// Gaussian, Laplace and Student-t are centred at 0. a and b may be infinite.
#pragma once

#include <limits>
#include <optional>
#include <variant>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Moments {
  double m0 = 0;
  double m1 = 0;
  double m2 = 0;

  Moments& operator+=(const Moments& other);
  /// The same moments about a centre that lies `distance` below the present one.
  Moments moved_down(double distance) const;
};

/// f'/f, f''/f and f'''/f at one point.
struct DerivativeRatios {
  double first = 0;
  double second = 0;
  double third = 0;
};

// The kinds of density. Made through Density, which checks the parameters.
struct UniformDensity {
  double low, high;
};
struct GaussianDensity {
  double deviation;
};
struct LaplaceDensity {
  double scale;  ///< β, the standard deviation over √2
};
struct StudentDensity {
  StudentDensity(double degrees, double scale);
  double degrees, scale;
  double peak;  ///< f(0)
};
struct ExponentialDensity {
  double rate;
};
/// Weighted atoms, with running sums of w·(x − mean)^k over the atoms before each.
struct EmpiricalDensity {
  std::vector<double> values;   ///< ascending, distinct
  std::vector<double> weights;  ///< positive, summing to 1
  double mean = 0;
  std::vector<Moments> before;  ///< one more than there are values
};

class Density {
 public:
  /// Constant on [low, high].
  static Density uniform(double low, double high);
  static Density gaussian(double deviation = 1);
  static Density laplace(double deviation = 1);
  /// Student-t with `degrees` > 2, stretched to the given standard deviation.
  static Density student_t(double degrees, double deviation = 1);
  /// rate · e^(−rate·x) for x ≥ 0.
  static Density exponential(double rate = 1);
  /// The samples themselves, each with its weight or all alike; equal samples are merged and those
  /// of weight 0 left out. Error on an empty set, on numbers that are not finite and on negative
  /// weights.
  static Density empirical(const std::vector<double>& samples,
                           const std::vector<double>& weights = {});

  /// f(x). Error for an empirical density, which has none.
  double pdf(double x) const;
  /// f'/f, f''/f, f'''/f inside the support; odd ones are 0 at the peak of Laplace. Error for an
  /// empirical density.
  DerivativeRatios ratios(double x) const;
  /// The score f'/f.
  double score(double x) const { return ratios(x).first; }

  /// m0, m1, m2 about `centre` over a < x ≤ b; zero when a ≥ b.
  Moments moments(double a, double b, double centre = 0) const;
  double probability(double a, double b) const { return moments(a, b).m0; }
  /// E[X | a < X ≤ b]; nothing when the cell has no probability.
  std::optional<double> centroid(double a, double b) const;
  /// The smallest x with P(X ≤ x) ≥ p, for 0 < p < 1.
  double quantile(double p) const;

  /// f(−x) = f(x) by its kind: Gaussian, Laplace, Student-t, and uniform on [−a, a].
  bool is_even() const;
  double mean() const;
  double variance() const;
  double deviation() const;
  /// Ends of the support, possibly infinite.
  double low() const;
  double high() const;

  /// The density proportional to f^(1/3), by which the levels of a fine optimal quantizer lie
  /// (Panter and Dite 1951). For Student-t it may lack a variance and even a mean: use only its
  /// pdf, probability and quantile. Error for an empirical density.
  Density point_density() const;
  /// c in D ≈ c·variance/N², the error of the best quantizer with many levels N:
  /// c = (∫ f^(1/3))³ / (12·variance). Error for an empirical density.
  double panter_dite() const;

  /// The atoms of an empirical density, else null.
  const EmpiricalDensity* atoms() const { return std::get_if<EmpiricalDensity>(&kind_); }

 private:
  using Kind = std::variant<UniformDensity, GaussianDensity, LaplaceDensity, StudentDensity,
                            ExponentialDensity, EmpiricalDensity>;
  explicit Density(Kind kind) : kind_(std::move(kind)) {}
  Kind kind_;
};

}  // namespace ruq
