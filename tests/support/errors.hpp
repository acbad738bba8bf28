// Helpers to look at the messages of errors.
#pragma once

#include <doctest/doctest.h>

#include <initializer_list>
#include <string>

#include "ruquant/base/error.hpp"

namespace ruq::test {

/// The message of the Error that `body` throws; without one the test fails.
template <class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  FAIL("no Error was thrown");
  return {};
}

/// The Error thrown by `body` holds each of the words.
template <class Body>
void check_error(Body&& body, std::initializer_list<std::string> words) {
  const std::string message = error_of(body);
  for (const std::string& word : words) {
    INFO("message: " << message);
    INFO("expected in it: " << word);
    CHECK(message.find(word) != std::string::npos);
  }
}

}  // namespace ruq::test
