#include "ruquant/io/tensor_store.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <system_error>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/io/hdf5_handle.hpp"

namespace ruq {

namespace fs = std::filesystem;
using namespace hdf5;

struct TensorWriter::Impl {
  fs::path path;
  fs::path unfinished;
  Handle file;
  Handle intermediate;  ///< link property: make the groups on the way

  [[noreturn]] void refuse(const std::string& what) const {
    fail("{}: {}: {}", path.string(), what, library_reason());
  }

  template <class T>
  void write(const std::string& name, const T* data, const Shape& shape);
  Handle open_or_make(const std::string& object);
  void attribute(const std::string& object, const std::string& name, hid_t stored, hid_t memory,
                 const void* value);
};

TensorWriter::TensorWriter(fs::path path) : impl_(std::make_unique<Impl>()) {
  prepare_library();
  impl_->unfinished = path;
  impl_->unfinished += ".tmp-" + process_name();
  impl_->path = std::move(path);
  impl_->file = Handle(
      H5Fcreate(impl_->unfinished.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  if (!impl_->file) impl_->refuse("cannot create the file");
  impl_->intermediate = list_handle(H5Pcreate(H5P_LINK_CREATE));
  H5Pset_create_intermediate_group(impl_->intermediate.get(), 1);
}

TensorWriter::~TensorWriter() {
  if (!impl_ || impl_->unfinished.empty()) return;
  impl_->file.close();
  std::error_code ignored;
  fs::remove(impl_->unfinished, ignored);
}

template <class T>
void TensorWriter::Impl::write(const std::string& name, const T* data, const Shape& shape) {
  RUQ_CHECK(file, "'{}' written after commit", name);
  if (is_root(name)) fail("{}: a dataset needs a name", path.string());
  if (object_exists(file.get(), name)) fail("{}: '{}' is written twice", path.string(), name);
  const std::vector<hsize_t> extent(shape.begin(), shape.end());
  const Handle space = space_handle(
      extent.empty() ? H5Screate(H5S_SCALAR)
                     : H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr));
  // Times of writing would make two files of the same content differ.
  const Handle creation = list_handle(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_obj_track_times(creation.get(), false);
  const Handle dataset =
      dataset_handle(H5Dcreate2(file.get(), name.c_str(), file_type<T>(), space.get(),
                                intermediate.get(), creation.get(), H5P_DEFAULT));
  if (!dataset) refuse(fmt::format("cannot make dataset '{}' {}", name, print(shape)));
  if (count_of(shape) == 0) return;
  if (H5Dwrite(dataset.get(), memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
    refuse(fmt::format("cannot write dataset '{}' {}", name, print(shape)));
  }
}

template <class T>
void TensorWriter::write(const std::string& name, const T* data, const Shape& shape) {
  impl_->write(name, data, shape);
}

void TensorWriter::write(const std::string& name, const std::vector<Index>& values) {
  static_assert(std::is_same_v<Index, std::int64_t>);
  impl_->write<std::int64_t>(name, values.data(), {std::ssize(values)});
}

Handle TensorWriter::Impl::open_or_make(const std::string& object) {
  RUQ_CHECK(file, "attribute of '{}' set after commit", object);
  const std::string name = is_root(object) ? "/" : object;
  Handle opened = object_handle(
      object_exists(file.get(), name)
          ? H5Oopen(file.get(), name.c_str(), H5P_DEFAULT)
          : H5Gcreate2(file.get(), name.c_str(), intermediate.get(), H5P_DEFAULT, H5P_DEFAULT));
  if (!opened) refuse(fmt::format("cannot make group '{}'", name));
  return opened;
}

void TensorWriter::Impl::attribute(const std::string& object, const std::string& name, hid_t stored,
                                   hid_t memory, const void* value) {
  const Handle owner = open_or_make(object);
  if (H5Aexists(owner.get(), name.c_str()) > 0) H5Adelete(owner.get(), name.c_str());
  const Handle space = space_handle(H5Screate(H5S_SCALAR));
  const Handle made = attribute_handle(
      H5Acreate2(owner.get(), name.c_str(), stored, space.get(), H5P_DEFAULT, H5P_DEFAULT));
  if (!made || H5Awrite(made.get(), memory, value) < 0) {
    refuse(fmt::format("cannot write attribute '{}' of '{}'", name, object));
  }
}

void TensorWriter::attribute(const std::string& object, const std::string& name,
                             std::int64_t value) {
  impl_->attribute(object, name, file_type<std::int64_t>(), memory_type<std::int64_t>(), &value);
}

void TensorWriter::attribute(const std::string& object, const std::string& name, double value) {
  impl_->attribute(object, name, file_type<double>(), memory_type<double>(), &value);
}

// Variable length: it has no limit of 64 KiB and may be empty, and h5py reads it as str.
void TensorWriter::attribute(const std::string& object, const std::string& name,
                             const std::string& value) {
  if (value.find('\0') != std::string::npos) {
    fail("{}: attribute '{}' of '{}' holds a NUL character", impl_->path.string(), name, object);
  }
  const Handle type = type_handle(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.get(), H5T_VARIABLE);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  const char* text = value.c_str();
  impl_->attribute(object, name, type.get(), type.get(), &text);
}

void TensorWriter::commit() {
  RUQ_CHECK(impl_->file, "committed twice");
  const bool flushed = H5Fflush(impl_->file.get(), H5F_SCOPE_GLOBAL) >= 0;
  if (!flushed || !impl_->file.close()) impl_->refuse("cannot finish the file");
  std::error_code error;
  fs::rename(impl_->unfinished, impl_->path, error);
  if (error) fail("{}: cannot be put in place: {}", impl_->path.string(), error.message());
  impl_->unfinished.clear();
}

struct TensorReader::Impl {
  fs::path path;
  Handle file;

  Handle dataset(const std::string& name) const;
  Shape shape(hid_t dataset) const;
  template <class T>
  void read(hid_t dataset, const std::string& name, T* out, Index count) const;
  Handle attribute(const std::string& object, const std::string& name) const;
  template <class T>
  T number(const std::string& object, const std::string& name) const;
};

TensorReader::TensorReader(fs::path path) : impl_(std::make_unique<Impl>()) {
  prepare_library();
  impl_->path = std::move(path);
  const std::string where = impl_->path.string();
  std::error_code error;
  if (!fs::exists(impl_->path, error)) fail("{}: no such file", where);
  if (!fs::is_regular_file(impl_->path, error)) fail("{}: not a file", where);
  // No lock: a file under its own name is never written again, and some network disks have none.
  const Handle access = list_handle(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_file_locking(access.get(), false, true);
  impl_->file = Handle(H5Fopen(where.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (impl_->file) return;
  const std::string reason = library_reason();
  if (H5Fis_hdf5(where.c_str()) == 0) fail("{}: not an HDF5 file", where);
  fail("{}: truncated, damaged or unreadable HDF5 file: {}", where, reason);
}

TensorReader::~TensorReader() = default;
TensorReader::TensorReader(TensorReader&&) noexcept = default;
TensorReader& TensorReader::operator=(TensorReader&&) noexcept = default;

const fs::path& TensorReader::path() const { return impl_->path; }

bool TensorReader::has(const std::string& name) const {
  return object_exists(impl_->file.get(), name);
}

Handle TensorReader::Impl::dataset(const std::string& name) const {
  if (is_root(name) || !object_exists(file.get(), name)) {
    fail("{}: no dataset '{}'", path.string(), name);
  }
  Handle opened = dataset_handle(H5Dopen2(file.get(), name.c_str(), H5P_DEFAULT));
  if (!opened) {
    fail("{}: '{}' is not a readable dataset: {}", path.string(), name, library_reason());
  }
  return opened;
}

Shape TensorReader::Impl::shape(hid_t dataset) const {
  return shape_of(space_handle(H5Dget_space(dataset)).get());
}

template <class T>
void TensorReader::Impl::read(hid_t dataset, const std::string& name, T* out, Index count) const {
  const H5T_class_t stored = H5Tget_class(type_handle(H5Dget_type(dataset)).get());
  constexpr bool to_integer = std::is_integral_v<T>;
  if (stored != H5T_INTEGER && (to_integer || stored != H5T_FLOAT)) {
    fail("{}: dataset '{}' holds {}, expected {}", path.string(), name, class_name(stored),
         to_integer ? "integers" : "numbers");
  }
  if (count == 0) return;
  if (H5Dread(dataset, memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0) {
    fail("{}: cannot read dataset '{}': {}", path.string(), name, library_reason());
  }
}

Shape TensorReader::shape(const std::string& name) const {
  return impl_->shape(impl_->dataset(name).get());
}

std::vector<std::string> TensorReader::children(const std::string& group) const {
  const std::string name = is_root(group) ? "/" : group;
  const Handle opened(object_exists(impl_->file.get(), name)
                          ? H5Gopen2(impl_->file.get(), name.c_str(), H5P_DEFAULT)
                          : -1,
                      H5Gclose);
  if (!opened) fail("{}: no group '{}'", impl_->path.string(), name);
  std::vector<std::string> names;
  const auto visit = [](hid_t, const char* child, const H5L_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(child);
    return 0;
  };
  hsize_t start = 0;
  if (H5Literate(opened.get(), H5_INDEX_NAME, H5_ITER_NATIVE, &start, visit, &names) < 0) {
    fail("{}: cannot list group '{}': {}", impl_->path.string(), name, library_reason());
  }
  std::sort(names.begin(), names.end());
  return names;
}

template <class S>
Matrix<S> TensorReader::matrix(const std::string& name) const {
  const Handle dataset = impl_->dataset(name);
  const Shape shape = impl_->shape(dataset.get());
  if (shape.size() != 2) {
    fail("{}: dataset '{}' has shape {}, expected two dimensions", impl_->path.string(), name,
         print(shape));
  }
  Matrix<S> values(shape[0], shape[1]);
  impl_->read(dataset.get(), name, values.data(), values.size());
  return values;
}

template <class S>
Vector<S> TensorReader::vector(const std::string& name) const {
  const Handle dataset = impl_->dataset(name);
  Vector<S> values(count_of(impl_->shape(dataset.get())));
  impl_->read(dataset.get(), name, values.data(), values.size());
  return values;
}

std::vector<Index> TensorReader::integers(const std::string& name) const {
  const Handle dataset = impl_->dataset(name);
  std::vector<std::int64_t> values(static_cast<std::size_t>(count_of(impl_->shape(dataset.get()))));
  impl_->read(dataset.get(), name, values.data(), std::ssize(values));
  return values;
}

bool TensorReader::has_attribute(const std::string& object, const std::string& name) const {
  if (!has(object)) return false;
  const std::string owner = is_root(object) ? "/" : object;
  return H5Aexists_by_name(impl_->file.get(), owner.c_str(), name.c_str(), H5P_DEFAULT) > 0;
}

Handle TensorReader::Impl::attribute(const std::string& object, const std::string& name) const {
  const std::string owner = is_root(object) ? "/" : object;
  if (!object_exists(file.get(), owner)) {
    fail("{}: no group or dataset '{}' (wanted for its attribute '{}')", path.string(), owner,
         name);
  }
  Handle opened = attribute_handle(
      H5Aopen_by_name(file.get(), owner.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT));
  if (!opened) fail("{}: '{}' has no attribute '{}'", path.string(), owner, name);
  const Shape shape = shape_of(space_handle(H5Aget_space(opened.get())).get());
  if (count_of(shape) != 1) {
    fail("{}: attribute '{}' of '{}' has shape {}, expected one value", path.string(), name, owner,
         print(shape));
  }
  return opened;
}

template <class T>
T TensorReader::Impl::number(const std::string& object, const std::string& name) const {
  const Handle opened = attribute(object, name);
  const H5T_class_t stored = H5Tget_class(type_handle(H5Aget_type(opened.get())).get());
  constexpr bool to_integer = std::is_integral_v<T>;
  if (stored != H5T_INTEGER && (to_integer || stored != H5T_FLOAT)) {
    fail("{}: attribute '{}' of '{}' holds {}, expected {}", path.string(), name,
         is_root(object) ? "/" : object, class_name(stored),
         to_integer ? "an integer" : "a number");
  }
  T value = 0;
  if (H5Aread(opened.get(), memory_type<T>(), &value) < 0) {
    fail("{}: cannot read attribute '{}' of '{}': {}", path.string(), name, object,
         library_reason());
  }
  return value;
}

std::int64_t TensorReader::integer_attribute(const std::string& object,
                                             const std::string& name) const {
  return impl_->number<std::int64_t>(object, name);
}

double TensorReader::real_attribute(const std::string& object, const std::string& name) const {
  return impl_->number<double>(object, name);
}

// Text comes as variable length (h5py's str) or as fixed length, padded (numpy's bytes). It is
// read in its own stored type: HDF5 refuses to convert between ASCII and UTF-8.
std::string TensorReader::text_attribute(const std::string& object, const std::string& name) const {
  const Handle opened = impl_->attribute(object, name);
  const Handle type = type_handle(H5Aget_type(opened.get()));
  if (H5Tget_class(type.get()) != H5T_STRING) {
    fail("{}: attribute '{}' of '{}' holds {}, expected text", impl_->path.string(), name,
         is_root(object) ? "/" : object, class_name(H5Tget_class(type.get())));
  }
  std::string text;
  herr_t status = 0;
  if (H5Tis_variable_str(type.get()) > 0) {
    char* stored = nullptr;
    status = H5Aread(opened.get(), type.get(), &stored);
    if (stored != nullptr) text = stored;
    H5free_memory(stored);
  } else {
    text.resize(H5Tget_size(type.get()));
    status = H5Aread(opened.get(), type.get(), text.data());
    const bool space_padded = H5Tget_strpad(type.get()) == H5T_STR_SPACEPAD;
    text.erase(space_padded ? text.find_last_not_of(' ') + 1 : ::strnlen(text.data(), text.size()));
  }
  if (status < 0) {
    fail("{}: cannot read attribute '{}' of '{}': {}", impl_->path.string(), name, object,
         library_reason());
  }
  return text;
}

template void TensorWriter::write(const std::string&, const float*, const Shape&);
template void TensorWriter::write(const std::string&, const double*, const Shape&);
template void TensorWriter::write(const std::string&, const std::int32_t*, const Shape&);
template void TensorWriter::write(const std::string&, const std::int64_t*, const Shape&);
template Matrix<float> TensorReader::matrix(const std::string&) const;
template Matrix<double> TensorReader::matrix(const std::string&) const;
template Vector<float> TensorReader::vector(const std::string&) const;
template Vector<double> TensorReader::vector(const std::string&) const;

}  // namespace ruq
