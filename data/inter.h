// NAME.inter: interactions as text, tab-separated with one header line, columns found by name (spec baselines 2.1).
//
// Ids. A column of integers from 0 is taken as it is: user u of the file is row u of every matrix. A column of names (its first value is no
// number) is numbered by id_mapping's order where that file exists, else in order of first appearance. Under RecBole's typed header
// (`user_id:token`) one name anywhere makes the whole column names; under an untyped header the first row decides, so that a stray word
// among integers is an error and not 20,000 renumbered items.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace ccdrec {

// u_id_mapping.csv, i_id_mapping.csv: two tab-separated columns with a header, raw id and index in either order. index -> raw.
struct IdMapping {
  std::string path;  // "" where there is none
  std::vector<std::string> raw;
  uint64_t fingerprint = 0;
};
IdMapping read_id_mapping(const std::string& path, const std::string& field);  // an absent file is an empty mapping

struct InterIds {
  int64_t n = 0;                 // 1 + the largest index, or the mapping's length if that is more
  std::vector<std::string> raw;  // index -> raw; empty for plain integers
  bool appearance = false;       // numbered in order of first appearance
  int64_t line_of_largest = 0;
};
struct InterFile {
  std::string path;
  InterIds users, items;
  std::vector<int32_t> user, item;  // per row, file order
  std::vector<uint8_t> label;       // 0 training, 1 validation, 2 test
  uint64_t fingerprint = 0;         // of the text
};

struct InterFields {
  std::string user, item, label;
};
InterFile read_inter(const std::string& path, const InterFields&, const IdMapping& users, const IdMapping& items);  // path may end in .gz

}  // namespace ccdrec
