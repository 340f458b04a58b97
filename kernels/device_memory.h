// A GPU that has less memory free than was asked of it. Thrown where the runtime says so; the command line makes its
// sentence of it.
#pragma once
#include <cstddef>
#include <cstdio>
#include <new>

namespace ccdrec {

class DeviceOutOfMemory : public std::bad_alloc {  // it allocates nothing itself
 public:
  // asked 0: the call does not say how much it wanted.
  DeviceOutOfMemory(const char* call, size_t asked, size_t free) noexcept : asked_(asked), free_(free) {
    std::snprintf(call_, sizeof call_, "%s", call);
    if (asked)
      std::snprintf(what_, sizeof what_, "%s of %zu bytes failed, %zu bytes are free on the GPU", call_, asked, free);
    else
      std::snprintf(what_, sizeof what_, "%s found no memory, %zu bytes are free on the GPU", call_, free);
  }
  const char* what() const noexcept override { return what_; }
  const char* call() const noexcept { return call_; }
  size_t asked() const noexcept { return asked_; }
  size_t free() const noexcept { return free_; }

 private:
  size_t asked_, free_;
  char call_[128], what_[256];
};

}  // namespace ccdrec
