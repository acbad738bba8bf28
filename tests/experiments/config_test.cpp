#include "experiments/config.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "support/errors.hpp"

namespace ruq::test {
namespace {

// Another valid value of an option than the one it has.
std::string changed(const Field& field) {
  const std::string now = field.get();
  for (const char* candidate : {"true", "false", "2", "3", "0.5", "none", "0,1", "W6A8-Q4K3V2"}) {
    try {
      field.set(candidate);
      if (field.get() != now) return field.get();
    } catch (const Error&) {  // not of its type
    }
  }
  const std::string list = field.type.substr(field.type.rfind("f ") + 2);  // "one of a, b"
  std::size_t begin = 0;
  while (begin < list.size()) {
    const std::size_t end = std::min(list.find(", ", begin), list.size());
    const std::string choice = list.substr(begin, end - begin);
    try {
      field.set(choice);
      if (field.get() != now) return field.get();
    } catch (const Error&) {
    }
    begin = end + 2;
  }
  field.set(now);
  return now;
}

TEST_CASE("flat() read back is the same configuration, for every option of every method") {
  for (const MethodInfo& info : methods()) {
    INFO(info.name);
    Config original(info.name);
    const Fields fields = original.fields();
    int different = 0;
    for (const Field& field : fields.all()) {
      const std::string before = field.get();
      different += changed(field) != before ? 1 : 0;
    }
    CHECK(different > std::ssize(fields.all()) * 3 / 4);

    Config copy(info.name);
    const Fields target = copy.fields();
    for (const auto& [key, text] : original.flat()) {
      if (key == "method") continue;
      const Field* field = target.find(key);
      REQUIRE_MESSAGE(field != nullptr, key);
      field->set(text);
    }
    CHECK(copy.flat() == original.flat());
  }
}

TEST_CASE("names are unique, and every option has help and a default that it accepts") {
  for (const MethodInfo& info : methods()) {
    Config config(info.name);
    const Fields fields = config.fields();
    std::set<std::string> names;
    for (const Field& field : fields.all()) {
      INFO(info.name << " " << field.name);
      CHECK(names.insert(field.name).second);
      CHECK_FALSE(field.help.empty());
      field.set(field.initial);
      CHECK(field.get() == field.initial);
    }
  }
}

TEST_CASE("presets of quantizers keep the widths") {
  Config config("rtn");
  Fields fields = config.fields();
  fields.set("quant.widths", "W4A6-Q4K6V3");
  fields.set("quant.preset", "ruquant");
  CHECK(config.quant.widths() == bit_widths("W4A6-Q4K6V3"));
  CHECK(config.quant.weight.clip_ratio == 0.8);
  CHECK(config.quant.activation.clip_ratio == 1);  // no clipping at six bits
  CHECK(config.quant.queries.clip_ratio == 0.9);
  CHECK(config.quant.keys.clip_ratio == 1);
  fields.set("quant.preset", "quarot");
  CHECK(config.quant.widths() == bit_widths("W4A6-Q4K6V3"));
  CHECK(config.quant.weight.rule == GridRule::quarot_weight);
  fields.set("quant.preset", "plain");
  CHECK(config.quant.weight.clip_ratio == 1);
}

TEST_CASE("a dump needs no model, unless language is measured too") {
  Config config("rtn");
  Fields fields = config.fields();
  CHECK(config.measures_language());
  CHECK(config.needs_model());
  fields.set("activations.path", "dump.h5");
  CHECK_FALSE(config.measures_language());
  CHECK_FALSE(config.needs_model());
  fields.set("evaluation.language", "true");
  CHECK(config.needs_model());
}

TEST_CASE("an unknown method is an error with the nearest name") {
  check_error([] { Config config("ruquan"); }, {"unknown method 'ruquan'", "'ruquant'"});
}

}  // namespace
}  // namespace ruq::test
