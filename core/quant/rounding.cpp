#include "ruquant/quant/rounding.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

template <class S>
Matrix<S> round_to_nearest(Matrix<S> weight, const QuantSpec& spec) {
  round_to_grid(weight, fit_grid(weight, spec));
  return weight;
}

template <class S>
struct Entry {
  const char* name;
  RoundWeight<S> round;
};

template <class S>
constexpr std::array kRoundings = {Entry<S>{"rtn", round_to_nearest<S>}};

}  // namespace

std::vector<std::string> rounding_names() {
  std::vector<std::string> names;
  for (const auto& entry : kRoundings<float>) names.emplace_back(entry.name);
  return names;
}

template <class S>
Matrix<S> round_weight(const std::string& name, Matrix<S> weight, const QuantSpec& spec) {
  const auto& entries = kRoundings<S>;
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const auto& entry) { return entry.name == name; });
  if (found == entries.end()) {
    fail("unknown weight rounding '{}'{}", name, suggestion(name, rounding_names()));
  }
  if (!spec.rounds()) return weight;
  return found->round(std::move(weight), spec);
}

template Matrix<float> round_weight(const std::string&, Matrix<float>, const QuantSpec&);
template Matrix<double> round_weight(const std::string&, Matrix<double>, const QuantSpec&);

}  // namespace ruq
