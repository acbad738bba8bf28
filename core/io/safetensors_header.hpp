// What a safetensors file or index says about itself, checked; for the sources of this room alone.
//
// The format: 8 bytes (little-endian length of the header), the header (JSON: name to dtype, shape
// and byte range), then the data, which the ranges must cover without holes or overlaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "ruquant/io/tensor_store.hpp"

namespace ruq::safetensors {

/// A whole file in memory, read-only. Error naming the path if it cannot be mapped.
class MappedFile {
 public:
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  std::filesystem::path path_;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// One tensor of a file; the file outlives it.
struct Entry {
  const MappedFile* file = nullptr;
  std::string type;
  Shape shape;
  std::uint64_t begin = 0;  ///< bytes from the start of the data
  std::uint64_t end = 0;
  const std::byte* data = nullptr;

  Index count() const {
    Index count = 1;
    for (const Index extent : shape) count *= extent;
    return count;
  }
};

using Entries = std::map<std::string, Entry>;

std::string print(const Shape& shape);

/// The tensors of a file. Error (without the path: who calls adds it) says what was found and
/// expected when the header and the size of the file do not agree.
Entries parse_header(const MappedFile& file);

/// model.safetensors.index.json: tensor name to the name of a file beside it.
std::map<std::string, std::string> read_index(const std::filesystem::path& path);

}  // namespace ruq::safetensors
