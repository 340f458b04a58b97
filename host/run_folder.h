// One folder per run, holding all of it:
//   config.yaml        the resolved settings, with their origins as comments
//   train.log          what the terminal showed
//   metrics.jsonl      one object per epoch, full precision: losses, seconds by phase, validation and test metrics
//   best.safetensors   parameters and final representations of the best validation epoch;  last.safetensors: everything needed to resume
//   users.tsv items.tsv  index TAB raw id
//   summary.json       how it ended, the best epoch and its metrics
// Files that are replaced are written under a temporary name, flushed and renamed.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "host/config.h"
#include "host/trainer.h"

namespace ccdrec {

void write_text(const std::string& path, const std::string& text);  // atomic; UserError when the disk refuses

std::string default_run_dir(const Settings&, const std::string& data_name, long time);  // runs/CCDRec-baby-999-20250131-142501

class RunFolder {
 public:
  static RunFolder create(const std::string& dir);  // makes it; UserError when it already holds a run that left more than its settings
  static RunFolder open(const std::string& dir);    // UserError when it holds none
  std::string path(const char* file) const { return dir_ + "/" + file; }
  bool has(const char* file) const;
  const std::string& dir() const { return dir_; }

  Config config() const;  // of config.yaml
  void write_ids(const Dataset&) const;
  std::vector<std::string> ids(const char* file) const;  // raw ids in order of their index
  void append_epoch(const EpochReport&) const;           // one line of metrics.jsonl
  void truncate_epochs(int first_dropped) const;         // drops epochs >= first_dropped and half-written lines: they will be run again
  void write_summary(const Config&, const Dataset&, const TrainSummary&) const;
  nlohmann::json summary() const;  // UserError when there is none or it is no JSON
  void remove(const char* file) const;

 private:
  explicit RunFolder(std::string dir) : dir_(std::move(dir)) {}
  std::string dir_;
};

// One program at a time trains in a folder: held until it goes out of scope or the process ends, however it ends.
class RunLock {
 public:
  explicit RunLock(const RunFolder&);  // UserError when another program holds it
  RunLock(const RunLock&) = delete;
  ~RunLock();

 private:
  int fd_ = -1;
};

nlohmann::json epoch_json(const EpochReport&);
const char* reason_name(StopReason);

}  // namespace ccdrec
