#include "experiments/theory.hpp"

#include <fmt/ranges.h>

#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "ruquant/base/error.hpp"
#include "ruquant/theory/lloyd_max.hpp"
#include "ruquant/theory/uniform_quantizer.hpp"

namespace ruq {
namespace {

using Json = nlohmann::ordered_json;
constexpr double kRowTail = 1.0 / 2000;

using Maker = std::function<Density(double)>;

const std::map<std::string, Maker>& makers() {
  static const std::map<std::string, Maker> known = {
      {"exponential", [](double) { return Density::exponential(); }},
      {"gaussian", [](double) { return Density::gaussian(); }},
      {"laplace", [](double) { return Density::laplace(); }},
      {"student_t", [](double degrees) { return Density::student_t(degrees); }},
      {"uniform", [](double) { return Density::uniform(0, 1); }}};
  return known;
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& [name, maker] : makers()) all.push_back(name);
  return all;
}

// Levels, cells and what a cell's centroid is; `step` turns distances into shifts.
Json codebook_json(const Density& density, const Codebook& codebook, const double* step) {
  Json centroids = Json::array(), probabilities = Json::array(), shift = Json::array();
  for (Index i = 0; i < codebook.size(); ++i) {
    const double level = codebook.levels[static_cast<std::size_t>(i)];
    const double low = codebook.lower(i), high = codebook.upper(i);
    const double centroid = density.centroid(low, high).value_or(level);
    centroids.push_back(centroid);
    probabilities.push_back(density.probability(low, high));
    if (step != nullptr) shift.push_back((centroid - level) / *step);
  }
  Json json = {{"levels", codebook.levels},
               {"thresholds", codebook.thresholds},
               {"centroids", std::move(centroids)},
               {"probabilities", std::move(probabilities)}};
  if (step != nullptr) {
    json["step"] = *step;
    json["shift"] = std::move(shift);
  }
  json["sqnr_db"] = sqnr_db(density, distortion(density, codebook));
  return json;
}

// As the asymmetric grid of a row: levels from its least to its greatest entry.
UniformQuantizer row_grid(const Density& density, Index levels) {
  const double low = std::isfinite(density.low()) ? density.low() : density.quantile(kRowTail);
  const double high =
      std::isfinite(density.high()) ? density.high() : density.quantile(1 - kRowTail);
  const double step = (high - low) / static_cast<double>(levels - 1);
  std::vector<double> points;
  for (Index i = 0; i < levels; ++i) points.push_back(low + step * static_cast<double>(i));
  return {step, Codebook::of_levels(std::move(points))};
}

}  // namespace

std::string density_names() { return fmt::format("{}", fmt::join(names(), ", ")); }

std::string theory_json(const TheoryRequest& request) {
  const auto found = makers().find(request.density);
  if (found == makers().end()) {
    const std::string nearest = nearest_name(request.density, names());
    fail("--density: found '{}', expected one of {}{}", request.density, density_names(),
         nearest.empty() ? "" : ", did you mean '" + nearest + "'?");
  }
  if (request.bits < 1 || request.bits > 8) {
    fail("--bits: found {}, expected 1 to 8", request.bits);
  }
  // Beyond, the density is Gaussian to all digits, and its tail integrals take ever longer.
  if (!(request.degrees > 2 && request.degrees <= 1e4)) {
    fail("--degrees: found {}, expected above 2, at most 10000", request.degrees);
  }
  const Density density = found->second(request.degrees);
  const Index levels = Index{1} << request.bits;
  const UniformQuantizer grid = row_grid(density, levels);
  const double fine = density.panter_dite() / static_cast<double>(levels * levels);
  Json json = {{"density", request.density},
               {"bits", request.bits},
               {"deviation", density.deviation()},
               {"uniform", codebook_json(density, grid.codebook, &grid.step)}};
  if (density.is_even()) {
    const UniformQuantizer best = optimal_uniform(density, request.bits, UniformKind::midrise);
    json["optimal_uniform"] = codebook_json(density, best.codebook, &best.step);
  }
  json["lloyd_max"] = codebook_json(density, lloyd_max(density, levels), nullptr);
  json["panter_dite_db"] = -10 * std::log10(fine);
  return json.dump(2);
}

}  // namespace ruq
