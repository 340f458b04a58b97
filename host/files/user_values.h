// users.f32 of a run folder: what each user with held-out rows got from the model of the best epoch, so that runs are
// compared user by user without the data. Little-endian float32, a row a user (validation's first, then test's, each in
// the order of the .inter file), the columns by name in summary.json:
//   "users": {"best_epoch": 12, "columns": ["user", "train_rows", "recall@5", ...], "valid": 300, "test": 310}
// `user` is the row of users.tsv, `train_rows` how many training rows the user has.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "host/files/run_folder.h"

namespace ccdrec {

constexpr const char* kUserFile = "users.f32";

struct UserValues {
  int best_epoch = -1;
  std::vector<std::string> columns;
  int64_t valid = 0, test = 0;  // rows
  std::vector<float> values;    // (valid + test, columns)

  int column(const std::string& name) const;  // -1: there is none
  // Values of a column, a split's rows only.
  std::vector<double> of(bool valid_split, int column) const;
};

nlohmann::ordered_json user_values_json(const UserValues&);   // what summary.json says of it
void write_user_values(const RunFolder&, const UserValues&);  // users.f32 alone
// No columns: the run has none (of an earlier program, or never evaluated). UserError: the file and summary.json
// contradict each other.
UserValues read_user_values(const RunFolder&);

}  // namespace ccdrec
