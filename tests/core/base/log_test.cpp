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

TEST_CASE("the logger is one") { CHECK(&logger() == &logger()); }

}  // namespace
}  // namespace ruq::test
