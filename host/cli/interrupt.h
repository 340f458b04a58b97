// Ctrl-C, a terminal that is closed, a shutdown: the first one asks the training loop to stop after its step, a second one ends the program at once.
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

}  // namespace ccdrec::cli
