#include "ruquant/io/tensor_store.hpp"

#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <limits>

#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

using namespace ruq;
using ruq::test::check_error;
using ruq::test::TemporaryFolder;

namespace {

/// Values that a careless conversion would change: subnormal, signed zero, extremes.
template <class S>
Matrix<S> awkward_values() {
  using Limits = std::numeric_limits<S>;
  Matrix<S> values(2, 3);
  values << Limits::denorm_min(), S(-0.0), Limits::max(), Limits::lowest(), S(1) / S(3),
      Limits::min();
  return values;
}

template <class S>
bool same_bits(const Matrix<S>& a, const Matrix<S>& b) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  return std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(S)) == 0;
}

/// A small file of most kinds of content.
std::filesystem::path write_sample(const TemporaryFolder& folder) {
  const std::filesystem::path path = folder / "sample.h5";
  TensorWriter writer(path);
  writer.write("a/b/single", awkward_values<float>());
  writer.write("a/b/double", awkward_values<double>());
  writer.write("a/index", std::vector<Index>{3, -1, std::numeric_limits<Index>::max()});
  const std::int32_t ids[] = {7, -7, std::numeric_limits<std::int32_t>::min(), 0};
  writer.write("ids", ids, {2, 2});
  writer.attribute("", "format", std::string("grüße"));
  writer.attribute("a/new", "ratio", 0.1);
  writer.attribute("a/index", "count", std::int64_t{-3});
  writer.commit();
  return path;
}

}  // namespace

TEST_CASE("what is written is read back bit for bit") {
  const TemporaryFolder folder;
  const TensorReader reader(write_sample(folder));
  CHECK(same_bits(reader.matrix<float>("a/b/single"), awkward_values<float>()));
  CHECK(same_bits(reader.matrix<double>("a/b/double"), awkward_values<double>()));
  CHECK(same_bits<double>(reader.matrix<double>("a/b/single"),
                          awkward_values<float>().cast<double>()));
  CHECK(reader.integers("a/index") == std::vector<Index>{3, -1, std::numeric_limits<Index>::max()});
  CHECK(reader.integers("ids") ==
        std::vector<Index>{7, -7, std::numeric_limits<std::int32_t>::min(), 0});
  CHECK(reader.shape("ids") == Shape{2, 2});
  CHECK(reader.vector<double>("ids").size() == 4);
  CHECK(reader.vector<double>("ids")(1) == -7);
  CHECK(reader.text_attribute("", "format") == "grüße");
  CHECK(reader.real_attribute("a/new", "ratio") == 0.1);
  CHECK(reader.integer_attribute("a/index", "count") == -3);
}

TEST_CASE("names are found in groups and listed in order") {
  const TemporaryFolder folder;
  const TensorReader reader(write_sample(folder));
  CHECK(reader.children("") == std::vector<std::string>{"a", "ids"});
  CHECK(reader.children("a") == std::vector<std::string>{"b", "index", "new"});
  CHECK(reader.has("a/b"));
  CHECK(reader.has("/a/b/single"));
  CHECK(reader.has(""));
  CHECK_FALSE(reader.has("b"));
  CHECK_FALSE(reader.has("nothing/at/all"));
  CHECK_FALSE(reader.has("ids/below/a/dataset"));
  CHECK(reader.has_attribute("a/new", "ratio"));
  CHECK_FALSE(reader.has_attribute("a/new", "ration"));
  CHECK_FALSE(reader.has_attribute("nothing", "ratio"));
  check_error([&] { reader.children("nothing"); }, {"sample.h5", "nothing"});
  check_error([&] { reader.children("ids"); }, {"sample.h5", "ids"});
}

