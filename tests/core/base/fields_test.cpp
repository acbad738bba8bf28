#include "ruquant/base/fields.hpp"

#include <doctest/doctest.h>

#include "support/errors.hpp"

namespace ruq::test {
namespace {

struct Options {
  Index steps = 16;
  double ratio = 0.9;
  bool ragged = true;
  std::string note = "plain";
  std::string stream = "mean";
  std::optional<double> alpha = 0.6;
  std::vector<Index> widths = {4, 8};
  std::vector<std::string> parts = {"a"};
  std::string preset = "official";

  Fields fields() {
    Fields all;
    all.add_preset("preset", preset, {"official", "paper"}, "stands for others",
                   [this](const std::string& name) { steps = name == "paper" ? 99 : 16; });
    all.add("steps", steps, {.min = 0, .max = 100}, "how many");
    all.add("ratio", ratio, {.min = 0.1, .max = 1}, "how much");
    all.add("ragged", ragged, "whether");
    all.add("note", note, "anything");
    all.add_choice("stream", stream, {"mean", "samples"}, "which");
    all.add("alpha", alpha, {.min = 0, .max = 1}, "maybe");
    all.add("widths", widths, {.min = 2}, "several");
    all.add("parts", parts, {"a", "b", "c"}, "some");
    return all;
  }
};

TEST_CASE("every kind of field is set from text and printed in the spelling it takes") {
  Options options;
  Fields fields = options.fields();
  const std::vector<std::pair<std::string, std::string>> values = {
      {"preset", "paper"}, {"steps", "7"},        {"ratio", "0.25"},
      {"ragged", "false"}, {"note", "any, text"}, {"stream", "samples"},
      {"alpha", "none"},   {"widths", "2,3,16"},  {"parts", "c,a"}};
  for (const auto& [name, text] : values) {
    CAPTURE(name);
    fields.set(name, text);
    CHECK(fields.find(name)->get() == text);
  }
  CHECK(options.steps == 7);
  CHECK(options.ratio == 0.25);
  CHECK_FALSE(options.ragged);
  CHECK(options.stream == "samples");
  CHECK_FALSE(options.alpha.has_value());
  CHECK(options.widths == std::vector<Index>{2, 3, 16});
  CHECK(options.parts == std::vector<std::string>{"c", "a"});
}

TEST_CASE("the default of every field sets it to itself") {
  Options options;
  Fields fields = options.fields();
  for (const Field& field : fields.all()) {
    CAPTURE(field.name);
    CHECK(field.get() == field.initial);
    field.set(field.initial);
    CHECK(field.get() == field.initial);
  }
  CHECK(fields.find("alpha")->initial == "0.6");
  CHECK(fields.find("widths")->initial == "4,8");
}

TEST_CASE("numbers keep every digit through text") {
  double value = 0;
  Fields fields;
  fields.add("x", value, {}, "any");
  for (const double number : {0.1, 1.0 / 3, 1e-300, -2.5e17}) {
    value = number;
    const std::string text = fields.find("x")->get();
    value = 0;
    fields.set("x", text);
    CHECK(value == number);
  }
}

TEST_CASE("types say what a field takes") {
  Options options;
  const Fields fields = options.fields();
  CHECK(fields.find("steps")->type == "an integer from 0 to 100");
  CHECK(fields.find("ratio")->type == "a number from 0.1 to 1");
  CHECK(fields.find("ragged")->type == "true or false");
  CHECK(fields.find("stream")->type == "one of mean, samples");
  CHECK(fields.find("alpha")->type == "a number from 0 to 1, or none");
  CHECK(fields.find("widths")->type == "a list, each an integer of at least 2");
  CHECK(fields.find("parts")->type == "a list out of a, b, c");
}

TEST_CASE("bad text is refused with the field, what was found and what is expected") {
  Options options;
  Fields fields = options.fields();
  // Of a list the message names the part that is wrong.
  const auto refuse = [&](const char* name, const char* text, const char* expected,
                          const char* found = nullptr) {
    const std::string before = fields.find(name)->get();
    check_error([&] { fields.set(name, text); }, {name, found != nullptr ? found : text, expected});
    CHECK(fields.find(name)->get() == before);
  };
  refuse("steps", "101", "from 0 to 100");
  refuse("steps", "-1", "from 0 to 100");
  refuse("steps", "7.5", "an integer");
  refuse("steps", "7 ", "an integer");
  refuse("steps", "seven", "an integer");
  refuse("steps", "99999999999999999999", "an integer");
  refuse("ratio", "0.05", "from 0.1 to 1");
  refuse("ratio", "nan", "from 0.1 to 1");
  refuse("ratio", "1e999", "from 0.1 to 1");
  refuse("ragged", "yes", "true or false");
  refuse("stream", "sample", "did you mean 'samples'");
  refuse("stream", "something else", "one of mean, samples");
  refuse("alpha", "1.5", "or none");
  refuse("widths", "4,1", "at least 2", "found 1");
  refuse("widths", "4,,8", "at least 2", "found ''");
  refuse("parts", "a,d", "a, b, c", "found 'd'");
  refuse("preset", "papers", "did you mean 'paper'");
}

TEST_CASE("an empty number is refused") {
  Options options;
  Fields fields = options.fields();
  check_error([&] { fields.set("steps", ""); }, {"steps", "found ''"});
}

TEST_CASE("lists may hold spaces, or nothing") {
  Options options;
  Fields fields = options.fields();
  fields.set("widths", " 2 ,\t3");
  CHECK(options.widths == std::vector<Index>{2, 3});
  fields.set("widths", "");
  CHECK(options.widths.empty());
}

TEST_CASE("a preset sets other fields, which can be changed after it") {
  Options options;
  Fields fields = options.fields();
  fields.set("preset", "paper");
  CHECK(options.steps == 99);
  fields.set("steps", "5");
  CHECK(options.steps == 5);
  CHECK(fields.names().front() == "preset");
}

TEST_CASE("an unknown key is refused with the nearest") {
  Options options;
  Fields fields = options.fields();
  check_error([&] { fields.set("step", "1"); }, {"unknown key 'step'", "did you mean 'steps'"});
  CHECK(fields.find("step") == nullptr);
}

}  // namespace
}  // namespace ruq::test
