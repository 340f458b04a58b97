// The precisions of a GPU's large products (library::gemm) and what they may do to a number. The CPU's products are
// FP32.
//
// In tf32 and bf16 both factors of a term lose what stands behind 10 or 7 explicit bits of the mantissa before they are
// multiplied; sums stay FP32. A factor is then off by at most u = 2^-10 or 2^-7 of itself, whether the hardware cuts it
// off or rounds it (half of that), and a product of two by 2u + u^2. Adding k terms up in FP32, in whatever order, is
// off by at most k 2^-24 of the mass, the sum of |terms|.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>

namespace ccdrec {

inline int mantissa_bits(const std::string& precision) {
  return precision == "tf32" ? 10 : precision == "bf16" ? 7 : 23;
}
inline double sum_error(int64_t k) { return std::ldexp(double(k), -24); }  // of k terms in FP32, relative to the mass
// of one factor, relative to itself; FP32 takes it as it is
inline double factor_error(const std::string& precision) {
  const int bits = mantissa_bits(precision);
  return bits == 23 ? 0.0 : std::ldexp(1.0, -bits);
}
// of a product with k terms, relative to the mass
inline double product_error(const std::string& precision, int64_t k) {
  const double u = factor_error(precision);
  return 2 * u + u * u + (1 + 2 * u + u * u) * sum_error(k);
}

}  // namespace ccdrec
