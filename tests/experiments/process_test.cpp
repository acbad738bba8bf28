#include "experiments/process.hpp"

#include <doctest/doctest.h>
#include <sys/time.h>

#include <csignal>
#include <string>

#include "support/errors.hpp"

namespace ruq::test {
namespace {

int run_shell(const std::string& script) {
  return run_process({.file = "sh", .arguments = {"sh", "-c", script}});
}

TEST_CASE("a process ends with its code, by a signal, or was not there") {
  CHECK(run_shell("exit 0") == 0);
  CHECK(run_shell("exit 3") == 3);
  CHECK(run_shell("kill -9 $$") == -1);
  CHECK(run_process({.file = "/none", .arguments = {"/none"}}) == kNotStarted);
}

TEST_CASE("a signal meanwhile is no end") {
  struct sigaction interrupting {};
  struct sigaction before {};
  interrupting.sa_handler = [](int) {};  // without SA_RESTART: calls that wait return
  sigaction(SIGALRM, &interrupting, &before);
  const itimerval soon{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_usec = 50'000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  CHECK(run_shell("sleep 0.3; exit 3") == 3);
  sigaction(SIGALRM, &before, nullptr);
}

TEST_CASE("a process whose end cannot be learned did not succeed") {
  const auto before = signal(SIGCHLD, SIG_IGN);
  check_error([] { run_shell("exit 0"); }, {"lost the process sh", "No child processes"});
  signal(SIGCHLD, before);
}

}  // namespace
}  // namespace ruq::test
