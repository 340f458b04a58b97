// The phases of an epoch: ranges for profilers, and their seconds by name.
#pragma once
#include <map>
#include <string>

#include "host/base/device.h"

namespace ccdrec {

class Clock {
 public:
  explicit Clock(Device& dev) : dev_(dev) {}
  Phase phase(RangeId id) { return {dev_, seconds, id, timed, place}; }
  Range range(RangeId id) const { return {dev_, id, place}; }  // for profilers alone, a part of a phase

  std::map<std::string, double> seconds;  // by phase, since someone last cleared them
  bool timed = false;                     // GPU: each phase waits for its end, so that `seconds` knows it
  int64_t place = -1;                     // what ranges carry: the epoch, within a step its number

 private:
  Device& dev_;
};

}  // namespace ccdrec
