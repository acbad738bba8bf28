#include "ruquant/quant/uniquanf.hpp"

#include <doctest/doctest.h>

#include <functional>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

/// Parameters some way into learning: everything moved off its start.
UniquanfParameters<double> learned(const Matrix<double>& weight, const QuantSpec& spec) {
  auto p = unified_start(weight, spec, {.scale_grid = 4});
  const auto noise = [](Index rows, Index cols, const char* name) {
    return Matrix<double>(0.03 * gaussian(rows, cols, name));
  };
  p.d1 += noise(p.d1.size(), 1, "d1");
  p.d2 += noise(p.d2.rows(), p.d2.cols(), "d2");
  p.d3 += noise(p.d3.size(), 1, "d3");
  p.alpha += noise(p.alpha.rows(), p.alpha.cols(), "alpha");
  p.shift += noise(p.shift.size(), 1, "shift");
  return p;
}

Codes direct_codes(const Matrix<double>& weight, const UniquanfParameters<double>& p) {
  Codes codes;
  map_codes(weight, p, {}, 0, codes);
  return codes;
}

TEST_CASE("uniform factors make it uniform quantization") {
  const Matrix<double> weight = gaussian(6, 40, "weight", 1);
  for (const Index group : {0, 8}) {
    for (const bool symmetric : {false, true}) {
      for (const GridRule rule : {GridRule::omniquant, GridRule::quarot_weight}) {
        const QuantSpec spec{.bits = 3,
                             .symmetric = symmetric,
                             .rule = rule,
                             .group_size = group,
                             .clip_ratio = 0.9};
        const auto p = uniform_start(weight, spec);
        Matrix<double> expected = weight;
        round_to_grid(expected, fit_grid(weight, spec));
        CHECK(relative_error(uniquanf_values(p, direct_codes(weight, p)), expected) < 1e-13);
      }
    }
  }
}

TEST_CASE("the binary form has the same values") {
  const Matrix<double> weight = gaussian(6, 24, "weight");
  for (const Index group : {0, 6}) {
    const auto p = learned(weight, {.bits = 4, .group_size = group});
    const Codes codes = direct_codes(weight, p);
    CHECK(relative_error(to_binary_code(p, codes).decode(24), uniquanf_values(p, codes)) < 1e-15);
  }
}

TEST_CASE("the unified start beats both of its parents at their start, on average") {
  const Matrix<double> weight = gaussian(64, 96, "weight");
  const auto error = [&](const Matrix<double>& values) { return (values - weight).squaredNorm(); };
  for (const Index bits : {3, 4}) {
    const QuantSpec spec{.bits = bits};
    const auto p = unified_start(weight, spec, {.scale_grid = 20});
    const double unified = error(uniquanf_values(p, direct_codes(weight, p)));
    const auto uniform = uniform_start(weight, spec);
    CHECK(unified < 0.9 * error(uniquanf_values(uniform, direct_codes(weight, uniform))));
    CHECK(unified < error(binary_coding(weight, spec, {}).decode(96)));
  }
}

TEST_CASE("a finer grid of ranges never ends with a larger error where it holds the coarser") {
  const Matrix<double> weight = gaussian(16, 48, "weight");
  const QuantSpec spec{.bits = 2};
  Vector<double> before = Vector<double>::Constant(16, 1e300);
  for (const Index grid : {1, 4, 20}) {
    const auto p = unified_start(weight, spec, {.scale_grid = grid});
    const Matrix<double> change = uniquanf_values(p, direct_codes(weight, p)) - weight;
    const Vector<double> error = change.array().abs().pow(2.4).rowwise().sum().matrix();
    CHECK((error.array() <= before.array() * (1 + 1e-12)).all());
    before = error;
  }
}

TEST_CASE("constant groups are met exactly") {
  Matrix<double> weight = gaussian(2, 12, "weight");
  weight.row(0).setConstant(0.7);
  const auto p = unified_start(weight, {.bits = 3}, {});
  const Matrix<double> values = uniquanf_values(p, direct_codes(weight, p));
  CHECK(relative_error(values.row(0), weight.row(0)) < 1e-12);
}

TEST_CASE("local mapping is the full mapping while levels are ordered and weights move one level") {
  const Matrix<double> weight = gaussian(8, 60, "weight");
  auto p = uniform_start(weight, {.bits = 4});
  Codes codes = direct_codes(weight, p);
  const Codes first = codes;
  p.d1.array() += 0.04;
  p.d2 += 0.02 * gaussian(8, 60, "d2");
  const UniquanfOptions local{.mapping = "local", .mapping_period = 1};
  map_codes(weight, p, local, 1, codes);
  CHECK(codes != first);
  CHECK(codes == direct_codes(weight, p));

  // From anywhere, as many steps as there are levels lead to the nearest one.
  codes.setZero();
  for (Index step = 1; step < 16; ++step) map_codes(weight, p, local, step, codes);
  CHECK(codes == direct_codes(weight, p));
  // Codes out of order may hold the local mapping up; it takes neighbours alone.
  p.alpha.col(0).setConstant(0.1);
  Codes moved = codes;
  map_codes(weight, p, local, 1, moved);
  CHECK((moved - codes).cwiseAbs().maxCoeff() <= 1);
}

