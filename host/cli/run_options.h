// What `train` and `case` take alike: model, data folder and settings; and what both settle before memory is taken.
#pragma once
#include "host/cli/cli.h"
#include "host/training/trainer.h"

namespace ccdrec::cli {

struct RunOptions {
  std::string model, data, device, seed, threads;
  std::vector<std::string> configs, sets;
};
void add_run_options(CLI::App&, RunOptions&);

// options and --set in one list; the shorter spelling comes last and wins
std::vector<KeyValue> command_line(const RunOptions&);
// and -d
Config resolve_run(const RunOptions&, const std::vector<std::string>& files, const std::vector<KeyValue>& list,
                   Grids = Grids::refused);
// MMRec's files name the parent (`data_path: ../data/`) and the set (`dataset: baby`) apart
void settle_data_folder(Config&);

}  // namespace ccdrec::cli
