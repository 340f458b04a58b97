#include "kernels/ctx.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace ccdrec {

Ctx::~Ctx() {
  for (void* b : block_) memory.give_back ? memory.give_back(*this, b) : std::free(b);
  if (memory.close) memory.close(*this);
}

void* Ctx::scratch(int slot, size_t bytes) {
  if (size_[slot] < bytes) {
    memory.give_back ? memory.give_back(*this, block_[slot]) : std::free(block_[slot]);
    block_[slot] = nullptr, size_[slot] = 0;
    const size_t rounded = (bytes + bytes / 8 + 63) / 64 * 64;  // an eighth to spare: batches vary a little
    block_[slot] = memory.take ? memory.take(*this, rounded) : std::aligned_alloc(64, rounded);
    if (!block_[slot]) throw std::bad_alloc();
    size_[slot] = rounded;
  }
  return block_[slot];
}

void Ctx::fill_scratch(int byte) {
  for (int k = 0; k < kSlots; ++k)
    if (block_[k]) std::memset(block_[k], byte, size_[k]);
}

size_t Ctx::scratch_bytes() const {
  size_t sum = 0;
  for (size_t s : size_) sum += s;
  return sum;
}

void check_shape(int64_t got_rows, int64_t got_cols, int64_t rows, int64_t cols, const char* what, const char* file, int line) {
  if (got_rows == rows && got_cols == cols) return;
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": expected " + what + " = (" + std::to_string(rows) + "," +
                         std::to_string(cols) + "), got (" + std::to_string(got_rows) + "," + std::to_string(got_cols) + ")");
}

void check_that(bool ok, const char* what, const char* file, int line) {
  if (!ok) throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": expected " + what);
}

}  // namespace ccdrec
