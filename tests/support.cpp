#include "tests/support.h"

#include <cstdlib>
#include <map>
#include <string>

#if defined(CCDREC_TEST_SIMT)
#include "tests/simt/devices.h"
#endif
#if defined(CCDREC_TEST_CUDA)
#include "tests/cuda/devices.h"
#endif

// of AddressSanitizer, where it is linked
extern "C" __attribute__((weak)) void __asan_init();

namespace ccdrec::test {

bool sanitized() { return __asan_init != nullptr; }

// CCDREC_TEST_DEVICES=cpu (or simt, cuda) keeps to one family: for a closer look at a failure.
std::vector<Device> devices() {
  std::vector<Device> all = cpu_devices();
#if defined(CCDREC_TEST_SIMT)
  for (Device& d : simt_devices()) {
    all.push_back(std::move(d));
    // the sanitizers look at accesses, which one schedule shows as well as others; what depends on the schedule is
    // found without them
    if (sanitized()) break;
  }
#endif
#if defined(CCDREC_TEST_CUDA)
  for (Device& d : cuda_devices()) all.push_back(std::move(d));
#endif
  if (const char* only = std::getenv("CCDREC_TEST_DEVICES"))
    std::erase_if(all, [&](const Device& d) { return d.family != only; });
  return all;
}

std::vector<Device> cpu_devices() {
  if (sanitized()) return {{"cpu, 1 thread", &cpu_ops(), 1}, {"cpu, 3 threads", &cpu_ops(), 3}};
  return {{"cpu, 1 thread", &cpu_ops(), 1}, {"cpu, 2 threads", &cpu_ops(), 2}, {"cpu, 3 threads", &cpu_ops(), 3}};
}

std::vector<Device> fast_devices() {
  std::vector<Device> all = devices();
  std::map<std::string, int> seen;
  std::erase_if(all, [&](const Device& d) { return d.family != "cpu" && ++seen[d.family] > 2; });
  return all;
}

std::vector<Device> one_of_each_family() {
  std::vector<Device> all = devices();
  std::map<std::string, int> seen;
  std::erase_if(all, [&](const Device& d) { return ++seen[d.family] > 1; });
  return all;
}

}  // namespace ccdrec::test
