#include "host/files/recommendations.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "data/error.h"
#include "data/text.h"

namespace ccdrec {

void recommend(Ctx& ctx, const Ops& ops, CMat hu, CMat hi, const HostCsr& mask, const std::vector<int32_t>& users,
               int64_t k, const ListSink& give) {
  // lists of a batch are all that is kept
  const int64_t at_once = std::min<int64_t>(4096, users_at_once(ctx.device, k));
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
  const Block d_ptr = take(mask.row_ptr.size() * 8, mask.row_ptr.data()),
              d_col = take(mask.col.size() * 4, mask.col.data());
  const Block d_users = take(size_t(block) * 4, nullptr), d_top = take(size_t(block * k) * 4, nullptr),
              d_score = take(size_t(block * k) * 4, nullptr);
  const Csr seen{mask.rows, mask.cols, static_cast<const int64_t*>(d_ptr.get()),
                 static_cast<const int32_t*>(d_col.get()), nullptr};
  std::vector<int32_t> top(size_t(block * k));
  std::vector<float> score(size_t(block * k));
  for (size_t first = 0; first < users.size(); first += size_t(block)) {
    const int64_t n = std::min<int64_t>(block, int64_t(users.size() - first));
    ops.upload(ctx, d_users.get(), users.data() + first, size_t(n) * 4);
    ops.score_topk(ctx, static_cast<int32_t*>(d_top.get()), static_cast<float*>(d_score.get()),
                   {static_cast<const float*>(d_hu.get()), hu.rows, hu.cols},
                   static_cast<const int32_t*>(d_users.get()), n,
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
  // {} of a float: the shortest text that reads back to it
  for (int64_t j = 0; j < n; ++j) out += fmt::format("{}\t{}\t{}\n", user, items.raw(list[j]), scores[j]);
  return out;
}

std::string json_row(const std::string& user, const IdMap& items, const int32_t* list, const float* scores, int64_t n) {
  nlohmann::ordered_json row = {{"user", user}, {"items", nlohmann::ordered_json::array()}};
  // A float is printed as the double nearest to its shortest text, or 1.2 would read 1.2000000476837158.
  for (int64_t j = 0; j < n; ++j)
    row["items"].push_back(
        {{"item", items.raw(list[j])}, {"score", std::strtod(fmt::format("{}", scores[j]).c_str(), nullptr)}});
  return row.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

namespace {

enum class Order { file, score, rank };

const char* name_of(Order o) { return o == Order::rank ? "rank" : o == Order::score ? "score" : "order in the file"; }

struct Row {
  int32_t item;
  double key;  // the larger the better: a score, or a rank less than zero
  int64_t line;
};

// Collects rows of any format, counts ids the data set does not have.
struct Reader {
  const Dataset& data;
  const std::string& path;
  std::vector<std::vector<Row>> of_user;
  std::vector<bool> listed;
  int64_t rows = 0, scored = 0, ranked = 0, unknown_users = 0, unknown_items = 0;
  std::string one_user, one_item;

  Reader(const Dataset& d, const std::string& p)
      : data(d), path(p), of_user(size_t(d.n_users)), listed(size_t(d.n_users)) {}

  [[noreturn]] void refuse(int64_t line, const std::string& what) const {
    throw UserError(fmt::format("{}:{}: {}", path, line, what));
  }

  void add(const std::string& user, const std::string& item, Order order, double value, int64_t line) {
    ++rows, scored += order == Order::score, ranked += order == Order::rank;
    if (order != Order::file && std::isnan(value)) refuse(line, fmt::format("the {} is not a number", name_of(order)));
    const int64_t u = data.users.find(user);
    const int64_t i = data.items.find(item);
    if (u < 0) return void((++unknown_users == 1) ? one_user = user : one_user);
    if (i < 0 && ++unknown_items == 1) one_item = item;
    listed[size_t(u)] = true;
    of_user[size_t(u)].push_back({int32_t(i), order == Order::rank ? -value : value, line});
  }

  Order order() const {
    for (const auto& [n, order] : {std::pair{ranked, Order::rank}, std::pair{scored, Order::score}})
      if (n != 0 && n != rows)
        throw UserError(fmt::format(
            "{}: {} of {} rows have a {}; an order by {} needs all of them, one by their place in the file none", path,
            n, rows, name_of(order), name_of(order)));
    return ranked ? Order::rank : scored ? Order::score : Order::file;
  }

  // An item twice in one list would be counted as two hits.
  void refuse_repetitions() const {
    for (size_t u = 0; u < of_user.size(); ++u) {
      std::vector<Row> list = of_user[u];
      std::stable_sort(list.begin(), list.end(), [](const Row& a, const Row& b) { return a.item < b.item; });
      for (size_t j = 1; j < list.size(); ++j)
        if (list[j].item >= 0 && list[j].item == list[j - 1].item)
          refuse(list[j].line, fmt::format("item '{}' stands twice in the list of user '{}'",
                                           shown(data.items.raw(list[j].item)), shown(data.users.raw(int64_t(u)))));
    }
  }
};

void read_json_line(Reader& reader, const std::string& text, int64_t line) {
  const auto bad = [&](const char* what) {
    reader.refuse(line,
                  fmt::format("{}; expected {{\"user\": ..., \"items\": [{{\"item\": ..., \"score\": ...}}]}}", what));
  };
  const auto j = nlohmann::json::parse(text, nullptr, false);
  const auto id = [&](const nlohmann::json& v) -> std::string {
    if (v.is_string()) return v.get<std::string>();
    if (v.is_number_integer()) return v.dump();
    bad("an id is neither text nor an integer");
    return "";
  };
  if (!j.is_object() || !j.contains("user") || !j.contains("items") || !j["items"].is_array())
    bad("not a recommendation line");
  const std::string user = id(j["user"]);
  for (const auto& entry : j["items"]) {
    if (!entry.is_object()) {
      reader.add(user, id(entry), Order::file, 0, line);  // a plain list of items
      continue;
    }
    if (!entry.contains("item")) bad("an entry has no item");
    const Order order = entry.contains("rank") ? Order::rank : entry.contains("score") ? Order::score : Order::file;
    if (order != Order::file && !entry[name_of(order)].is_number())
      bad(order == Order::rank ? "a rank is not a number" : "a score is not a number");
    reader.add(user, id(entry["item"]), order, order == Order::file ? 0 : entry[name_of(order)].get<double>(), line);
  }
}

// ------------------------------------------------------------------------------------------------------------ tables

using Cells = std::vector<std::string_view>;

enum class Role { other, unnamed, user, item, score, rank };

Role role_of(std::string_view heading, const std::string& user_field, const std::string& item_field) {
  static const std::map<std::string, Role> usual = [] {
    std::map<std::string, Role> m;
    for (const char* s : {"user", "userid", "uid", "users", "customer", "customerid", "reviewerid"}) m[s] = Role::user;
    for (const char* s : {"item", "itemid", "iid", "items", "asin", "parentasin", "product", "productid", "movieid",
                          "articleid", "recommendation"})
      m[s] = Role::item;
    for (const char* s :
         {"score", "scores", "rating", "prediction", "predictions", "predicted", "pred", "predictedrating",
          "predictedscore", "estimate", "est", "prob", "probability", "relevance", "similarity", "logit", "yhat"})
      m[s] = Role::score;
    for (const char* s : {"rank", "ranks", "ranking", "position", "pos"}) m[s] = Role::rank;
    return m;
  }();
  if (column_matches(heading, user_field, {})) return Role::user;
  if (column_matches(heading, item_field, {})) return Role::item;
  const std::string plain = plain_heading(heading);
  if (plain.empty() || plain.starts_with("unnamed")) return Role::unnamed;
  const auto it = usual.find(plain);
  return it == usual.end() ? Role::other : it->second;
}

// Where a table has what.
struct Form {
  char separator = '\t';
  bool heading = false, mmrec = false;
  size_t columns = 0;
  int user = 0, item = 1, key = -1;  // -1: none; without a heading the third, where there is one
  Order order = Order::file;         // what the key is
  std::vector<size_t> list;          // wide: the columns of items, best first
};

// top_0, top_1, ... or 0, 1, ...: the columns from `first` on by their numbers; empty where one has none, or another
// word before it.
std::vector<size_t> numbered_columns(const Cells& cells, size_t first, std::string& word) {
  std::map<int64_t, size_t> by_number;
  for (size_t c = first; c < cells.size(); ++c) {
    const std::string plain = plain_heading(cells[c]);
    const size_t digits = plain.find_last_not_of("0123456789") + 1;
    const int64_t number = parse_index(plain.substr(digits));
    if (c == first) word = plain.substr(0, digits);
    if (number < 0 || plain.substr(0, digits) != word || !by_number.emplace(number, c).second) return {};
  }
  const bool from_the_top = !by_number.empty() && by_number.begin()->first <= 1 &&
                            by_number.rbegin()->first - by_number.begin()->first + 1 == int64_t(by_number.size());
  std::vector<size_t> out;
  if (from_the_top)
    for (const auto& [number, column] : by_number) out.push_back(column);
  return out;
}

// The form by the first line, which is a heading or a row.
class FormReader {
 public:
  FormReader(const Reader& reader, const Cells& cells, int64_t line, const std::string& user_field,
             const std::string& item_field)
      : reader_(reader), cells_(cells), line_(line) {
    for (const std::string_view c : cells) roles_.push_back(role_of(c, user_field, item_field));
    form_.columns = cells.size();
  }

  Form read() {
    if (wide_heading()) return form_;
    if (has(Role::user) || has(Role::item)) return long_heading();
    if (is_row()) return form_;
    // This program's own heading for ids that have other names in their data set.
    if (cells_.size() == 3 && roles_[2] == Role::score) {
      form_.heading = true, form_.key = 2, form_.order = Order::score;
      return form_;
    }
    reader_.refuse(line_, fmt::format("'{}' is no user and '{}' no item of {}, and no heading says which column is "
                                      "which; call them user, item and "
                                      "score or rank",
                                      shown(cells_[0]), shown(cells_[1]), reader_.data.name));
  }

 private:
  bool has(Role r) const { return std::find(roles_.begin(), roles_.end(), r) != roles_.end(); }

  // At most one column may have a role, or one of them would be chosen by its place.
  int only(Role r, const char* what) const {
    const auto first = std::find(roles_.begin(), roles_.end(), r);
    if (first == roles_.end()) return -1;
    const auto second = std::find(first + 1, roles_.end(), r);
    if (second != roles_.end())
      reader_.refuse(line_, fmt::format("'{}' and '{}' are both columns of {}; leave one, or rename the other",
                                        shown(cells_[size_t(first - roles_.begin())]),
                                        shown(cells_[size_t(second - roles_.begin())]), what));
    return int(first - roles_.begin());
  }

  bool wide_heading() {
    for (size_t user = 0; user < 2 && user + 1 < cells_.size(); ++user) {
      if (user == 1 && roles_[0] != Role::unnamed) break;  // row numbers before it
      const bool id = plain_heading(cells_[user]) == "id";
      if (!id && roles_[user] != Role::user && roles_[user] != Role::unnamed) continue;
      std::string word;
      form_.list = numbered_columns(cells_, user + 1, word);
      if (form_.list.empty()) continue;
      form_.heading = true, form_.user = int(user);
      form_.mmrec = id && word == "top";
      return true;
    }
    return false;
  }

  Form long_heading() {
    form_.heading = true;
    form_.user = only(Role::user, "users"), form_.item = only(Role::item, "items");
    const int rank = only(Role::rank, "ranks");
    if (form_.user < 0 || form_.item < 0)
      reader_.refuse(line_, fmt::format("no column of {} among {}; call them user, item and score or rank",
                                        form_.user < 0 ? "users" : "items", listed(cells_)));
    form_.key = rank >= 0 ? rank : only(Role::score, "scores");
    form_.order = rank >= 0 ? Order::rank : form_.key >= 0 ? Order::score : Order::file;
    if (const auto other = std::find(roles_.begin(), roles_.end(), Role::other); form_.key < 0 && other != roles_.end())
      reader_.refuse(
          line_, fmt::format("column '{}' may be a score, a rank or neither; call it score or rank, or leave it out",
                             shown(cells_[size_t(other - roles_.begin())])));
    return form_;
  }

  // A row has a known id, or at least a number where the score would be.
  bool is_row() const {
    if (reader_.data.users.find(std::string(cells_[0])) >= 0 || reader_.data.items.find(std::string(cells_[1])) >= 0)
      return true;
    double score = 0;
    return cells_.size() > 2 && read_number(cells_[2], score);
  }

 public:
  static bool read_number(std::string_view text, double& value) {
    text = trimmed(text);
    if (text.starts_with('+')) text.remove_prefix(1);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return !text.empty() && error == std::errc() && end == text.data() + text.size();
  }

 private:
  const Reader& reader_;
  const Cells& cells_;
  int64_t line_;
  std::vector<Role> roles_;
  Form form_;
};

// MMRec writes places of rows, which are ids only where a data set has no mapping.
bool holds_places(std::string_view text, const Form& form, const Dataset& data) {
  if (data.users.dense() && data.items.dense()) return false;
  Lines lines(text);
  bool heading = true;
  for (std::string_view line; lines.next(line);) {
    if (line.empty() || std::exchange(heading, false)) continue;
    const Cells cells = split_fields(line, form.separator);
    for (size_t c = size_t(form.user); c < cells.size(); ++c) {
      const int64_t place = parse_index(cells[c]);
      if (!cells[c].empty() && (place < 0 || place >= (c == size_t(form.user) ? data.n_users : data.n_items)))
        return false;
    }
  }
  return true;
}

void read_table(Reader& reader, std::string_view text, const Form& form, std::vector<std::string>& warnings) {
  const Dataset& data = reader.data;
  const bool wide = !form.list.empty() || (!form.heading && form.columns > 3);
  const bool places = form.mmrec && holds_places(text, form, data);
  if (places) warnings.push_back("ids are row numbers, as MMRec writes them for a data set with an id mapping");
  const auto raw = [&](const IdMap& map, std::string_view id) {
    return places ? map.raw(parse_index(id)) : std::string(id);
  };
  bool third_is_item = !form.heading && form.columns == 3;
  Lines lines(text);
  bool heading = form.heading;
  std::vector<bool> met(size_t(data.n_users));
  for (std::string_view line; lines.next(line);) {
    if (line.empty() || std::exchange(heading, false)) continue;
    const int64_t n = lines.number();
    const Cells cells = split_fields(line, form.separator);
    if (form.heading && cells.size() > form.columns)
      reader.refuse(n, fmt::format("has {} columns and the heading {}; quote what holds {}", cells.size(), form.columns,
                                   separator_name(form.separator)));
    if (wide) {
      if (cells.size() <= size_t(form.user) + 1) reader.refuse(n, "expected a user and a list of items");
      const std::string user = raw(data.users, cells[size_t(form.user)]);
      const int64_t u = data.users.find(user);
      if (u >= 0 && met[size_t(u)])
        reader.refuse(n, fmt::format("user '{}' has a list already; expected one line a user", shown(user)));
      if (u >= 0) met[size_t(u)] = true;
      for (size_t j = 0; j < (form.heading ? form.list.size() : cells.size() - 1); ++j) {
        const size_t c = form.heading ? form.list[j] : j + 1;
        if (c >= cells.size() || cells[c].empty()) continue;  // a shorter list
        const std::string item = raw(data.items, cells[c]);
        if (!form.heading && (u < 0 || data.items.find(item) < 0))
          reader.refuse(n, fmt::format("{} columns without a heading, and '{}' is no {} of {}; write one: userID "
                                       "itemID score, or userID 1 2 3 ... for "
                                       "a list a line",
                                       cells.size(), shown(u < 0 ? user : item), u < 0 ? "user" : "item", data.name));
        reader.add(user, item, Order::file, 0, n);
      }
      continue;
    }
    const size_t needed = size_t(std::max(form.user, form.item)) + 1;
    if (cells.size() < needed)
      reader.refuse(n, "expected `user TAB item [TAB score]`, or commas or semicolons for the tabs");
    if (!form.heading && cells.size() > 3)
      reader.refuse(n, fmt::format("has {} columns, but the first line {}; write a heading: userID itemID score",
                                   cells.size(), form.columns));
    const int key = form.heading ? form.key : 2;
    const std::string_view number = key >= 0 && size_t(key) < cells.size() ? cells[size_t(key)] : std::string_view();
    double value = 0;
    if (!number.empty() && !FormReader::read_number(number, value))
      reader.refuse(n, fmt::format("the {} '{}' is not a number", name_of(form.heading ? form.order : Order::score),
                                   shown(number)));
    third_is_item = third_is_item && data.items.find(std::string(number)) >= 0;
    reader.add(std::string(cells[size_t(form.user)]), std::string(cells[size_t(form.item)]),
               number.empty() ? Order::file
               : form.heading ? form.order
                              : Order::score,
               value, n);
  }
  if (form.heading || wide || reader.scored == 0 || reader.scored != reader.rows) return;
  // 1, 2, 3 under no name: scores would turn the lists round.
  bool may_be_ranks = true, orders = false;
  for (const std::vector<Row>& list : reader.of_user) {
    std::set<double> values;
    bool ascending = true;
    for (const Row& r : list) {
      may_be_ranks &= r.key == std::floor(r.key) && r.key >= 0;
      ascending &= values.empty() || r.key > *values.rbegin();
      values.insert(r.key);
    }
    if (list.empty()) continue;
    orders |= list.size() > 1;
    may_be_ranks &= ascending || (values.size() == list.size() && *values.begin() <= 1 &&
                                  *values.rbegin() - *values.begin() + 1 == double(list.size()));
  }
  if ((may_be_ranks && orders) || third_is_item)
    throw UserError(fmt::format(
        "{}: its third column has no heading and may be {}, or a score; write a heading line such as "
        "userID{}itemID{}{}",
        reader.path, third_is_item ? "an item" : "a rank",
        form.separator == '\t' ? " TAB " : std::string(1, form.separator),
        form.separator == '\t' ? " TAB " : std::string(1, form.separator), third_is_item ? "score" : "rank"));
}

}  // namespace

ForeignLists read_recommendations(const std::string& path, const Dataset& data, const std::string& user_field,
                                  const std::string& item_field) {
  const std::string whole = ccdrec::read_table(path);
  Reader reader(data, path);
  ForeignLists out;
  Lines lines(whole);
  std::string_view first;
  while (lines.next(first) && first.empty()) {}
  if (first.starts_with('{')) {
    do
      if (!first.empty()) read_json_line(reader, std::string(first), lines.number());
    while (lines.next(first));
  } else if (!first.empty()) {
    const auto separator = std::find_if(std::begin(kSeparators), std::end(kSeparators),
                                        [&](char c) { return first.find(c) != std::string_view::npos; });
    if (separator == std::end(kSeparators))
      reader.refuse(lines.number(),
                    "expected `user TAB item [TAB score]`, commas or semicolons for the tabs, or JSON lines");
    const Cells cells = split_fields(first, *separator);
    Form form = FormReader(reader, cells, lines.number(), user_field, item_field).read();
    form.separator = *separator;
    read_table(reader, whole, form, out.warnings);
  }
  const Order order = reader.order();
  reader.refuse_repetitions();
  out.rows = reader.rows;
  out.ranked_by = name_of(order);
  for (std::vector<Row>& list : reader.of_user) {
    if (order != Order::file)
      std::stable_sort(list.begin(), list.end(), [](const Row& a, const Row& b) { return a.key > b.key; });
    std::vector<int32_t>& items = out.of_user.emplace_back();
    for (size_t j = 0; j < list.size(); ++j) {
      if (order == Order::rank && j > 0 && list[j].key == list[j - 1].key)
        reader.refuse(std::max(list[j].line, list[j - 1].line),
                      fmt::format("rank {} stands twice in the list of one user", -list[j].key));
      items.push_back(list[j].item);
    }
  }
  out.users = std::count(reader.listed.begin(), reader.listed.end(), true);
  if (out.users == 0)
    throw UserError(fmt::format("{}: names no user of {}; are the ids raw ids of this data set{}?", path, data.folder,
                                data.n_users > 0 ? ", such as '" + shown(data.users.raw(0)) + "'" : ""));
  if (reader.unknown_users)
    out.warnings.push_back(fmt::format("{} rows name users this data set does not have, e.g. '{}'; left out",
                                       reader.unknown_users, shown(reader.one_user)));
  if (reader.unknown_items)
    out.warnings.push_back(fmt::format(
        "{} rows name items this data set does not have, e.g. '{}'; they keep their rank and count as misses",
        reader.unknown_items, shown(reader.one_item)));
  int64_t seen = 0;  // a list that recommends what the user already has wastes ranks: worth knowing, not an error
  const HostCsr train = pairs_by_user(data.train, data.n_users, data.n_items);
  for (int64_t u = 0; u < data.n_users; ++u)
    for (const int32_t i : out.of_user[size_t(u)])
      seen += i >= 0 && std::binary_search(train.col.begin() + train.row_ptr[size_t(u)],
                                           train.col.begin() + train.row_ptr[size_t(u) + 1], i);
  if (seen)
    out.warnings.push_back(fmt::format(
        "{} recommended items are training items of their user; they keep their rank and count as misses", seen));
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
