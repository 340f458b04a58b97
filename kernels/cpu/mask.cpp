#include "kernels/mask.h"

namespace ccdrec::cpu {

void draw_masks(Ctx& ctx, uint16_t* bits, RowList rows, int64_t words, float rate, Stream s) {
  const int64_t n = rows.n();
  const uint32_t threshold = mask_threshold(rate);
  constexpr double kNsOfAWord = 20;
  const int threads = ctx.threads_for(kNsOfAWord * double(n * words));
#pragma omp parallel for num_threads(threads)
  for (int64_t j = 0; j < n; ++j) {
    const uint32_t row = uint32_t(rows.at(j));
    for (int64_t w = 0; w < words; ++w) bits[j * words + w] = mask_word(s, row, uint32_t(w), threshold);
  }
}

}  // namespace ccdrec::cpu
