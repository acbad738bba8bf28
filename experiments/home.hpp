// Where this installation keeps things.
#pragma once

#include <filesystem>
#include <string>

namespace ruq {

/// Folders and programs of this installation: RUQ_HOME (the checkout, else where it was built),
/// RUQ_CACHE (else <home>/.cache), RUQ_PYTHON (else python3).
struct Home {
  std::filesystem::path root;
  std::filesystem::path cache;
  std::string python;
};
const Home& home();

/// A folder in the cache, made if it is not there. Error naming RUQ_CACHE if it cannot be.
std::filesystem::path cache_folder(const std::string& name);

}  // namespace ruq
