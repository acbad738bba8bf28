#include "ruquant/base/machine.hpp"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace ruq {
namespace {

rusage usage() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return used;
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
}

// A line such as "VmHWM:  1234 kB", in MiB.
std::optional<double> memory_line(const char* path, std::string_view name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name)) return std::stod(line.substr(name.size())) / 1024;
  }
  return std::nullopt;
}

}  // namespace

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

std::string process_name() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  std::string name = host.data();
  std::replace(name.begin(), name.end(), '/', '-');
  return name + "-" + std::to_string(getpid());
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double cpu_seconds() {
  const rusage used = usage();
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

double thread_cpu_seconds() {
  timespec used{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
}

double available_memory_mib() { return memory_line("/proc/meminfo", "MemAvailable:").value_or(0); }

double peak_memory_mib() {
  return memory_line("/proc/self/status", "VmHWM:")
      .value_or(static_cast<double>(usage().ru_maxrss) / 1024);
}

void restart_peak_memory() {
#ifdef __GLIBC__
  malloc_trim(0);  // what is kept for the next use is not held
#endif
  std::ofstream("/proc/self/clear_refs") << 5;
}

void keep_freed_memory() {
#ifdef __GLIBC__
  constexpr int kOwnMapping = 32 << 20;  // bytes; the most that older versions take
  mallopt(M_MMAP_THRESHOLD, kOwnMapping);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

}  // namespace ruq
