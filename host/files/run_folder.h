// One folder per run, holding all of it:
//   config.yaml        the resolved settings, with their origins as comments
//   train.log          what the terminal showed
//   metrics.jsonl      one object per epoch, full precision: losses, seconds by phase, validation and test metrics
//   best.safetensors   parameters and final representations of the best validation epoch;  last.safetensors: everything
//                      needed to resume
//   best-of-last.safetensors  only while best.safetensors is ahead of last.safetensors: the model of the best epoch
//                             that the saved state knows
//   users.tsv items.tsv  index TAB raw id
//   users.f32          of a run that is over: what each user with held-out rows got from the best epoch's model
//   summary.json       how it ended, the best epoch and its metrics; of a run that is over also what its lists are like
//                      and what users.f32 holds (kept_figures.h). Written after users.f32, removed before it
// Files that are replaced are written under a temporary name, flushed and renamed.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "host/files/config.h"
#include "host/training/trainer.h"

namespace ccdrec {

struct ListFigures;

void write_text(const std::string& path, const std::string& text);  // atomic; UserError when the disk refuses
std::string summary_text(const nlohmann::ordered_json&);            // as it stands in summary.json

// runs/CCDRec-baby-999-20250131-142501
std::string default_run_dir(const Settings&, const std::string& data_name, long time);

constexpr const char* kBest = "best.safetensors";
constexpr const char* kLast = "last.safetensors";

class RunFolder {
 public:
  static RunFolder create(const std::string& dir);       // makes the folder where there is none
  static RunFolder create_free(const std::string& dir);  // makes one that was not there: dir, or dir-2, dir-3, ...
  static RunFolder open(const std::string& dir);         // UserError when it holds no run
  // For a new run, with the lock held. UserError: it holds a run that left more than its settings, or files of another
  // kind.
  void check_new() const;
  // for a run that goes on without a saved state. UserError: the folder is none that a run has begun in
  void check_begun() const;
  void remove_left_over() const;  // with the lock held: temporary files of processes that were killed
  std::string path(const char* file) const { return dir_ + "/" + file; }
  bool has(const char* file) const;
  const std::string& dir() const { return dir_; }

  Config config() const;  // of config.yaml
  void write_ids(const Dataset&) const;
  std::vector<std::string> ids(const char* file) const;  // raw ids in order of their index
  void append_epoch(const EpochReport&) const;           // one line of metrics.jsonl
  // Drops epochs >= first_dropped and half-written lines: they will be run again. forgotten: an epoch whose evaluation
  // the longer run does not make.
  void truncate_epochs(int first_dropped, int forgotten = -1) const;
  // lists: of a run that is over, whose users.f32 is written
  void write_summary(const Config&, const Dataset&, const TrainSummary&, const ListFigures* lists = nullptr) const;
  nlohmann::json summary() const;  // UserError when there is none, it is no JSON, or a number in it cannot be
  void remove(const char* file) const;
  void rename(const char* from, const char* to) const;  // takes the place of what `to` was

 private:
  explicit RunFolder(std::string dir) : dir_(std::move(dir)) {}
  bool is_own_config() const;
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

nlohmann::json metrics_json(const Metrics&);  // null for a split without rows
nlohmann::json epoch_json(const EpochReport&);
const char* reason_name(StopReason);

}  // namespace ccdrec
