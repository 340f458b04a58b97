// Ctrl-C, a terminal that is closed, a shutdown: the first one asks the training loop to stop after its step, a second one ends the program at once.
// The same is asked by a write to a pipe whose reader has gone (`train | head`), however often.
#pragma once
#include <csignal>

namespace ccdrec::cli {

class InterruptGuard {
 public:
  InterruptGuard() {
    asked_ = 0;
    struct sigaction action {};
    action.sa_handler = [](int signal) { asked_ = signal; };
    for (int i = 0; i < kCount; ++i) {
      action.sa_flags = kSignals[i] == SIGPIPE ? 0 : int(SA_RESETHAND);  // the second signal finds the default action
      sigaction(kSignals[i], &action, &before_[i]);
    }
    if (before_[kHangup].sa_handler == SIG_IGN) sigaction(SIGHUP, &before_[kHangup], nullptr);  // nohup: it is to go on
  }
  ~InterruptGuard() {
    for (int i = 0; i < kCount; ++i) sigaction(kSignals[i], &before_[i], nullptr);
    // What could not be written is tried again when the program ends; the default action would take the place of its exit code.
    if (reader_gone()) std::signal(SIGPIPE, SIG_IGN);
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool asked() { return asked_ != 0; }
  static bool reader_gone() { return asked_ == SIGPIPE; }

 private:
  static constexpr int kCount = 4, kHangup = 2;
  static constexpr int kSignals[kCount] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
  static inline volatile std::sig_atomic_t asked_ = 0;
  struct sigaction before_[kCount];
};

}  // namespace ccdrec::cli
