// Which operations of the catalogue bench_gpu has measured: its device's table notes each call, so that one left out is
// found by the bench itself.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace ccdrec::bench {

struct Excuse {
  const char *op, *why;
};
// Operations deliberately not measured. None at present; an entry says why its time would tell nothing.
const std::vector<Excuse>& excused();

// The table given, each of whose operations notes its name while `noting`. One table at a time: the last one given.
const Ops& noted_ops(const Ops&);
struct Noted {
  bool noting = false;
  std::set<std::string> called;
};
Noted& noted();

// One sentence for each operation of the catalogue that is neither called nor excused, and for each excuse that is not
// needed: of an operation that is called all the same, or of none.
std::vector<std::string> gaps(const std::set<std::string>& called, const std::vector<Excuse>&);

}  // namespace ccdrec::bench
