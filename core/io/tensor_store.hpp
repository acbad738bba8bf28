// Named tensors and attributes in one HDF5 file, readable by h5py.
//
// Datasets are contiguous, little-endian, C order: float32, float64, int32 or int64. Attributes
// are scalars (int64, float64) or UTF-8 strings. A writer works on "<path>.tmp-<host>-<pid>" and
// renames on commit(), so a file under its own name is always whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ruquant/base/matrix.hpp"

namespace ruq {

using Shape = std::vector<Index>;

class TensorWriter {
 public:
  /// Error if the file cannot be created (the folder is missing, no permission, disk full).
  explicit TensorWriter(std::filesystem::path path);
  ~TensorWriter();  ///< without commit() the unfinished file is removed
  TensorWriter(const TensorWriter&) = delete;
  TensorWriter& operator=(const TensorWriter&) = delete;

  /// Writes a dataset; groups on the way ("a/b/c") are made. Types: float, double, int32_t,
  /// int64_t.
  template <class T>
  void write(const std::string& name, const T* data, const Shape& shape);
  template <class S>
  void write(const std::string& name, const Matrix<S>& matrix) {
    write(name, matrix.data(), {matrix.rows(), matrix.cols()});
  }
  template <class S>
  void write(const std::string& name, const Vector<S>& vector) {
    write(name, vector.data(), {vector.size()});
  }
  void write(const std::string& name, const std::vector<Index>& values);

  /// Sets an attribute on a group or dataset ("" or "/" is the root); a missing group is made.
  void attribute(const std::string& object, const std::string& name, std::int64_t value);
  void attribute(const std::string& object, const std::string& name, double value);
  void attribute(const std::string& object, const std::string& name, const std::string& value);

  /// Closes the file and gives it its name. Error if the disk refused anything.
  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class TensorReader {
 public:
  /// Error naming the path when it is missing, truncated or no HDF5 file.
  explicit TensorReader(std::filesystem::path path);
  ~TensorReader();
  TensorReader(TensorReader&&) noexcept;
  TensorReader& operator=(TensorReader&&) noexcept;

  const std::filesystem::path& path() const;
  bool has(const std::string& name) const;                            ///< group or dataset
  Shape shape(const std::string& name) const;                         ///< Error if no such dataset
  std::vector<std::string> children(const std::string& group) const;  ///< sorted by name

  /// A whole 2-D dataset, [rows, cols], its numbers converted to S. Error if missing, not numeric
  /// or of another rank (vector() reads any rank).
  template <class S>
  Matrix<S> matrix(const std::string& name) const;
  /// A numeric dataset of any rank, flattened in C order.
  template <class S>
  Vector<S> vector(const std::string& name) const;
  /// Integer dataset of any rank, flattened. Error if the stored type is not an integer.
  std::vector<Index> integers(const std::string& name) const;

  bool has_attribute(const std::string& object, const std::string& name) const;
  std::int64_t integer_attribute(const std::string& object, const std::string& name) const;
  double real_attribute(const std::string& object, const std::string& name) const;
  std::string text_attribute(const std::string& object, const std::string& name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ruq
