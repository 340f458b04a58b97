// Ranked lists by raw id: made from final representations, written as TSV or JSON lines, and read back, ours or another
// program's.
//
//   TSV    userID TAB itemID TAB score, one row per recommended item, best first
//   JSONL  {"user": "A1", "items": [{"item": "B7", "score": 1.25}, ...]}, one user per line
//
// What is read besides; columns are separated by tabs, commas or semicolons:
//   long, with a heading   user, item and score or rank (or one of their usual names) in any order; without either the
//                          order of the file counts. Row numbers under no name (pandas) are skipped, other columns too
//                          where there is a score or a rank
//   wide, with a heading   a user and a list a line: `id top_0 top_1 ...` as MMRec writes it, `userID 0 1 2 ...`, `user
//                          item_1 item_2 ...`
//   long, no heading       user, item and perhaps a score
//   wide, no heading       four columns or more, each user on one line, all ids known
// Refused, since they would be read as something else: a heading that does not say which column is which; without one,
// a third column that may be a rank or an item.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/graph.h"
#include "host/training/metrics.h"

namespace ccdrec {

// The k best items of each listed user, items of mask row u excluded; `give` gets the lists in the order of `users`,
// best first, at most k long.
using ListSink = std::function<void(int32_t user, const int32_t* items, const float* scores, int64_t n)>;
void recommend(Ctx&, const Ops&, CMat hu, CMat hi, const HostCsr& mask, const std::vector<int32_t>& users, int64_t k,
               const ListSink& give);

std::string tsv_rows(const std::string& user, const IdMap& items, const int32_t* list, const float* scores, int64_t n);
std::string json_row(const std::string& user, const IdMap& items, const int32_t* list, const float* scores, int64_t n);

// Lists of another program. A user's list goes by the rank, ascending, else by the score, descending (equal ones: order
// of the file), else by the order of the file; every row has the same of these.
struct ForeignLists {
  // by user index; -1 = an item this data set does not have: it keeps its rank and is a miss
  std::vector<std::vector<int32_t>> of_user;
  int64_t users = 0, rows = 0;
  std::string ranked_by;              // score, rank, order in the file
  std::vector<std::string> warnings;  // unknown ids, counted and one of them named
};
// Throws UserError naming the line: too few columns, a score that is no number, a rank or an item twice in one list, a
// form that is none of those above or ambiguous, no known user at all. The fields are the names that the columns of ids
// have in this data set.
ForeignLists read_recommendations(const std::string& path, const Dataset&, const std::string& user_field = "userID",
                                  const std::string& item_field = "itemID");

// Metrics of foreign lists against one split; users without a list count with zero, and `missing` says how many there
// are.
Metrics foreign_metrics(const ForeignLists&, const HeldOut&, const std::vector<int>& ks, int64_t* missing);

}  // namespace ccdrec
