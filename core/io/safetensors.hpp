// Weights in Hugging Face's safetensors format: one file, or shards with an index.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq {

/// The tensors of one model directory, memory-mapped. F32, F16, BF16 and F64 are converted on
/// reading; every other type is refused by name.
class Safetensors {
 public:
  /// Opens DIR/model.safetensors, or the shards of DIR/model.safetensors.index.json. Every header
  /// is checked against the size of its file: Error names the file, what was found and expected
  /// when one is missing, truncated, or overlaps.
  explicit Safetensors(const std::filesystem::path& directory);
  ~Safetensors();
  Safetensors(Safetensors&&) noexcept;

  bool has(const std::string& name) const;
  std::vector<std::string> names() const;
  Shape shape(const std::string& name) const;

  /// A 2-D tensor of exactly this shape. Error (tensor, found, expected) if missing, of another
  /// shape, or holding NaN or infinity.
  template <class S>
  Matrix<S> matrix(const std::string& name, Index rows, Index cols) const;
  /// A 1-D tensor of exactly this size; same errors.
  template <class S>
  Vector<S> vector(const std::string& name, Index size) const;

  /// 64-bit digest over all file contents, in hexadecimal; depends on bytes alone, not on paths.
  std::string digest() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes a float32 file of named tensors (beside, then renamed).
void write_safetensors(const std::filesystem::path& file,
                       const std::map<std::string, Matrix<float>>& matrices,
                       const std::map<std::string, Vector<float>>& vectors);

}  // namespace ruq
