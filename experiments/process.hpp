// Other programs: those of the data and analysis rooms, and the workers of a sweep.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace ruq {

struct Process {
  std::string file;                    ///< what is started: a path, or a name on PATH
  std::vector<std::string> arguments;  ///< the program's own name first
  bool output_to_errors = false;       ///< its standard output goes to our standard error
  bool ends_with_parent = false;       ///< it is terminated when this process ends
};

/// Exit code of a process that could not be started.
inline constexpr int kNotStarted = 127;

/// Starts a process. Error if the system refuses; a file that is not there ends as kNotStarted.
pid_t start_process(Process process);

/// Starts a process and waits for it: its exit code, or -1 when a signal ended it. Error if how it
/// ended cannot be learned.
int run_process(Process process);

}  // namespace ruq
