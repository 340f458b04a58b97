// Reads what `valgrind --tool=callgrind --compress-strings=no --compress-pos=no` wrote.
#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace ccdrec::bench {

struct Counts {
  int64_t total = 0;  // instructions while collecting
  // of kernels/ops.h, by name: what the calls from outside kernels/cpu cost, callees included
  std::map<std::string, int64_t> operations;
};
Counts read_callgrind(const std::string& path);  // UserError: absent, or not such a file

}  // namespace ccdrec::bench
