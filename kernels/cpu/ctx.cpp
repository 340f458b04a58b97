#include "kernels/ctx.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace ccdrec {

size_t scratch_block(size_t bytes) { return (bytes + bytes / 8 + 63) / 64 * 64; }

size_t ScratchPlan::bytes() const {
  size_t sum = 0;
  for (const size_t s : slot) sum += scratch_block(s);
  return sum;
}

Ctx::~Ctx() {
  for (int k = 0; k < kScratchSlots; ++k)
    memory.give_back ? memory.give_back(*this, block_[k], size_[k]) : std::free(block_[k]);
  if (memory.close) memory.close(*this);
}

void Ctx::grow(int slot, size_t bytes) {
  if (size_[slot] >= bytes) return;
  memory.give_back ? memory.give_back(*this, block_[slot], size_[slot]) : std::free(block_[slot]);
  block_[slot] = nullptr, size_[slot] = 0;
  const size_t rounded = scratch_block(bytes);
  block_[slot] = memory.take ? memory.take(*this, rounded) : std::aligned_alloc(64, rounded);
  if (!block_[slot]) throw std::bad_alloc();
  size_[slot] = rounded;
  note_peak();
}

void* Ctx::scratch(int slot, size_t bytes) {
  asked_[slot] = std::max(asked_[slot], bytes);
  grow(slot, bytes);
  return block_[slot];
}
void Ctx::reserve(const ScratchPlan& p) {
  for (int k = 0; k < kScratchSlots; ++k) grow(k, p.slot[k]);
}
ScratchPlan Ctx::asked() const {
  ScratchPlan p;
  p.threads = threads;
  std::copy_n(asked_, kScratchSlots, p.slot);
  return p;
}

void Ctx::fill_scratch(int byte) {
  for (int k = 0; k < kScratchSlots; ++k)
    if (block_[k]) std::memset(block_[k], byte, size_[k]);
}

size_t Ctx::scratch_bytes() const {
  size_t sum = memory.held ? memory.held(*this) : 0;
  for (size_t s : size_) sum += s;
  return sum;
}

void Ctx::count_array(int64_t bytes) {
  arrays_ += size_t(bytes);
  note_peak();
}
void Ctx::note_peak() { peak_ = std::max(peak_, arrays_ + scratch_bytes()); }
size_t Ctx::peak_bytes() const { return std::max(peak_, arrays_ + scratch_bytes()); }

void check_shape(int64_t got_rows, int64_t got_cols, int64_t rows, int64_t cols, const char* what, const char* file,
                 int line) {
  if (got_rows == rows && got_cols == cols) return;
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": expected " + what + " = (" +
                         std::to_string(rows) + "," + std::to_string(cols) + "), got (" + std::to_string(got_rows) +
                         "," + std::to_string(got_cols) + ")");
}

void check_that(bool ok, const char* what, const char* file, int line) {
  if (!ok) throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": expected " + what);
}

}  // namespace ccdrec
