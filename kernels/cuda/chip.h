// What launches are cut for; the results do not depend on it. Private to kernels/cuda and its tests.
#pragma once
#include <cstdint>

namespace ccdrec::cuda {

struct Chip {
  // multiprocessors; the emulator's are few, so that a small case already fills them more than once (an H200: 132)
  int sms = 4;
  // most bytes of a block: 227 KB on an H100 or H200, 163 on an A100, 99 on an L4, A10 or RTX
  int64_t shared = 227 * 1024;
};
// of a chip that every kernel fits; all have it from compute capability 8.0 on
constexpr int64_t kLeastShared = 99 * 1024;
// of the current device, asked for once (toolkit/runtime.cu; tests/simt/runtime.cpp)
Chip chip();

}  // namespace ccdrec::cuda
