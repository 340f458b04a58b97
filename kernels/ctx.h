// What an operation may use besides its arguments: the thread count and scratch memory that is taken once and kept.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/late.h"
#include "kernels/types.h"

namespace ccdrec {

constexpr int kScratchSlots = 9;  // of a context; 0..7 are the running operation's, 8 the CUDA library calls
// what a slot takes when so much is asked of it: an eighth to spare, since batches vary a little
size_t scratch_block(size_t bytes);

// What operations of known sizes will ask of Ctx::scratch, before anything is taken: the most of each slot. Filled by
// the operations' *_scratch.
struct ScratchPlan {
  int threads = 1;  // as Ctx::threads
  size_t slot[kScratchSlots] = {};
  void need(int k, int64_t bytes) {
    if (bytes > 0 && slot[k] < size_t(bytes)) slot[k] = size_t(bytes);
  }
  size_t bytes() const;  // that a context has taken once they have run
};

// An empty parallel region of two threads that are awake takes 1.2 us (bench/results/busy.md); beside other programs,
// which take a thread's core away, far more. Work below this would gain at most half of it, 8 us, from a second thread.
constexpr double kAloneNs = 16e3;
// of a core, about, to read a float of a row, do something small with it and write it: for Ctx::threads_for
constexpr double kFloatNs = 0.3;

enum class DeviceKind { cpu, cuda };
enum class SpmmBy { automatic, own, cusparse };  // whose full sparse products a GPU runs: spmm.h

struct Ctx {
  DeviceKind device = DeviceKind::cpu;
  // OpenMP threads of a CPU operation: `#pragma omp parallel num_threads(..)`. Never changes a result
  int threads = 1;
  void* stream = nullptr;  // cudaStream_t on the CUDA device
  // what the CUDA operations keep: library handles, a recording; owned by the device's table
  void* backend = nullptr;
  const Late* late = nullptr;       // CUDA: the values of late.h, in device memory
  SpmmBy spmm = SpmmBy::automatic;  // CUDA; may change between operations, not while one is recorded
  // CUDA: what a CPU operation would throw std::logic_error for; in device memory, read once per epoch
  int32_t* fault = nullptr;

  Ctx() = default;
  explicit Ctx(int threads_) : threads(threads_) {}
  // Of work that takes one core about `ns` nanoseconds: `threads`, or 1 where waking the others would take longer than
  // they save.
  int threads_for(double ns) const;
  double alone_ns = kAloneNs;  // below, the calling thread works alone; tests with small shapes set 0
  Ctx(const Ctx&) = delete;
  Ctx& operator=(const Ctx&) = delete;
  ~Ctx();

  // Scratch of the calling operation: at least `bytes`, 64-byte aligned, contents undefined, one block per slot. Grows
  // on first use and is kept, so that no step allocates. Call it OUTSIDE parallel regions and cut it by thread there.
  // Slots 0..7 belong to the running operation.
  void* scratch(int slot, size_t bytes);
  void reserve(const ScratchPlan&);  // the slots as large as planned, so that none grows later
  ScratchPlan asked() const;         // the most that operations have asked of each slot
  size_t scratch_bytes() const;      // held by the slots, and by the backend beside them

  // Bytes of this device: scratch, and arrays, which those who take them count. `peak_bytes` is the most there ever was
  // at a time.
  void count_array(int64_t bytes);  // taken; < 0: given back
  size_t array_bytes() const { return arrays_; }
  size_t peak_bytes() const;

  // where scratch comes from: the device sets it before the first use
  struct Memory {
    void* (*take)(Ctx&, size_t) = nullptr;             // null: host memory
    void (*give_back)(Ctx&, void*, size_t) = nullptr;  //
    // what the backend holds beside the slots: workspaces, outgrown blocks of recorded steps
    size_t (*held)(const Ctx&) = nullptr;
    void (*close)(Ctx&) = nullptr;  // called last by the destructor: closes `backend`
  } memory;
  void fill_scratch(int byte);  // host memory only: tests poison what an operation may not rely on

  // What the host asked of a GPU's runtime, counted where it is asked: the tests say how many of each an epoch and an
  // evaluation make.
  struct Calls {
    // that wait for the device: synchronisation, copies that are complete when they return, memory given back
    int64_t waits = 0;
    int64_t allocations = 0;  // of device memory, arrays and scratch
    int64_t recordings = 0;   // steps captured as graphs
  } calls;

 private:
  void note_peak();
  void grow(int slot, size_t bytes);
  void* block_[kScratchSlots] = {};
  size_t size_[kScratchSlots] = {}, asked_[kScratchSlots] = {};
  size_t arrays_ = 0, peak_ = 0;
};

// A shape an operation cannot take is a mistake of the calling code: throws std::logic_error naming expression, shape,
// file and line.
void check_shape(int64_t got_rows, int64_t got_cols, int64_t rows, int64_t cols, const char* what, const char* file,
                 int line);
void check_that(bool ok, const char* what, const char* file, int line);
#define CHECK_SHAPE(m, r, c) \
  ::ccdrec::check_shape((m).rows, (m).cols, (r), (c), #m " = (" #r ", " #c ")", __FILE__, __LINE__)
#define CHECK_THAT(cond) ::ccdrec::check_that(bool(cond), #cond, __FILE__, __LINE__)

}  // namespace ccdrec
