// One training step, or the reverse process, on arrays that a file gives: `ccdrec step` and `ccdrec reverse`
// (docs/step-format.md). Nothing is drawn.
#pragma once
#include <string>

#include "host/base/safetensors.h"

namespace ccdrec {

// Read `in`, compute on the device, write `out` (temporary name, renamed) unless it is empty; what was computed is
// given back. UserError, and nothing is written: what host/files/case_file.h refuses, settings that are wrong, a graph
// that is not symmetric, a result that is not finite.
TensorFile run_step_case(const std::string& in, const std::string& out, const std::string& device, int threads);
TensorFile run_reverse_case(const std::string& in, const std::string& out, const std::string& device, int threads);
void write_result(const std::string& path, const TensorFile&);

}  // namespace ccdrec
