// What every bench's main does: run it, and turn an error into one sentence and exit code 2.
#pragma once
#include <exception>
#include <iostream>

namespace ccdrec::bench {

inline int command(const char* name, int (*run)(int, char**), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << name << ": " << e.what() << "\n";
    return 2;
  }
}

}  // namespace ccdrec::bench
