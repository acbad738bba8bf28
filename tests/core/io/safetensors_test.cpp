#include "ruquant/io/safetensors.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

using namespace ruq;
using Json = nlohmann::json;
using ruq::test::check_error;
using ruq::test::TemporaryFolder;
using ruq::test::write_bytes;

namespace {

/// A file as the format has it, put together by hand.
std::string assemble(const Json& header, const std::string& data) {
  const std::string text = header.dump();
  const std::uint64_t length = text.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + text + data;
}

Json describe(const std::string& type, const Shape& shape, std::size_t begin, std::size_t end) {
  return {{"dtype", type}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// A directory with one tensor "x" of this type.
template <class T>
void write_one(const TemporaryFolder& folder, const std::string& type,
               const std::vector<T>& values) {
  const std::string data = bytes_of(values);
  const Json header = {{"x", describe(type, {std::ssize(values)}, 0, data.size())}};
  write_bytes(folder / "model.safetensors", assemble(header, data));
}

/// Opening a model.safetensors of these bytes fails with these words.
void check_refused(const std::string& bytes, std::initializer_list<std::string> words) {
  const TemporaryFolder folder;
  write_bytes(folder / "model.safetensors", bytes);
  check_error([&] { Safetensors(folder.path()); }, {"model.safetensors"});
  check_error([&] { Safetensors(folder.path()); }, words);
}

Matrix<float> counting(Index rows, Index cols, float start) {
  Matrix<float> values(rows, cols);
  for (Index i = 0; i < values.size(); ++i) values.data()[i] = start + static_cast<float>(i);
  return values;
}

/// The value of a half-precision code by the definition of the format, in double.
double half_value(std::uint16_t code) {
  const int exponent = (code >> 10) & 31;
  const double fraction = (code & 1023) / 1024.0;
  const double sign = code >> 15 ? -1 : 1;
  return exponent == 0 ? sign * std::ldexp(fraction, -14)
                       : sign * std::ldexp(1 + fraction, exponent - 15);
}

/// The same for bfloat16.
double bfloat_value(std::uint16_t code) {
  const int exponent = (code >> 7) & 255;
  const double fraction = (code & 127) / 128.0;
  const double sign = code >> 15 ? -1 : 1;
  return exponent == 0 ? sign * std::ldexp(fraction, -126)
                       : sign * std::ldexp(1 + fraction, exponent - 127);
}

/// Every finite code of a 16-bit type: `infinity` is the code of +infinity.
std::vector<std::uint16_t> finite_codes(unsigned infinity) {
  std::vector<std::uint16_t> codes;
  for (unsigned code = 0; code < 65536; ++code) {
    if ((code & infinity) != infinity) codes.push_back(static_cast<std::uint16_t>(code));
  }
  return codes;
}

template <class Value>
void check_codes(const std::string& type, unsigned infinity, Value value) {
  const TemporaryFolder folder;
  const std::vector<std::uint16_t> codes = finite_codes(infinity);
  write_one(folder, type, codes);
  const Safetensors file(folder.path());
  const auto single = file.vector<float>("x", std::ssize(codes));
  const auto wide = file.vector<double>("x", std::ssize(codes));
  Index wrong = 0;
  for (Index i = 0; i < single.size(); ++i) {
    const double expected = value(codes[static_cast<std::size_t>(i)]);
    const bool same_sign = std::signbit(single(i)) == std::signbit(expected);
    if (static_cast<double>(single(i)) != expected || wide(i) != expected || !same_sign) ++wrong;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("every finite F16 and BF16 code is read exactly, subnormals included") {
  check_codes("F16", 0x7C00, half_value);
  check_codes("BF16", 0x7F80, bfloat_value);
}

TEST_CASE("F32 and F64 are read exactly") {
  const TemporaryFolder folder;
  const std::vector<float> singles = {1.0F / 3, -0.0F, std::numeric_limits<float>::denorm_min()};
  write_one(folder, "F32", singles);
  const auto read = Safetensors(folder.path()).vector<float>("x", 3);
  CHECK(std::memcmp(read.data(), singles.data(), sizeof(float) * 3) == 0);
  CHECK(Safetensors(folder.path()).vector<double>("x", 3)(0) == static_cast<double>(1.0F / 3));
  write_one(folder, "F64", std::vector<double>{1.0 / 3, -2});
  CHECK(Safetensors(folder.path()).vector<double>("x", 2)(0) == 1.0 / 3);
  CHECK(Safetensors(folder.path()).vector<float>("x", 2)(0) == 1.0F / 3);
}

TEST_CASE("what is written is read back bit for bit") {
  const TemporaryFolder folder;
  const Matrix<float> a = counting(300, 250, -7.25F);  // more than one slice of the conversion
  const Vector<float> b = Vector<float>::Constant(3, 0.1F);
  write_safetensors(folder / "model.safetensors", {{"a", a}, {"empty", Matrix<float>(0, 4)}},
                    {{"b", b}});
  const Safetensors file(folder.path());
  CHECK(file.names() == std::vector<std::string>{"a", "b", "empty"});
  CHECK(file.has("b"));
  CHECK_FALSE(file.has("c"));
  CHECK(file.shape("a") == Shape{300, 250});
  CHECK(file.matrix<float>("a", 300, 250) == a);
  CHECK(file.vector<float>("b", 3) == b);
  CHECK(file.matrix<float>("empty", 0, 4).size() == 0);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
  check_error([&] { write_safetensors(folder / "gone/x", {}, {{"b", b}}); }, {"gone/x"});
  check_error([&] { write_safetensors(folder / "x", {{"b", a}}, {{"b", b}}); }, {"'b'", "twice"});
}

TEST_CASE("data that do not lie on a multiple of their size") {
  const TemporaryFolder folder;
  const std::string data = std::string("\x01", 1) + bytes_of(std::vector<float>{0.5F, -3.0F});
  const Json header = {{"flag", describe("BOOL", {1}, 0, 1)}, {"x", describe("F32", {2}, 1, 9)}};
  write_bytes(folder / "model.safetensors", assemble(header, data));
  CHECK(Safetensors(folder.path()).vector<float>("x", 2) == Vector<float>{{0.5F, -3.0F}});
}

TEST_CASE("missing tensors, other shapes and other types are refused by name") {
  const TemporaryFolder folder;
  write_safetensors(folder / "model.safetensors", {{"a", counting(2, 3, 0)}}, {});
  const Safetensors file(folder.path());
  check_error([&] { file.matrix<float>("b", 2, 3); }, {folder.path().string(), "'b'"});
  check_error([&] { file.shape("b"); }, {"'b'"});
  check_error([&] { file.matrix<float>("a", 3, 2); },
              {"model.safetensors", "'a'", "[2, 3]", "[3, 2]"});
  check_error([&] { file.vector<float>("a", 6); }, {"'a'", "[2, 3]", "[6]"});
  for (const std::string type : {"I32", "F8_E4M3", "X9"}) {
    const std::vector<std::uint8_t> values(type == "I32" ? 4 : 1);
    const Json header = {{"x", describe(type, {1}, 0, values.size())}};
    write_bytes(folder / "model.safetensors", assemble(header, bytes_of(values)));
    check_error([&] { Safetensors(folder.path()).vector<float>("x", 1); }, {"'x'", type, "BF16"});
  }
}

TEST_CASE("NaN and infinity are refused with their place") {
  const TemporaryFolder folder;
  Matrix<float> a = counting(300, 250, 0);
  a(299, 17) = std::numeric_limits<float>::quiet_NaN();
  write_safetensors(folder / "model.safetensors", {{"a", a}}, {});
  check_error([&] { Safetensors(folder.path()).matrix<float>("a", 300, 250); },
              {"'a'", "nan", "[299, 17]", "finite"});
  a(298, 3) = -std::numeric_limits<float>::infinity();
  write_safetensors(folder / "model.safetensors", {{"a", a}}, {});
  check_error([&] { Safetensors(folder.path()).matrix<double>("a", 300, 250); },
              {"'a'", "-inf", "[298, 3]"});
  write_one(folder, "F16", std::vector<std::uint16_t>{0, 0x7C00});
  check_error([&] { Safetensors(folder.path()).vector<float>("x", 2); }, {"inf", "[1]"});
  write_one(folder, "BF16", std::vector<std::uint16_t>{0xFFC0});
  check_error([&] { Safetensors(folder.path()).vector<float>("x", 1); }, {"nan", "[0]"});
  write_one(folder, "F64", std::vector<double>{1e300});
  check_error([&] { Safetensors(folder.path()).vector<float>("x", 1); }, {"inf", "[0]"});
  CHECK(Safetensors(folder.path()).vector<double>("x", 1)(0) == 1e300);
}

TEST_CASE("files that are missing, foreign or cut short are refused") {
  const TemporaryFolder folder;
  check_error([&] { Safetensors(folder.path()); },
              {folder.path().string(), "model.safetensors", "index.json"});
  write_safetensors(folder / "whole", {{"a", counting(2, 3, 0)}}, {});
  const std::string bytes = ruq::test::read_bytes(folder / "whole");
  check_refused(bytes.substr(0, bytes.size() - 1), {"'a'", "24", "23", "truncated"});
  check_refused(bytes.substr(0, 40), {"40", std::to_string(bytes.size() - 24), "truncated"});
  check_refused(bytes.substr(0, 5), {"5 bytes", "truncated"});
  check_refused("", {"0 bytes"});
  check_refused(bytes + "xx", {"26", "24"});
  check_refused("<html>an error page</html>", {"not a safetensors file"});
  check_refused(assemble("text", ""), {"no JSON object"});
  std::string broken = bytes;
  broken[8] = '[';
  check_refused(broken, {"not valid JSON"});
}

TEST_CASE("headers that contradict themselves are refused") {
  const std::string data(24, '\0');
  const auto one = [&](const Json& x) { return assemble({{"x", x}}, data); };
  check_refused(one(describe("F32", {5}, 0, 24)), {"'x'", "24", "20", "F32", "[5]"});
  check_refused(one(describe("F32", {6}, 24, 0)), {"'x'", "data_offsets", "[24,0]"});
  check_refused(one({{"dtype", "F32"}, {"shape", {-6}}, {"data_offsets", {0, 24}}}),
                {"'x'", "shape", "[-6]"});
  check_refused(one({{"dtype", "F32"}, {"shape", {6}}}), {"'x'", "data_offsets", "nothing"});
  check_refused(one({{"shape", {6}}, {"data_offsets", {0, 24}}}), {"'x'", "dtype"});
  check_refused(one(describe("F32", {Index{1} << 40, Index{1} << 40}, 0, 24)), {"'x'", "large"});
  check_refused(
      assemble({{"x", describe("F32", {4}, 0, 16)}, {"y", describe("F32", {4}, 8, 24)}}, data),
      {"'y'", "8", "16", "overlaps"});
  check_refused(
      assemble({{"x", describe("F32", {2}, 0, 8)}, {"y", describe("F32", {2}, 16, 24)}}, data),
      {"'y'", "hole"});
}

TEST_CASE("shards are found through their index") {
  const TemporaryFolder folder;
  const Matrix<float> a = counting(2, 3, 1);
  const Matrix<float> b = counting(4, 5, 2);
  const auto write_index = [&](const Json& map) {
    write_bytes(folder / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  };
  write_safetensors(folder / "one.safetensors", {{"a", a}}, {});
  write_safetensors(folder / "two.safetensors", {{"b", b}}, {});
  write_index({{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  const Safetensors file(folder.path());
  CHECK(file.names() == std::vector<std::string>{"a", "b"});
  CHECK(file.matrix<float>("a", 2, 3) == a);
  CHECK(file.matrix<float>("b", 4, 5) == b);

  const auto open = [&] { Safetensors(folder.path()); };
  write_index({{"a", "two.safetensors"}, {"b", "two.safetensors"}});
  check_error(open, {"index.json", "'a'", "two.safetensors"});
  write_index({{"a", "one.safetensors"}, {"b", "three.safetensors"}});
  check_error(open, {"three.safetensors", "no such file", "index.json"});
  write_index({{"a", "../one.safetensors"}});
  check_error(open, {"index.json", "'a'", "../one.safetensors"});
  write_index(Json::array());
  check_error(open, {"index.json", "weight_map"});
  write_bytes(folder / "model.safetensors.index.json", "{");
  check_error(open, {"index.json", "JSON"});
  write_safetensors(folder / "two.safetensors", {{"a", a}, {"b", b}}, {});
  write_index({{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  check_error(open, {"two.safetensors", "'a'", "one.safetensors"});
}

TEST_CASE("the digest follows the bytes, not the path or the number of threads") {
  const TemporaryFolder folder;
  const TemporaryFolder other;
  // Several chunks of the digest and a remainder.
  Matrix<float> a = counting(1000, 701, 0.5F);
  const auto digest_in = [&](const TemporaryFolder& place) {
    write_safetensors(place / "model.safetensors", {{"a", a}}, {});
    return Safetensors(place.path()).digest();
  };
  const std::string first = digest_in(folder);
  CHECK(first.size() == 16);
  CHECK(digest_in(other) == first);
  const int before = threads();
  for (const int count : {1, 2, 3}) {
    set_threads(count);
    CHECK(digest_in(folder) == first);
  }
  set_threads(before);
  // Changes that a weak mix would cancel: two flipped signs in one lane, two numbers
  // exchanged, and the last byte.
  const Matrix<float> kept = a;
  a.data()[1] = -a.data()[1];
  a.data()[9] = -a.data()[9];
  CHECK(digest_in(folder) != first);
  a = kept;
  std::swap(a.data()[100], a.data()[101]);
  CHECK(digest_in(folder) != first);
  a = kept;
  a.row(0).swap(a.row(900));
  CHECK(digest_in(folder) != first);
  a = kept;
  a.data()[a.size() - 1] += 1;
  CHECK(digest_in(folder) != first);
}
