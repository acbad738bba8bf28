#include "ruquant/method/method.hpp"

#include <doctest/doctest.h>

#include <set>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

TEST_CASE("every listed method can be made, says what it is, and labels its plans by its name") {
  std::set<std::string> names;
  for (const MethodInfo& info : methods()) {
    CAPTURE(info.name);
    CHECK(names.insert(info.name).second);
    CHECK_FALSE(info.about.empty());
    CHECK(info.result_version >= 1);
    CHECK(method_info(info.name).about == info.about);
    TinyBench<float> bench(tiny_config("multi-head"));
    CHECK(bench.plan(*small_method(info.name), quant_settings()).method == info.name);
  }
  for (const char* name : {"rtn", "smoothquant", "hadamard", "householder", "givens", "quarot",
                           "duquant", "ruquant"}) {
    CHECK(names.contains(name));
  }
}

TEST_CASE("an unknown method is refused with the nearest") {
  check_error([] { make_method("ruqant"); }, {"unknown method 'ruqant'", "did you mean 'ruquant'"});
  check_error([] { method_info("quaroot"); }, {"did you mean 'quarot'"});
}

TEST_CASE("the options of every method print what they take") {
  for (const MethodInfo& info : methods()) {
    const auto method = make_method(info.name);
    Fields fields;
    method->bind(fields);
    for (const Field& field : fields.all()) {
      INFO(info.name << "." << field.name);
      CHECK_FALSE(field.help.empty());
      field.set(field.initial);
      CHECK(field.get() == field.initial);
    }
  }
}

TEST_CASE("quantizers that do not fit the model are refused with operand and place") {
  const ModelConfig config = tiny_config("grouped");  // 36 and 96 channels
  const auto method = make_method("rtn");
  QuantSettings quant = quant_settings();
  quant.weight.group_size = 12;
  quant.activation.group_size = 12;
  method->check(config, quant);
  quant.weight.group_size = 32;
  check_error([&] { method->check(config, quant); }, {"quant.weight", "q_proj", "32", "36"});
  quant.weight.bits = 16;
  method->check(config, quant);
  quant.activation.group_size = 36;
  check_error([&] { method->check(config, quant); }, {"quant.activation", "mlp_out", "36", "96"});
}

}  // namespace
}  // namespace ruq::test
