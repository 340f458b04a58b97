// What launches are cut for; the results do not depend on it. Private to kernels/cuda and its tests.
#pragma once
#include <cstdint>

namespace ccdrec::cuda {

struct Chip {
  int sms = 4;                  // multiprocessors; the emulator's are few, so that a small case already fills them more than once (an H200: 132)
  int64_t shared = 227 * 1024;  // most bytes of a block
};
Chip chip();  // of the current device, asked for once

}  // namespace ccdrec::cuda
