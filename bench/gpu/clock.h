// Time on a GPU: CUDA events around operations (clock_cuda.cpp). clock_simt.cpp stands in where the bench runs on the
// emulator, to test the bench.
#pragma once
#include <functional>
#include <memory>

#include "kernels/ctx.h"

namespace ccdrec::bench {

class GpuClock {
 public:
  explicit GpuClock(Ctx&);
  ~GpuClock();
  double seconds(const std::function<void()>& work);  // from the first operation's start to the last one's end
  void flush_l2();                                    // overwrites a buffer of four times the cache
  double l2_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ccdrec::bench
