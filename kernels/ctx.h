// What an operation may use besides its arguments: the thread count and scratch memory that is taken once and kept.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/late.h"
#include "kernels/types.h"

namespace ccdrec {

enum class DeviceKind { cpu, cuda };
enum class SpmmBy { automatic, own, cusparse };  // whose full sparse products a GPU runs: spmm.h

struct Ctx {
  DeviceKind device = DeviceKind::cpu;
  int threads = 1;                  // OpenMP threads of a CPU operation: `#pragma omp parallel num_threads(ctx.threads)`. Never changes a result
  void* stream = nullptr;           // cudaStream_t on the CUDA device
  void* backend = nullptr;          // what the CUDA operations keep: library handles, a recording; owned by the device's table
  const Late* late = nullptr;       // CUDA: the values of late.h, in device memory
  SpmmBy spmm = SpmmBy::automatic;  // CUDA; may change between operations, not while one is recorded
  int32_t* fault = nullptr;         // CUDA: what a CPU operation would throw std::logic_error for; in device memory, read once per epoch

  Ctx() = default;
  explicit Ctx(int threads_) : threads(threads_) {}
  Ctx(const Ctx&) = delete;
  Ctx& operator=(const Ctx&) = delete;
  ~Ctx();

  // Scratch of the calling operation: at least `bytes`, 64-byte aligned, contents undefined, one block per slot. Grows on first use and
  // is kept, so that no step allocates. Call it OUTSIDE parallel regions and cut it by thread there. Slots 0..7 belong to the running operation.
  void* scratch(int slot, size_t bytes);
  size_t scratch_bytes() const;

  static constexpr int kSlots = 10;            // 8 and 9: the CUDA library calls
  struct Memory {                              // where scratch comes from: the device sets it before the first use
    void* (*take)(Ctx&, size_t) = nullptr;     // null: host memory
    void (*give_back)(Ctx&, void*) = nullptr;  //
    void (*close)(Ctx&) = nullptr;             // called last by the destructor: closes `backend`
  } memory;
  void fill_scratch(int byte);  // host memory only: tests poison what an operation may not rely on

 private:
  void* block_[kSlots] = {};
  size_t size_[kSlots] = {};
};

// A shape an operation cannot take is a mistake of the calling code: throws std::logic_error naming expression, shape, file and line.
void check_shape(int64_t got_rows, int64_t got_cols, int64_t rows, int64_t cols, const char* what, const char* file, int line);
void check_that(bool ok, const char* what, const char* file, int line);
#define CHECK_SHAPE(m, r, c) ::ccdrec::check_shape((m).rows, (m).cols, (r), (c), #m " = (" #r ", " #c ")", __FILE__, __LINE__)
#define CHECK_THAT(cond) ::ccdrec::check_that(bool(cond), #cond, __FILE__, __LINE__)

}  // namespace ccdrec
