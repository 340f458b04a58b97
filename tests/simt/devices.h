// The emulated GPU as devices of the operation tests: three thread orders and two poison patterns, which must all give the same bits.
#pragma once
#include <vector>

#include "tests/support.h"

namespace ccdrec::test {
std::vector<Device> simt_devices();
}
