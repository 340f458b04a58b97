// Whether the CUDA toolkit's libraries can be loaded (delayed.cu), asked before a GPU is taken. Private to
// kernels/cuda/toolkit and its test.
#pragma once
#include <string>

namespace ccdrec::cuda {

std::string why_no_blas();    // one sentence, or nothing: cuBLAS is there, with every function that is called
std::string why_no_sparse();  // likewise cuSPARSE

}  // namespace ccdrec::cuda
