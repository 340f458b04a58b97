// Run folders as lines of tables: runs that differ in nothing but the seed are one line, of which means and deviations
// are taken. No data set is opened.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "host/files/run_folder.h"

namespace ccdrec {

using Figures = std::map<std::string, double>;  // by key; NAN: it could not be computed

struct RunBin {                              // items of a popularity, or users of an activity
  int64_t items = -1, rows = -1, users = 0;  // -1: it is of users
  int64_t fewest = 0, most = 0;              // training rows
  Figures metrics;
};
bool same_bin(const RunBin&, const RunBin&);  // whatever was measured there

struct RunOfSeed {
  std::string dir;
  uint32_t seed = 0;
  Figures valid, test;  // metrics of the best validation epoch; empty: the split has no rows
  Figures lists;        // of its test lists: coverage@20, ..; empty: the program of the run kept none
  std::vector<RunBin> popularity, activity;  // empty: none kept
  bool has_users = false;                    // users.f32
  bool has_lists = false;                    // lists, popularity and activity were kept
  double best_epoch = 0, epochs = 0, seconds = 0;
};

struct RunGroup {
  Settings settings;                          // of its first run
  std::string label, note;                    // systems/label.h
  std::string name;                           // the label, and the settings in which lines of one label differ
  std::string data, interactions;             // name and checksum of the set
  std::string counts;                         // "200 users, 120 items, 1,600 training rows"
  std::map<std::string, std::string> values;  // settings that decide numbers
  std::vector<RunOfSeed> runs;                // by seed

  // A value a run: of the split's metrics, of the lists, or best_epoch, epochs, seconds. NAN where a run has none.
  std::vector<double> of(const std::string& key, bool valid) const;
  double mean_of(const std::string& key, bool valid) const;  // NAN: not every run has it
};
bool same_set(const RunGroup&, const RunGroup&);

struct RunReading {
  std::function<void(const std::string&)> note;  // on a run that is left out, or ended early; may be empty
  std::function<void(const RunFolder&, const Settings&)> check;  // that its files are of one run; empty: they are
};
// From the simplest model to the richest, as papers print them; lines of one model in the order given. UserError: a
// folder is no run or is damaged (of several, a folder that holds none is noted and left out), none is finished.
std::vector<RunGroup> group_runs(const std::vector<std::string>& dirs, const RunReading&);

// The lines of each set of interactions, in the order of their first.
struct RunSet {
  std::string title;  // the set's name, and what it holds where two sets have one name
  std::vector<const RunGroup*> lines;
};
std::vector<RunSet> sets_of(const std::vector<RunGroup>&);

}  // namespace ccdrec
