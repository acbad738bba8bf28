// What measurements of time and memory rest on.
#pragma once

#include <string>

namespace ruq {

/// The processor by its own name; "unknown" where the system does not say.
std::string processor_name();

/// A name of this process that no other has at the same time on any machine that shares its files:
/// host and process number, in letters that a file name takes.
std::string process_name();

/// Seconds of a clock that only goes forward; differences count.
double now_seconds();

/// Seconds that this process has spent on processors, all threads together. Other load on the
/// machine does not count.
double cpu_seconds();

/// Those of the calling thread alone.
double thread_cpu_seconds();

/// The most memory that this process has held since restart_peak_memory(), in MiB; since its start
/// where the system cannot begin anew.
double peak_memory_mib();
void restart_peak_memory();

/// From here on memory that is freed stays with this process for its next use, where the C library
/// can be told so: matrices of some MiB that come and go by the step otherwise go back to the
/// system each time, and every page of the next one is a fault.
void keep_freed_memory();

/// Memory that can be had without pushing anything out, in MiB; 0 where the system does not say.
double available_memory_mib();

}  // namespace ruq
