#include "ruquant/io/hdf5_handle.hpp"

#include <algorithm>

#include "ruquant/base/error.hpp"

namespace ruq::hdf5 {

void prepare_library() {
  // A file that a full disk kept from closing stays open inside HDF5, and its clean-up at exit
  // would follow it into freed memory. There is nothing else for it to do: Handles close all.
  static const bool once = H5dont_atexit() >= 0;
  static_cast<void>(once);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

// A failed read or write is told with clock, addresses and sizes; of these only the system's
// message is of use.
std::string library_reason() {
  std::string reason;
  const auto visit = [](unsigned, const H5E_error2_t* entry, void* out) -> herr_t {
    if (entry->desc == nullptr) return 0;
    *static_cast<std::string*>(out) = entry->desc;
    return 1;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, visit, &reason);
  static const std::string label = "error message = '";
  const std::size_t found = reason.find(label);
  if (found != std::string::npos) {
    const std::size_t begin = found + label.size();
    return reason.substr(begin, reason.find('\'', begin) - begin);
  }
  return reason.empty() ? "no reason given" : reason;
}

const char* class_name(H5T_class_t type) {
  switch (type) {
    case H5T_INTEGER:
      return "integers";
    case H5T_FLOAT:
      return "floating-point numbers";
    case H5T_STRING:
      return "text";
    case H5T_ENUM:
      return "an enumeration or booleans";
    case H5T_COMPOUND:
      return "a compound type";
    default:
      return "a type that is no number";
  }
}

bool is_root(const std::string& name) { return name.empty() || name == "/"; }

// H5Lexists fails when a group on the way is missing, so every prefix is asked in turn.
bool object_exists(hid_t file, const std::string& name) {
  if (is_root(name)) return true;
  for (std::size_t end = 0; end != std::string::npos;) {
    end = name.find('/', end + 1);
    if (H5Lexists(file, name.substr(0, end).c_str(), H5P_DEFAULT) <= 0) return false;
  }
  return H5Oexists_by_name(file, name.c_str(), H5P_DEFAULT) > 0;
}

Shape shape_of(hid_t space) {
  const int rank = H5Sget_simple_extent_ndims(space);
  std::vector<hsize_t> extent(static_cast<std::size_t>(std::max(rank, 0)));
  if (rank > 0) H5Sget_simple_extent_dims(space, extent.data(), nullptr);
  return Shape(extent.begin(), extent.end());
}

std::string print(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Index count_of(const Shape& shape) {
  Index count = 1;
  for (const Index extent : shape) count *= extent;
  return count;
}

}  // namespace ruq::hdf5
