// Reads what `valgrind --tool=callgrind --compress-strings=no --compress-pos=no` wrote.
#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace ccdrec::bench {

struct Counts {
  int64_t total = 0;  // instructions while collecting
  std::map<std::string, int64_t>
      operations;  // of kernels/ops.h, by name: what the calls from outside kernels/cpu cost, callees included
};
Counts read_callgrind(const std::string& path);  // UserError: absent, or not such a file

}  // namespace ccdrec::bench
