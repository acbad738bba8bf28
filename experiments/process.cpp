#include "experiments/process.hpp"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

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
  const pid_t child = start_process(std::move(process));
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace ruq
