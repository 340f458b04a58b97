// A run that a search or a table asks for: settings, a folder named by their content, and where it stands. Two that ask
// for the same settings, seed and data share one folder, so nothing is trained twice.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "host/experiments/grid.h"
#include "host/files/config.h"

namespace ccdrec {

struct Asked {  // what was typed for all runs alike: the options of `ccdrec train`
  std::string model, data, device, threads;
  std::vector<std::string> configs, sets;
};

struct PlannedRun {
  std::string label;               // of the line it belongs to
  Point point;                     // of a grid; empty: none
  Config config;                   // resolved, with its seed
  std::vector<std::string> words;  // `ccdrec train` with these is this run, but for folder and threads
  std::string key, name;           // run_key; the folder's name
  size_t bytes = 0;                // of the memory plan
  const Settings& settings() const { return config.settings; }
};

// Resolved as `ccdrec train` would, and its words. UserError: a setting that cannot be.
PlannedRun planned_run(const Asked&, const std::string& label, const Point&, const std::string& seed);

// 12 hexadecimal digits of the settings that decide a run's numbers (but for the seed), its epochs and list lengths,
// and of the data it reads.
std::string run_key(const Settings&, const Dataset&);
// FREEDOM-s1-0123456789ab
std::string run_name(const Settings&, const std::string& key);

struct Standing {
  enum Kind { absent, begun, over, diverged } kind = absent;
  nlohmann::json summary;  // over, diverged
};
// How far the run in `folder` is by what it has trained, asked to reach `epochs` of its epochs. UserError: files in it
// that cannot be read.
Standing standing_of(const std::string& folder, int epochs);

// The best value of the metric on validation among the first `epochs` epochs; -1: none was evaluated.
double best_within(const std::string& folder, const std::string& metric, int epochs);

}  // namespace ccdrec
