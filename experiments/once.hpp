// What a trial asks for and the next one asks for again.
#pragma once

#include <filesystem>
#include <map>

namespace ruq {

/// What `make` makes of a path, made once a process: every trial of a sweep asks again.
template <class T, T (*make)(const std::filesystem::path&)>
const T& once(const std::filesystem::path& path) {
  static std::map<std::filesystem::path, T> known;
  const auto found = known.find(path);
  return found != known.end() ? found->second : known.emplace(path, make(path)).first->second;
}

}  // namespace ruq
