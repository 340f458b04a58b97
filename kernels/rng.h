// Chance: every random number is a function of what it is for. Philox4x32-10 (Random123) with
//   key = (seed, use), counter = (row, sub, step, epoch)
// so that one thread or sixty-four, CPU or GPU, fresh or resumed, the same run draws the same numbers. No generator
// object survives a call. Integers are bit-identical everywhere, and so are the normals: their logarithm, sine and
// cosine are those of numbers.h.
#pragma once
#include <Random123/philox.h>

#include <cmath>
#include <cstdint>

#include "kernels/late.h"
#include "kernels/numbers.h"

namespace ccdrec {

enum class Use : uint32_t {       // one number per purpose: two parts never share a stream
  init = 1,                       // values of parameters
  shuffle,                        // order of an epoch's rows
  neg_uniform,                    // random negatives
  prune,                          // edges of an epoch's graph
  timestep,                       // diffusion steps of items
  noise,                          // their noise
  reverse_start,                  // noise that the reverse process starts from
  reverse_noise,                  // noise of its steps
  candidates,                     // CNS: candidates of a batch
  cns_rank,                       // CNS: rank of a negative among them
  ndi_item,                       // NDI without CNS: item of a negative
  knn_tie,                        // neighbours that tie
  synth,                          // generated data sets
  test,                           // tests alone
  hard,                           // DNS, MixGCF: candidates of a row
  hard_rank,                      // DNS: which of the top_m best
  mix,                            // MixGCF: alpha
  popular,                        // negatives by popularity
  stats_rows,                     // rows whose negatives are measured
  band_columns,                   // RealHNS: places of the band that are candidates
  centres,                        // RealHNS: items that clusters begin with
  filter_active,                  // RealHNS: rows that have a hard negative
  filter_rank,                    // RealHNS: its rank among the candidates that pass
  filter_uniform,                 // RealHNS: negatives of the other rows, and the fallback
  view_users,                     // BM3: masks of users' targets
  view_items,                     // of items'
  view_modality,                  // of the first modality's; the others follow, kMaxModalities in all
  unet_mask = view_modality + 8,  // the U-Net's dropout
  bootstrap,                      // of paired values: which place of a resample holds which of them
  search                          // points of a grid that a search tries
};

struct Stream {
  uint32_t seed = 0;
  Use use = Use::test;
  uint32_t epoch = 0, step = 0;
};

// The stream with its late values read (late.h).
CCDREC_HD inline Stream resolved(Stream s, const Late* late) {
  s.epoch = late_epoch(s.epoch, late), s.step = late_step(s.step, late);
  return s;
}

struct Draw4 {
  uint32_t v[4];
};

// Four 32-bit integers for (stream, row, sub). `sub` counts redraws or the column block of four.
CCDREC_HD inline Draw4 draw(Stream s, uint32_t row, uint32_t sub = 0) {
  r123::Philox4x32 philox;
  r123::Philox4x32::ctr_type c{{row, sub, s.step, s.epoch}};
  r123::Philox4x32::key_type k{{s.seed, uint32_t(s.use)}};
  c = philox(c, k);
  return {{c[0], c[1], c[2], c[3]}};
}

CCDREC_HD inline float uniform01(uint32_t x) { return float(x >> 8) * 0x1p-24f; }  // [0,1), 24 bits
// [0,n), bias at most n / 2^32
CCDREC_HD inline uint32_t below(uint32_t x, uint32_t n) { return uint32_t((uint64_t(x) * n) >> 32); }

// Two standard normals from two integers (Box-Muller). 1 - u is in (0,1], so the logarithm is finite.
CCDREC_HD inline void normal_pair(uint32_t a, uint32_t b, float& n0, float& n1) {
  const float r = std::sqrt(-2.0f * portable_log(1.0f - uniform01(a)));
  float s, c;
  portable_sincos_2pi(uniform01(b), s, c);
  n0 = r * c;
  n1 = r * s;
}

}  // namespace ccdrec
