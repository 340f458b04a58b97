// safetensors files: written whole or not at all, and read with every number of the header distrusted.
#include "host/base/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "data/error.h"
#include "data/safe_file.h"
#include "data/text.h"
#include "host/base/strict_json.h"

namespace ccdrec {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the reference reader: a longer one would load nowhere else

// Bytes of one element, 0 for a name the format does not have.
size_t dtype_bytes(const std::string& dtype) {
  static const std::map<std::string, size_t> known = {{"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"I16", 2}, {"U16", 2},
                                                      {"F16", 2},  {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},
                                                      {"I64", 8},  {"U64", 8},  {"F64", 8}};
  const auto it = known.find(dtype);
  return it == known.end() ? 0 : it->second;
}

struct File {
  int fd = -1;
  explicit File(int fd_) : fd(fd_) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd >= 0) ::close(fd);
  }
};

void read_all(int fd, void* data, size_t n, uint64_t offset, const std::string& path) {
  char* p = static_cast<char*>(data);
  while (n > 0) {
    const ssize_t r = ::pread(fd, p, std::min<size_t>(n, size_t(1) << 30), off_t(offset));
    if (r < 0 && errno == EINTR) continue;
    if (r < 0) throw UserError(fmt::format("{}: cannot be read ({})", path, std::strerror(errno)));
    if (r == 0) throw UserError(fmt::format("{}: ended while it was read; another program is changing it", path));
    p += r, offset += uint64_t(r), n -= size_t(r);
  }
}

[[noreturn]] void bad(const std::string& path, const std::string& what) {
  throw UserError(fmt::format("{}: not a usable safetensors file: {}; have it written again", path, what));
}

nlohmann::json parse_header(const std::string& text, const std::string& path) {
  bool repeated = false;
  nlohmann::json header = parse_strict(text, repeated);
  if (header.is_discarded()) bad(path, "its header is not valid JSON");
  if (repeated) bad(path, "its header names a tensor twice");
  if (!header.is_object()) bad(path, "its header is not a JSON object");
  return header;
}

struct Extent {
  uint64_t begin, end;
  std::string name;
};

// One header entry, checked against the data section of `data_bytes`.
Extent check_entry(const std::string& name, const nlohmann::json& entry, uint64_t data_bytes, TensorData& out,
                   const std::string& path) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets"))
    bad(path, fmt::format("tensor '{}' lacks dtype, shape or data_offsets", shown(name)));
  const auto &dtype = entry["dtype"], &shape = entry["shape"], &offsets = entry["data_offsets"];
  if (!dtype.is_string() || dtype_bytes(dtype.get<std::string>()) == 0)
    bad(path, fmt::format("tensor '{}' has an unknown dtype", shown(name)));
  out.dtype = dtype.get<std::string>();
  if (!shape.is_array()) bad(path, fmt::format("the shape of tensor '{}' is not a list", shown(name)));
  uint64_t bytes = dtype_bytes(out.dtype);
  bool empty = false, overflow = false;
  for (const auto& n : shape) {
    if (!n.is_number_unsigned() || n.get<uint64_t>() > uint64_t(INT64_MAX))
      bad(path, fmt::format("the shape of tensor '{}' holds something other than sizes", shown(name)));
    const uint64_t size = n.get<uint64_t>();
    out.shape.push_back(int64_t(size));
    if (size == 0)
      empty = true;
    else
      overflow |= __builtin_mul_overflow(bytes, size, &bytes);
  }
  if (empty)
    bytes = 0;
  else if (overflow)
    bad(path, fmt::format("the shape of tensor '{}' overflows", shown(name)));
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    bad(path, fmt::format("the data_offsets of tensor '{}' are not two positions", shown(name)));
  Extent e{offsets[0].get<uint64_t>(), offsets[1].get<uint64_t>(), name};
  if (e.begin > e.end || e.end > data_bytes)
    bad(path, fmt::format("tensor '{}' lies at {}..{} but the file holds {} bytes of data (truncated?)", shown(name),
                          e.begin, e.end, data_bytes));
  if (e.end - e.begin != bytes)
    bad(path, fmt::format("tensor '{}' has {} bytes where its shape needs {}", shown(name), e.end - e.begin, bytes));
  return e;
}

}  // namespace

size_t TensorView::bytes() const {
  size_t n = dtype_bytes(dtype);
  for (const int64_t s : shape) n *= size_t(s);
  return n;
}

