#include "host/recommendations.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/text.h"

namespace ccdrec {

void recommend(Ctx& ctx, const Ops& ops, CMat hu, CMat hi, const HostCsr& mask, const std::vector<int32_t>& users, int64_t k, const ListSink& give) {
  const int64_t at_once = std::min<int64_t>(4096, users_at_once(ctx.device, k));  // lists of a batch are all that is kept
  const int64_t block = std::min<int64_t>(at_once, int64_t(users.size()));
  if (block == 0) return;
  const auto release = [&](void* p) { ops.free(ctx, p); };
  using Block = std::unique_ptr<void, decltype(release)>;
  const auto take = [&](size_t bytes, const void* from) {
    Block b(ops.alloc(ctx, std::max<size_t>(bytes, 1)), release);
    if (from && bytes) ops.upload(ctx, b.get(), from, bytes);
    return b;
  };
  const Block d_hu = take(size_t(hu.size()) * 4, hu.p), d_hi = take(size_t(hi.size()) * 4, hi.p);
  const Block d_ptr = take(mask.row_ptr.size() * 8, mask.row_ptr.data()), d_col = take(mask.col.size() * 4, mask.col.data());
  const Block d_users = take(size_t(block) * 4, nullptr), d_top = take(size_t(block * k) * 4, nullptr),
              d_score = take(size_t(block * k) * 4, nullptr);
  const Csr seen{mask.rows, mask.cols, static_cast<const int64_t*>(d_ptr.get()), static_cast<const int32_t*>(d_col.get()), nullptr};
  std::vector<int32_t> top(size_t(block * k));
  std::vector<float> score(size_t(block * k));
  for (size_t first = 0; first < users.size(); first += size_t(block)) {
    const int64_t n = std::min<int64_t>(block, int64_t(users.size() - first));
    ops.upload(ctx, d_users.get(), users.data() + first, size_t(n) * 4);
    ops.score_topk(ctx, static_cast<int32_t*>(d_top.get()), static_cast<float*>(d_score.get()),
                   {static_cast<const float*>(d_hu.get()), hu.rows, hu.cols}, static_cast<const int32_t*>(d_users.get()), n,
                   {static_cast<const float*>(d_hi.get()), hi.rows, hi.cols}, &seen, k);
    ops.download(ctx, top.data(), d_top.get(), size_t(n * k) * 4);
    ops.download(ctx, score.data(), d_score.get(), size_t(n * k) * 4);
    for (int64_t j = 0; j < n; ++j) {
      const int32_t* list = top.data() + j * k;
      give(users[first + size_t(j)], list, score.data() + j * k, std::find(list, list + k, -1) - list);
    }
  }
}

std::string tsv_rows(const std::string& user, const IdMap& items, const int32_t* list, const float* scores, int64_t n) {
  std::string out;
  for (int64_t j = 0; j < n; ++j)
    out += fmt::format("{}\t{}\t{}\n", user, items.raw(list[j]), scores[j]);  // {} of a float: the shortest text that reads back to it
  return out;
}

std::string json_row(const std::string& user, const IdMap& items, const int32_t* list, const float* scores, int64_t n) {
  nlohmann::ordered_json row = {{"user", user}, {"items", nlohmann::ordered_json::array()}};
  // A float is printed as the double nearest to its shortest text, or 1.2 would read 1.2000000476837158.
  for (int64_t j = 0; j < n; ++j)
    row["items"].push_back({{"item", items.raw(list[j])}, {"score", std::strtod(fmt::format("{}", scores[j]).c_str(), nullptr)}});
  return row.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

namespace {

struct Row {
  int32_t item;
  double score;
  int64_t line;
};

// Collects rows of any format, counts ids the data set does not have.
struct Reader {
  const Dataset& data;
  const std::string& path;
  std::vector<std::vector<Row>> of_user;
  std::vector<bool> listed;
  int64_t rows = 0, scored = 0, unknown_users = 0, unknown_items = 0;
  std::string one_user, one_item;

  Reader(const Dataset& d, const std::string& p) : data(d), path(p), of_user(size_t(d.n_users)), listed(size_t(d.n_users)) {}

  void add(const std::string& user, const std::string& item, bool has_score, double score, int64_t line) {
    ++rows, scored += has_score;
    if (has_score && std::isnan(score)) throw UserError(fmt::format("{}:{}: the score is not a number", path, line));
    const int64_t u = data.users.find(user);
    const int64_t i = data.items.find(item);
    if (u < 0) return void((++unknown_users == 1) ? one_user = user : one_user);
    if (i < 0 && ++unknown_items == 1) one_item = item;
    listed[size_t(u)] = true;
    of_user[size_t(u)].push_back({int32_t(i), score, line});
  }

  // An item twice in one list would be counted as two hits.
  void refuse_repetitions() const {
    for (size_t u = 0; u < of_user.size(); ++u) {
      std::vector<Row> list = of_user[u];
      std::stable_sort(list.begin(), list.end(), [](const Row& a, const Row& b) { return a.item < b.item; });
      for (size_t j = 1; j < list.size(); ++j)
        if (list[j].item >= 0 && list[j].item == list[j - 1].item)
          throw UserError(fmt::format("{}:{}: item '{}' stands twice in the list of user '{}'", path, list[j].line, data.items.raw(list[j].item),
                                      data.users.raw(int64_t(u))));
    }
  }
};

void read_json_line(Reader& reader, const std::string& text, int64_t line) {
  const auto bad = [&](const char* what) {
    throw UserError(fmt::format("{}:{}: {}; expected {{\"user\": ..., \"items\": [{{\"item\": ..., \"score\": ...}}]}}", reader.path, line, what));
  };
  const auto j = nlohmann::json::parse(text, nullptr, false);
  const auto id = [&](const nlohmann::json& v) -> std::string {
    if (v.is_string()) return v.get<std::string>();
    if (v.is_number_integer()) return v.dump();
    bad("an id is neither text nor an integer");
    return "";
  };
  if (!j.is_object() || !j.contains("user") || !j.contains("items") || !j["items"].is_array()) bad("not a recommendation line");
  const std::string user = id(j["user"]);
  for (const auto& entry : j["items"]) {
    if (!entry.is_object()) {
      reader.add(user, id(entry), false, 0, line);  // a plain list of items
      continue;
    }
    if (!entry.contains("item")) bad("an entry has no item");
    const bool scored = entry.contains("score");
    if (scored && !entry["score"].is_number()) bad("a score is not a number");
    reader.add(user, id(entry["item"]), scored, scored ? entry["score"].get<double>() : 0, line);
  }
}

void read_tsv_line(Reader& reader, const std::string& text, int64_t line) {
  const size_t a = text.find('\t'), b = a == std::string::npos ? a : text.find('\t', a + 1);
  if (a == std::string::npos) throw UserError(fmt::format("{}:{}: expected `user TAB item [TAB score]`", reader.path, line));
  const std::string user = text.substr(0, a), item = text.substr(a + 1, b == std::string::npos ? b : b - a - 1);
  std::string number = b == std::string::npos ? "" : text.substr(b + 1, text.find('\t', b + 1) - (b + 1));
  double score = 0;
  const char* first = number.c_str() + (!number.empty() && number[0] == '+');
  const auto [end, error] = std::from_chars(first, number.c_str() + number.size(), score);
  const bool parsed = error == std::errc() && *end == '\0';
  if (line == 1 && reader.data.users.find(user) < 0 && reader.data.items.find(item) < 0 && (number.empty() || !parsed)) return;  // a header
  if (!number.empty() && !parsed) throw UserError(fmt::format("{}:{}: the score '{}' is not a number", reader.path, line, number));
  reader.add(user, item, !number.empty(), score, line);
}

}  // namespace

ForeignLists read_recommendations(const std::string& path, const Dataset& data) {
  const std::string whole = read_text(path);
  Reader reader(data, path);
  Lines lines(whole);
  for (std::string_view text; lines.next(text);) {
    if (text.empty()) continue;
    if (text[0] == '{')
      read_json_line(reader, std::string(text), lines.number());
    else
      read_tsv_line(reader, std::string(text), lines.number());
  }
  if (reader.scored != 0 && reader.scored != reader.rows)
    throw UserError(
        fmt::format("{}: {} of {} rows have a score; rank by score needs all of them, rank by order none", path, reader.scored, reader.rows));
  reader.refuse_repetitions();
  ForeignLists out;
  out.rows = reader.rows;
  out.by_score = reader.scored > 0;
  for (std::vector<Row>& list : reader.of_user) {
    if (out.by_score) std::stable_sort(list.begin(), list.end(), [](const Row& a, const Row& b) { return a.score > b.score; });
    std::vector<int32_t>& items = out.of_user.emplace_back();
    for (const Row& r : list) items.push_back(r.item);
  }
  out.users = std::count(reader.listed.begin(), reader.listed.end(), true);
  if (out.users == 0) throw UserError(fmt::format("{}: names no user of {}; are the ids raw ids of this data set?", path, data.folder));
  if (reader.unknown_users)
    out.warnings.push_back(fmt::format("{} rows name users this data set does not have, e.g. '{}'; left out", reader.unknown_users, reader.one_user));
  if (reader.unknown_items)
    out.warnings.push_back(fmt::format("{} rows name items this data set does not have, e.g. '{}'; they keep their rank and count as misses",
                                       reader.unknown_items, reader.one_item));
  int64_t seen = 0;  // a list that recommends what the user already has wastes ranks: worth knowing, not an error
  const HostCsr train = pairs_by_user(data.train, data.n_users, data.n_items);
  for (int64_t u = 0; u < data.n_users; ++u)
    for (const int32_t i : out.of_user[size_t(u)])
      seen += i >= 0 && std::binary_search(train.col.begin() + train.row_ptr[size_t(u)], train.col.begin() + train.row_ptr[size_t(u) + 1], i);
  if (seen)
    out.warnings.push_back(fmt::format("{} recommended items are training items of their user; they keep their rank and count as misses", seen));
  return out;
}

Metrics foreign_metrics(const ForeignLists& lists, const HeldOut& held, const std::vector<int>& ks, int64_t* missing) {
  size_t longest = 0;
  for (const std::vector<int32_t>& list : lists.of_user) longest = std::max(longest, list.size());
  const int64_t width = list_width(ks, int64_t(longest));
  std::vector<int32_t> top(held.users.size() * size_t(width), -1);
  *missing = 0;
  for (size_t j = 0; j < held.users.size(); ++j) {
    const std::vector<int32_t>& list = lists.of_user[size_t(held.users[j])];
    *missing += list.empty();
    std::copy_n(list.begin(), std::min<size_t>(list.size(), size_t(width)), top.begin() + int64_t(j) * width);
  }
  return ranking_metrics(held, top.data(), width, ks);
}

}  // namespace ccdrec
