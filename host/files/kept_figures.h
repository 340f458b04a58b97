// The figures of a run's lists as its folder keeps them, so that runs are compared without their data. users.f32, and
// in summary.json beside what training wrote:
//   "users"   what users.f32 holds: user_values.h
//   "lists"   {"coverage@5": .., "gini@5": .., "arp@5": .., "tail@5": .., "novelty@5": .., "ild_image@5": ..}
//   "groups"  {"popularity": [{"items", "rows", "users", "train_rows": [fewest, most], "recall@5", ..}, x5],
//              "activity": [{"users", "train_rows": [fewest, most], "recall@5", "ndcg@5", ..}, x4]}
// Definitions: training/lists.h. Without test rows "lists" is {} and the groups are [].
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "host/files/user_values.h"
#include "host/training/lists.h"

namespace ccdrec {

nlohmann::ordered_json lists_json(const ListFigures&);
nlohmann::ordered_json groups_json(const ListFigures&);

// users.f32, before the summary that describes it
void write_user_values(const RunFolder&, const ListFigures&, int best_epoch);
void describe_figures(nlohmann::ordered_json& summary, const ListFigures&, int best_epoch);
// Both, into a folder whose run is over; the rest of its summary.json stays as it is. With the lock held.
void keep_figures(const RunFolder&, const ListFigures&, int best_epoch);

}  // namespace ccdrec
