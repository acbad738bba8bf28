#include "ruquant/io/safetensors.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/io/safetensors_header.hpp"

namespace ruq {

namespace fs = std::filesystem;
using namespace safetensors;

namespace {

static_assert(std::endian::native == std::endian::little, "tensor data is used as it lies on disk");

constexpr Index kConvertGrain = Index{1} << 16;
constexpr std::size_t kDigestChunk = std::size_t{1} << 20;

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);  // data need not be aligned
  return value;
}

struct StoredF64 {
  static constexpr Index kSize = 8;
  static double read(const std::byte* from) { return load<double>(from); }
};
struct StoredF32 {
  static constexpr Index kSize = 4;
  static float read(const std::byte* from) { return load<float>(from); }
};
struct StoredF16 {
  static constexpr Index kSize = 2;
  static float read(const std::byte* from) {
    return static_cast<float>(Eigen::numext::bit_cast<Eigen::half>(load<std::uint16_t>(from)));
  }
};
struct StoredBF16 {
  static constexpr Index kSize = 2;
  static float read(const std::byte* from) {
    return std::bit_cast<float>(std::uint32_t{load<std::uint16_t>(from)} << 16U);
  }
};

/// Converts `count` numbers. Returns the index of the first NaN or infinity, or `count`.
template <class Stored, class S>
Index convert(const std::byte* from, S* to, Index count) {
  std::vector<Index> first_bad(static_cast<std::size_t>(count / kConvertGrain + 1), count);
  parallel_rows(count, kConvertGrain, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      to[i] = static_cast<S>(Stored::read(from + i * Stored::kSize));
    }
    if (Eigen::Map<const Vector<S>>(to + begin, end - begin).allFinite()) return;
    const S* bad = std::find_if(to + begin, to + end, [](S x) { return !std::isfinite(x); });
    first_bad[static_cast<std::size_t>(begin / kConvertGrain)] = bad - to;
  });
  return *std::min_element(first_bad.begin(), first_bad.end());
}

template <class S>
Index convert(const Entry& entry, S* to) {
  if (entry.type == "F32") return convert<StoredF32>(entry.data, to, entry.count());
  if (entry.type == "BF16") return convert<StoredBF16>(entry.data, to, entry.count());
  if (entry.type == "F16") return convert<StoredF16>(entry.data, to, entry.count());
  if (entry.type == "F64") return convert<StoredF64>(entry.data, to, entry.count());
  fail("found type {}, expected F32, F16, BF16 or F64", entry.type);
}

/// One step of a lane. The rotation carries high bits back down: under multiplication alone a
/// flipped sign would touch the top bit only, and two flips would cancel.
std::uint64_t mix(std::uint64_t lane, std::uint64_t word) {
  return std::rotl((lane ^ word) * 0x9e3779b97f4a7c15ULL, 29);
}

std::uint64_t hash_chunk(std::span<const std::byte> bytes) {
  std::array<std::uint64_t, 4> lanes = {1, 2, 3, 4};
  std::size_t i = 0;
  for (; i + 32 <= bytes.size(); i += 32) {
    for (std::size_t k = 0; k < 4; ++k) {
      lanes[k] = mix(lanes[k], load<std::uint64_t>(bytes.data() + i + 8 * k));
    }
  }
  std::uint64_t hash = hash_bytes(bytes.data() + i, bytes.size() - i);
  for (const std::uint64_t lane : lanes) hash = mix(hash, lane);
  return mix(hash, bytes.size());
}

/// Chunks are hashed in any order and combined in theirs.
std::uint64_t hash_file(std::span<const std::byte> bytes, std::uint64_t start) {
  std::vector<std::uint64_t> chunks((bytes.size() + kDigestChunk - 1) / kDigestChunk);
  parallel_for(std::ssize(chunks), [&](Index index) {
    const std::size_t i = static_cast<std::size_t>(index);
    const std::size_t begin = i * kDigestChunk;
    chunks[i] = hash_chunk(bytes.subspan(begin, std::min(kDigestChunk, bytes.size() - begin)));
  });
  return hash_bytes(chunks.data(), chunks.size() * sizeof(std::uint64_t), start);
}

}  // namespace

struct Safetensors::Impl {
  fs::path directory;
  std::vector<std::unique_ptr<MappedFile>> files;  ///< sorted by name
  Entries entries;

  void open(const fs::path& path);
  void open_shards(const fs::path& index);
  const Entry& find(const std::string& name) const;
  /// Error unless the tensor has this shape: asked before room is made for it.
  void check_shape(const std::string& name, const Shape& expected) const;
  template <class S>
  void read(const std::string& name, const Shape& expected, S* out) const;
};

void Safetensors::Impl::open(const fs::path& path) {
  files.push_back(std::make_unique<MappedFile>(path));
  const MappedFile& file = *files.back();
  with_context(path.string(), [&] {
    for (auto& [name, entry] : parse_header(file)) {
      const auto [twin, added] = entries.emplace(name, entry);
      if (!added) {
        fail("tensor '{}' is also in {}", name, twin->second.file->path().filename().string());
      }
    }
  });
}

void Safetensors::Impl::open_shards(const fs::path& index) {
  const std::map<std::string, std::string> shard_of = read_index(index);
  std::vector<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.push_back(shard);
  std::sort(shards.begin(), shards.end());
  shards.erase(std::unique(shards.begin(), shards.end()), shards.end());
  for (const std::string& shard : shards) {
    if (!fs::exists(directory / shard)) {
      fail("{}: no such file, named by {}", (directory / shard).string(),
           index.filename().string());
    }
    open(directory / shard);
  }
  for (const auto& [tensor, shard] : shard_of) {
    const auto found = entries.find(tensor);
    if (found == entries.end() || found->second.file->path().filename() != shard) {
      fail("{}: tensor '{}' is not in {} as the index says", index.string(), tensor, shard);
    }
  }
}

