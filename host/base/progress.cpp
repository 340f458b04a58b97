#include "host/base/progress.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <ostream>

#include "data/error.h"
#include "data/text.h"

namespace ccdrec {
namespace {

int terminal_width() {
  winsize w{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

}  // namespace

bool draws(int file) {
  const char* kind = std::getenv("TERM");
  return isatty(file) && kind && *kind && std::string(kind) != "dumb";
}

std::string describe_seconds(double s) {
  if (!(s >= 0)) return "?";
  if (s < 60) return fmt::format("{:.1f} s", s);
  const int64_t whole = std::llround(s);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string render_bar(int epoch, int64_t step, int64_t steps, double seconds_so_far, const std::string& tail,
                       int width) {
  // one is left free: a full line would wrap, and a wrapped one is not drawn over
  const int columns = std::max(width - 1, 0);
  const double share = steps > 0 ? std::clamp(double(step) / double(steps), 0.0, 1.0) : 0;
  const std::string left = fmt::format("epoch {}  ", epoch);
  std::string right;
  // What there is no room for is left out, the least wanted first.
  for (const std::string& part :
       {fmt::format("  {}/{}", step, steps),
        step > 0 ? fmt::format("  {} left", describe_seconds(seconds_so_far / double(step) * double(steps - step)))
                 : "",
        tail.empty() ? "" : "  " + tail}) {
    if (int(left.size() + right.size() + part.size()) > columns) break;
    right += part;
  }
  const int cells = std::clamp(columns - int(left.size()) - int(right.size()), 0, 40);
  const int full = int(share * cells);
  std::string bar;
  for (int c = 0; c < cells; ++c) bar += c < full ? "█" : "░";
  return int(left.size()) > columns ? left.substr(0, size_t(columns)) : left + bar + right;
}

void Progress::log_to(const std::string& path, bool append) {
  log_.open(path, append ? std::ios::app : std::ios::trunc);
  if (!log_) throw UserError(fmt::format("{}: the log cannot be written ({})", path, std::strerror(errno)));
}

void Progress::log_only(const std::string& text) {
  if (!log_.is_open()) return;
  log_ << fmt::format("{:%Y-%m-%d %H:%M:%S}  {}\n", fmt::localtime(std::time(nullptr)), printable(text));
  log_.flush();  // a log is read while the program runs, and after it crashed
}

void Progress::line(const std::string& text) {
  clear();
  out_ << printable(text) << '\n' << std::flush;
  log_only(text);
}

void Progress::step(int epoch, int64_t step, int64_t steps) {
  const auto now = Clock::now();
  if (epoch != epoch_) {  // the first report of an epoch comes after a step; a resumed epoch may begin in its middle
    if (epoch_ < 0) last_ = now;
    epoch_ = epoch, epoch_start_ = now, first_step_ = step;
  }
  const double since_drawn = std::chrono::duration<double>(now - last_).count();
  if (since_drawn < (live_ ? 0.1 : 30.0)) return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - epoch_start_).count(), done = double(step - first_step_);
  // as if every step since 0 had taken the measured time
  const double scaled = done > 0 ? seconds / done * double(step) : 0;
  if (!live_) {
    line(
        fmt::format("epoch {} step {}/{}{}", epoch, step, steps,
                    done > 0 ? fmt::format(", {} left", describe_seconds(seconds / done * double(steps - step))) : ""));
    return;
  }
  screen_ << "\r\x1b[K" << render_bar(epoch, step, steps, scaled, tail_, terminal_width()) << std::flush;
  drawn_ = true;
}

void Progress::clear() {
  if (drawn_) screen_ << "\r\x1b[K" << std::flush;
  drawn_ = false;
}

}  // namespace ccdrec
