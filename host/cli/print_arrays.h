// Arrays as text for a reader: what `ccdrec step --print` shows.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "host/base/safetensors.h"

namespace ccdrec::cli {

struct RowRange {
  int64_t first = 0, last = -1;  // first .. last-1 along the first dimension; last = -1: to the end
};
// "2:5" is 2, 3, 4; "2:" from 2 on; "7" that one alone. UserError for anything else
RowRange parse_rows(const std::string&);

// Name and shape, then a line for each row, its index first (a number alone: one line). The numbers of an array have
// the same number of decimals, five digits for the largest; where all are below 0.01, each its own exponent. A zero is
// `0`. A NAME of which only NAME.index and NAME.value exist is a sparse matrix: `row: column value, column value, ...`.
// `files` are searched in their order. UserError: no such array (names the nearest), no such rows.
std::string print_array(const std::string& name, const std::vector<const TensorFile*>& files,
                        const std::optional<RowRange>&);

}  // namespace ccdrec::cli
