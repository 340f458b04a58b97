// Ctrl-C, a terminal that is closed, a shutdown: the first one asks the training loop to stop after its step, a second
// one ends the program at once.
#pragma once
#include <csignal>

namespace ccdrec::cli {

class InterruptGuard {
 public:
  InterruptGuard() {
    asked_ = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { asked_ = 1; };
    action.sa_flags = int(SA_RESETHAND);  // the second signal finds the default action
    for (int i = 0; i < kCount; ++i) sigaction(kSignals[i], &action, &before_[i]);
    if (before_[kHangup].sa_handler == SIG_IGN) sigaction(SIGHUP, &before_[kHangup], nullptr);  // nohup: it is to go on
  }
  ~InterruptGuard() {
    for (int i = 0; i < kCount; ++i) sigaction(kSignals[i], &before_[i], nullptr);
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool asked() { return asked_ != 0; }

 private:
  static constexpr int kCount = 3, kHangup = 2;
  static constexpr int kSignals[kCount] = {SIGINT, SIGTERM, SIGHUP};
  static inline volatile std::sig_atomic_t asked_ = 0;
  struct sigaction before_[kCount];
};

// A write to a pipe whose reader has gone (`train | head`) is no reason to lose what was trained: it asks to stop as
// well.
class PipeGuard {
 public:
  PipeGuard() {
    gone_ = 0;
    before_ = std::signal(SIGPIPE, [](int) { gone_ = 1; });
  }
  // What could not be written is tried again when the program ends; the default action would then take the place of its
  // exit code.
  ~PipeGuard() { std::signal(SIGPIPE, gone_ ? SIG_IGN : before_); }
  PipeGuard(const PipeGuard&) = delete;
  PipeGuard& operator=(const PipeGuard&) = delete;
  static bool reader_gone() { return gone_ != 0; }

 private:
  static inline volatile std::sig_atomic_t gone_ = 0;
  void (*before_)(int);
};

}  // namespace ccdrec::cli
