#include "experiments/home.hpp"

#include <cstdlib>

#include "ruquant/base/error.hpp"

namespace ruq {

namespace fs = std::filesystem;

namespace {

std::string environment(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? std::string(value) : fallback;
}

}  // namespace

const Home& home() {
  static const Home instance = [] {
    const fs::path root = environment("RUQ_HOME", RUQ_SOURCE_DIR);
    return Home{root, environment("RUQ_CACHE", (root / ".cache").string()),
                environment("RUQ_PYTHON", "python3")};
  }();
  return instance;
}

fs::path cache_folder(const std::string& name) {
  const fs::path folder = home().cache / name;
  std::error_code problem;
  fs::create_directories(folder, problem);
  if (problem) {
    fail("RUQ_CACHE: found '{}', expected a folder that can be written to", home().cache.string());
  }
  return folder;
}

}  // namespace ruq
