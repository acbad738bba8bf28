#include "ruquant/quant/rounding.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "support/errors.hpp"
#include "support/laws.hpp"
#include "support/sweep_case.hpp"

namespace ruq::test {
namespace {

TEST_CASE("rtn lands on the grid of the original weight and keeps 16 bits as they are") {
  const Matrix<double> weight = gaussian(9, 24, "weight", 1);
  CHECK(round_weight("rtn", weight, {.bits = 16}) == weight);
  for (const Index group : {0, 8}) {
    const QuantSpec spec = {.bits = 4, .group_size = group, .clip_ratio = 0.8};
    const Matrix<double> rounded = round_weight("rtn", weight, spec);
    CHECK(rounded != weight);
    const Grid<double> grid = fit_grid(weight, spec);
    CHECK(decode(encode(rounded, grid), grid) == rounded);
  }
}

TEST_CASE("rtn takes the nearest code of each weight") {
  const Matrix<double> weight = gaussian(6, 10, "weight");
  const QuantSpec spec = {.bits = 3};
  const Matrix<double> rounded = round_weight("rtn", weight, spec);
  const Grid<double> grid = fit_grid(weight, spec);
  for (Index r = 0; r < weight.rows(); ++r) {
    for (Index c = 0; c < weight.cols(); ++c) {
      double nearest = 1e9;
      for (Index code = 0; code < 8; ++code) {
        const double level = (double(code) - grid.zero(r, 0)) * grid.scale(r, 0);
        nearest = std::min(nearest, std::abs(level - weight(r, c)));
      }
      CHECK(std::abs(rounded(r, c) - weight(r, c)) <= nearest * (1 + 1e-12));
    }
  }
}

TEST_CASE("factors of the ends of rows narrow every grid as a clip ratio would") {
  const auto [weight, hessian] = sweep_case(9, 24, "clips");
  const Vector<double> factor = Vector<double>::Constant(9, 0.7);
  const RowClips<double> clips{factor, factor};
  for (const std::string name : {"rtn", "centroid", "gptq", "septq", "uniquanf_init"}) {
    for (const Index group : {0, 12}) {
      for (const bool is_static : {false, true}) {
        CAPTURE(name);
        CAPTURE(group);
        CAPTURE(is_static);
        RoundingOptions options;
        options.gptq.static_groups = is_static;
        const HessianFactor solved = factor_hessian(hessian, options.gptq.damping);
        const QuantSpec plain{.bits = 3, .group_size = group};
        QuantSpec ratio = plain;
        ratio.clip_ratio = 0.7;
        const auto clipped =
            round_weight<double>(name, {weight, plain, &solved, options, &clips}).weight;
        // UniQuanF starts from the whole range or from the factors, whatever the ratio.
        if (name != "uniquanf_init") {
          CHECK(clipped == round_weight<double>(name, {weight, ratio, &solved, options}).weight);
        }
        CHECK(clipped != round_weight<double>(name, {weight, plain, &solved, options}).weight);
      }
    }
  }
}

TEST_CASE("every rounding gives the shape back, errs, repeats itself and keeps 16 bits") {
  const RoundingOptions options;
  const auto [weight, hessian] = sweep_case(9, 24, "registry");
  const HessianFactor factor = factor_hessian(hessian, options.gptq.damping);
  for (const std::string& name : rounding_names()) {
    CAPTURE(name);
    if (rounding_needs(name) == RoundingNeeds::block) continue;
    const QuantSpec exact{.bits = 16};
    const auto kept = round_weight<double>(name, {weight, exact, &factor, options});
    CHECK(kept.weight == weight);
    CHECK(kept.effective_bits() == 16);
    for (const Index group : {0, 12}) {
      const QuantSpec spec{.bits = 3, .group_size = group};
      const auto rounded = round_weight<double>(name, {weight, spec, &factor, options});
      CHECK(rounded.weight != weight);
      CHECK(relative_distance(rounded.weight, weight) < 0.5);
      CHECK(rounded.weight == round_weight<double>(name, {weight, spec, &factor, options}).weight);
      CHECK(rounded.effective_bits() > 3);
      if (rounding_needs(name) == RoundingNeeds::weight) {
        CHECK(round_weight(name, weight, spec) == rounded.weight);
      }
      const Matrix<float> narrow = weight.cast<float>();
      CHECK(relative_distance(round_weight<float>(name, {narrow, spec, &factor, options}).weight,
                              rounded.weight) < 1e-4);
    }
    check_error(
        [&] { round_weight(name, weight, {.bits = 3, .group_size = 7}); },
        {rounding_needs(name) == RoundingNeeds::hessian ? "needs the Hessian" : "group_size: 7"});
  }
}

TEST_CASE("a rounding that needs a Hessian says so") {
  const Matrix<double> weight = gaussian(3, 8, "weight");
  for (const char* name : {"gptq", "septq"}) {
    CHECK(rounding_needs(name) == RoundingNeeds::hessian);
    check_error([&] { round_weight(name, weight, {.bits = 4}); },
                {name, "needs the Hessian of the layer's inputs"});
    CHECK(round_weight(name, weight, {.bits = 16}) == weight);
  }
  CHECK(rounding_needs("rtn") == RoundingNeeds::weight);
  CHECK(rounding_needs("uniquanf") == RoundingNeeds::block);
}

TEST_CASE("effective bits count codes, parameters and what is kept") {
  RoundingOptions options;
  const auto [weight, hessian] = sweep_case(10, 40, "bits");
  const HessianFactor factor = factor_hessian(hessian, options.gptq.damping);
  const auto bits = [&](const std::string& name, const QuantSpec& spec) {
    return round_weight<double>(name, {weight, spec, &factor, options}).effective_bits();
  };
  CHECK(bits("rtn", {.bits = 4}) == doctest::Approx(4 + 32.0 / 40));
  CHECK(bits("rtn", {.bits = 4, .symmetric = true}) == doctest::Approx(4 + 16.0 / 40));
  CHECK(bits("gptq", {.bits = 4, .group_size = 8}) == doctest::Approx(4 + 32.0 / 8));
  CHECK(bits("bcq", {.bits = 3}) == doctest::Approx(3 + 48.0 / 40));
  CHECK(bits("lloyd_max", {.bits = 3}) == doctest::Approx(3 + 8 * 16.0 / 40));
  CHECK(bits("uniquanf_init", {.bits = 3}) == doctest::Approx(3 + 64.0 / 40));
  // floor(400 · 1 %) + 1 weights, 48 bits each.
  CHECK(bits("septq", {.bits = 4}) == doctest::Approx(4 + 32.0 / 40 + 5 * 48.0 / 400));

  options.septq.kept_percent = 50;
  const QuantSpec spec{.bits = 4};
  const auto half = round_weight<double>("septq", {weight, spec, &factor, options});
  CHECK(half.details.at("kept_share") == doctest::Approx(201.0 / 400));
  CHECK(half.details.at("mask_entropy_bits") == doctest::Approx(1).epsilon(1e-4));
  options.bcq.fit_shift = true;
  CHECK(bits("bcq", {.bits = 3}) == doctest::Approx(3 + 64.0 / 40));
}

TEST_CASE("no scalar rounding errs less than the best levels of each row") {
  const RoundingOptions options;
  const auto [weight, hessian] = sweep_case(20, 64, "bound");
  const HessianFactor factor = factor_hessian(hessian, options.gptq.damping);
  const QuantSpec spec{.bits = 3};
  const auto errors = [&](const std::string& name) -> Vector<double> {
    const auto rounded = round_weight<double>(name, {weight, spec, &factor, options});
    return (rounded.weight - weight).rowwise().squaredNorm();
  };
  const Vector<double> least = errors("lloyd_max");
  for (const char* name : {"rtn", "gptq", "bcq", "uniquanf_init"}) {
    CAPTURE(name);
    CHECK((errors(name).array() >= least.array()).all());
  }
}

TEST_CASE("options are set by name") {
  RoundingOptions options;
  Fields fields;
  ruq::bind(fields, options, std::string("rounding."));
  CHECK(fields.all().size() == 20);
  fields.set("rounding.gptq.damping", "0.05");
  fields.set("rounding.gptq.act_order", "true");
  fields.set("rounding.septq.kept_percent", "2.5");
  fields.set("rounding.septq.mask_scope", "row");
  fields.set("rounding.bcq.rounds", "3");
  fields.set("rounding.uniquanf.scale_grid", "20");
  CHECK(options.gptq.damping == 0.05);
  CHECK(options.gptq.act_order);
  CHECK(options.septq.kept_percent == 2.5);
  CHECK(options.septq.mask_scope == "row");
  CHECK(options.bcq.rounds == 3);
  CHECK(options.uniquanf.scale_grid == 20);
  CHECK(!(options == RoundingOptions{}));
  check_error([&] { fields.set("rounding.septq.kept_percent", "101"); }, {"kept_percent"});
}

TEST_CASE("an unknown rounding is refused with what is known") {
  const auto names = rounding_names();
  CHECK(std::find(names.begin(), names.end(), "rtn") != names.end());
  const Matrix<float> weight = Matrix<float>::Ones(2, 2);
  check_error([&] { round_weight("rtm", weight, {.bits = 4}); }, {"rtm", "did you mean 'rtn'"});
  check_error([&] { round_weight("rtm", weight, {.bits = 16}); }, {"rtm"});
}

}  // namespace
}  // namespace ruq::test
