// What benchmarks that leave a record share: repeated timings, and the file.
#pragma once

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/base/matrix.hpp"

namespace ruq::bench {

using Json = nlohmann::ordered_json;

constexpr int kRepetitions = 5;

/// Seconds of each repetition; one before them, to warm up, does not count.
inline std::vector<double> timed(const std::function<void()>& body) {
  std::vector<double> taken;
  for (int i = 0; i <= kRepetitions; ++i) {
    const double begin = now_seconds();
    body();
    taken.push_back(now_seconds() - begin);
  }
  taken.erase(taken.begin());
  return taken;
}

inline double best(const std::vector<double>& seconds) {
  return *std::min_element(seconds.begin(), seconds.end());
}

/// `record` with what every one of them says of itself in front. Error if it cannot be written.
inline void write_record(const std::string& out, const std::string& format, const Json& record) {
  Json json = {
      {"format", format},
      {"format_version", 1},
      {"machine",
       {{"processor", processor_name()}, {"math", math_backend()}, {"threads", threads()}}}};
  json.update(record);
  std::ofstream file(out);
  file << json.dump(1) << "\n";
  file.close();
  if (!file) fail("{}: cannot be written", out);
}

}  // namespace ruq::bench
