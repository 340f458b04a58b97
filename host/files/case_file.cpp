#include "host/files/case_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data/dataset.h"
#include "data/error.h"
#include "data/text.h"
#include "host/base/strict_json.h"
#include "host/files/config.h"
#include "host/systems/keys.h"
#include "kernels/estimator.h"

namespace ccdrec {
namespace {

constexpr const char* kFormat = "(docs/step-format.md)";

std::string text_of(const Extents& shape) {
  std::string text;
  for (const int64_t n : shape) text += (text.empty() ? "" : ",") + (n == kAny ? ">=1" : std::to_string(n));
  return "(" + text + ")";
}

template <class T>
std::vector<T> as(const TensorData& t) {
  std::vector<T> v(t.bytes.size() / sizeof(T));
  if (!v.empty()) std::memcpy(v.data(), t.bytes.data(), v.size() * sizeof(T));
  return v;
}

}  // namespace

CaseFile::CaseFile(const std::string& path, const std::string& format) : path_(path), file_(read_safetensors(path)) {
  if (meta("format") != format)
    fail(fmt::format("its metadata has format = '{}', expected '{}' {}", shown(meta("format")), format, kFormat));
  if (meta("version") != "1")
    fail(fmt::format("its metadata has version = '{}', this program reads version 1", shown(meta("version"))));
}

// Names that come from the file may hold anything: a line's end or a zero byte would cut the sentence.
std::string CaseFile::meta(const std::string& key, const std::string& otherwise) const {
  const auto it = file_.metadata.find(key);
  return it == file_.metadata.end() ? otherwise : it->second;
}

nlohmann::json CaseFile::json(const std::string& key, const char* otherwise) const {
  bool repeated = false;
  nlohmann::json j = parse_strict(meta(key, otherwise), repeated);
  if (j.is_discarded()) fail(fmt::format("the metadata '{}' is not JSON; write it as {} {}", key, otherwise, kFormat));
  if (repeated) fail(fmt::format("the metadata '{}' names a key twice; leave one", key));
  return j;
}

Settings CaseFile::settings(int64_t d) const {
  const nlohmann::json given = json("settings", "{}");
  if (!given.is_object())
    fail(fmt::format("the metadata 'settings' is {}, expected a JSON object such as {{\"model\": \"CCDRec\"}}",
                     shown(given.dump())));
  const std::string origin = path_ + ": settings";
  std::vector<KeyValue> values;
  for (const auto& [key, v] : given.items()) {
    if (v.is_structured() || v.is_null())
      fail(fmt::format("settings: {} is {}, expected one text, number, true or false", key, shown(v.dump())));
    values.push_back(v.is_string() ? plain_value(key, v.get<std::string>(), origin) : KeyValue{key, v.dump(), origin});
  }
  const char* const nodes = has("param.id_embedding") ? "param.id_embedding" : "param.item_id_embedding.weight";
  values.push_back({"embedding_size", std::to_string(d), fmt::format("{}: width of array '{}'", path_, nodes)});
  return resolve_config({}, values).settings;
}

bool CaseFile::has_setting(const std::string& key) const { return json("settings", "{}").contains(key); }

std::vector<std::string> CaseFile::modalities() const {
  const nlohmann::json given = json("modalities", "[]");
  const auto bad = [&](const std::string& why) {
    fail(fmt::format("the metadata 'modalities' is {}, expected a list of distinct names: {}", shown(given.dump()),
                     why));
  };
  if (!given.is_array()) bad("it is no list");
  std::vector<std::string> names;
  for (const auto& m : given) {
    if (!m.is_string() || m.get<std::string>().empty()) bad(shown(m.dump()) + " is no name");
    const std::string name = m.get<std::string>();
    if (std::find(names.begin(), names.end(), name) != names.end()) bad(shown(name) + " stands twice");
    if (const std::string why = unusable_modality(name); !why.empty()) bad(why);
    names.push_back(name);
  }
  if (names.size() > size_t(kMaxModalities))
    bad(fmt::format("there are {}, at most {} are supported", names.size(), kMaxModalities));
  return names;
}

float CaseFile::gradient() const {
  double x = 1;
  if (!parse_real(meta("gradient", "1"), x) || !std::isfinite(float(x)))
    fail(fmt::format("the metadata gradient = '{}' is no finite number", shown(meta("gradient"))));
  return float(x);
}

int64_t CaseFile::t() const {
  const int64_t t = parse_index(meta("t", "1"));
  if (t < 1 || t > 1000000) fail(fmt::format("the metadata t = '{}' is no step from 1 to 1000000", shown(meta("t"))));
  return t;
}

const TensorData& CaseFile::at(const std::string& name) const {
  const auto it = file_.tensors.find(name);
  if (it == file_.tensors.end())
    fail(fmt::format("array '{}' is missing (docs/step-format.md lists what a case holds)", name));
  return it->second;
}

Extents CaseFile::shape(const std::string& name, const Extents& want) const {
  const Extents& got = at(name).shape;
  bool good = got.size() == want.size();
  for (size_t k = 0; good && k < want.size(); ++k) good = want[k] == kAny ? got[k] > 0 : got[k] == want[k];
  if (!good) fail(fmt::format("array '{}' has shape {}, expected {}", name, text_of(got), text_of(want)));
  return got;
}

// What is stored as Narrow or as Wide, as T.
template <class T, class Narrow, class Wide>
std::vector<T> CaseFile::either(const std::string& name, const char* narrow, const char* wide) const {
  const TensorData& t = at(name);
  const auto converted = [](const auto& v) { return std::vector<T>(v.begin(), v.end()); };
  if (t.dtype == narrow) return converted(as<Narrow>(t));
  if (t.dtype == wide) return converted(as<Wide>(t));
  fail(fmt::format("array '{}' has type {}, expected {} or {}", name, t.dtype, narrow, wide));
}

std::vector<float> CaseFile::values(const std::string& name) const {
  std::vector<float> v = either<float, float, double>(name, "F32", "F64");
  for (size_t k = 0; k < v.size(); ++k)
    if (!std::isfinite(v[k]))
      fail(fmt::format("array '{}' is not finite at position {}, expected a number of float32's range", name, k));
  return v;
}

std::vector<float> CaseFile::floats(const std::string& name, const Extents& want) const {
  shape(name, want);
  return values(name);
}

std::vector<float> CaseFile::squares(const std::string& name, const Extents& want) const {
  std::vector<float> v = floats(name, want);
  for (size_t k = 0; k < v.size(); ++k)
    if (v[k] < 0)
      fail(fmt::format("array '{}' has {} at position {}, expected a mean of squares, 0 or more", name, v[k], k));
  return v;
}

std::vector<int32_t> CaseFile::indices(const std::string& name, const Extents& want, int64_t limit) const {
  shape(name, want);
  const std::vector<int64_t> v = either<int64_t, int32_t, int64_t>(name, "I32", "I64");
  for (size_t k = 0; k < v.size(); ++k)
    if (v[k] < 0 || v[k] >= limit)
      fail(fmt::format("array '{}' has {} at position {}, expected 0 to {}", name, v[k], k, limit - 1));
  return {v.begin(), v.end()};
}

HostCsr CaseFile::sparse(const std::string& name, int64_t n) const {
  const std::vector<float> value = values(name + ".value");
  const size_t nnz = value.size();
  shape(name + ".value", {int64_t(nnz)});
  const std::vector<int32_t> place = indices(name + ".index", {2, int64_t(nnz)}, n);
  std::map<std::pair<int32_t, int32_t>, float> cells;
  for (size_t e = 0; e < nnz; ++e)
    if (!cells.emplace(std::pair(place[e], place[nnz + e]), value[e]).second)
      fail(fmt::format("'{}' names the cell ({},{}) twice", name, place[e], place[nnz + e]));
  HostCsr a;
  a.rows = a.cols = n;
  a.row_ptr.assign(size_t(n) + 1, 0);
  for (const auto& [cell, v] : cells) {
    ++a.row_ptr[size_t(cell.first) + 1];
    a.col.push_back(cell.second), a.val.push_back(v);
  }
  for (size_t r = 0; r < size_t(n); ++r) a.row_ptr[r + 1] += a.row_ptr[r];
  return a;
}

void CaseFile::check_names(const std::vector<std::string>& parts, const std::vector<std::string>& known) const {
  const std::set<std::string> names(known.begin(), known.end());
  for (const auto& [name, t] : file_.tensors) {
    const bool read = std::any_of(parts.begin(), parts.end(),
                                  [&full = name](const std::string& part) { return full.starts_with(part); });
    if (!read) continue;
    if (!names.count(name)) {
      const std::string near = nearest(name, known);
      fail(fmt::format("array '{}' is none that such a case holds{}; rename it or leave it away {}", name,
                       near.empty() ? "" : fmt::format(", did you mean '{}'?", near), kFormat));
    }
    if (!name.starts_with("adam.")) continue;
    std::string twin = name;
    twin[5] = name[5] == 'm' ? 'v' : 'm';
    if (!has(twin))
      fail(fmt::format("array '{}' is given without '{}'; give both, or none where they are zero", name, twin));
  }
}

}  // namespace ccdrec
