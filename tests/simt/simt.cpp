#include "tests/simt/simt.h"

#include <array>
#include <bit>
#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#if defined(__AVX__)
#include <immintrin.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIMT_ASAN 1
#else
#define SIMT_ASAN 0
#endif

namespace ccdrec::cuda {
simt::Dim3 threadIdx, blockIdx, blockDim, gridDim;
}

namespace ccdrec::simt {
namespace {

using boost::context::fiber;

constexpr size_t kStack = SIMT_ASAN ? 256 * 1024 : 128 * 1024;
constexpr int kWarps = 32;
constexpr size_t kMaxStatic = 48 * 1024;
int64_t g_most_shared = cuda::Chip{}.shared;

// A meeting of lanes of one warp; complete once every lane of the mask has arrived, closed once every lane has read
// what it wanted.
struct Meeting {
  Lanes lanes;
  uint32_t arrived = 0, left = 0;
  Site site{};
  bool complete = false;
};

// A stack that threads run on: one after another as long as none waits, so that a kernel without barriers never changes
// stacks.
struct Stack {
  fiber context;  // where it goes on, while another runs
  const void* bottom = nullptr;
  size_t size = 0;
  void* fake = nullptr;  // AddressSanitizer's, like the two above
};

struct Thread {
  unsigned linear = 0;
  Stack* stack = nullptr;  // null until it starts
  bool done = false;
  Site site{};  // what it waits at
  const Meeting* meeting = nullptr;
};

struct Warp {
  uint32_t ready = 0;  // lanes that can go on
  uint32_t open = 0;   // meetings in use
  std::array<Meeting, 32> meetings;
};

struct SharedArray {
  const void* site;
  std::unique_ptr<char[]> memory;
  char* p;
  size_t bytes;
  uint64_t block;  // that it was last poisoned for
};

// The block under way. One at a time: the emulator is not for use by several host threads.
struct Block {
  const char *kernel = nullptr, *file = nullptr;
  int launch_line = 0;
  const std::function<void()>* body = nullptr;
  Config config;
  int threads = 0;
  uint64_t serial = 0;  // of the block, over all launches

  Thread* current = nullptr;
  uint32_t ready = 0;  // warps with a lane that can go on
  unsigned warp = 0;   // Order::random: the one that runs
  uint64_t random = 0, calm = 0;
  int done = 0;
  int at_barrier = 0;
  Site barrier{};
  unsigned barrier_first = 0;
  int64_t votes = 0, result = 0;
  bool failed = false;
  std::string error;

