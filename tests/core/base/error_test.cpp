#include "ruquant/base/error.hpp"

#include <doctest/doctest.h>

#include "support/errors.hpp"

namespace ruq::test {
namespace {

TEST_CASE("fail throws the formatted message, and nothing else") {
  CHECK(error_of([] { fail("{}: found {}, expected {}", "key", 3, 4); }) ==
        "key: found 3, expected 4");
}

TEST_CASE("with_context puts the place in front, level by level, and passes results through") {
  const auto inner = [] { return with_context("inner", []() -> int { fail("broken"); }); };
  CHECK(error_of([&] { with_context("outer", inner); }) == "outer: inner: broken");
  CHECK(with_context("place", [] { return 7; }) == 7);
  int value = 1;
  int& reference = with_context("place", [&]() -> int& { return value; });
  CHECK(&reference == &value);
}

TEST_CASE("with_context leaves other exceptions alone") {
  CHECK_THROWS_WITH_AS(with_context("place", [] { throw std::logic_error("other"); }), "other",
                       std::logic_error);
}

TEST_CASE("RUQ_CHECK names the condition, the place and the values") {
  const int found = 3;
  check_error([&] { RUQ_CHECK(found == 4, "found {}", found); },
              {"found == 4", "error_test.cpp", "found 3"});
  RUQ_CHECK(found == 3, "not thrown");
}

TEST_CASE("the nearest name, when one is near") {
  const std::vector<std::string> known = {"smoothquant", "quarot", "ruquant", "duquant", "rtn"};
  CHECK(nearest_name("ruqant", known) == "ruquant");
  CHECK(nearest_name("quarrot", known) == "quarot");
  CHECK(nearest_name("rnt", known) == "rtn");
  CHECK(nearest_name("completely different", known).empty());
  CHECK(nearest_name("x", {}).empty());
  CHECK(nearest_name("d", {"a", "b"}).empty());
  // Of equally near names the first of the list.
  CHECK(nearest_name("ab", {"abc", "abd"}) == "abc");
}

TEST_CASE("a suggestion is one name, or all of them") {
  CHECK(suggestion("blok_size", {"block_size", "seed"}) == ", did you mean 'block_size'?");
  CHECK(suggestion("zzzzzzzzzz", {"block_size", "seed"}) == "; known: block_size, seed");
}

}  // namespace
}  // namespace ruq::test
