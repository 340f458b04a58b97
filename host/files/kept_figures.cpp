#include "host/files/kept_figures.h"

#include <nlohmann/json.hpp>

#include "data/text.h"

namespace ccdrec {
namespace {

using nlohmann::ordered_json;

UserValues user_values(const ListFigures& f, int best_epoch) {
  return {best_epoch, f.columns, f.valid, f.test, f.values};
}

ordered_json group_json(const ListGroup& g, bool of_items) {
  ordered_json j;
  if (of_items) j["items"] = g.items, j["rows"] = g.rows;
  j["users"] = g.users;
  j["train_rows"] = {g.fewest, g.most};
  for (const auto& [key, value] : g.metrics) j[key] = value;
  return j;
}

}  // namespace

ordered_json lists_json(const ListFigures& f) {
  ordered_json j = ordered_json::object();
  for (const auto& [key, value] : f.lists) j[key] = value;
  return j;
}

ordered_json groups_json(const ListFigures& f) {
  ordered_json popularity = ordered_json::array(), activity = ordered_json::array();
  for (const ListGroup& g : f.popularity) popularity.push_back(group_json(g, true));
  for (const ListGroup& g : f.activity) activity.push_back(group_json(g, false));
  return {{"popularity", popularity}, {"activity", activity}};
}

void write_user_values(const RunFolder& folder, const ListFigures& f, int best_epoch) {
  if (!f.columns.empty()) write_user_values(folder, user_values(f, best_epoch));
}

void describe_figures(ordered_json& summary, const ListFigures& f, int best_epoch) {
  if (!f.columns.empty()) summary["users"] = user_values_json(user_values(f, best_epoch));
  summary["lists"] = lists_json(f);
  summary["groups"] = groups_json(f);
}

void keep_figures(const RunFolder& folder, const ListFigures& f, int best_epoch) {
  ordered_json summary = ordered_json::parse(read_text(folder.path("summary.json")));
  write_user_values(folder, f, best_epoch);
  describe_figures(summary, f, best_epoch);
  write_text(folder.path("summary.json"), summary_text(summary));
}

}  // namespace ccdrec
