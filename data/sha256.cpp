#include "data/sha256.h"

#include <fmt/format.h>

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "data/error.h"

namespace ccdrec {

namespace {

// The first 32 bits of the fractional parts of the square (start) and cube roots (rounds) of the first primes, as the
// standard defines them.
struct Constants {
  uint32_t start[8], round[64];
  Constants() {
    int n = 0;
    for (uint64_t p = 2; n < 64; ++p) {
      bool prime = true;
      for (uint64_t q = 2; q * q <= p; ++q) prime = prime && p % q != 0;
      if (!prime) continue;
      if (n < 8) start[n] = root_bits(p, 2);
      round[n++] = root_bits(p, 3);
    }
  }
  // Largest r with r^power <= p * 2^(32 power); its low 32 bits are the fraction. Integers throughout: no rounding to
  // trust.
  static uint32_t root_bits(uint64_t p, int power) {
    uint64_t low = 0, high = uint64_t(1) << 38;
    while (high - low > 1) {
      const uint64_t mid = (low + high) / 2;
      const unsigned __int128 square = static_cast<unsigned __int128>(mid) * mid;
      // p 2^96 needs 105 bits; a cube of 38 bits needs 114: both fit
      const bool fits = power == 2 ? square <= static_cast<unsigned __int128>(p) << 64
                                   : square * mid <= static_cast<unsigned __int128>(p) << 96;
      (fits ? low : high) = mid;
    }
    return uint32_t(low);
  }
};

class Sha256 {
 public:
  Sha256() { std::memcpy(h_, constants().start, sizeof h_); }

  void add(const unsigned char* p, size_t n) {
    total_ += n;
    if (held_ > 0) {
      const size_t take = std::min(n, 64 - held_);
      std::memcpy(tail_ + held_, p, take);
      held_ += take, p += take, n -= take;
      if (held_ < 64) return;
      block(tail_);
      held_ = 0;
    }
    for (; n >= 64; p += 64, n -= 64) block(p);
    std::memcpy(tail_, p, n);
    held_ = n;
  }

  std::string finish() {
    const uint64_t bits = total_ * 8;
    unsigned char pad[72] = {0x80};
    const size_t zeros = (held_ < 56 ? 56 : 120) - held_;
    for (int i = 0; i < 8; ++i) pad[zeros + size_t(i)] = static_cast<unsigned char>(bits >> (56 - 8 * i));
    add(pad, zeros + 8);
    std::string out;
    for (uint32_t h : h_) out += fmt::format("{:08x}", h);
    return out;
  }

 private:
  static const Constants& constants() {
    static const Constants c;
    return c;
  }

  void block(const unsigned char* p) {
    uint32_t w[64];
    for (int i = 0; i < 16; ++i)
      w[i] = uint32_t(p[4 * i]) << 24 | uint32_t(p[4 * i + 1]) << 16 | uint32_t(p[4 * i + 2]) << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; ++i) {
      const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
      const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    const uint32_t* k = constants().round;
    uint32_t a = h_[0], b = h_[1], c = h_[2], d = h_[3], e = h_[4], f = h_[5], g = h_[6], h = h_[7];
    for (int i = 0; i < 64; ++i) {
      const uint32_t t1 =
          h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
      const uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const uint32_t add[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) h_[i] += add[i];
  }

  uint32_t h_[8];
  unsigned char tail_[64];
  size_t held_ = 0;
  uint64_t total_ = 0;
};

}  // namespace

std::string sha256(std::string_view bytes) {
  Sha256 s;
  s.add(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  return s.finish();
}

std::string sha256_file(const std::string& path) {
  const auto close = [](std::FILE* f) { std::fclose(f); };
  const std::unique_ptr<std::FILE, decltype(close)> f(std::fopen(path.c_str(), "rb"), close);
  if (!f) throw UserError(fmt::format("{}: cannot be opened ({})", path, std::strerror(errno)));
  Sha256 s;
  std::vector<unsigned char> piece(size_t(1) << 20, 0);
  for (size_t got = 0; (got = std::fread(piece.data(), 1, piece.size(), f.get())) > 0;) s.add(piece.data(), got);
  if (std::ferror(f.get()))
    throw UserError(fmt::format("{}: cannot be read ({}); expected a file", path, std::strerror(errno)));
  return s.finish();
}

}  // namespace ccdrec
