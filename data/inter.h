// NAME.inter: interactions as text with one header line, columns separated by tabs, commas or semicolons and found by
// name (spec baselines 2.1).
//
// Ids. A column of integers from 0 is taken as it is: user u of the file is row u of every matrix. A column of names is
// numbered by id_mapping's order where that file exists, else in order of first appearance, which gives feature rows to
// other items where the file meant numbers. So
//   under RecBole's typed header (`user_id:token`)  one name anywhere makes the whole column names
//   under an untyped header                         a column is integers or names, never both: UserError that names a
//                                                   line of either, whichever comes first. Integers in another spelling
//                                                   (blanks around them, 3.0, zeros in front up to about the number of
//                                                   ids) are neither: UserError
//   either, with a mapping                          a name must stand in it, and may then be a number
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace ccdrec {

// u_id_mapping.csv, i_id_mapping.csv. index -> raw.
//   two columns    raw id and index in either order, the index under the field's name or else in the second; a header
//                  unless the first line has an index
//   more           the index under the field's name, the raw id under a usual name (asin, id, ...), else in the first
//                  other column that is named
//   one            raw ids in order, under a heading if that is a usual name or the field's; what is neither that nor
//                  an id for sure is refused
// Separated as NAME.inter is; one column may have any text.
struct IdMapping {
  std::string path;  // "" where there is none
  std::vector<std::string> raw;
  uint64_t fingerprint = 0;
  std::vector<std::string> notes;
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
  std::vector<std::string> notes;   // what of the form is unusual, with those of the mappings
};

struct InterFields {
  std::string user, item, label;
};
// path may end in .gz
InterFile read_inter(const std::string& path, const InterFields&, const IdMapping& users, const IdMapping& items);

}  // namespace ccdrec
