// A 64-bit fingerprint of bytes (not for security): tells one file's content from another's, at memory speed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace ccdrec {
uint64_t hash_bytes(const void* bytes, size_t n, uint64_t seed = 0);
std::string hex16(uint64_t);  // 16 lower-case hexadecimal digits
}  // namespace ccdrec
