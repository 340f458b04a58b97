// The emulator is tested like the kernels it tests: the dialect (dialect_test.cu, included below, which also runs on a
// GPU), its schedules, and a list of planted bugs. Each bug stands beside its correct twin; the twin gives the same,
// right values in all schedules, the bug is caught by one of these:
//
//   order      results differ between ascending, descending and random
//   poison     results differ between the two patterns
//   report     a KernelError names kernel, file and line
//   replay     a second replay differs from the direct call
//   sanitizer  AddressSanitizer or UndefinedBehaviorSanitizer stops (preset `sanitize`)
//   compiler   it does not compile
//   fault      a segmentation fault
//
// What it cannot catch (see NotCaught below for the first four):
//   * a read-modify-write of two threads without an atomic: nothing comes between two plain accesses of a thread,
//     threads change places only where one waits. Likewise any race whose result no such order changes, such as two
//     threads that write different values to a place nobody reads
//   * memory that other threads see late: missing __threadfence, volatile, or a barrier between write and read that the
//     order happens to respect in both directions. Every store is seen by everybody at once
//   * host code that reads results without waiting: launches are done when they return. (Host code that touches device
//     memory at all is a segmentation fault here too, but for the operation tests, which hand vectors of the host to
//     the operations. What a GPU refuses of the host, refused_test.cpp has.)
//   * addresses of the host in a structure with floats or padding, and of vectors too large for the heap in any
//     structure
//   * accesses outside an array without a sanitizer; with one, those that land in another allocation, or inside a
//     larger one (a row too far in a matrix). Of vectors in shared arrays of scalars those of 16 bytes are seen, those
//     of 8 are not
//   * threads that spin until another one writes: they hang, on a GPU they may or may not
//   * what anything costs: barriers, bank conflicts, coalescing, occupancy, registers, spills
//   * __launch_bounds__ below the block size, too many registers for a launch, and parameters of more than 4 KB
//   * lanes that a GPU lets meet at a collective although they come from different branches (here an error),
//     __syncthreads with threads that have left (here a deadlock), and code that relies on either
//   * 32-bit overflow of an index, unless a sanitizer sees it; nothing here has 2^31 elements
//   * the bits of libraries: cuBLAS and CUB are plain loops here, their scratch is not taken, and expf or sqrtf are the
//     host's
//   * two launches at once: one stream, one launch at a time, no copy beside it; several host threads
#include "tests/simt/simt.h"

#include <csignal>
#include <set>

#include "kernels/cuda/device.h"
#include "tests/simt/devices.h"
#include "tests/simt/dialect_test.cu"

namespace ccdrec::cuda {
namespace {

using simt::Config;
using simt::KernelError;
using simt::Order;

constexpr int kOut = 256;  // what a case may write
constexpr Config kSchedules[] = {{Order::ascending, 0xff, 1}, {Order::descending, 0xff, 1}, {Order::random, 0xff, 1},
                                 {Order::ascending, 0x55, 1}, {Order::descending, 0x55, 1}, {Order::random, 0x55, 1}};

int bug_line = 0;  // where a report is expected: HERE stands before the barrier or collective
#define HERE bug_line = __LINE__

using Launches = std::function<void(Ctx&, int* out)>;
struct Outcome {
  std::vector<int> out;
  std::string error;
  bool operator==(const Outcome&) const = default;
};

void open(Ctx& ctx, const Config& c) {
  open_gpu(ctx, "fp32");
  static_cast<simt::Backend*>(ctx.backend)->config = c;
}
Outcome run(const Launches& r, const Config& c) {
  Ctx ctx;
  open(ctx, c);
  Outcome o{std::vector<int>(kOut, -1), ""};
  try {
    r(ctx, o.out.data());
  } catch (const KernelError& e) { o.error = e.what(); }
  return o;
}
std::vector<Outcome> run_all(const Launches& r) {
  std::vector<Outcome> all;
  for (const Config& c : kSchedules) all.push_back(run(r, c));
  return all;
}

// A bug and its correct twin.
struct Pair {
  const char* kernel;
  Launches bug, twin;

