#include "ruquant/io/safetensors_header.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "ruquant/base/error.hpp"

namespace ruq::safetensors {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t kPrefix = 8;
constexpr std::uint64_t kLongestHeader = 100'000'000;  // the limit of the reference reader

/// Bytes of one element; 0 for a type that this program does not know.
std::uint64_t element_size(std::string_view type) {
  static constexpr std::array<std::pair<std::string_view, std::uint64_t>, 15> kSizes = {
      {{"F64", 8},
       {"F32", 4},
       {"F16", 2},
       {"BF16", 2},
       {"I64", 8},
       {"U64", 8},
       {"I32", 4},
       {"U32", 4},
       {"I16", 2},
       {"U16", 2},
       {"I8", 1},
       {"U8", 1},
       {"BOOL", 1},
       {"F8_E4M3", 1},
       {"F8_E5M2", 1}}};
  for (const auto& [name, size] : kSizes) {
    if (name == type) return size;
  }
  return 0;
}

Json parse_json(std::string_view text, const std::string& what) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    fail("{} is not valid JSON: {}", what, error.what());
  }
}

std::vector<std::uint64_t> whole_numbers(const Json& description, const char* key) {
  const auto found = description.find(key);
  const bool usable = found != description.end() && found->is_array() &&
                      std::all_of(found->begin(), found->end(),
                                  [](const Json& value) { return value.is_number_unsigned(); });
  if (!usable) {
    fail("{}: found {}, expected a list of whole numbers", key,
         found == description.end() ? "nothing" : found->dump());
  }
  return found->get<std::vector<std::uint64_t>>();
}

Entry parse_entry(const Json& description, std::uint64_t data_size) {
  if (!description.is_object() || !description.contains("dtype") ||
      !description["dtype"].is_string()) {
    fail("found {}, expected an object with dtype, shape and data_offsets", description.dump());
  }
  Entry entry;
  entry.type = description["dtype"].get<std::string>();
  std::uint64_t count = 1;
  for (const std::uint64_t extent : whole_numbers(description, "shape")) {
    constexpr std::uint64_t kMost = std::uint64_t{1} << 48;
    if (extent > kMost || (extent > 0 && count > kMost / extent)) {
      fail("shape {} is impossibly large", description["shape"].dump());
    }
    count *= extent;
    entry.shape.push_back(static_cast<Index>(extent));
  }
  const std::vector<std::uint64_t> range = whole_numbers(description, "data_offsets");
  if (range.size() != 2 || range[0] > range[1]) {
    fail("data_offsets: found {}, expected [begin, end]", description["data_offsets"].dump());
  }
  entry.begin = range[0];
  entry.end = range[1];
  if (entry.end > data_size) {
    fail("its data end at byte {} but the file holds {} bytes of data (truncated?)", entry.end,
         data_size);
  }
  const std::uint64_t size = element_size(entry.type);
  if (size > 0 && entry.end - entry.begin != count * size) {
    fail("found {} bytes, expected {} for {} of shape {}", entry.end - entry.begin, count * size,
         entry.type, print(entry.shape));
  }
  return entry;
}

void check_coverage(const Entries& entries, std::uint64_t data_size) {
  std::vector<std::pair<const std::string*, const Entry*>> order;
  for (const auto& [name, entry] : entries) order.emplace_back(&name, &entry);
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  std::uint64_t covered = 0;
  for (const auto& [name, entry] : order) {
    if (entry->begin != covered) {
      fail("tensor '{}' begins at byte {}, expected {} ({})", *name, entry->begin, covered,
           entry->begin < covered ? "it overlaps the one before" : "there is a hole");
    }
    covered = entry->end;
  }
  if (covered != data_size) {
    fail("found {} bytes of data, expected {} by the header", data_size, covered);
  }
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) fail("{}: cannot be read", path.string());
  return text;
}

}  // namespace

MappedFile::MappedFile(fs::path path) : path_(std::move(path)) {
  const int descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail("{}: cannot be opened: {}", path_.string(), std::strerror(errno));
  struct stat status = {};
  const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
  if (size_ > 0) data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
  const int error = errno;
  ::close(descriptor);
  if (!regular) fail("{}: not a file", path_.string());
  if (data_ == MAP_FAILED) fail("{}: cannot be mapped: {}", path_.string(), std::strerror(error));
}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(data_, size_);
}

std::string print(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Entries parse_header(const MappedFile& file) {
  const std::span<const std::byte> bytes = file.bytes();
  if (bytes.size() < kPrefix) {
    fail("found {} bytes, expected at least {} (truncated?)", bytes.size(), kPrefix);
  }
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kPrefix);
  if (length > kLongestHeader) fail("found a header of {} bytes: not a safetensors file", length);
  if (length > bytes.size() - kPrefix) {
    fail("found {} bytes, expected at least {} for the header (truncated?)", bytes.size(),
         length + kPrefix);
  }
  const char* text = reinterpret_cast<const char*>(bytes.data() + kPrefix);
  const Json header = parse_json({text, static_cast<std::size_t>(length)}, "the header");
  if (!header.is_object()) fail("the header is no JSON object");
  const std::byte* data = bytes.data() + kPrefix + length;
  const std::uint64_t data_size = bytes.size() - kPrefix - length;
  Entries entries;
  for (const auto& [name, description] : header.items()) {
    if (name == "__metadata__") continue;
    Entry entry = with_context(fmt::format("tensor '{}'", name),
                               [&] { return parse_entry(description, data_size); });
    entry.file = &file;
    entry.data = data + entry.begin;
    entries.emplace(name, std::move(entry));
  }
  check_coverage(entries, data_size);
  return entries;
}

std::map<std::string, std::string> read_index(const fs::path& path) {
  return with_context(path.string(), [&] {
    const Json index = parse_json(read_text(path), "the index");
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object() ||
        index["weight_map"].empty()) {
      fail("found no weight_map, expected an object from tensor to file names");
    }
    std::map<std::string, std::string> shard_of;
    for (const auto& [tensor, shard] : index["weight_map"].items()) {
      const std::string name = shard.is_string() ? shard.get<std::string>() : std::string();
      if (name.empty() || fs::path(name).filename() != name) {
        fail("weight_map: '{}': found {}, expected the name of a file beside the index", tensor,
             shard.dump());
      }
      shard_of.emplace(tensor, name);
    }
    return shard_of;
  });
}

}  // namespace ruq::safetensors
