// The emulated GPU as devices of the operation tests: three thread orders, two poison patterns and chips with more and
// less shared memory, which must all give the same bits.
#pragma once
#include <vector>

#include "tests/support.h"

namespace ccdrec::test {
std::vector<Device> simt_devices();
}