TEST_CASE("empty datasets, empty text, long text and a scalar") {
  const TemporaryFolder folder;
  const std::string text(100'000, 'x');
  {
    TensorWriter writer(folder / "edge.h5");
    writer.write("none", std::vector<Index>{});
    writer.write("no_rows", Matrix<float>(0, 5));
    const double one = 1.5;
    writer.write("scalar", &one, {});
    writer.attribute("/", "empty", std::string());
    writer.attribute("/", "long", std::string("replaced by the next line"));
    writer.attribute("/", "long", text);
    check_error([&] { writer.attribute("/", "nul", std::string("a\0b", 3)); }, {"edge.h5", "nul"});
    writer.commit();
  }
  const TensorReader reader(folder / "edge.h5");
  CHECK(reader.integers("none").empty());
  CHECK(reader.matrix<float>("no_rows").rows() == 0);
  CHECK(reader.matrix<float>("no_rows").cols() == 5);
  CHECK(reader.shape("scalar").empty());
  CHECK(reader.vector<float>("scalar")(0) == 1.5F);
  CHECK(reader.text_attribute("", "empty").empty());
  CHECK(reader.text_attribute("", "long") == text);
}

TEST_CASE("wrong names, ranks and types are refused by name") {
  const TemporaryFolder folder;
  const TensorReader reader(write_sample(folder));
  check_error([&] { reader.matrix<float>("a/c"); }, {"sample.h5", "'a/c'"});
  check_error([&] { reader.shape("a/c"); }, {"sample.h5", "'a/c'"});
  check_error([&] { reader.vector<float>("a"); }, {"sample.h5", "'a'", "dataset"});
  check_error([&] { reader.vector<float>(""); }, {"sample.h5"});
  check_error([&] { reader.matrix<float>("a/index"); }, {"'a/index'", "[3]", "two dimensions"});
  check_error([&] { reader.integers("a/b/single"); }, {"'a/b/single'", "expected integers"});
  check_error([&] { reader.text_attribute("a/index", "count"); }, {"count", "expected text"});
  check_error([&] { reader.integer_attribute("a/new", "ratio"); }, {"ratio", "an integer"});
  check_error([&] { reader.real_attribute("", "format"); }, {"format", "a number"});
  check_error([&] { reader.real_attribute("", "none"); }, {"sample.h5", "none"});
  check_error([&] { reader.real_attribute("gone", "x"); }, {"sample.h5", "gone"});
  CHECK(reader.real_attribute("a/index", "count") == -3);
}

TEST_CASE("files that are missing, foreign or cut short are refused by path") {
  const TemporaryFolder folder;
  const std::filesystem::path path = write_sample(folder);
  check_error([&] { TensorReader(folder / "none.h5"); }, {"none.h5", "no such file"});
  check_error([&] { TensorReader(folder.path()); }, {folder.path().string(), "not a file"});
  ruq::test::write_bytes(folder / "text.h5", "not tensors");
  check_error([&] { TensorReader(folder / "text.h5"); }, {"text.h5", "not an HDF5 file"});
  const std::string bytes = ruq::test::read_bytes(path);
  for (const std::size_t size : {bytes.size() - 1, bytes.size() / 2, std::size_t{100}}) {
    ruq::test::write_bytes(folder / "cut.h5", bytes.substr(0, size));
    check_error([&] { TensorReader(folder / "cut.h5"); }, {"cut.h5", "truncated"});
  }
  ruq::test::write_bytes(folder / "empty.h5", "");
  check_error([&] { TensorReader(folder / "empty.h5"); }, {"empty.h5"});
}

TEST_CASE("a file appears whole or not at all") {
  const TemporaryFolder folder;
  const auto files = [&] {
    return std::distance(std::filesystem::directory_iterator(folder.path()), {});
  };
  {
    TensorWriter writer(folder / "left.h5");
    writer.write("x", std::vector<Index>{1});
    CHECK_FALSE(std::filesystem::exists(folder / "left.h5"));
    CHECK(files() == 1);
  }
  CHECK(files() == 0);
  {
    TensorWriter writer(folder / "kept.h5");
    writer.write("x", std::vector<Index>{1});
    check_error([&] { writer.write("x", std::vector<Index>{2}); }, {"kept.h5", "'x'", "twice"});
    writer.commit();
    CHECK_THROWS_AS(writer.write("y", std::vector<Index>{2}), Error);
  }
  CHECK(files() == 1);
  check_error([&] { TensorWriter(folder / "missing/x.h5"); }, {"missing/x.h5", "cannot create"});
}

TEST_CASE("a disk that takes no more is an Error, and leaves nothing behind") {
  const TemporaryFolder folder;
  const auto write = [&](Index rows) {
    TensorWriter writer(folder / "big.h5");
    writer.write("x", Matrix<double>(Matrix<double>::Ones(rows, 100)));
    writer.commit();
  };
  rlimit before = {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {.rlim_cur = 50'000, .rlim_max = before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = ruq::test::error_of([&] { write(1000); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(message.find("big.h5") != std::string::npos);
  CHECK(message.find("large") != std::string::npos);  // the system's "File too large"
  CHECK(std::filesystem::is_empty(folder.path()));
  write(1000);
  CHECK(TensorReader(folder / "big.h5").shape("x") == Shape{1000, 100});
}

TEST_CASE("equal content makes equal bytes") {
  const TemporaryFolder folder;
  const std::string first = ruq::test::read_bytes(write_sample(folder));
  CHECK(ruq::test::read_bytes(write_sample(folder)) == first);
}

TEST_CASE("readers move") {
  const TemporaryFolder folder;
  TensorReader first(write_sample(folder));
  TensorReader second = std::move(first);
  CHECK(second.path() == folder / "sample.h5");
  CHECK(second.has("ids"));
}
