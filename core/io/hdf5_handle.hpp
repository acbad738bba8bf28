// HDF5's C API with owners for its identifiers, for the sources of this room alone.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "ruquant/io/tensor_store.hpp"

namespace ruq::hdf5 {

/// An HDF5 identifier that closes itself.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close closer) : id_(id), close_(closer) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() { close(); }

  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  bool close() {
    const hid_t id = std::exchange(id_, -1);
    return id < 0 || close_(id) >= 0;
  }

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

inline Handle type_handle(hid_t id) { return {id, H5Tclose}; }
inline Handle space_handle(hid_t id) { return {id, H5Sclose}; }
inline Handle list_handle(hid_t id) { return {id, H5Pclose}; }
inline Handle object_handle(hid_t id) { return {id, H5Oclose}; }
inline Handle dataset_handle(hid_t id) { return {id, H5Dclose}; }
inline Handle attribute_handle(hid_t id) { return {id, H5Aclose}; }

/// To be called before HDF5 is. It prints its whole stack of errors by default; ours is one
/// sentence with library_reason().
void prepare_library();

/// What the innermost function of HDF5 said when the last call failed.
std::string library_reason();

template <class T>
hid_t memory_type() {
  if constexpr (std::is_same_v<T, float>) {
    return H5T_NATIVE_FLOAT;
  } else if constexpr (std::is_same_v<T, double>) {
    return H5T_NATIVE_DOUBLE;
  } else if constexpr (std::is_same_v<T, std::int32_t>) {
    return H5T_NATIVE_INT32;
  } else {
    static_assert(std::is_same_v<T, std::int64_t>);
    return H5T_NATIVE_INT64;
  }
}

template <class T>
hid_t file_type() {
  if constexpr (std::is_same_v<T, float>) {
    return H5T_IEEE_F32LE;
  } else if constexpr (std::is_same_v<T, double>) {
    return H5T_IEEE_F64LE;
  } else if constexpr (std::is_same_v<T, std::int32_t>) {
    return H5T_STD_I32LE;
  } else {
    static_assert(std::is_same_v<T, std::int64_t>);
    return H5T_STD_I64LE;
  }
}

const char* class_name(H5T_class_t type);

bool is_root(const std::string& name);

/// Whether a group or dataset of this name can be opened.
bool object_exists(hid_t file, const std::string& name);

Shape shape_of(hid_t space);
std::string print(const Shape& shape);
Index count_of(const Shape& shape);

}  // namespace ruq::hdf5
