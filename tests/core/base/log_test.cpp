#include "ruquant/base/log.hpp"

#include <doctest/doctest.h>

#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

TEST_CASE("a log file holds what is logged while it is open, and nothing else") {
  const TemporaryFolder folder;
  logger().info("before the file");
  {
    const LogFile file(folder / "log.txt");
    logger().warn("while it is open: {}", 17);
  }
  logger().info("after the file");
  const std::string text = read_bytes(folder / "log.txt");
  CHECK(text.find("while it is open: 17") != std::string::npos);
  CHECK(text.find("before the file") == std::string::npos);
  CHECK(text.find("after the file") == std::string::npos);
}

TEST_CASE("two files at once hold the same messages") {
  const TemporaryFolder folder;
  {
    const LogFile one(folder / "one.txt");
    const LogFile two(folder / "two.txt");
    logger().warn("both");
  }
  CHECK(read_bytes(folder / "one.txt").find("both") != std::string::npos);
  CHECK(read_bytes(folder / "one.txt") == read_bytes(folder / "two.txt"));
}

TEST_CASE("what is left of equal pieces is told from what those done took") {
  CHECK(time_left(60, 2, 6) == "about 2 min");
  CHECK(time_left(10, 1, 2) == "about 10 s");
  CHECK(time_left(10, 2, 2) == "nothing");
}

TEST_CASE("a loop tells how far it is when its interval has passed, and not before") {
  const TemporaryFolder folder;
  {
    const LogFile file(folder / "log.txt");
    StepLog often("often", 4, 0);
    StepLog seldom("seldom", 4, 3600);
    for (const int done : {0, 1, 4}) {
      often.after(done);
      seldom.after(done);
    }
  }
  const std::string text = read_bytes(folder / "log.txt");
  CHECK(text.find("often: 0 of 4") == std::string::npos);
  CHECK(text.find("often: 1 of 4 steps, about 0 s left") != std::string::npos);
  CHECK(text.find("often: 4 of 4 steps, nothing left") != std::string::npos);
  CHECK(text.find("seldom") == std::string::npos);
}

TEST_CASE("the logger is one") { CHECK(&logger() == &logger()); }

}  // namespace
}  // namespace ruq::test
