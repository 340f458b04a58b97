// A GPU as devices of the operation tests. The tests hand vectors to the operations, so in this program `new` gives
// pinned host memory, which both sides reach; each operation is waited for before it returns.
#pragma once
#include <vector>

#include "tests/support.h"

namespace ccdrec::test {
std::vector<Device> cuda_devices();  // fails the program when no GPU can be used
}
