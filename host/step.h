// One training step, or the reverse process, on arrays that a file gives: `ccdrec step` and `ccdrec reverse` (docs/step-format.md). Nothing is drawn.
#pragma once
#include <string>

#include "host/safetensors.h"

namespace ccdrec {

// Read `in`, compute on the device, write `out` (temporary name, renamed) unless it is empty; what was computed is given back. UserError: an array is
// missing, has another shape or type, holds an index out of range or a value that is not finite; settings are wrong; the graph is not symmetric.
void write_result(const std::string& path, const TensorFile&);
TensorFile run_step_case(const std::string& in, const std::string& out, const std::string& device, int threads);
TensorFile run_reverse_case(const std::string& in, const std::string& out, const std::string& device, int threads);

}  // namespace ccdrec
