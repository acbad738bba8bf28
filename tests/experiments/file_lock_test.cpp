#include "experiments/file_lock.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

using std::chrono::milliseconds;

// A process that does `body`, begun when this returns: `body` is handed what to call for that.
pid_t process_of(const std::function<void(const std::function<void()>& begun)>& body) {
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    for (const int number : {SIGTERM, SIGINT}) signal(number, SIG_DFL);  // doctest has its own
    body([&] { (void)!write(ends[1], "b", 1); });
    _exit(0);
  }
  close(ends[1]);
  char begun = 0;
  CHECK(read(ends[0], &begun, 1) == 1);
  close(ends[0]);
  return child;
}

TEST_CASE("one holds a lock at a time, and leaves no file") {
  const TemporaryFolder folder;
  std::atomic<int> inside = 0;
  std::atomic<bool> alone = true;
  const auto work = [&] {
    for (int i = 0; i < 10; ++i) {
      const FileLock lock(folder / "plan.h5", "the plan");
      if (inside.fetch_add(1) != 0) alone = false;
      std::this_thread::yield();
      inside.fetch_sub(1);
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  CHECK(alone);
  CHECK(std::filesystem::is_empty(folder / ""));
}

TEST_CASE("a lock tells how long it was waited for") {
  const TemporaryFolder folder;
  std::optional<FileLock> first(std::in_place, folder / "plan.h5", "the plan");
  CHECK(first->waited() == 0);
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(200));
    first.reset();
  });
  const FileLock second(folder / "plan.h5", "the plan");
  other.join();
  CHECK(second.waited() > 0.1);
  CHECK(FileLock(folder / "other.h5", "another plan").waited() == 0);
}

TEST_CASE("a lock ends with the process that held it") {
  const TemporaryFolder folder;
  const pid_t holder = process_of([&](const std::function<void()>& begun) {
    const FileLock lock(folder / "plan.h5", "the plan");
    begun();
    pause();
  });
  std::thread killer([&] {
    std::this_thread::sleep_for(milliseconds(100));
    kill(holder, SIGKILL);
  });
  {
    const FileLock lock(folder / "plan.h5", "the plan");
    CHECK(lock.waited() > 0);
  }
  killer.join();
  waitpid(holder, nullptr, 0);
  CHECK(std::filesystem::is_empty(folder / ""));
}

TEST_CASE("a signal ends a process that waits") {
  const TemporaryFolder folder;
  const FileLock lock(folder / "plan.h5", "the plan");
  for (const int number : {SIGTERM, SIGINT}) {
    const pid_t waiting = process_of([&](const std::function<void()>& begun) {
      begun();
      const FileLock same(folder / "plan.h5", "the plan");
    });
    std::this_thread::sleep_for(milliseconds(100));
    kill(waiting, number);
    int status = 0;
    REQUIRE(waitpid(waiting, &status, 0) == waiting);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == number);
  }
}

TEST_CASE("a folder that is not there has no lock") {
  const TemporaryFolder folder;
  check_error([&] { FileLock(folder / "none/plan.h5", "the plan"); },
              {"none/plan.h5.lock: cannot be opened"});
}

}  // namespace
}  // namespace ruq::test
