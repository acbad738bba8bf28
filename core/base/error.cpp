#include "ruquant/base/error.hpp"

#include <algorithm>
#include <numeric>

namespace ruq {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitution = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitution});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest_name(std::string_view word, const std::vector<std::string>& known) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(3, word.size() / 2) + 1;
  for (const std::string& name : known) {
    const std::size_t distance = edit_distance(word, name);
    // A name that shares no letter with the word is not near, however short both are.
    if (distance < best_distance && distance < std::max(word.size(), name.size())) {
      best_distance = distance;
      best = name;
    }
  }
  return best;
}

std::string suggestion(std::string_view word, const std::vector<std::string>& known) {
  const std::string nearest = nearest_name(word, known);
  if (!nearest.empty()) return fmt::format(", did you mean '{}'?", nearest);
  return fmt::format("; known: {}", fmt::join(known, ", "));
}

}  // namespace ruq
