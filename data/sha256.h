// SHA-256 (FIPS 180-4): the fingerprint that public data sets and reports are quoted with.
#pragma once
#include <string>
#include <string_view>

namespace ccdrec {
std::string sha256(std::string_view bytes);        // 64 lower-case hexadecimal digits
std::string sha256_file(const std::string& path);  // read in pieces; UserError when it cannot be read
}  // namespace ccdrec
