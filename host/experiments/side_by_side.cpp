#include "host/experiments/side_by_side.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>

#include "data/error.h"
#include "data/path.h"
#include "host/files/run_folder.h"

namespace ccdrec {
namespace {

class Child {
 public:
  Child(std::vector<std::string> words, size_t number, size_t bytes)
      : number_(number), bytes_(bytes), said_(::memfd_create("ccdrec-run", MFD_CLOEXEC)) {
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    argv.push_back(nullptr);
    const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ < 0) throw UserError(fmt::format("a run cannot be started ({})", std::strerror(errno)));
    if (pid_ == 0) {
      ::setpgid(0, 0);                     // Ctrl-C reaches the parent alone, which asks each run once
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // a parent that is killed leaves no run behind: each saves its state
      if (::getppid() != parent) ::_exit(130);
      ::dup2(nothing, STDIN_FILENO), ::dup2(said_, STDOUT_FILENO), ::dup2(said_, STDERR_FILENO);
      ::execv("/proc/self/exe", argv.data());  // this program, also where its file has been replaced meanwhile
      ::_exit(127);
    }
    if (nothing >= 0) ::close(nothing);
  }
  Child(Child&& o) noexcept : number_(o.number_), bytes_(o.bytes_), said_(o.said_), pid_(o.pid_) {
    o.said_ = -1, o.pid_ = -1;
  }
  Child& operator=(Child&& o) noexcept {
    std::swap(number_, o.number_), std::swap(bytes_, o.bytes_), std::swap(said_, o.said_), std::swap(pid_, o.pid_);
    return *this;
  }
  ~Child() {
    if (pid_ > 0) ::kill(pid_, SIGTERM), ::waitpid(pid_, nullptr, 0);
    if (said_ >= 0) ::close(said_);
  }
  size_t number() const { return number_; }
  size_t bytes() const { return bytes_; }
  void ask_to_stop() const { ::kill(pid_, SIGTERM); }
  std::optional<JobEnd> ended() {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return {};
    pid_ = -1;
    return JobEnd{WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status), last_words()};
  }

 private:
  std::string last_words() const {
    constexpr off_t kLongest = 4096;
    const off_t size = ::lseek(said_, 0, SEEK_END), first = std::max<off_t>(0, size - kLongest);
    std::string text(size_t(std::max<off_t>(0, size - first)), '\0');
    if (::pread(said_, text.data(), text.size(), first) != ssize_t(text.size())) return "";
    text.erase(text.find_last_not_of("\n\r ") + 1);
    const size_t at = text.find_last_of('\n');
    return at == std::string::npos ? text : text.substr(at + 1);
  }
  size_t number_, bytes_;
  int said_;
  pid_t pid_ = -1;
};

// Another program trains in it, perhaps one that saves its state before it ends.
bool held_by_another(const std::string& folder) {
  if (!is_folder(folder)) return false;
  try {
    const RunLock lock(RunFolder::create(folder));
    return false;
  } catch (const UserError&) { return true; }
}

}  // namespace

bool SideBySide::run(const std::vector<Job>& all) const {
  const int at_once = std::clamp<int>(jobs, 1, int(std::max<size_t>(all.size(), 1)));
  std::vector<size_t> waiting(all.size());
  for (size_t j = 0; j < all.size(); ++j) waiting[j] = j;
  std::vector<Child> running;
  bool stopped = false, said = false;
  const auto begin_one = [&] {
    size_t taken = 0;
    for (const Child& c : running) taken += c.bytes();
    for (auto it = waiting.begin(); it != waiting.end(); ++it) {
      const Job& job = all[*it];
      if (memory && !running.empty() && taken + job.bytes > memory) continue;
      if (held_by_another(job.folder)) continue;
      const size_t number = *it;
      waiting.erase(it);
      std::vector<std::string> words = job.words();
      if (words.empty()) {
        on_end(number, {});
        return true;
      }
      words.insert(words.begin(), "ccdrec");
      words.insert(words.end(), {"--threads", std::to_string(std::max(1, threads / at_once))});
      running.emplace_back(std::move(words), number, job.bytes);
      return true;
    }
    return false;
  };
  while (!running.empty() || (!stopped && !waiting.empty())) {
    if (!stopped && interrupted()) {
      stopped = true;
      for (const Child& c : running) c.ask_to_stop();
    }
    bool moved = false;
    if (!stopped && int(running.size()) < at_once) moved = begin_one();
    if (!stopped && !moved && !said && running.empty() && !waiting.empty()) on_wait(waiting.front()), said = true;
    for (size_t k = 0; k < running.size();) {
      if (const std::optional<JobEnd> end = running[k].ended()) {
        const size_t number = running[k].number();
        running.erase(running.begin() + std::ptrdiff_t(k));
        on_end(number, *end);
        moved = true;
      } else {
        ++k;
      }
    }
    if (!moved) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return !stopped;
}

}  // namespace ccdrec
