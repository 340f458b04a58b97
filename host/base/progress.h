// What a training run shows: a bar while an epoch runs where somebody watches, plain lines where nobody does, and the
// log file in both cases.
#pragma once
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iosfwd>
#include <string>

namespace ccdrec {

// Is the file a terminal that can be drawn on, so that a bar can be drawn over itself? TERM=dumb, as editors set it,
// says that it cannot.
bool draws(int file);

// epoch 3  ████████░░░░  142/232  1.9 s left  loss 0.4120: narrower than `width`
std::string render_bar(int epoch, int64_t step, int64_t steps, double seconds_so_far, const std::string& tail,
                       int width);
std::string describe_seconds(double s);  // "1.9 s", "4 min 10 s", "2 h 05 min"

// Lines go to `out` and to the log file; the bar to `screen`, and only when `live`: it is drawn over itself and cleared
// before each line.
class Progress {
 public:
  Progress(std::ostream& out, std::ostream& screen, bool live) : out_(out), screen_(screen), live_(live) {}
  ~Progress() { clear(); }
  void log_to(const std::string& path, bool append);  // opens train.log; UserError when it cannot
  void line(const std::string& text);                 // to out and to the log, with a time stamp in the log
  void log_only(const std::string& text);
  // at most ten drawings a second; every half minute a plain line when not live
  void step(int epoch, int64_t step, int64_t steps);
  void tail(const std::string& text) { tail_ = text; }  // right of the bar, e.g. the last loss
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::ostream& out_;
  std::ostream& screen_;
  bool live_, drawn_ = false;
  std::ofstream log_;
  std::string tail_;
  int epoch_ = -1;
  int64_t first_step_ = 0;
  Clock::time_point epoch_start_, last_;
};

}  // namespace ccdrec
