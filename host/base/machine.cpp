#include "host/base/machine.h"

#include <fmt/format.h>
#include <omp.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

#include "kernels/waiting.h"

#if __has_include("build_info.h")
#include "build_info.h"
#else  // compiled by hand, without CMake
#define CCDREC_VERSION "0.1.0"
#define CCDREC_COMMIT "unknown"
#define CCDREC_COMPILER "unknown"
#define CCDREC_FLAGS "not recorded"
#define CCDREC_HAVE_OPENBLAS 0
#endif

namespace ccdrec {
namespace {

// "name : value" files of /proc: the value of the first line whose name matches, "" when there is none.
std::string proc_value(const char* file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, name.size(), name) != 0) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t first = line.find_first_not_of(" \t", colon + 1);
    return first == std::string::npos ? "" : line.substr(first);
  }
  return "";
}

uint64_t proc_kilobytes(const char* name) {
  return std::strtoull(proc_value("/proc/meminfo", name).c_str(), nullptr, 10) * 1024;
}

// A number in a file of its own; 0 when the file is missing or says "max" (no limit).
uint64_t number_in(const char* file) {
  std::ifstream in(file);
  uint64_t n = 0;
  return in >> n ? n : 0;
}

// Processors' worth of time that this folder of a control group grants, "max" and -1 being no limit: infinity then, and
// where there are no such files.
double quota_in(const std::string& folder) {
  double quota = -1, period = 0;
  std::ifstream both(folder + "/cpu.max"), v1_quota(folder + "/cpu.cfs_quota_us"),
      v1_period(folder + "/cpu.cfs_period_us");
  const bool found = (both >> quota >> period) || (v1_quota >> quota && v1_period >> period);
  return found && quota > 0 && period > 0 ? quota / period : std::numeric_limits<double>::infinity();
}

std::string text_in(const char* file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

std::string instruction_sets() {
  std::string out;
#if defined(__x86_64__)
  const std::pair<const char*, bool> sets[] = {{"avx2", __builtin_cpu_supports("avx2")},
                                               {"fma", __builtin_cpu_supports("fma")},
                                               {"avx512f", __builtin_cpu_supports("avx512f")}};
  for (const auto& [name, has] : sets)
    if (has) out += (out.empty() ? "" : " ") + std::string(name);
#endif
  return out.empty() ? "baseline" : out;
}

}  // namespace

uint64_t used_by_group(const std::string& folder) {
  const uint64_t current = number_in((folder + "/memory.current").c_str());
  std::ifstream stat(folder + "/memory.stat");  // "name bytes", one a line
  uint64_t cached = 0, bytes = 0;
  for (std::string name; stat >> name >> bytes;)
    if (name == "inactive_file") cached = bytes;
  return current > cached ? current - cached : 0;
}

int cpu_quota(const std::string& root, const std::string& groups) {
  double least = std::numeric_limits<double>::infinity();
  std::istringstream lines(groups);
  for (std::string line; std::getline(lines, line);) {  // "0::/a/b" (version 2) or "4:cpu,cpuacct:/a/b"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::vector<std::string> mounts;
    if (controllers.empty())
      mounts = {root, root + "/unified"};
    else if (("," + controllers + ",").find(",cpu,") != std::string::npos)
      mounts = {root + "/" + controllers, root + "/cpu"};
    // The group, and all above it; in a container the path may be the host's, and then the mount itself is the
    // container's group.
    for (const std::string& mount : mounts)
      for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
        least = std::min(least, quota_in(mount + path));
        if (path.find('/') == std::string::npos) break;
      }
  }
  return std::isinf(least) ? 0 : std::max(1, int(std::min(least, 1e6)));
}

Threads default_threads() {
  const char* const asked = std::getenv("OMP_NUM_THREADS");
  if (asked && *asked) return {std::max(1, omp_get_max_threads()), "OMP_NUM_THREADS"};
  const int cores = std::max(1, omp_get_num_procs()), quota = cpu_quota("/sys/fs/cgroup", text_in("/proc/self/cgroup"));
  if (quota > 0 && quota < cores) return {quota, "the control group's quota"};
  const int64_t of = sysconf(_SC_NPROCESSORS_ONLN);
  return {cores, cores < of ? fmt::format("those of {} cores this process may use", of) : "all cores"};
}

std::string describe_waiting() {
  const Waiting w = waiting();
  constexpr int64_t kForEver = 1'000'000'000;
  if (w.spins < 0) return "waiting threads do as the OpenMP library has it";
  const std::string how = w.spins == 0         ? "waiting threads sleep"
                          : w.spins > kForEver ? "waiting threads spin"
                                               : fmt::format("waiting threads spin {} times, then sleep", w.spins);
  return fmt::format("{} ({})", how, *w.set_by ? w.set_by : "the default; longer while nothing else takes their cores");
}

Machine this_machine() {
  Machine m;
  m.cpu = proc_value("/proc/cpuinfo", "model name");
  if (m.cpu.empty()) m.cpu = "unknown";
  m.cores = omp_get_num_procs();  // the process's; OMP_PROC_BIND leaves the first thread one of them
  m.isa = instruction_sets();
  utsname u;
  if (uname(&u) == 0) m.os = fmt::format("{} {} {}", u.sysname, u.release, u.machine);
  m.memory_bytes = proc_kilobytes("MemTotal");
  m.available_bytes = proc_kilobytes("MemAvailable");
  // A container may have less than the machine: its control group (version 2) says so.
  if (const uint64_t limit = number_in("/sys/fs/cgroup/memory.max")) {
    const uint64_t used = used_by_group("/sys/fs/cgroup");
    m.memory_bytes = std::min(m.memory_bytes, limit);
    m.available_bytes = std::min(m.available_bytes, limit > used ? limit - used : 0);
  }
  return m;
}

Build this_build() { return {CCDREC_VERSION, CCDREC_COMMIT, CCDREC_COMPILER, CCDREC_FLAGS, CCDREC_HAVE_OPENBLAS != 0}; }

std::string describe_bytes(uint64_t bytes) {
  if (bytes >= 1'000'000'000) return fmt::format("{:.2f} GB", double(bytes) / 1e9);
  if (bytes >= 1'000'000) return fmt::format("{:.1f} MB", double(bytes) / 1e6);
  if (bytes >= 1'000) return fmt::format("{:.1f} kB", double(bytes) / 1e3);
  return fmt::format("{} B", bytes);
}

}  // namespace ccdrec
