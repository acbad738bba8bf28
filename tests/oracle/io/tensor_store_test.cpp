// Files that another HDF5 library wrote: fixed-length text and 64-bit integers.
#include "ruquant/io/tensor_store.hpp"

#include "support/oracle.hpp"

using namespace ruq;

TEST_CASE("files of h5py are read, fixed-length text included") {
  const auto directory = ruq::test::oracle_directory();
  if (!directory) return ruq::test::skip_without_oracle();
  const TensorReader reader(*directory / "ruquant_map.h5");
  CHECK(reader.text_attribute("", "fixture") == "ruquant_map");
  const Index cases = reader.integer_attribute("", "n_cases");
  CHECK(std::ssize(reader.children("")) == cases);
  const Shape shape = reader.shape("case0/X");
  REQUIRE(shape.size() == 2);
  CHECK(shape[0] == reader.integer_attribute("case0", "block_size"));
  CHECK(shape[1] == reader.integer_attribute("case0", "N"));
  for (const Index column : reader.integers("case0/chosen_col")) {
    CHECK(column >= 0);
    CHECK(column < shape[1]);
  }
}
