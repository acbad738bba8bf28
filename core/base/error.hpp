// Errors. Whatever a user or a file can cause throws ruq::Error with one readable sentence that
// says where, what was found and what was expected. RUQ_CHECK guards the program's own invariants.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace ruq {

/// The one exception type of the library; what() is a message meant for the user.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws Error with a formatted message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// Runs `body`; an Error that leaves it is rethrown with "`where`: " in front.
template <class Body>
decltype(auto) with_context(std::string_view where, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", where, error.what()));
  }
}

/// The entry of `known` nearest to `word` by edit distance; empty when none is at all close.
std::string nearest_name(std::string_view word, const std::vector<std::string>& known);

/// ", did you mean 'x'?" for the nearest known name, or a list of what is known.
std::string suggestion(std::string_view word, const std::vector<std::string>& known);

}  // namespace ruq

/// A broken invariant of the program itself (not of its input).
#define RUQ_CHECK(condition, ...)                                                            \
  do {                                                                                       \
    if (!(condition)) [[unlikely]]                                                           \
      ::ruq::fail("internal check '{}' failed at {}:{}: {}", #condition, __FILE__, __LINE__, \
                  ::fmt::format(__VA_ARGS__));                                               \
  } while (false)