const Entry& Safetensors::Impl::find(const std::string& name) const {
  const auto found = entries.find(name);
  if (found == entries.end()) {
    fail("{}: no tensor '{}' among the {} found", directory.string(), name, entries.size());
  }
  return found->second;
}

void Safetensors::Impl::check_shape(const std::string& name, const Shape& expected) const {
  const Entry& entry = find(name);
  if (entry.shape == expected) return;
  fail("{}: tensor '{}': found shape {}, expected {}", entry.file->path().string(), name,
       print(entry.shape), print(expected));
}

template <class S>
void Safetensors::Impl::read(const std::string& name, const Shape& expected, S* out) const {
  const Entry& entry = find(name);
  with_context(fmt::format("{}: tensor '{}'", entry.file->path().string(), name), [&] {
    const Index bad = convert(entry, out);
    if (bad == entry.count()) return;
    const std::string place = expected.size() == 1
                                  ? fmt::format("[{}]", bad)
                                  : fmt::format("[{}, {}]", bad / expected[1], bad % expected[1]);
    fail("found {} at {}, expected finite numbers", out[bad], place);
  });
}

Safetensors::Safetensors(const fs::path& directory) : impl_(std::make_unique<Impl>()) {
  impl_->directory = directory;
  const fs::path whole = directory / "model.safetensors";
  const fs::path index = directory / "model.safetensors.index.json";
  if (fs::exists(whole)) {
    impl_->open(whole);
  } else if (fs::exists(index)) {
    impl_->open_shards(index);
  } else {
    fail("{}: found neither model.safetensors nor model.safetensors.index.json",
         directory.string());
  }
}

Safetensors::~Safetensors() = default;
Safetensors::Safetensors(Safetensors&&) noexcept = default;

bool Safetensors::has(const std::string& name) const { return impl_->entries.contains(name); }

std::vector<std::string> Safetensors::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : impl_->entries) names.push_back(name);
  return names;
}

Shape Safetensors::shape(const std::string& name) const { return impl_->find(name).shape; }

template <class S>
Matrix<S> Safetensors::matrix(const std::string& name, Index rows, Index cols) const {
  impl_->check_shape(name, {rows, cols});
  Matrix<S> values(rows, cols);
  impl_->read(name, {rows, cols}, values.data());
  return values;
}

template <class S>
Vector<S> Safetensors::vector(const std::string& name, Index size) const {
  impl_->check_shape(name, {size});
  Vector<S> values(size);
  impl_->read(name, {size}, values.data());
  return values;
}

std::string Safetensors::digest() const {
  std::uint64_t hash = hash_text("safetensors");
  for (const auto& file : impl_->files) {
    const std::uint64_t size = file->bytes().size();
    hash = hash_file(file->bytes(), hash_bytes(&size, sizeof size, hash));
  }
  return fmt::format("{:016x}", hash);
}

namespace {

struct Source {
  Shape shape;
  std::span<const std::byte> bytes;
};

/// Removes the unfinished file unless it was renamed.
struct Unfinished {
  fs::path path;
  ~Unfinished() {
    std::error_code ignored;
    if (!path.empty()) fs::remove(path, ignored);
  }
};

std::string make_header(const std::map<std::string, Source>& sources) {
  // Readers in Python refuse a file that does not say which library its layout is for.
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::uint64_t offset = 0;
  for (const auto& [name, source] : sources) {
    const std::uint64_t end = offset + source.bytes.size();
    header[name] = {{"dtype", "F32"}, {"shape", source.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // keeps the data aligned
  return text;
}

}  // namespace

void write_safetensors(const fs::path& file, const std::map<std::string, Matrix<float>>& matrices,
                       const std::map<std::string, Vector<float>>& vectors) {
  std::map<std::string, Source> sources;
  for (const auto& [name, matrix] : matrices) {
    sources[name] = {
        {matrix.rows(), matrix.cols()},
        std::as_bytes(std::span(matrix.data(), static_cast<std::size_t>(matrix.size())))};
  }
  for (const auto& [name, vector] : vectors) {
    const std::span values(vector.data(), static_cast<std::size_t>(vector.size()));
    if (!sources.emplace(name, Source{{vector.size()}, std::as_bytes(values)}).second) {
      fail("{}: tensor '{}' is given twice", file.string(), name);
    }
  }
  const std::string header = make_header(sources);
  const std::uint64_t length = header.size();
  Unfinished unfinished{file};
  unfinished.path += fmt::format(".tmp-{}", ::getpid());
  std::ofstream out(unfinished.path, std::ios::binary);
  if (!out) fail("{}: cannot be created: {}", file.string(), std::strerror(errno));
  out.write(reinterpret_cast<const char*>(&length), sizeof length);
  out << header;
  for (const auto& [name, source] : sources) {
    out.write(reinterpret_cast<const char*>(source.bytes.data()),
              static_cast<std::streamsize>(source.bytes.size()));
  }
  out.close();
  if (!out) fail("{}: cannot be written: {}", file.string(), std::strerror(errno));
  std::error_code error;
  fs::rename(unfinished.path, file, error);
  if (error) fail("{}: cannot be put in place: {}", file.string(), error.message());
  unfinished.path.clear();
}

template Matrix<float> Safetensors::matrix(const std::string&, Index, Index) const;
template Matrix<double> Safetensors::matrix(const std::string&, Index, Index) const;
template Vector<float> Safetensors::vector(const std::string&, Index) const;
template Vector<double> Safetensors::vector(const std::string&, Index) const;

}  // namespace ruq