TEST_CASE("codes are renewed at the first step and then once a period") {
  const Matrix<double> weight = gaussian(4, 30, "weight");
  auto p = unified_start(weight, {.bits = 3}, {});
  for (const char* mapping : {"local", "direct"}) {
    const UniquanfOptions options{.mapping = mapping, .mapping_period = 3};
    Codes codes;
    map_codes(weight, p, options, 0, codes);
    const Codes first = codes;
    auto far = p;
    far.d1.array() += 0.5;
    for (const Index step : {1, 2}) {
      map_codes(weight, far, options, step, codes);
      CHECK(codes == first);
    }
    map_codes(weight, far, options, 3, codes);
    CHECK(codes != first);
  }
}

/// Σ upstream·ŵ with the map passed straight through: the level follows the centred value.
double straight_loss(const Matrix<double>& weight, const UniquanfParameters<double>& base,
                     const UniquanfParameters<double>& p, const Codes& codes,
                     const Matrix<double>& upstream) {
  const Index groups = p.d1.size();
  const Index width = weight.size() / groups;
  const Index bits = p.alpha.cols();
  double loss = 0;
  for (Index i = 0; i < weight.size(); ++i) {
    const Index g = i / width;
    const Index r = i / weight.cols();
    const auto centred = [&](const UniquanfParameters<double>& at) {
      return weight.data()[i] * std::exp(-(at.d1(g) + at.d2.data()[i] + at.d3(r)));
    };
    double level = centred(p) - centred(base);
    for (Index b = 0; b < bits; ++b) {
      level += p.alpha(g, b) * code_sign<double>(codes.data()[i], b, bits);
    }
    const double half = double((Index{1} << bits) - 1) / 2;
    loss += upstream.data()[i] * (level + p.shift(g) + half - p.zero(g)) * std::exp(p.d1(g));
  }
  return loss;
}

TEST_CASE("gradients are those of the straight-through form") {
  const Matrix<double> weight = gaussian(3, 12, "weight");
  const Matrix<double> upstream = gaussian(3, 12, "upstream");
  for (const Index group : {0, 4}) {
    auto p = learned(weight, {.bits = 3, .group_size = group});
    const auto base = p;
    const Codes codes = direct_codes(weight, p);
    const auto gradients = uniquanf_gradients(weight, p, codes, upstream, false);
    const auto slope = [&](double& parameter) {
      const double kept = parameter;
      const double step = 1e-5;
      parameter = kept + step;
      const double above = straight_loss(weight, base, p, codes, upstream);
      parameter = kept - step;
      const double below = straight_loss(weight, base, p, codes, upstream);
      parameter = kept;
      return (above - below) / (2 * step);
    };
    const auto check_all = [&](auto& values, const auto& expected) {
      for (Index i = 0; i < values.size(); ++i) {
        CHECK(std::abs(slope(values.data()[i]) - expected.data()[i]) < 1e-7);
      }
    };
    check_all(p.d1, gradients.d1);
    check_all(p.d2, gradients.d2);
    check_all(p.d3, gradients.d3);
    check_all(p.alpha, gradients.alpha);
  }
}

TEST_CASE("the filter cuts weights that lie beyond their level") {
  const Matrix<double> weight = gaussian(1, 10, "weight");
  const Matrix<double> upstream = Matrix<double>::Ones(1, 10);
  auto p = uniform_start(weight, {.bits = 2});
  p.d2(0, 4) = -3;  // far outside the range
  const Codes codes = direct_codes(weight, p);
  const auto open = uniquanf_gradients(weight, p, codes, upstream, false);
  const auto filtered = uniquanf_gradients(weight, p, codes, upstream, true);
  CHECK(open.d2(0, 4) != 0);
  CHECK(filtered.d2(0, 4) == 0);
  for (Index c = 0; c < 10; ++c) {
    if (c != 4) CHECK(filtered.d2(0, c) == open.d2(0, c));
  }
  CHECK(filtered.d3(0) == doctest::Approx(open.d3(0) - open.d2(0, 4)));
  const double step = std::exp(p.d1(0));
  for (Index i = 0; i < 2; ++i) {
    const double sign = code_sign<double>(codes(0, 4), i, 2);
    CHECK(filtered.alpha(0, i) == doctest::Approx(open.alpha(0, i) - step * sign));
  }
}

TEST_CASE("float follows double") {
  const Matrix<double> weight = gaussian(5, 32, "weight");
  const Matrix<float> narrow = weight.cast<float>();
  const QuantSpec spec{.bits = 3};
  const auto wide = unified_start(weight, spec, {});
  const auto p = unified_start(narrow, spec, {});
  CHECK(relative_error(p.alpha, wide.alpha) < 1e-5);
  Codes codes;
  map_codes(narrow, p, {}, 0, codes);
  CHECK(relative_error(uniquanf_values(p, codes),
                       uniquanf_values(wide, direct_codes(weight, wide))) < 1e-5);
  const Matrix<float> upstream = Matrix<float>::Ones(5, 32);
  CHECK(relative_error(
            uniquanf_gradients(narrow, p, codes, upstream, true).d1,
            uniquanf_gradients<double>(weight, wide, codes, upstream.cast<double>(), true).d1) <
        1e-4);
}

}  // namespace
}  // namespace ruq::test
