// What `ccdrec check` prints: counts, degrees, sparsity, feature health.
#pragma once
#include <string>

#include "data/dataset.h"

namespace ccdrec {
std::string describe(const Dataset&);  // several lines, plain text
}