void write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  // Wide elements first, so that every tensor is aligned to its element: readers may map the file and use it in place.
  std::vector<const TensorView*> order;
  for (const TensorView& t : tensors) order.push_back(&t);
  std::stable_sort(order.begin(), order.end(),
                   [](auto* a, auto* b) { return dtype_bytes(a->dtype) > dtype_bytes(b->dtype); });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const TensorView* t : order) {
    if (dtype_bytes(t->dtype) == 0)
      throw std::logic_error("write_safetensors: unknown dtype " + t->dtype + " of " + t->name);
    if (t->name == "__metadata__" || header.contains(t->name))
      throw std::logic_error("write_safetensors: tensor name used twice or reserved: " + t->name);
    header[t->name] = {{"dtype", t->dtype}, {"shape", t->shape}, {"data_offsets", {at, at + t->bytes()}}};
    at += t->bytes();
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data start 8-byte aligned
  const uint64_t total = 8 + text.size() + at;

  const std::filesystem::path folder =
      std::filesystem::path(path).has_parent_path() ? std::filesystem::path(path).parent_path() : ".";
  struct statvfs disk;
  if (::statvfs(folder.c_str(), &disk) != 0)
    throw UserError(fmt::format("{}: its folder cannot be used ({})", path, std::strerror(errno)));
  if (uint64_t(disk.f_bavail) * disk.f_frsize < total)
    throw UserError(
        fmt::format("{}: needs {:.1f} MB and the disk has {:.1f} MB left; free some space or choose another place",
                    path, double(total) / 1e6, double(disk.f_bavail) * double(disk.f_frsize) / 1e6));

  SafeFile file(path);
  unsigned char length[8];
  for (int b = 0; b < 8; ++b) length[b] = static_cast<unsigned char>(uint64_t(text.size()) >> (8 * b));
  file.write(length, 8);
  file.write(text);
  for (const TensorView* t : order) file.write(t->data, t->bytes());
  file.commit();
}

TensorFile read_safetensors(const std::string& path, const std::vector<std::string>* names) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd < 0) throw UserError(fmt::format("{}: cannot be opened ({})", path, std::strerror(errno)));
  struct stat info;
  if (::fstat(file.fd, &info) != 0 || !S_ISREG(info.st_mode)) bad(path, "it is not a regular file");
  const uint64_t size = uint64_t(info.st_size);
  if (size < 8) bad(path, fmt::format("{} bytes are too few for a header", size));
  unsigned char length[8];
  read_all(file.fd, length, 8, 0, path);
  uint64_t header_bytes = 0;
  for (int b = 0; b < 8; ++b) header_bytes |= uint64_t(length[b]) << (8 * b);
  if (header_bytes > size - 8 || header_bytes > kMaxHeader)
    bad(path, fmt::format("it announces a header of {} bytes in a file of {} (truncated, or another format)",
                          header_bytes, size));
  std::string text(header_bytes, '\0');
  read_all(file.fd, text.data(), header_bytes, 8, path);
  const nlohmann::json header = parse_header(text, path);
  const uint64_t data_start = 8 + header_bytes, data_bytes = size - data_start;

  TensorFile out;
  std::vector<Extent> extents;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) bad(path, "its __metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) bad(path, fmt::format("its __metadata__ entry '{}' is not a string", shown(key)));
        out.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    extents.push_back(check_entry(name, entry, data_bytes, out.tensors[name], path));
  }
  // Tensors tile the data section: no overlap, no hole, no trailing bytes (the reference reader refuses these too).
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  uint64_t at = 0;
  for (const Extent& e : extents) {
    if (e.begin != at)
      bad(path, fmt::format("tensor '{}' starts at {} where {} was expected ({})", shown(e.name), e.begin, at,
                            e.begin < at ? "overlap" : "hole"));
    at = e.end;
  }
  if (at != data_bytes) bad(path, fmt::format("{} bytes of data belong to no tensor", data_bytes - at));

  if (names) {
    for (const std::string& name : *names)
      if (!out.tensors.count(name))
        throw UserError(fmt::format("{}: holds no tensor '{}'; is it the right checkpoint?", path, name));
  }
  for (const Extent& e : extents) {
    if (names && std::find(names->begin(), names->end(), e.name) == names->end()) {
      out.tensors.erase(e.name);
      continue;
    }
    TensorData& t = out.tensors[e.name];
    t.bytes.resize(size_t(e.end - e.begin));
    read_all(file.fd, t.bytes.data(), t.bytes.size(), data_start + e.begin, path);
  }
  return out;
}

}  // namespace ccdrec
