// What benchmarks that leave a record share: repeated timings, and the file.
#pragma once

#include <algorithm>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
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

/// The program NAME OUT.json [WHAT a,b,...]: calls run(out, numbers of the list or of `usual`).
inline int record_main(int argc, char** argv, const std::string& name, const std::string& what,
                       const std::string& usual,
                       const std::function<void(const std::string&, std::vector<Index>)>& run) {
  if (argc < 2) {
    std::cerr << name << " OUT.json [" << what << " " << usual << "]\n";
    return 2;
  }
  std::vector<Index> numbers;
  std::stringstream list(argc > 2 ? argv[2] : usual);
  for (std::string one; std::getline(list, one, ',');) numbers.push_back(std::stol(one));
  try {
    run(argv[1], std::move(numbers));
  } catch (const std::exception& problem) {
    std::cerr << name << ": " << problem.what() << "\n";
    return 2;
  }
  return 0;
}

}  // namespace ruq::bench