  std::vector<SharedArray> arrays;
  size_t static_bytes = 0, dynamic_bytes = 0;
  std::unique_ptr<char[]> dynamic;
};

Block g;
Thread threads[1024];
Warp warps[kWarps];
Stack scheduler;
std::vector<Stack*> idle;  // stacks that wait for a thread to start

struct Abandon {};  // unwinds a thread after an error

std::string place(const char* file, int line) {
  return std::string(g.kernel) + " (" + file + ":" + std::to_string(line) + ")";
}
std::string place(const Site& s) { return place(s.file, s.line); }
std::string text(const Site& s) { return std::string(s.what) + " (" + s.file + ":" + std::to_string(s.line) + ")"; }
std::string hex(uint32_t v) {
  char t[16];
  std::snprintf(t, sizeof t, "0x%08x", v);
  return t;
}
bool same_text(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }
bool operator==(const Site& a, const Site& b) {
  return a.line == b.line && same_text(a.what, b.what) && same_text(a.file, b.file);
}

void note(const std::string& message) {
  if (!g.failed) g.error = message;
  g.failed = true;
}
[[noreturn]] void fail(const std::string& message) {
  note(message);
  throw Abandon{};
}

// --- The schedule ----------------------------------------------------------------------------------------------------

uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
uint32_t next_random() {
  g.random = g.random * 6364136223846793005ull + 1442695040888963407ull;
  return uint32_t(g.random >> 33);
}
unsigned any_bit(uint32_t set) {
  const unsigned from = next_random() % unsigned(std::bit_width(set));
  return from + unsigned(std::countr_zero(set >> from));
}

// Who runs next; null if nobody can. Ascending and descending always take the first (last) thread that can go on,
// whatever the others wait for: a warp runs ahead through its shuffles until it meets a barrier of the block. These are
// the two extremes; random goes between them, changing warps often in some blocks and seldom in others.
Thread* pick() {
  if (!g.ready) return nullptr;
  unsigned w = 0, lane_of_w = 0;
  if (g.config.order == Order::ascending) {
    w = unsigned(std::countr_zero(g.ready)), lane_of_w = unsigned(std::countr_zero(warps[w].ready));
  } else if (g.config.order == Order::descending) {
    w = 31u - unsigned(std::countl_zero(g.ready)), lane_of_w = 31u - unsigned(std::countl_zero(warps[w].ready));
  } else {
    if (!((g.ready >> g.warp) & 1) || (next_random() & g.calm) == 0) g.warp = any_bit(g.ready);
    w = g.warp, lane_of_w = any_bit(warps[w].ready);
  }
  if ((warps[w].ready &= ~(1u << lane_of_w)) == 0) g.ready &= ~(1u << w);
  return &threads[w * 32 + lane_of_w];
}
void make_ready(unsigned w, uint32_t lanes) { warps[w].ready |= lanes, g.ready |= 1u << w; }

// --- Stacks ----------------------------------------------------------------------------------------------------------

// GCC ends the use of wide registers with vzeroupper at -O2 only. Where it did not, every old SSE instruction that
// follows pays for the upper halves, and AddressSanitizer's part of a change has some: at -O1 a change cost three times
// as much without this.
void leave_wide_registers() {
#if defined(__AVX__)
  _mm256_zeroupper();
#endif
}

void arrived(void* fake) {
  leave_wide_registers();
#if SIMT_ASAN
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(fake, &bottom, &size);
  if (!scheduler.size) scheduler.bottom = bottom, scheduler.size = size;  // the first of all changes comes from there
#endif
  (void)fake;
}

void change(Stack& from, Stack& to) {
  leave_wide_registers();
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(&from.fake, to.bottom, to.size);
#endif
  std::move(to.context).resume_with([&from](fiber&& f) {
    from.context = std::move(f);
    return fiber{};
  });
  arrived(from.fake);
}

void run_threads(Stack& me);

// Memory that outlives the launches, with a page below it that traps. Tops differ in their low bits, or all stacks
// would share a few cache sets.
struct KeptStack {
  Stack* s;
  size_t number;
  boost::context::stack_context allocate() {
    boost::context::stack_context c = boost::context::protected_fixedsize_stack(kStack).allocate();
    s->bottom = static_cast<char*>(c.sp) - c.size, s->size = c.size;
    const size_t offset = number % 16 * 256;
    c.sp = static_cast<char*>(c.sp) - offset, c.size -= offset;
    return c;
  }
  void deallocate(boost::context::stack_context&) noexcept {}
};

Stack* idle_stack() {
  if (idle.empty()) {
    // never destroyed: unwinding sleeping threads at exit serves nobody
    static auto* all = new std::vector<std::unique_ptr<Stack>>;
    all->push_back(std::make_unique<Stack>());
    Stack* s = all->back().get();
    s->context = fiber(std::allocator_arg, KeptStack{s, all->size()}, [s](fiber&&) {
      arrived(nullptr);
      run_threads(*s);
      return fiber{};
    });
    return s;
  }
  Stack* s = idle.back();
  idle.pop_back();
  return s;
}

void set_current(Thread* t) {
  g.current = t;
  cuda::threadIdx = {t->linear, 0, 0};
}

// Runs threads that have not started yet until one waits (inside body) or the schedule wants another stack.
void run_threads(Stack& me) {
  for (;;) {
    Thread& t = *g.current;
    t.stack = &me;
    try {
      (*g.body)();
    } catch (const Abandon&) {
    } catch (const std::exception& e) {
      note(place(g.file, g.launch_line) + ": thread " + std::to_string(t.linear) + ": " + e.what());
    }
    t.done = true, ++g.done;
    Thread* next = g.failed ? nullptr : pick();
    if (next) set_current(next);
    if (next && !next->stack) continue;
    idle.push_back(&me);
    change(me, next ? *next->stack : scheduler);
  }
}

// The running thread gives way until it is made ready and its turn comes.
void wait() {
  Thread& t = *g.current;
  Thread* next = pick();
  if (next != &t) {
    if (next) set_current(next);
    if (next && !next->stack) next->stack = idle_stack();
    change(*t.stack, next ? *next->stack : scheduler);
  }
  if (g.failed) throw Abandon{};
}

// --- A block ---------------------------------------------------------------------------------------------------------

// Nobody can go on: why.
std::string diagnose() {
  std::string where;
  const Thread* first = nullptr;
  std::vector<const Thread*> kinds;
  for (int k = 0; k < g.threads; ++k) {
    const Thread& t = threads[k];
    if (t.done) continue;
    if (!first) first = &t;
    bool known = false;
    for (const Thread* o : kinds) known = known || (o->site == t.site && (o->meeting == t.meeting));
    if (known || kinds.size() == 4) continue;
    kinds.push_back(&t);
    where += (where.empty() ? "thread " : ", thread ") + std::to_string(t.linear) + " at " + text(t.site);
    if (t.meeting) where += " for lanes " + hex(t.meeting->lanes.mask & ~t.meeting->arrived);
  }
  return "deadlock in " + place(first->site) + ": " + std::to_string(g.threads - g.done) + " threads wait (" + where +
         "), " + std::to_string(g.done) + " have left";
}

void run_block(uint64_t number) {
  ++g.serial;
  g.done = g.at_barrier = 0, g.votes = 0;
  g.random = mix(uint64_t(g.config.seed) * 0x100000001b3ull + number);
  g.calm = std::array<uint64_t, 4>{15, 255, 4095, 4095}[next_random() % 4];
  g.ready = 0;
  for (int k = 0; k < g.threads; ++k) threads[k] = {unsigned(k)};
  for (int w = 0; w < g.threads / 32; ++w) warps[w].open = 0, make_ready(unsigned(w), 0xffffffffu);
  if (g.config.order == Order::random) g.warp = any_bit(g.ready);
  set_current(pick());
  change(scheduler, *idle_stack());
  if (!g.failed && g.done != g.threads) note(diagnose());
  if (!g.failed) return;
  for (int k = 0; k < g.threads; ++k)  // wake those that wait: each unwinds its own stack
    if (threads[k].stack && !threads[k].done) set_current(&threads[k]), change(scheduler, *threads[k].stack);
}

}  // namespace

int64_t barrier(const Site& site, int predicate) {
  Thread& t = *g.current;
  t.site = site, t.meeting = nullptr;
  if (g.at_barrier == 0) {
    g.barrier = site, g.barrier_first = t.linear;
  } else if (!(g.barrier == site)) {
    fail("barrier in divergent code in " + place(site) + ": thread " + std::to_string(t.linear) + " is at " +
         text(site) + ", thread " + std::to_string(g.barrier_first) + " at " + text(g.barrier));
  }
  g.votes += predicate != 0;
  if (++g.at_barrier == g.threads) {
    g.result = g.votes, g.votes = 0, g.at_barrier = 0;
    for (int w = 0; w < g.threads / 32; ++w) make_ready(unsigned(w), 0xffffffffu);
  }
  wait();
  return g.result;
}

const Lanes& exchange(uint32_t mask, const Site& site, uint64_t value) {
  Thread& t = *g.current;
  const unsigned me = t.linear % 32, w = t.linear / 32;
  Warp& warp = warps[w];
  if (!((mask >> me) & 1))
    fail("wrong mask in " + place(site) + ": thread " + std::to_string(t.linear) + " calls " + site.what +
         " with mask " + hex(mask) + ", which lacks its own lane");
  Meeting* m = nullptr;
  for (uint32_t open = warp.open; open; open &= open - 1) {
    Meeting& x = warp.meetings[size_t(std::countr_zero(open))];
    if (x.complete) continue;
    if (x.lanes.mask != mask || !(x.site == site)) {
      if (((x.lanes.mask >> me) & 1) && (x.arrived & mask))  // they wait for this lane there, it for them here
        fail("lanes of a warp meet at different collectives in " + place(site) + ": thread " +
             std::to_string(t.linear) + " is at " + text(site) + " with mask " + hex(mask) + ", others at " +
             text(x.site) + " with mask " + hex(x.lanes.mask));
      continue;
    }
    m = &x;
  }
  if (!m) {
    const int free = std::countr_one(warp.open);  // there is one: a lane is in one meeting at a time
    m = &warp.meetings[size_t(free)];
    m->lanes.mask = mask, m->arrived = m->left = 0, m->site = site, m->complete = false;
    warp.open |= 1u << free;
  }
  m->lanes.value[me] = value;
  m->arrived |= 1u << me;
  t.site = site, t.meeting = m;
  if (m->arrived == mask) m->complete = true, make_ready(w, mask);
  wait();  // the last to arrive as well: who goes on first is the schedule's choice
  t.meeting = nullptr;
  m->left |= 1u << me;
  if (m->left == mask) warp.open &= ~(1u << (m - warp.meetings.data()));
  return m->lanes;  // untouched until this thread waits again
}

uint64_t poison_bits() { return uint64_t(g.config.poison & 0xff) * 0x0101010101010101ull; }

void stop(const Site& site, const std::string& why) {
  fail("wrong use of " + std::string(site.what) + " in " + place(site) + ": " + why);
}

// Aligned as its type is and no better, as on a GPU. The 8 bytes before it may not be touched either.
void* shared_array(const void* site, size_t bytes, size_t align) {
  SharedArray* a = nullptr;
  for (SharedArray& x : g.arrays)
    if (x.site == site) a = &x;
  if (!a) {
    const size_t before = align >= 16 ? 0 : 8;
    std::unique_ptr<char[]> memory(new char[before + bytes]);
    char* p = memory.get() + before;
#if SIMT_ASAN
    ASAN_POISON_MEMORY_REGION(memory.get(), before);
#endif
    g.arrays.push_back({site, std::move(memory), p, bytes, 0});
    a = &g.arrays.back();
    g.static_bytes += bytes;
    if (g.static_bytes > kMaxStatic || g.static_bytes + g.dynamic_bytes > size_t(g.config.shared))
      fail("too much shared memory in " + place(g.file, g.launch_line) + ": arrays of " +
           std::to_string(g.static_bytes) + " bytes (up to 48 KB) and " + std::to_string(g.dynamic_bytes) +
           " dynamic ones (together up to " + std::to_string(g.config.shared / 1024) + " KB)");
  }
  if (a->block != g.serial) std::memset(a->p, g.config.poison, bytes), a->block = g.serial;
  return a->p;
}
void* dynamic_shared_memory() { return g.dynamic.get(); }

void use_shared(int64_t bytes) { g_most_shared = bytes; }
int64_t most_shared() { return g_most_shared; }

void submit(Ctx& ctx, std::function<void()> work) {
  auto* b = static_cast<Backend*>(ctx.backend);
  ++b->launches;
  if (b->recording) {
    b->recording->push_back(std::move(work));
  } else {
    const DeviceAccess access;
    work();
  }
}

void check_geometry(const char* kernel, const char* file, int line, Dim3 grid, int block, size_t shared) {
  const std::string who = std::string(kernel) + " (" + file + ":" + std::to_string(line) + "): ";
  if (block <= 0 || block > 1024 || block % 32)
    throw KernelError(who + "a block of " + std::to_string(block) + " threads, expected a multiple of 32 up to 1024");
  if (grid.y > 65535 || grid.z > 65535) throw KernelError(who + "grid dimensions y and z go up to 65535");
  if (shared > size_t(most_shared()))
    throw KernelError(who + std::to_string(shared) + " bytes of shared memory, expected up to " +
                      std::to_string(most_shared() / 1024) + " KB");
}

void run_kernel(const Config& c, const char* kernel, const char* file, int line, Dim3 grid, int block, size_t shared,
                const std::function<void()>& body) {
  g.kernel = kernel, g.file = file, g.launch_line = line, g.body = &body, g.config = c, g.threads = block;
  g.failed = false;
  g.arrays.clear(), g.static_bytes = 0;
  g.dynamic.reset(shared ? new char[shared] : nullptr), g.dynamic_bytes = shared;
  cuda::blockDim = {unsigned(block), 1, 1}, cuda::gridDim = grid;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  std::vector<uint64_t> order(c.order == Order::random ? blocks : 0);
  std::iota(order.begin(), order.end(), uint64_t(0));
  for (size_t k = order.size(); k > 1; --k) std::swap(order[k - 1], order[mix(uint64_t(c.seed) * 1000003u + k) % k]);
  for (uint64_t k = 0; k < blocks && !g.failed; ++k) {
    const uint64_t b = c.order == Order::ascending ? k : c.order == Order::descending ? blocks - 1 - k : order[k];
    cuda::blockIdx = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    if (shared) std::memset(g.dynamic.get(), c.poison, shared);
    run_block(b);
  }
  g.arrays.clear(), g.dynamic.reset();
  if (g.failed) throw KernelError(g.error);
}

}  // namespace ccdrec::simt
