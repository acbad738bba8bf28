#include "ruquant/base/machine.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <thread>
#include <vector>

namespace ruq::test {
namespace {

TEST_CASE("processor time passes with work, not with waiting") {
  const double start = cpu_seconds();
  volatile double sum = 0;
  while (cpu_seconds() - start < 0.02) sum = sum + 1;
  CHECK(sum > 0);
  const double worked = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(cpu_seconds() - worked < 0.1);
}

TEST_CASE("peak memory grows by what is touched, stays, and can begin anew") {
  restart_peak_memory();
  const double small = peak_memory_mib();
  {
    const std::vector<char> held(std::size_t{96} << 20, 'x');
    CHECK(held.back() == 'x');
  }
  const double large = peak_memory_mib();
  CHECK(large >= small + 90);
  restart_peak_memory();
  CHECK(peak_memory_mib() <= large - 48);
}

TEST_CASE("some memory is available") { CHECK(available_memory_mib() > 1); }

TEST_CASE("the processor has a name") { CHECK_FALSE(processor_name().empty()); }

}  // namespace
}  // namespace ruq::test