  // The twin's values in every schedule: want(0), want(1), ...
  template <class Want>
  void twin_gives(int n, Want&& want) const {
    std::vector<int> values(kOut, -1);
    for (int k = 0; k < n; ++k) values[size_t(k)] = want(k);
    for (const Outcome& o : run_all(twin)) {
      EXPECT_EQ(o.error, "");
      EXPECT_EQ(o.out, values);
    }
  }
  void bug_shows_by_order() const {
    const auto all = run_all(bug);
    for (const Outcome& o : all) EXPECT_EQ(o.error, "");
    EXPECT_FALSE(all[0] == all[1] && all[1] == all[2]);
    EXPECT_FALSE(all[3] == all[4] && all[4] == all[5]);
  }
  void bug_shows_by_poison() const {
    const auto all = run_all(bug);
    for (const Outcome& o : all) EXPECT_EQ(o.error, "");
    for (size_t k = 0; k < 3; ++k) EXPECT_NE(all[k], all[k + 3]);
  }
  // In every schedule, with kernel, file and line.
  void bug_is_reported(const std::string& what, bool with_line = true) const {
    for (const Config& c : kSchedules) {
      bug_line = 0;
      const std::string error = run(bug, c).error;
      EXPECT_NE(error.find(what), std::string::npos) << error;
      EXPECT_NE(error.find(kernel), std::string::npos) << error;
      EXPECT_NE(error.find("simt_test.cpp:" + (with_line ? std::to_string(bug_line) + ")" : "")), std::string::npos)
          << error << " not line " << bug_line;
    }
  }
};
Pair planted(const char* name, int line, void (*bug)(int*), void (*twin)(int*), Grid grid, int block, size_t shared) {
  const auto launches = [=](void (*kernel)(int*)) {
    return [=](Ctx& ctx, int* out) { launch_named(name, __FILE__, line, kernel, grid, block, shared, ctx, out); };
  };
  return {name, launches(bug), launches(twin)};
}
#define PLANTED(kernel, ...) planted(#kernel, __LINE__, kernel<true>, kernel<false>, __VA_ARGS__)

// --- Schedules -------------------------------------------------------------------------------------------------------

TEST(Simt, OperationTestsHaveEveryOrderPoisonAndChip) {
  std::set<int> orders, poisons;
  std::set<int64_t> chips;
  for (const test::Device& dev : test::simt_devices()) {
    DeviceCtx ctx(dev);
    const Config c = static_cast<simt::Backend*>(ctx.get().backend)->config;
    orders.insert(int(c.order)), poisons.insert(c.poison), chips.insert(c.shared);
  }
  EXPECT_EQ(orders.size(), 3u);
  EXPECT_EQ(poisons.size(), 2u);
  EXPECT_EQ(chips.size(), 3u);
}

// Who came by, in order: the thread at the start, and its warp after each of three shuffles.
__global__ void visits(int* threads, int* warps, int* n) {
  const int t = int(blockIdx.x * blockDim.x + threadIdx.x);
  threads[atomicAdd(&n[0], 1)] = t;
  for (int k = 0; k < 3; ++k) {
    __shfl_sync(kAll, k, 0);
    if (threadIdx.x % 32 == 0) warps[atomicAdd(&n[1], 1)] = int(threadIdx.x / 32);
  }
}
struct Visits {
  std::vector<int> threads, warps;
};
Visits visit(const Config& c, int blocks, int block) {
  Ctx ctx;
  open(ctx, c);
  Visits v{std::vector<int>(size_t(blocks * block)), std::vector<int>(size_t(blocks * block / 32 * 3))};
  std::vector<int> n(2);
  launch(visits, blocks, block, 0, ctx, v.threads.data(), v.warps.data(), n.data());
  EXPECT_EQ(n[0], blocks * block);
  EXPECT_EQ(n[1], blocks * block / 32 * 3);
  return v;
}

TEST(Simt, AscendingAndDescendingAreTheExtremes) {
  const Visits up = visit({Order::ascending}, 2, 96), down = visit({Order::descending}, 2, 96);
  for (int k = 0; k < 192; ++k) {
    EXPECT_EQ(up.threads[size_t(k)], k);
    EXPECT_EQ(down.threads[size_t(k)], 191 - k);
  }
  EXPECT_EQ(up.warps, (std::vector<int>{0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 1, 1, 1, 2, 2, 2}))
      << "a warp runs ahead of the next one";
  EXPECT_EQ(down.warps, (std::vector<int>{2, 2, 2, 1, 1, 1, 0, 0, 0, 2, 2, 2, 1, 1, 1, 0, 0, 0}));
}

TEST(Simt, RandomIsAFunctionOfTheSeed) {
  std::set<std::vector<int>> threads, warps, blocks;
  bool mixed = false, ahead = false;
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    const Visits v = visit({Order::random, 0xff, seed}, 4, 96), again = visit({Order::random, 0x55, seed}, 4, 96);
    EXPECT_EQ(v.threads, again.threads);
    EXPECT_EQ(v.warps, again.warps);
    std::vector<int> sorted = v.threads, order;
    for (size_t k = 0; k < sorted.size(); k += 96) {
      order.push_back(sorted[k] / 96);
      for (size_t i = 0; i < 96; ++i) EXPECT_EQ(sorted[k + i] / 96, order.back()) << "a block at a time";
    }
    std::sort(sorted.begin(), sorted.end());
    for (int k = 0; k < 4 * 96; ++k) EXPECT_EQ(sorted[size_t(k)], k) << "every thread once";
    threads.insert(v.threads), warps.insert(v.warps), blocks.insert(order);
    for (size_t k = 0; k < v.warps.size(); k += 9) {
      const auto w = v.warps.begin() + int64_t(k);
      const bool in_turn = w[0] == w[1] && w[1] == w[2] && w[3] == w[4] && w[4] == w[5];
      (in_turn ? ahead : mixed) = true;
    }
  }
  EXPECT_EQ(threads.size(), 40u);
  EXPECT_GT(warps.size(), 20u);
  EXPECT_GT(blocks.size(), 10u);
  EXPECT_TRUE(mixed && ahead) << "warps take turns in some blocks and run ahead in others";
}

__global__ void untouched(int* out) {
  SHARED(int, fixed, [4]);
  SHARED(unsigned char, odd, [3]);
  const int b = int(blockIdx.x);
  if (threadIdx.x == 0) {
    out[b * 8] = fixed[0], out[b * 8 + 1] = fixed[3], out[b * 8 + 2] = *dynamic_shared<int>(), out[b * 8 + 3] = odd[2];
    fixed[0] = fixed[3] = *dynamic_shared<int>() = odd[2] = 5;  // not to be found by the next block
  }
}
TEST(Simt, SharedMemoryAndScratchStartAsPoison) {
  for (const Config& c : kSchedules) {
    const auto o = run([](Ctx& ctx, int* out) { launch(untouched, 3, 64, 16, ctx, out); }, c);
    const int word = c.poison == 0xff ? -1 : 0x55555555, byte = c.poison;
    for (int b = 0; b < 3; ++b)
      EXPECT_EQ(std::vector<int>(o.out.begin() + b * 8, o.out.begin() + b * 8 + 4),
                (std::vector<int>{word, word, word, byte}));
    Ctx ctx;
    open(ctx, c);
    const auto* scratch = static_cast<const unsigned char*>(ctx.scratch(3, 1000));
    const simt::DeviceAccess access;
    EXPECT_EQ(std::count(scratch, scratch + 1000, c.poison), 1000);
  }
}

int living = 0;
struct Counted {
  Counted() { ++living; }
  ~Counted() { --living; }
};
__global__ void throws_in_thread(int* out) {
  const Counted counted;
  SHARED(int, s, [64]);
  s[threadIdx.x] = 1;
  if (threadIdx.x == 40) CHECK_THAT(s[40] == 2);
  __syncthreads();
  out[threadIdx.x] = 7;
}
// Threads asleep at the mistake are woken and unwound: the next launch starts afresh, whatever the first one left.
TEST(Simt, AnExceptionInAKernelNamesItAndTheEmulatorGoesOn) {
  for (const Config& c : kSchedules)
    for (int k = 0; k < 3; ++k) {
      const std::string error = run([](Ctx& ctx, int* out) { launch(throws_in_thread, 2, 64, 0, ctx, out); }, c).error;
      EXPECT_NE(error.find("throws_in_thread ("), std::string::npos) << error;
      EXPECT_NE(error.find("thread 40: "), std::string::npos) << error;
      EXPECT_NE(error.find("expected s[40] == 2"), std::string::npos) << error;
      EXPECT_EQ(living, 0) << "nobody sleeps on";
      EXPECT_EQ(visit(c, 2, 1024).threads.size(), 2048u);
    }
}

// --- Planted: shared memory and barriers (order, poison) -------------------------------------------------------------

template <bool bug>
__global__ void barrier_between_write_and_read(int* out) {
  SHARED(int, s, [64]);
  const int t = int(threadIdx.x);
  s[t] = t;
  if (!bug) __syncthreads();
  out[t] = s[(t + 37) % 64];
}
TEST(Planted, NoBarrierBetweenWriteAndRead) {
  const Pair p = PLANTED(barrier_between_write_and_read, 1, 64, 0);
  p.twin_gives(64, [](int t) { return (t + 37) % 64; });
  p.bug_shows_by_order();
}

// Warp 0 writes at once; the others come late, after shuffles. Seen because descending lets them run ahead all the
// same.
template <bool bug>
__global__ void barrier_behind_shuffles(int* out) {
  SHARED(int, s, );
  const int t = int(threadIdx.x);
  int v = 1;
  if (t / 32 == 0) {
    if (t == 0) s = 100;
  } else {
    for (int o = 16; o > 0; o /= 2) v += __shfl_xor_sync(kAll, v, o);
  }
  if (!bug) __syncthreads();
  out[t] = s + v;
}
TEST(Planted, NoBarrierWhereShufflesMakeItLookDone) {
  const Pair p = PLANTED(barrier_behind_shuffles, 1, 128, 0);
  p.twin_gives(128, [](int t) { return t < 32 ? 101 : 132; });
  p.bug_shows_by_order();
}

template <bool bug>
__global__ void barrier_before_reuse(int* out) {
  SHARED(int, s, [64]);
  const int t = int(threadIdx.x);
  int sum = 0;
  for (int k = 0; k < 3; ++k) {
    s[t] = 100 * k + t;
    __syncthreads();
    sum += s[63 - t];
    if (!bug) __syncthreads();
  }
  out[t] = sum;
}
TEST(Planted, NoSecondBarrierBeforeReuse) {
  const Pair p = PLANTED(barrier_before_reuse, 1, 64, 0);
  p.twin_gives(64, [](int t) { return 300 + 3 * (63 - t); });
  p.bug_shows_by_order();
}

template <bool bug>
__global__ void syncwarp_between_lanes(int* out) {
  SHARED(int, s, [64]);
  const int t = int(threadIdx.x);
  s[t] = t;
  if (!bug) __syncwarp();
  out[t] = s[t ^ 1];
}
TEST(Planted, NoSyncwarpBetweenLanes) {
  const Pair p = PLANTED(syncwarp_between_lanes, 1, 64, 0);
  p.twin_gives(64, [](int t) { return t ^ 1; });
  p.bug_shows_by_order();
}

// A warp's shuffles keep its lanes together, but not with the next warp: __syncwarp where __syncthreads is needed.
template <bool bug>
__global__ void syncwarp_for_a_block(int* out) {
  SHARED(int, s, [64]);
  const int t = int(threadIdx.x);
  s[t] = t;
  if (bug)
    __syncwarp();
  else
    __syncthreads();
  out[t] = s[t ^ 32];
}
TEST(Planted, SyncwarpForAWholeBlock) {
  const Pair p = PLANTED(syncwarp_for_a_block, 1, 64, 0);
  p.twin_gives(64, [](int t) { return t ^ 32; });
  p.bug_shows_by_order();
}

template <bool bug>
__global__ void zeroed_before_adding(int* out) {
  SHARED(int, s, [64]);
  const int t = int(threadIdx.x);
  if (!bug || t != 63) s[t] = 0;  // the last one is forgotten
  __syncthreads();
  atomicAdd(&s[(t + 1) % 64], t);
  __syncthreads();
  out[t] = s[t];
}
template <bool bug>
__global__ void zeroed_dynamic(int* out) {
  int* s = dynamic_shared<int>();
  if (!bug) s[threadIdx.x] = 0;
  out[threadIdx.x] = s[threadIdx.x] += 3;
}
// Each block starts anew: what the block before left there is not to be counted on.
template <bool bug>
__global__ void zeroed_by_first_block(int* out) {
  SHARED(int, s, [32]);
  if (!bug || blockIdx.x == 0) s[threadIdx.x] = 0;
  out[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x];
}
TEST(Planted, SharedMemoryReadBeforeItIsWritten) {
  const Pair fixed = PLANTED(zeroed_before_adding, 1, 64, 0), dynamic = PLANTED(zeroed_dynamic, 1, 64, 256),
             block = PLANTED(zeroed_by_first_block, 3, 32, 0);
  fixed.twin_gives(64, [](int t) { return (t + 63) % 64; });
  fixed.bug_shows_by_poison();
  dynamic.twin_gives(64, [](int) { return 3; });
  dynamic.bug_shows_by_poison();
  block.twin_gives(96, [](int) { return 0; });
  block.bug_shows_by_poison();
}

// --- Planted: barriers and collectives in divergent code (report) ----------------------------------------------------

template <bool bug>
__global__ void barrier_after_some_left(int* out) {
  const int t = int(threadIdx.x);
  if (bug && t >= 40) return;
  HERE, __syncthreads();
  if (t < 40) out[t] = t;
}
TEST(Planted, BarrierThatSomeThreadsNeverReach) {
  const Pair p = PLANTED(barrier_after_some_left, 1, 64, 0);
  p.twin_gives(40, [](int t) { return t; });
  p.bug_is_reported("deadlock");
  p.bug_is_reported("40 threads wait (thread 0 at __syncthreads (");
  p.bug_is_reported("24 have left");
}

template <bool bug>
__global__ void barrier_in_two_branches(int* out) {
  const int t = int(threadIdx.x);
  out[t] = t;
  if (t < 32 || !bug)
    HERE, __syncthreads();
  else
    HERE, __syncthreads();
}
// At one line, of different kinds.
template <bool bug>
__global__ void barriers_of_two_kinds(int* out) {
  const int t = int(threadIdx.x);
  HERE, out[t] = t % 2 || !bug ? __syncthreads_count(t < 5) : __syncthreads_or(t < 5);
}
TEST(Planted, ThreadsAtDifferentBarriers) {
  const Pair p = PLANTED(barrier_in_two_branches, 1, 64, 0), q = PLANTED(barriers_of_two_kinds, 1, 64, 0);
  p.twin_gives(64, [](int t) { return t; });
  p.bug_is_reported("barrier in divergent code");
  q.twin_gives(64, [](int) { return 5; });
  q.bug_is_reported("barrier in divergent code");
}

template <bool bug>
__global__ void barrier_in_a_loop(int* out) {
  const int t = int(threadIdx.x), rounds = bug ? 1 + t / 32 : 2;
  for (int k = 0; k < rounds; ++k) HERE, __syncthreads();
  out[t] = t;
}
TEST(Planted, BarrierInALoopOfDifferentLength) {
  const Pair p = PLANTED(barrier_in_a_loop, 1, 64, 0);
  p.twin_gives(64, [](int t) { return t; });
  p.bug_is_reported("deadlock");
}

template <bool bug>
__global__ void barrier_and_shuffle(int* out) {
  const int t = int(threadIdx.x);
  if (t % 32 == 0) {
    if (bug) __syncthreads();
    out[t / 32] = t;
  }
  HERE, __syncwarp();
  if (!bug) __syncthreads();
}
TEST(Planted, OneLaneAtABarrierTheOthersAtACollective) {
  const Pair p = PLANTED(barrier_and_shuffle, 1, 64, 0);
  p.twin_gives(2, [](int w) { return 32 * w; });
  p.bug_is_reported("deadlock", false);  // the line is that of the first thread that waits
  p.bug_is_reported("__syncwarp", false);
  p.bug_is_reported("__syncthreads", false);
}

template <bool bug>
__global__ void mask_with_own_lane(int* out) {
  const int t = int(threadIdx.x);
  HERE, out[t] = __shfl_sync(bug ? 0x7fffffffu : kAll, t, 3);
}
TEST(Planted, MaskThatLacksTheOwnLane) {
  const Pair p = PLANTED(mask_with_own_lane, 1, 32, 0);
  p.twin_gives(32, [](int) { return 3; });
  p.bug_is_reported("wrong mask");
  p.bug_is_reported("thread 31 calls __shfl_sync with mask 0x7fffffff");
}

template <bool bug>
__global__ void mask_of_lanes_that_stay(int* out) {
  const int t = int(threadIdx.x);
  if (t == 31) return;
  HERE, out[t] = int(__ballot_sync(bug ? kAll : 0x7fffffffu, t % 2));
}
TEST(Planted, MaskThatNamesALaneThatLeft) {
  const Pair p = PLANTED(mask_of_lanes_that_stay, 1, 32, 0);
  p.twin_gives(31, [](int) { return 0x2aaaaaaa; });
  p.bug_is_reported("deadlock");
  p.bug_is_reported("at __ballot_sync");
  p.bug_is_reported("for lanes 0x80000000");
}

template <bool bug>
__global__ void one_collective(int* out) {
  const int t = int(threadIdx.x);
  if (t < 16 || !bug)
    HERE, out[t] = __shfl_sync(kAll, t, 5);
  else
    HERE, out[t] = __shfl_sync(kAll, t, 5);
}
// The second half names lane 15, the first lane 16, each in a mask of its own.
template <bool bug>
__global__ void masks_apart(int* out) {
  const int t = int(threadIdx.x);
  const unsigned mask = t < 16 ? (bug ? 0x0001ffffu : 0x0000ffffu) : (bug ? 0xffff8000u : 0xffff0000u);
  HERE, out[t] = __shfl_sync(mask, t, t < 16 ? 0 : 16);
}
TEST(Planted, LanesThatMeetAtDifferentCollectives) {
  const Pair branches = PLANTED(one_collective, 1, 32, 0), masks = PLANTED(masks_apart, 1, 32, 0);
  branches.twin_gives(32, [](int) { return 5; });
  branches.bug_is_reported("different collectives");
  masks.twin_gives(32, [](int t) { return t < 16 ? 0 : 16; });
  masks.bug_is_reported("different collectives");
}

template <bool bug>
__global__ void collective_in_a_loop(int* out) {
  const int t = int(threadIdx.x), rounds = bug ? t : 4;
  int sum = 0;
  for (int k = 0; k < rounds; ++k) HERE, sum += __shfl_sync(kAll, t, k);
  out[t] = sum;
}
TEST(Planted, CollectiveInALoopOfDifferentLength) {
  const Pair p = PLANTED(collective_in_a_loop, 1, 32, 0);
  p.twin_gives(32, [](int) { return 6; });
  p.bug_is_reported("deadlock");
}

template <bool bug>
__global__ void offsets_in_range(int* out) {
  const int t = int(threadIdx.x);
  HERE, out[t] = __shfl_down_sync(kAll, t, bug ? 32u : 31u);
}
template <bool bug>
__global__ void width_a_power_of_two(int* out) {
  const int t = int(threadIdx.x);
  HERE, out[t] = __shfl_sync(kAll, t, 0, bug ? 24 : 16);
}
TEST(Planted, ShuffleWithAnOffsetOrWidthThatMeansNothing) {
  const Pair offset = PLANTED(offsets_in_range, 1, 32, 0), width = PLANTED(width_a_power_of_two, 1, 32, 0);
  offset.twin_gives(32, [](int t) { return t == 0 ? 31 : t; });
  offset.bug_is_reported("offset 32");
  width.twin_gives(32, [](int t) { return t / 16 * 16; });
  width.bug_is_reported("width 24");
}

// --- Planted: values that are not there (poison) and the order of threads and blocks (order) -------------------------

template <bool bug>
__global__ void shuffle_among_those_there(int* out) {
  const int t = int(threadIdx.x);
  if (t < 16) out[t] = __shfl_down_sync(0x0000ffffu, t, 8, bug ? 32 : 16);  // the upper 8 read lanes 16 to 23
}
TEST(Planted, ShuffleFromALaneThatTakesNoPart) {
  const Pair p = PLANTED(shuffle_among_those_there, 1, 32, 0);
  p.twin_gives(16, [](int t) { return t < 8 ? t + 8 : t; });
  p.bug_shows_by_poison();
}

template <bool bug>
__global__ void places_in_order(int* out) {
  const int t = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (t == 0) out[0] += 1;
  const unsigned even = __ballot_sync(kAll, t % 2 == 0);
  const int at =
      bug ? atomicAdd(&out[128], t % 2 == 0 ? 1 : 0) + 1 : t / 32 * 16 + __popc(even & ((1u << (t % 32)) - 1));
  if (t % 2 == 0) out[at] = t;
}
TEST(Planted, PlacesHandedOutByAnAtomic) {
  const Pair p = PLANTED(places_in_order, 2, 64, 0);
  p.twin_gives(64, [](int k) { return 2 * k; });
  p.bug_shows_by_order();
}

template <bool bug>
__global__ void blocks_apart(int* out) {
  const int b = int(blockIdx.x);
  if (threadIdx.x == 0) out[b] = bug && b > 0 ? out[b - 1] + 1 : b;
}
TEST(Planted, BlockThatNeedsAnother) {
  const Pair p = PLANTED(blocks_apart, 20, 32, 0);
  p.twin_gives(20, [](int b) { return b; });
  p.bug_shows_by_order();
}

// With something to wait for between read and write, lost updates show in the values; without, see NotCaught.
template <bool bug>
__global__ void counted_atomically(int* out) {
  if (bug) {
    const int before = out[0];
    __syncwarp();
    out[0] = before + 1;
  } else {
    atomicAdd(&out[0], 1);
  }
}
TEST(Planted, UpdateThatIsNotAtomic) {
  const Pair p = PLANTED(counted_atomically, 1, 64, 0);
  p.twin_gives(1, [](int) { return 63; });
  for (const Outcome& o : run_all(p.bug)) EXPECT_LT(o.out[0], 32);
}

template <class T>
concept Adds = requires(T* p, T v) {
  atomicAdd(p, v);
};
template <class T>
concept Exchanges = requires(T* p, T v) {
  atomicExch(p, v);
};
template <class T>
concept TakesTheLarger = requires(T* p, T v) {
  atomicMax(p, v);
};
static_assert(Adds<int> && Adds<unsigned> && Adds<unsigned long long> && Exchanges<int> && TakesTheLarger<int>);
static_assert(!Adds<float> && !Adds<double> && !Exchanges<float> && !TakesTheLarger<float>,
              "sums of floats have a fixed order");
static_assert(!Adds<long> && !Adds<short>, "nor has CUDA these");

// --- Planted: launches a GPU refuses (report) ------------------------------------------------------------------------

__global__ void nothing(int*) {}
__global__ void too_many_arrays(int* out) {
  SHARED(int, a, [4096]);
  SHARED(int, b, [8193]);
  a[threadIdx.x] = b[threadIdx.x] = 0;
  out[threadIdx.x] = 0;
}
TEST(Planted, LaunchesThatAGpuRefuses) {
  const auto error = [](Grid grid, int block, size_t shared) {
    return run([=](Ctx& ctx, int* out) { bug_line = __LINE__, launch(nothing, grid, block, shared, ctx, out); },
               kSchedules[0])
        .error;
  };
  for (const int block : {0, -32, 1, 33, 48, 1056, 2048}) {
    const std::string e = error(2, block, 0);
    EXPECT_NE(e.find("nothing ("), std::string::npos) << e;
    EXPECT_NE(
        e.find("simt_test.cpp:" + std::to_string(bug_line) + "): a block of " + std::to_string(block) + " threads"),
        std::string::npos)
        << e;
  }
  EXPECT_NE(error(1, 32, 227 * 1024 + 1).find("bytes of shared memory"), std::string::npos);
  EXPECT_NE(error(Grid(1, 65536), 32, 0).find("y and z go up to 65535"), std::string::npos);
  EXPECT_NE(error(Grid(1, 1, 65536), 32, 0).find("y and z go up to 65535"), std::string::npos);
  EXPECT_THROW(Grid(int64_t(1) << 31), std::logic_error);
  EXPECT_THROW(Grid(-1), std::logic_error);
  EXPECT_EQ(error(2, 32, 0) + error(2, 1024, 227 * 1024) + error(Grid(1, 65535), 32, 0), "");
  const std::string arrays =
      run([](Ctx& ctx, int* out) { launch(too_many_arrays, 1, 32, 0, ctx, out); }, kSchedules[0]).error;
  EXPECT_NE(arrays.find("too much shared memory in too_many_arrays ("), std::string::npos) << arrays;

  Ctx ctx;  // refused while it is recorded, not when it is replayed
  open(ctx, kSchedules[0]);
  EXPECT_THROW(gpu_ops()->record(ctx, [&] { launch(nothing, 1, 33, 0, ctx, nullptr); }), KernelError);
}

// --- Planted: memory (sanitizers) ------------------------------------------------------------------------------------

enum class Outside {
  none,
  shared_after,
  shared_before,
  dynamic_after,
  dynamic_before,
  global_after,
  global_before,
  shared_index
};
__global__ void accesses(int* out, const int* in, Outside where) {
  SHARED(int, s, [33]);
  SHARED(int, other, [33]);
  int *d = dynamic_shared<int>(), *of_s = s;
  const int t = int(threadIdx.x);
  s[t] = d[t] = other[t] = t;
  __syncthreads();  // the access is then made on a stack of the thread's own
  int v = in[t];
  if (t == 31) {
    if (where == Outside::shared_after) v = of_s[t + 2];
    if (where == Outside::shared_before) of_s[30 - t] = v;
    if (where == Outside::dynamic_after) d[t + 1] = v;
    if (where == Outside::dynamic_before) v = d[30 - t];
    if (where == Outside::global_after) v = in[t + 1];
    if (where == Outside::global_before) v = in[30 - t];
    if (where == Outside::shared_index) v = s[33 + t];  // far away, but the index of a named array is looked at
  }
  out[t] = v + s[0] + d[0];
}
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#define ONLY_SANITIZED() \
  if (!kSanitized) GTEST_SKIP() << "only AddressSanitizer and UndefinedBehaviorSanitizer see this: preset `sanitize`"

Launches access(Outside where) {
  return [where](Ctx& ctx, int* out) {
    const std::vector<int> in(32, 1);
    launch(accesses, 1, 32, 32 * sizeof(int), ctx, out, in.data(), where);
  };
}
TEST(Planted, AccessOutsideAnArray) {
  for (const Outcome& o : run_all(access(Outside::none))) {
    EXPECT_EQ(o.error, "");
    EXPECT_EQ(o.out[31], 1);
  }
  ONLY_SANITIZED();
  for (const Outside where : {Outside::shared_after, Outside::shared_before, Outside::dynamic_after,
                              Outside::dynamic_before, Outside::global_after, Outside::global_before})
    EXPECT_DEATH(run(access(where), kSchedules[size_t(where) % 3]),
                 "SUMMARY: AddressSanitizer: .*simt_test.cpp:[0-9]+ in .*accesses")
        << int(where);
  EXPECT_DEATH(run(access(Outside::shared_index), kSchedules[0]), "runtime error: index 64 out of bounds");
}

template <bool bug>
__global__ void quads_of_shared(int* out) {
  SHARED(float, plain, [128]);
  SHARED(__align__(16) float, aligned, [128]);
  float* s = bug ? plain : aligned;
  const int t = int(threadIdx.x);
  for (int k = 0; k < 4; ++k) s[4 * t + k] = float(k);
  out[t] = int(reinterpret_cast<const float4*>(s)[t].w);
}
template <bool bug>
__global__ void quads_of_a_row(int* out) {
  const int t = int(threadIdx.x);
  const int4 four = *reinterpret_cast<const int4*>(out + 128 + (bug ? 1 : 4));
  out[t] = four.x;
}
TEST(Planted, VectorLoadThatIsNotAligned) {
  const Pair shared = PLANTED(quads_of_shared, 1, 32, 0), row = PLANTED(quads_of_a_row, 1, 32, 0);
  shared.twin_gives(32, [](int) { return 3; });
  row.twin_gives(32, [](int) { return -1; });
  ONLY_SANITIZED();
  EXPECT_DEATH(run(shared.bug, kSchedules[0]), "misaligned address");
  EXPECT_DEATH(run(row.bug, kSchedules[0]), "misaligned address");
}

// --- Planted: recordings and scratch (replay, poison) ----------------------------------------------------------------

__global__ void write_step(int* out, uint32_t step, const Late* late) {
  if (threadIdx.x == 0) out[0] = int(late_step(step, late));
}
// What is read on the host while recording is baked in.
TEST(Planted, LateValueReadTooEarly) {
  for (const bool bug : {false, true})
    for (const Config& c : kSchedules) {
      const Ops& ops = *gpu_ops();
      Ctx ctx;
      open(ctx, c);
      test::Cell<int> out = -1;
      const uint32_t now = 3;
      const auto step = [&] { launch(write_step, 1, 32, 0, ctx, &out, bug ? now : kLateStep, ctx.late); };
      ops.set_late(ctx, Late{0, 3, 0, 0});
      step();
      EXPECT_EQ(out, 3) << "called directly, both are right";
      void* r = ops.record(ctx, step);
      ops.replay(ctx, r);
      EXPECT_EQ(out, 3);
      ops.advance_late(ctx, 1, 1);
      ops.replay(ctx, r);
      EXPECT_EQ(out, bug ? 3 : 4) << "the second replay shows it";
      ops.forget(ctx, r);
    }
}

__global__ void copy_words(int* to, const int* from) { to[threadIdx.x] = from[threadIdx.x]; }
__global__ void set_words(int* to, int v) { to[threadIdx.x] = v; }
// Every operation of the table starts with poisoned scratch: what the one before left there is gone.
TEST(Planted, ScratchOfAnEarlierOperation) {
  for (const bool bug : {false, true}) {
    std::vector<std::vector<int>> all;
    for (const test::Device& dev : test::simt_devices()) {
      DeviceCtx device_ctx(dev);
      Ctx& ctx = device_ctx.get();
      std::vector<int> out(32, -1);
      launch(set_words, 1, 32, 0, ctx, static_cast<int*>(ctx.scratch(0, 128)), 1);
      dev.ops->fill_zero(ctx, Mat{});  // any operation
      int* room = static_cast<int*>(ctx.scratch(0, 128));
      if (!bug) launch(set_words, 1, 32, 0, ctx, room, 1);
      launch(copy_words, 1, 32, 0, ctx, out.data(), room);
      all.push_back(out);
    }
    ASSERT_GE(all.size(), 2u);
    for (size_t k = 1; k < all.size(); ++k)
      EXPECT_EQ(all[k] == all[0], !bug || k == 2 || k == 4) << "the devices with the same poison as the first";
    EXPECT_EQ(all[0][7], bug ? -1 : 1);
  }
}

// --- Not caught ------------------------------------------------------------------------------------------------------

// Nothing comes between two plain accesses.
__global__ void plain_count(int* out) { out[0] += 1; }

// The last block adds up what the others wrote. Without the fence a GPU may show it old values.
template <bool fence>
__global__ void last_block_sums(int* out) {
  SHARED(int, last, );
  const int b = int(blockIdx.x), n = int(gridDim.x);
  if (threadIdx.x == 0) {
    out[1 + b] = b;
    if (fence) __threadfence();
    last = atomicAdd(&out[64], 1) == n - 2;  // counts from -1
  }
  __syncthreads();
  if (!last || threadIdx.x) return;
  int sum = 0;
  for (int k = 0; k < n; ++k) sum += out[1 + k];
  out[0] = sum;
}

// Two threads write to one place, and nobody looks.
__global__ void two_writers(int* out) {
  SHARED(int, s, );
  s = int(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = s >= 0;
}

// Host code that follows a device pointer, from `alloc` or from `scratch`.
TEST(Planted, HostCodeThatTouchesDeviceMemory) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "under AddressSanitizer device memory is ordinary memory";
#else
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Ctx ctx(1);
  open_gpu(ctx, "fp32");
  const Ops& ops = *gpu_ops();
  int* p = static_cast<int*>(ops.alloc(ctx, 4096));
  int* room = static_cast<int*>(ctx.scratch(0, 4096));
  int host = 5;
  ops.upload(ctx, p, &host, sizeof host);
  launch(set_words, 1, 32, 0, ctx, p, 7);
  ops.download(ctx, &host, p, sizeof host);
  EXPECT_EQ(host, 7);
  EXPECT_EXIT(*static_cast<volatile int*>(p) = 1, ::testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(host = *static_cast<volatile int*>(room), ::testing::KilledBySignal(SIGSEGV), "");
  ops.free(ctx, p);
#endif
}

// The host looks at results nobody waited for.
TEST(NotCaught, WhatIsListedAbove) {
  const auto same = [](const Launches& r) {
    const auto all = run_all(r);
    for (const Outcome& o : all) EXPECT_EQ(o, all[0]);
    EXPECT_EQ(all[0].error, "");
    return all[0].out;
  };
  EXPECT_EQ(same([](Ctx& ctx, int* out) { launch(plain_count, 2, 64, 0, ctx, out); })[0], 127);
  EXPECT_EQ(same([](Ctx& ctx, int* out) { launch(last_block_sums<false>, 20, 32, 0, ctx, out); })[0], 190);
  EXPECT_EQ(same([](Ctx& ctx, int* out) { launch(last_block_sums<true>, 20, 32, 0, ctx, out); })[0], 190);
  EXPECT_EQ(same([](Ctx& ctx, int* out) { launch(two_writers, 1, 64, 0, ctx, out); })[5], 1);
  EXPECT_EQ(same([](Ctx& ctx, int* out) {
              launch(set_words, 1, 32, 0, ctx, out, 7);
              out[1] = out[0] + 1;
            })[1],
            8);
}

}  // namespace
}  // namespace ccdrec::cuda
