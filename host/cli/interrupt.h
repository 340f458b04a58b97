// Ctrl-C: the first one asks the training loop to stop after its step, a second one ends the program at once.
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
    for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &action, &before_[i]);
  }
  ~InterruptGuard() {
    for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &before_[i], nullptr);
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool asked() { return asked_ != 0; }

 private:
  static constexpr int kSignals[2] = {SIGINT, SIGTERM};
  static inline volatile std::sig_atomic_t asked_ = 0;
  struct sigaction before_[2];
};

}  // namespace ccdrec::cli
