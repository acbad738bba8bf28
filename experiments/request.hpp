// What the command line asks for.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

struct Request {
  std::string program;  ///< how to start a worker process
  std::filesystem::path config;
  std::vector<std::string> overrides;
  std::vector<std::string> only;  ///< leave the trials that have these values, "key=a,b"
  std::filesystem::path out;      ///< run folder, or file of a dump; empty: runs/<config>
  std::optional<Index> trial;     ///< this trial alone
  std::string id;                 ///< what that trial must be; empty: whatever it is
  Index jobs = 1;
  Index threads = 0;  ///< of each job; 0: all processors divided among the jobs
  bool force = false;
  bool any_arithmetic = false;  ///< what was recorded with another processor's counts as done
  bool figures = true;
};

}  // namespace ruq
