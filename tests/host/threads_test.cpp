// How many threads there are, why, and how they wait: of the program itself, as users start it. (ctest sets
// OMP_WAIT_POLICY for all tests.)
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <sched.h>

#include <cstdio>
#include <filesystem>
#include <regex>

#include "host/base/machine.h"
#include "kernels/ctx.h"
#include "kernels/waiting.h"
#include "tests/host/command.h"

namespace ccdrec::test {
namespace {

// What a program prints on both streams when the environment has nothing but this. libgomp tells what it has in force.
std::string printed_with(const std::string& environment, const std::string& command) {
  const std::string line = "env -i PATH=\"$PATH\" OMP_DISPLAY_ENV=verbose " + environment + " " + command + " 2>&1";
  FILE* const pipe = popen(line.c_str(), "r");
  std::string out;
  for (char part[4096]; size_t n = fread(part, 1, sizeof part, pipe);) out.append(part, n);
  pclose(pipe);
  return out;
}
std::string info_with(const std::string& environment, const std::string& before = "") {
  return printed_with(environment, before + " " + program() + " info");
}
std::string spins_of(const std::string& printed) {
  std::smatch found;
  return std::regex_search(printed, found, std::regex("GOMP_SPINCOUNT = '(\\d+)'")) ? found[1].str()
                                                                                    : "not told: " + printed;
}
std::string line_of(const std::string& printed, const std::string& name) {
  const size_t at = printed.find("\n" + name);
  return at == std::string::npos ? "" : printed.substr(at + 1, printed.find('\n', at + 1) - at - 1);
}

TEST(Waiting, TheProgramsDefaultIsBrief) {
  if (waiting().spins < 0) GTEST_SKIP() << "this OpenMP library is not GCC's archive";
  const std::string printed = info_with("");
  EXPECT_EQ(spins_of(printed), std::to_string(kBriefly));
  EXPECT_TRUE(
      has(line_of(printed, "threads "),
          "waiting threads spin 500 times, then sleep (the default; longer while nothing else takes their cores)"))
      << printed;
  EXPECT_EQ(spins_of(info_with("OMP_WAIT_POLICY= GOMP_SPINCOUNT=")), std::to_string(kBriefly)) << "empty: not set";
}

TEST(Waiting, TheEnvironmentWins) {
  if (waiting().spins < 0) GTEST_SKIP() << "this OpenMP library is not GCC's archive";
  struct Row {
    const char *environment, *spins, *words;
  };
  const Row rows[] = {
      {"OMP_WAIT_POLICY=passive", "0", "waiting threads sleep (OMP_WAIT_POLICY)"},
      {"OMP_WAIT_POLICY=active", "30000000000", "waiting threads spin (OMP_WAIT_POLICY)"},
      {"GOMP_SPINCOUNT=77", "77", "waiting threads spin 77 times, then sleep (GOMP_SPINCOUNT)"},
      {"OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=78", "78", "waiting threads spin 78 times, then sleep (GOMP_SPINCOUNT)"},
  };
  for (const Row& r : rows) {
    const std::string printed = info_with(r.environment);
    EXPECT_EQ(spins_of(printed), r.spins) << r.environment;
    EXPECT_TRUE(has(line_of(printed, "threads "), r.words)) << r.environment << "\n" << printed;
  }
  EXPECT_TRUE(has(info_with("OMP_PROC_BIND=true"), "OMP_PROC_BIND = 'TRUE'")) << "what else is set stays";
}

TEST(Waiting, EveryProgramWithOperationsHasIt) {
  if (waiting().spins < 0) GTEST_SKIP() << "this OpenMP library is not GCC's archive";
  namespace fs = std::filesystem;
  const fs::path here = fs::path(program()).parent_path();
  for (const char* name : {"test_host", "bench_epoch", "bench_race", "bench_growth", "bench_busy", "bench_kernels"}) {
    // `make test` does not build benches: one that is there may be of another commit.
    if (!fs::exists(here / name) ||
        fs::last_write_time(here / name) < fs::last_write_time(here / "libccdrec_kernels.a"))
      continue;
    EXPECT_EQ(spins_of(printed_with("", (here / name).string() + " --help")), std::to_string(kBriefly)) << name;
  }
}

TEST(Threads, InfoAndTheLogSayHowManyAndWhy) {
  const int cores = default_threads().n;
  EXPECT_TRUE(has(line_of(info_with("OMP_NUM_THREADS=3"), "threads "), " 3 (OMP_NUM_THREADS), "));
  EXPECT_TRUE(has(line_of(info_with(""), "threads "), fmt::format(" {} (", cores)));
  if (omp_get_num_procs() > 1) {
    cpu_set_t mine;
    sched_getaffinity(0, sizeof mine, &mine);
    int first = 0;
    while (!CPU_ISSET(first, &mine)) ++first;
    EXPECT_TRUE(has(line_of(info_with("", fmt::format("taskset -c {}", first)), "threads "), " 1 (those of "))
        << "the affinity mask";
  }
  const Folder dir;
  const std::string train =
      program() + " train -m BPR -d " + data_folder() + " --set epochs=1 --run-dir " + dir / "run";
  EXPECT_TRUE(has(printed_with("", train + " --threads 2"), "device cpu with 2 threads (as set), waiting threads "))
      << "a setting wins";
}

TEST(Threads, QuotasOfControlGroupsCount) {
  const Folder root;
  namespace fs = std::filesystem;
  const auto write = [&](const std::string& file, const std::string& text) {
    fs::create_directories(fs::path(root / file).parent_path());
    root.write(file, text);
  };
  const auto quota = [&](const std::string& groups) { return cpu_quota(root.path(), groups); };
  EXPECT_EQ(quota("0::/\n"), 0) << "no files";
  EXPECT_EQ(quota(""), 0);
  EXPECT_EQ(quota("no colons\n1:cpu\n"), 0);

  write("cpu.max", "max 100000\n");
  write("a/cpu.max", "350000 100000\n");
  write("a/b/cpu.max", "max 100000\n");
  write("a/c/cpu.max", "50000 100000\n");
  EXPECT_EQ(quota("0::/\n"), 0) << "max: no quota";
  EXPECT_EQ(quota("0::/a\n"), 3) << "whole processors, rounded down";
  EXPECT_EQ(quota("0::/a/b\n"), 3) << "a group above counts";
  EXPECT_EQ(quota("0::/a/c\n"), 1) << "at least one";
  EXPECT_EQ(quota("0::/a/b/none/such\n"), 3);
  EXPECT_EQ(quota("0::/docker/0123\n"), 0) << "the host's path in a container: the mount's own group";
  write("cpu.max", "250000 100000\n");
  EXPECT_EQ(quota("0::/docker/0123\n"), 2);
  EXPECT_EQ(quota("0::/a/b\n"), 2) << "the least of all";
  write("cpu.max", "max 100000\n");

  write("cpu,cpuacct/pod/cpu.cfs_quota_us", "150000\n");
  write("cpu,cpuacct/pod/cpu.cfs_period_us", "50000\n");
  write("cpu,cpuacct/pod/box/cpu.cfs_quota_us", "-1\n");
  write("cpu,cpuacct/pod/box/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota("7:memory:/x\n4:cpu,cpuacct:/pod/box\n0::/\n"), 3)
      << "version 1: -1 is no quota, the group above has one";
  write("cpu/only/cpu.cfs_quota_us", "200000\n");
  write("cpu/only/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota("4:cpu:/only\n"), 2);
  EXPECT_EQ(quota("4:cpuset:/only\n"), 0) << "another controller";
  write("unified/u/cpu.max", "400000 100000\n");
  EXPECT_EQ(quota("4:cpu:/\n0::/u\n"), 4) << "both versions mounted";
}

TEST(Threads, SmallWorkIsDoneAlone) {
  Ctx ctx(4);
  EXPECT_EQ(ctx.threads_for(kAloneNs / 2), 1);
  EXPECT_EQ(ctx.threads_for(kAloneNs * 2), 4);
  ctx.alone_ns = 0;
  EXPECT_EQ(ctx.threads_for(0), 4);
}

}  // namespace
}  // namespace ccdrec::test
