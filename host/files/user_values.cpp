#include "host/files/user_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/safe_file.h"
#include "data/text.h"

namespace ccdrec {

static_assert(std::endian::native == std::endian::little, "users.f32 is little-endian");

int UserValues::column(const std::string& name) const {
  const auto at = std::find(columns.begin(), columns.end(), name);
  return at == columns.end() ? -1 : int(at - columns.begin());
}

std::vector<double> UserValues::of(bool valid_split, int column) const {
  const int64_t first = valid_split ? 0 : valid, n = valid_split ? valid : test;
  std::vector<double> out(size_t(n), 0.0);
  for (int64_t j = 0; j < n; ++j) out[size_t(j)] = values[size_t(first + j) * columns.size() + size_t(column)];
  return out;
}

nlohmann::ordered_json user_values_json(const UserValues& v) {
  return {{"best_epoch", v.best_epoch}, {"columns", v.columns}, {"valid", v.valid}, {"test", v.test}};
}

void write_user_values(const RunFolder& folder, const UserValues& v) {
  SafeFile file(folder.path(kUserFile));
  file.write(v.values.data(), v.values.size() * sizeof(float));
  file.commit();
}

UserValues read_user_values(const RunFolder& folder) {
  UserValues v;
  const nlohmann::json summary = folder.summary();
  if (!summary.contains("users") || !folder.has(kUserFile)) return v;
  const auto damaged = [&](const std::string& why) {
    throw UserError(fmt::format("{}: {}; `ccdrec evaluate {} --keep` makes it again", folder.path(kUserFile), why,
                                shell_word(folder.dir())));
  };
  try {
    const nlohmann::json& j = summary["users"];
    v.best_epoch = j.at("best_epoch").get<int>();
    v.columns = j.at("columns").get<std::vector<std::string>>();
    v.valid = j.at("valid").get<int64_t>(), v.test = j.at("test").get<int64_t>();
  } catch (const nlohmann::json::exception&) {
    damaged("what summary.json says of it was written by another version, or is damaged");
  }
  constexpr int64_t kMost = int64_t(1) << 31;
  if (v.columns.empty() || v.valid < 0 || v.test < 0 || v.valid > kMost || v.test > kMost ||
      v.best_epoch != summary.value("best_epoch", -1))
    damaged("what summary.json says of it cannot be");
  const std::string bytes = read_text(folder.path(kUserFile));
  if (bytes.size() != size_t(v.valid + v.test) * v.columns.size() * sizeof(float))
    damaged(fmt::format("{} bytes, expected {} rows of {} float32 values", bytes.size(), v.valid + v.test,
                        v.columns.size()));
  v.values.resize(bytes.size() / sizeof(float));
  std::memcpy(v.values.data(), bytes.data(), bytes.size());
  for (size_t k = 0; k < v.values.size(); ++k) {
    const float x = v.values[k];
    const std::string& column = v.columns[k % v.columns.size()];
    const bool count = column == "user" || column == "train_rows";
    if (!std::isfinite(x) || x < 0 || (count ? x != std::floor(x) : x > 1))
      damaged(fmt::format("row {} has {} = {}, which cannot be", k / v.columns.size(), column, x));
  }
  return v;
}

}  // namespace ccdrec
