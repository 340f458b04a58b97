// The program itself, in a process of its own.
#pragma once
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/host/command.h"

namespace ccdrec::test {

class Process {
 public:
  explicit Process(const std::vector<std::string>& words, int out = -1, int err = -1) {
    const std::string file = program();
    std::vector<char*> argv = {const_cast<char*>(file.c_str())};
    for (const std::string& w : words) argv.push_back(const_cast<char*>(w.c_str()));
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    const int nowhere = ::open("/dev/null", O_RDWR);
    ::dup2(out < 0 ? nowhere : out, STDOUT_FILENO);
    ::dup2(err < 0 ? nowhere : err, STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ~Process() {
    if (!ended()) signal(SIGKILL), wait();
  }
  Process(const Process&) = delete;
  bool ended() {
    if (!ended_) ended_ = ::waitpid(pid_, &status_, WNOHANG) == pid_;
    return ended_;
  }
  void signal(int number) { ::kill(pid_, number); }
  int wait() {  // exit code, or minus the signal that ended it
    if (!ended_) ended_ = ::waitpid(pid_, &status_, 0) == pid_;
    return WIFSIGNALED(status_) ? -WTERMSIG(status_) : WEXITSTATUS(status_);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
};

struct Ended {
  int code;
  std::string out, err;
};
// Runs it to its end.
inline Ended ended(const std::vector<std::string>& words) {
  int files[2];
  for (int& f : files) {
    char name[] = "/tmp/ccdrec-said-XXXXXX";
    f = ::mkstemp(name);
    ::unlink(name);
  }
  Ended e;
  {
    Process p(words, files[0], files[1]);
    e.code = p.wait();
  }
  for (int k = 0; k < 2; ++k) {
    std::string& text = k ? e.err : e.out;
    text.resize(size_t(::lseek(files[k], 0, SEEK_END)));
    if (::pread(files[k], text.data(), text.size(), 0) != ssize_t(text.size())) text = "(what it said cannot be read)";
    ::close(files[k]);
  }
  return e;
}

}  // namespace ccdrec::test
