// Trains several runs at a time, each a process of its own (`ccdrec train`): one that diverges or finds no memory harms
// no other, and each has its own share of the threads.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ccdrec {

struct Job {
  // Of the command, without --threads; asked for when it begins, since another program may have trained in the folder
  // meanwhile. Empty: nothing is left to do.
  std::function<std::vector<std::string>()> words;
  std::string folder;  // of the run; one that another program trains in waits until that has ended
  size_t bytes = 0;    // what its memory plan says
};
struct JobEnd {
  int code = 0;            // exit code, or minus the signal that ended it
  std::string last_words;  // the last line it wrote
};

struct SideBySide {
  int jobs = 1;
  int threads = 1;      // of all jobs together; each has at least one
  uint64_t memory = 0;  // that the jobs may take together; what does not fit waits, unless it is alone. 0: not known
  // Polled; true: the runs under way are asked to stop and save, and nothing more is begun.
  std::function<bool()> interrupted = [] { return false; };
  // Nothing can begin and nothing runs: another program trains in that job's folder.
  std::function<void(size_t job)> on_wait = [](size_t) {};
  std::function<void(size_t job, const JobEnd&)> on_end = [](size_t, const JobEnd&) {};

  bool run(const std::vector<Job>&) const;  // false: it was interrupted
};

}  // namespace ccdrec
