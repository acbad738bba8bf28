// An enumerator by its name, where names are listed in the order of the enumeration.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "ruquant/base/error.hpp"

namespace ruq {

/// Error "unknown <what> '<name>'" with the nearest name.
template <class Enum>
Enum named(const char* what, const std::vector<std::string>& names, const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) fail("unknown {} '{}'{}", what, name, suggestion(name, names));
  return static_cast<Enum>(found - names.begin());
}

}  // namespace ruq
