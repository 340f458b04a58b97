// Ranked lists by raw id: made from final representations, written as TSV or JSON lines, and read back, ours or another program's.
//
//   TSV    userID TAB itemID TAB score, one row per recommended item, best first; a header line is optional when read, the score too
//   JSONL  {"user": "A1", "items": [{"item": "B7", "score": 1.25}, ...]}, one user per line
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/graph.h"
#include "host/metrics.h"

namespace ccdrec {

// The k best items of each listed user, items of mask row u excluded; `give` gets the lists in the order of `users`, best first, at most k long.
using ListSink = std::function<void(int32_t user, const int32_t* items, const float* scores, int64_t n)>;
void recommend(Ctx&, const Ops&, CMat hu, CMat hi, const HostCsr& mask, const std::vector<int32_t>& users, int64_t k, const ListSink& give);

std::string tsv_rows(const std::string& user, const IdMap& items, const int32_t* list, const float* scores, int64_t n);
std::string json_row(const std::string& user, const IdMap& items, const int32_t* list, const float* scores, int64_t n);

// Lists of another program. Rank is the score, descending (equal scores: order of the file), where every row has one, else the order of the file.
struct ForeignLists {
  std::vector<std::vector<int32_t>> of_user;  // by user index; -1 = an item this data set does not have: it keeps its rank and is a miss
  int64_t users = 0, rows = 0;
  bool by_score = false;
  std::vector<std::string> warnings;  // unknown ids, counted and one of them named
};
// Throws UserError naming the line: too few columns, a score that is no number, an item twice in one list, neither TSV nor JSON lines, no known user
// at all.
ForeignLists read_recommendations(const std::string& path, const Dataset&);

// Metrics of foreign lists against one split; users without a list count with zero, and `missing` says how many there are.
Metrics foreign_metrics(const ForeignLists&, const HeldOut&, const std::vector<int>& ks, int64_t* missing);

}  // namespace ccdrec
