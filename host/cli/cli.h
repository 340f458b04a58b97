// The command line: one file per command, all reachable through run_cli so that tests can check exit codes and
// sentences without a process.
//
// Exit codes   0 done | 2 a mistake of the user: one sentence on err | 3 out of memory, or a fault of the program | 4
//              training diverged
//              130 interrupted; training has saved its state
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "host/files/config.h"
#include "host/report/table.h"

namespace ccdrec::cli {

constexpr int kDone = 0, kUserMistake = 2, kFault = 3, kDiverged = 4, kInterrupted = 130;

struct Io {
  std::ostream& out;                      // results
  std::ostream& err;                      // progress bar, notes, errors
  bool out_tty = false, err_tty = false;  // a terminal that can be drawn on
  bool color = false;                     // a terminal, and NO_COLOR is not set
};

int run_cli(int argc, const char* const* argv, std::ostream& out, std::ostream& err);

// Each adds its sub-command; when that is chosen, `chosen` becomes the work, called with the streams, returning the
// exit code.
using Action = std::function<int(Io&)>;
void add_synth(CLI::App&, Action& chosen);
void add_train(CLI::App&, Action& chosen);
void add_sweep(CLI::App&, Action& chosen);
void add_reproduce(CLI::App&, Action& chosen);
void add_evaluate(CLI::App&, Action& chosen);
void add_recommend(CLI::App&, Action& chosen);
void add_export(CLI::App&, Action& chosen);
void add_info(CLI::App&, Action& chosen);
void add_check(CLI::App&, Action& chosen);
void add_compare(CLI::App&, Action& chosen);
void add_step(CLI::App&, Action& chosen);  // and reverse
void add_case(CLI::App&, Action& chosen);

// ---- what several commands need (common.cpp)

// For Option::check: a whole number from `least` to `most`. CLI11's own checks name the largest double in full.
std::function<std::string(const std::string&)> whole_number(int64_t least, int64_t most);
constexpr int64_t kMostRows = 2147483646;  // row indices are int32
void add_device_options(CLI::App&, std::string& device, int& threads);

// The folder a user means by -d: FOLDER as given, else data/FOLDER (MMRec's short form `-d baby`). Absolute.
std::string find_data_folder(const std::string& folder);
Dataset load_data(const Settings&, bool need_features, Io&);  // prints the warnings to err
std::string bold(const Io&, const std::string&);

}  // namespace ccdrec::cli
