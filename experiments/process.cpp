#include "experiments/process.hpp"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "ruquant/base/error.hpp"

namespace ruq {

pid_t start_process(Process process) {
  std::vector<char*> raw;
  for (std::string& argument : process.arguments) raw.push_back(argument.data());
  raw.push_back(nullptr);
  const pid_t child = fork();
  if (child < 0) fail("cannot start {}", process.file);
  if (child > 0) return child;
  if (process.ends_with_parent) prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (process.output_to_errors) dup2(STDERR_FILENO, STDOUT_FILENO);
  execvp(process.file.c_str(), raw.data());
  _exit(kNotStarted);
}

int run_process(Process process) {
  const std::string file = process.file;
  const pid_t child = start_process(std::move(process));
  int status = 0;
  pid_t ended = 0;
  do {
    ended = waitpid(child, &status, 0);
  } while (ended < 0 && errno == EINTR);
  if (ended < 0) fail("lost the process {}: {}", file, std::strerror(errno));
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace ruq
