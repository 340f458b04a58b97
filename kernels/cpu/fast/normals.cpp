#include "kernels/cpu/fast/normals.h"

#include <algorithm>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ccdrec::cpu {

// v_i[l] = draw(stream, row, sub + l).v[i] for 16 consecutive subs.
static void draw16(uint32_t (*v)[16], Stream stream, uint32_t row, uint32_t sub) {
#if defined(__AVX2__)
  // Philox4x32-10 with a word in the low half of each 64-bit lane. What a product leaves in a high half is harmless:
  // products read low halves only. Lanes 0 1 4 5 | 2 3 6 7, so that the in-lane shuffle at the end puts eight words in
  // order.
  for (uint32_t base = 0; base < 16; base += 8) {
    const __m256i first = _mm256_set1_epi64x(int64_t(sub + base));
    __m256i c0[2], c1[2], c2[2], c3[2];
    for (int g = 0; g < 2; ++g) {
      c0[g] = _mm256_set1_epi64x(row);
      c1[g] = _mm256_add_epi64(first, g == 0 ? _mm256_set_epi64x(5, 4, 1, 0) : _mm256_set_epi64x(7, 6, 3, 2));
      c2[g] = _mm256_set1_epi64x(stream.step);
      c3[g] = _mm256_set1_epi64x(stream.epoch);
    }
    const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m1 = _mm256_set1_epi64x(0xCD9E8D57);
    uint32_t k0 = stream.seed, k1 = uint32_t(stream.use);
    for (int round = 0; round < 10; ++round) {
      const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
      for (int g = 0; g < 2; ++g) {
        const __m256i p0 = _mm256_mul_epu32(c0[g], m0), p1 = _mm256_mul_epu32(c2[g], m1);
        c0[g] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1[g]), key0);
        c2[g] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3[g]), key1);
        c1[g] = p1;
        c3[g] = p0;
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    auto low_halves = [&](uint32_t* out, const __m256i* c) {
      const __m256 both = _mm256_shuffle_ps(_mm256_castsi256_ps(c[0]), _mm256_castsi256_ps(c[1]), 0x88);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_castps_si256(both));
    };
    low_halves(v[0] + base, c0);
    low_halves(v[1] + base, c1);
    low_halves(v[2] + base, c2);
    low_halves(v[3] + base, c3);
  }
#else
  for (uint32_t l = 0; l < 16; ++l) {
    const Draw4 d = draw(stream, row, sub + l);
    for (int i = 0; i < 4; ++i) v[i][l] = d.v[i];
  }
#endif
}

void normal_row(float* out, int64_t d, Stream stream, uint32_t row) {
  for (int64_t j = 0; j < d; j += 64) {
    uint32_t v[4][16];
    float z[4][16], interleaved[64];
    draw16(v, stream, row, uint32_t(j / 4));
    for (int l = 0; l < 16; ++l) normal_pair(v[0][l], v[1][l], z[0][l], z[1][l]);
    for (int l = 0; l < 16; ++l) normal_pair(v[2][l], v[3][l], z[2][l], z[3][l]);
    float* to = d - j >= 64 ? out + j : interleaved;
    for (int l = 0; l < 16; ++l) {
      for (int i = 0; i < 4; ++i) to[4 * l + i] = z[i][l];
    }
    if (to == interleaved) std::copy_n(interleaved, d - j, out + j);
  }
}

}  // namespace ccdrec::cpu
