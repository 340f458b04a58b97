#include "kernels/cuda/reduce.h"
#include "kernels/mask.h"

namespace ccdrec::cuda {
namespace {

// Geometry  one team a row (reduce.h), a lane for a word.
// Traffic   2 bytes a word; bound by the arithmetic of two draws.
__global__ void draw_masks_by_address(uint16_t* bits, RowList rows, int64_t words, uint32_t threshold, Stream stream,
                                      const Late* late, int shift) {
  const int64_t j = team_row(shift);
  if (j >= rows.n()) return;
  const Stream s = resolved(stream, late);
  const uint32_t row = uint32_t(rows.at(j));
  for (int64_t w = team_lane(shift); w < words; w += int64_t(1) << shift)
    bits[j * words + w] = mask_word(s, row, uint32_t(w), threshold);
}

}  // namespace

void draw_masks(Ctx& ctx, uint16_t* bits, RowList rows, int64_t words, float rate, Stream stream) {
  const int shift = team_shift(words);
  launch(draw_masks_by_address, team_blocks(rows.capacity, shift), kTeamThreads, 0, ctx, bits, rows, words,
         mask_threshold(rate), stream, ctx.late, shift);
}

}  // namespace ccdrec::cuda
