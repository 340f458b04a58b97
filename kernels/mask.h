// Dropout masks as bits, drawn by address (kernels/rng.h): bit e % 16 of word e / 16 of a row is 1 where element e is
// kept. Whoever applies one divides what it keeps by the share that is kept, 1 - rate, itself.
//
// draw_masks   bits[j, w], j < n (n = rows.count), w < words: element e = 16 w + b of row r = rows[j] is kept where the
//              16-bit number of its address is >= round(65536 rate). Address (row = r, sub = e / 8): of the draw's four
//              words the e % 8 / 2-th, its lower half for even e. A row that is listed twice has one mask.
// Order        elementwise: the same bits on both devices.
// Cost         two draws and 2 bytes for 16 elements.
#pragma once
#include "kernels/ctx.h"
#include "kernels/rng.h"

namespace ccdrec {

constexpr int kMaskBits = 16;  // of a word
constexpr int64_t mask_words(int64_t elements) { return (elements + kMaskBits - 1) / kMaskBits; }
// The least 16-bit number that is kept.
CCDREC_HD inline uint32_t mask_threshold(float rate) { return uint32_t(rate * 65536.0f + 0.5f); }
CCDREC_HD inline uint16_t mask_word(Stream s, uint32_t row, uint32_t word, uint32_t threshold) {
  uint32_t bits = 0;
  for (uint32_t half = 0; half < 2; ++half) {
    const Draw4 drawn = draw(s, row, 2 * word + half);
    for (uint32_t e = 0; e < 8; ++e) {
      const uint32_t number = e % 2 ? drawn.v[e / 2] >> 16 : drawn.v[e / 2] & 0xffffu;
      bits |= uint32_t(number >= threshold) << (8 * half + e);
    }
  }
  return uint16_t(bits);
}
CCDREC_HD inline bool kept_by(const uint16_t* row, int64_t element) {
  return (row[element / kMaskBits] >> (element % kMaskBits)) & 1;
}

}  // namespace ccdrec

namespace ccdrec::cpu {
void draw_masks(Ctx&, uint16_t* bits, RowList rows, int64_t words, float rate, Stream);
}  // namespace ccdrec::cpu
