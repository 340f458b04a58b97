// What ranking, similarity sampling and the building of graphs share: search in ascending lists, selection by one warp
// over the ordered keys of numbers.h, and register-tiled products of gathered rows. Private to kernels/cuda.
#pragma once
#include "kernels/cuda/device.h"
#include "kernels/numbers.h"

namespace ccdrec::cuda {

// (key descending, place ascending) as one integer, the larger the better: all distinct, so that ranks have no ties. 0:
// no entry.
__device__ inline uint64_t entry_of(uint32_t key, int64_t place) {
  return uint64_t(key) << 32 | uint64_t(~uint32_t(place));
}
__device__ inline uint32_t entry_key(uint64_t entry) { return uint32_t(entry >> 32); }
__device__ inline int64_t entry_place(uint64_t entry) { return int64_t(~uint32_t(entry)); }

// First place of the ascending list whose value is not below v.
template <class T>
__device__ inline int64_t first_not_below(const T* list, int64_t n, T v) {
  int64_t at = 0;
  while (n > 0) {
    const int64_t half = (n + 1) / 2;
    at += list[at + half - 1] < v ? half : 0;
    n -= half;
  }
  return at;
}
__device__ inline bool has(const int32_t* list, int64_t n, int32_t v) {
  const int64_t at = first_not_below(list, n, v);
  return at < n && list[at] == v;
}

// Collectives of one whole warp. Integers: the order of the sums is of no matter.
template <class T>
__device__ inline T warp_sum(T v) {
  for (int o = kWarp / 2; o > 0; o /= 2) v += __shfl_xor_sync(kAll, v, o);
  return v;
}

// Which of the kBins counts holds the element of rank `left`, how many come before that bin and how many are in it. One
// whole warp; the counts lie in shared memory, 16-byte aligned, and are complete.
struct Bin {
  int bin, before, count;
};
template <int kBins>
__device__ inline Bin bin_of_rank(const uint32_t* bins, int left) {
  constexpr int kMine = kBins / kWarp;
  const int lane = int(threadIdx.x) % kWarp;
  int mine = 0;
  for (int b = 0; b < kMine; b += 4) {
    const uint4 c = *reinterpret_cast<const uint4*>(bins + lane * kMine + b);
    mine += int(c.x + c.y + c.z + c.w);
  }
  int upto = mine;
  for (int o = 1; o < kWarp; o *= 2) {
    const int below_me = __shfl_up_sync(kAll, upto, unsigned(o));
    upto += lane >= o ? below_me : 0;
  }
  Bin at{lane * kMine, upto - mine, 0};
  const bool here = left >= at.before && left < upto;
  if (here) {
    while (left >= at.before + int(bins[at.bin])) at.before += int(bins[at.bin++]);
    at.count = int(bins[at.bin]);
  }
  const int owner = __ffs(int(__ballot_sync(kAll, here))) - 1;
  return {__shfl_sync(kAll, at.bin, owner), __shfl_sync(kAll, at.before, owner), __shfl_sync(kAll, at.count, owner)};
}

// An interval lo..hi of entries of which `left` are better than the wanted one. A histogram cuts it into 2^bits parts
// at most, bin 0 the best.
struct Window {
  uint64_t lo, hi;
  int left;
  __device__ int shift(int bits) const {
    const int wide = 64 - __clzll(static_cast<long long>(hi - lo));
    return wide > bits ? wide - bits : 0;
  }
  __device__ bool holds(uint64_t v) const { return v >= lo && v <= hi; }
  __device__ void enter(Bin at, int shift) {
    const uint64_t part = (uint64_t(1) << shift) - 1;
    hi -= uint64_t(at.bin) << shift;
    lo = hi - lo > part ? hi - part : lo;
    left -= at.before;
  }
};

constexpr int kSelectBins = 256;  // counts that warp_select needs for itself

// The entry of rank `rank` (0 = best) among get(0) .. get(n-1); entries of 0 are passed over, more than `rank` others
// are there. One whole warp; get(c) is asked by lane c % 32 only. Each pass cuts the interval into 256 parts by a
// histogram; few enough are ranked in registers.
template <class Get>
__device__ inline uint64_t warp_select(int64_t n, int rank, uint32_t* bins, Get&& get) {
  const int lane = int(threadIdx.x) % kWarp;
  Window w{~uint64_t(0), 0, rank};
  for (int64_t c = lane; c < n; c += kWarp) {
    const uint64_t v = get(c);
    if (v && v < w.lo) w.lo = v;
    if (v > w.hi) w.hi = v;
  }
  for (int o = kWarp / 2; o > 0; o /= 2) {
    const uint64_t lo = __shfl_xor_sync(kAll, w.lo, o), hi = __shfl_xor_sync(kAll, w.hi, o);
    w.lo = lo < w.lo ? lo : w.lo, w.hi = hi > w.hi ? hi : w.hi;
  }
  while (w.lo < w.hi) {
    constexpr int kMine = kSelectBins / kWarp;
    for (int b = 0; b < kMine; b += 4) *reinterpret_cast<uint4*>(bins + lane * kMine + b) = make_uint4(0, 0, 0, 0);
    __syncwarp();
    const int shift = w.shift(8);
    for (int64_t c = lane; c < n; c += kWarp) {
      const uint64_t v = get(c);
      if (w.holds(v)) atomicAdd(&bins[(w.hi - v) >> shift], 1u);
    }
    __syncwarp();
    const Bin at = bin_of_rank<kSelectBins>(bins, w.left);
    w.enter(at, shift);
    if (at.count > kWarp) continue;
    uint64_t* few = reinterpret_cast<uint64_t*>(bins);
    __syncwarp();  // the counts have been read
    int taken = 0;
    for (int64_t base = 0; base < n; base += kWarp) {
      const uint64_t v = base + lane < n ? get(base + lane) : 0;
      const unsigned in = __ballot_sync(kAll, w.holds(v));
      if (w.holds(v)) few[taken + __popc(in & ((1u << lane) - 1))] = v;
      taken += __popc(in);
    }
    __syncwarp();
    const uint64_t mine = lane < taken ? few[lane] : 0;
    __syncwarp();  // shuffles and votes order no memory: the caller may select again, and the counts start from zero
    int better = 0;
    for (int l = 0; l < taken; ++l) better += __shfl_sync(kAll, mine, l) > mine;
    const int owner = __ffs(int(__ballot_sync(kAll, lane < taken && better == w.left))) - 1;
    return __shfl_sync(kAll, mine, owner);
  }
  return w.hi;
}

// A block's tile of products: kM rows of X times kN rows of Y, kTM x kTN of them to a thread. A warp's lanes lie
// kLanesM x (32 / kLanesM), so that its reads of shared memory are few distinct words.
template <int M, int N, int TM, int TN, int LanesM>
struct TileShape {
  static constexpr int kM = M, kN = N, kTM = TM, kTN = TN;
  static constexpr int kThreads = (M / TM) * (N / TN);
  static constexpr int kDepth = 16;                               // of d at a time, in two buffers
  static constexpr int kLdX = M + 4, kLdY = N + 4;                // transposed: one row per j
  static constexpr int kFloats = 2 * kDepth * (kLdX + kLdY) + N;  // and a norm per column
  static constexpr size_t kSharedBytes = size_t(kFloats) * sizeof(float);
  static constexpr int kScoresLd = N + 4;  // of put_scores
  static constexpr size_t kScoresBytes = size_t(M) * kScoresLd * sizeof(float);
  static constexpr int kRowsPerWarp = M / (kThreads / kWarp);
  static constexpr int kLanesM = LanesM, kLanesN = kWarp / LanesM, kWarpsM = M / TM / LanesM;
  // a thread's rows and columns lie in groups of up to four
  static constexpr int kVecM = TM < 4 ? TM : 4, kVecN = TN < 4 ? TN : 4;
  __device__ static int m() {
    return int(threadIdx.x) / kWarp % kWarpsM * kLanesM + int(threadIdx.x) % kWarp / kLanesN;
  }
  __device__ static int n() { return int(threadIdx.x) / kWarp / kWarpsM * kLanesN + int(threadIdx.x) % kLanesN; }
  // in the tile, of the thread's i-th
  __device__ static int row(int i) { return i / kVecM * (M / (TM / kVecM)) + m() * kVecM + i % kVecM; }
  __device__ static int col(int j) { return j / kVecN * (N / (TN / kVecN)) + n() * kVecN + j % kVecN; }
};

template <int V>
__device__ inline void read_group(float* to, const float* from) {
  if constexpr (V == 4) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  } else if constexpr (V == 2) {
    const float2 v = *reinterpret_cast<const float2*>(from);
    to[0] = v.x, to[1] = v.y;
  } else {
    to[0] = from[0];
  }
}

__device__ inline float4 read_quad(const float* row, int j, int d, bool aligned) {
  if (aligned && j < d) return *reinterpret_cast<const float4*>(row + j);  // d is a multiple of four
  return make_float4(j < d ? row[j] : 0.0f, j + 1 < d ? row[j + 1] : 0.0f, j + 2 < d ? row[j + 2] : 0.0f,
                     j + 3 < d ? row[j + 3] : 0.0f);
}

// 1 / |row|, clamped; `squares` is one fmaf chain over ascending j, as on the CPU.
__device__ inline float inverse_norm(float squares) {
  const float norm = sqrtf(squares);
  return 1.0f / (norm < 1e-12f ? 1e-12f : norm);
}

// For tiles t = first, first + step, .. below end: take(t * kN, acc, inv) with
// acc[i][j] = X[x_row(row(i))] . Y[y_row(t * kN + col(j))], each sum one fmaf chain over ascending j: the CPU's bits.
// inv[c] = inverse norm of column c where kNorms, else null. Rows from `rows` on and columns from `cols` on hold
// anything. The whole block calls it, and may call barriers in take; it ends with a barrier if there was a tile.
// Traffic   a tile reads its rows of X and of Y once, 16 columns at a time in full sectors; the next 16 are under way
//           while these are multiplied. Per j a thread reads kTM + kTN words of shared memory for kTM * kTN fmaf.
template <class Shape, bool kNorms, class XRow, class YRow, class Take>
__device__ inline void tile_products(float* shared, CMat x, int rows, XRow&& x_row, CMat y, int64_t cols, YRow&& y_row,
                                     int first, int end, int step, Take&& take) {
  constexpr int T = Shape::kThreads, kDepth = Shape::kDepth;
  constexpr int kQuadsX = Shape::kM * kDepth / 4, kQuadsY = Shape::kN * kDepth / 4;
  constexpr int kX = (kQuadsX + T - 1) / T, kY = kQuadsY / T, kNormsMine = Shape::kN / T;
  static_assert(kQuadsY % T == 0 && Shape::kN % T == 0 && kDepth == 16);
  if (first >= end) return;
  float* const x_at = shared;                           // [2][kDepth][kLdX]
  float* const y_at = x_at + 2 * kDepth * Shape::kLdX;  // [2][kDepth][kLdY]
  float* const inv = y_at + 2 * kDepth * Shape::kLdY;   // [kN]
  const int me = int(threadIdx.x), d = int(x.cols), chunks = d > kDepth ? (d + kDepth - 1) / kDepth : 1;
  const bool aligned = d % 4 == 0 && (reinterpret_cast<uintptr_t>(x.p) | reinterpret_cast<uintptr_t>(y.p)) % 16 == 0;

  // Two neighbouring lanes read 32 bytes of a row; 16 rows and these two make a warp's stores to shared memory free of
  // bank conflicts.
  const auto quad_row = [](int q, int n) { return q / 2 % n; };
  const auto quad_col = [](int q, int n) { return (q % 2 + q / (2 * n) * 2) * 4; };
  int32_t x_id[kX], y_id[kY];
  float4 x_next[kX], y_next[kY];
#pragma unroll
  for (int i = 0; i < kX; ++i) {
    const int r = quad_row(me + i * T, Shape::kM);
    x_id[i] = me + i * T < kQuadsX ? int32_t(x_row(r < rows ? r : rows - 1)) : 0;
  }
  const auto load = [&](int tile, int chunk) {
    const int j = chunk * kDepth;
    if (chunk == 0) {
#pragma unroll
      for (int i = 0; i < kY; ++i) {
        const int64_t c = int64_t(tile) * Shape::kN + quad_row(me + i * T, Shape::kN);
        y_id[i] = int32_t(y_row(c < cols ? c : cols - 1));
      }
    }
#pragma unroll
    for (int i = 0; i < kX; ++i)
      if (me + i * T < kQuadsX) x_next[i] = read_quad(x.row(x_id[i]), j + quad_col(me + i * T, Shape::kM), d, aligned);
#pragma unroll
    for (int i = 0; i < kY; ++i) y_next[i] = read_quad(y.row(y_id[i]), j + quad_col(me + i * T, Shape::kN), d, aligned);
  };
  const auto put = [](float* to, int ld, float4 v) { to[0] = v.x, to[ld] = v.y, to[2 * ld] = v.z, to[3 * ld] = v.w; };
  const auto store = [&](int buffer) {
#pragma unroll
    for (int i = 0; i < kX; ++i) {
      const int q = me + i * T;
      if (q < kQuadsX)
        put(x_at + (buffer * kDepth + quad_col(q, Shape::kM)) * Shape::kLdX + quad_row(q, Shape::kM), Shape::kLdX,
            x_next[i]);
    }
#pragma unroll
    for (int i = 0; i < kY; ++i) {
      const int q = me + i * T;
      put(y_at + (buffer * kDepth + quad_col(q, Shape::kN)) * Shape::kLdY + quad_row(q, Shape::kN), Shape::kLdY,
          y_next[i]);
    }
  };

  load(first, 0), store(0);
  __syncthreads();
  int buffer = 0;
  for (int tile = first; tile < end; tile += step) {
    float acc[Shape::kTM][Shape::kTN], squares[kNormsMine];
#pragma unroll
    for (int i = 0; i < Shape::kTM; ++i)
#pragma unroll
      for (int j = 0; j < Shape::kTN; ++j) acc[i][j] = 0.0f;
#pragma unroll
    for (int c = 0; c < kNormsMine; ++c) squares[c] = 0.0f;
    const int64_t c0 = int64_t(tile) * Shape::kN;
    const bool needed = Shape::row(0) < rows && c0 + Shape::col(0) < cols;  // else none of the thread's products is
    for (int chunk = 0; chunk < chunks; ++chunk, buffer ^= 1) {
      const bool last = chunk + 1 == chunks, more = !last || tile + step < end;
      if (more) load(last ? tile + step : tile, last ? 0 : chunk + 1);
      const float* const xs = x_at + buffer * kDepth * Shape::kLdX;
      const float* const ys = y_at + buffer * kDepth * Shape::kLdY;
      const int depth = d - chunk * kDepth < kDepth ? d - chunk * kDepth : kDepth;
      const auto multiply = [&](int k) {
        float a[Shape::kTM], b[Shape::kTN];
#pragma unroll
        for (int i = 0; i < Shape::kTM; i += Shape::kVecM)
          read_group<Shape::kVecM>(a + i, xs + k * Shape::kLdX + Shape::row(i));
#pragma unroll
        for (int j = 0; j < Shape::kTN; j += Shape::kVecN)
          read_group<Shape::kVecN>(b + j, ys + k * Shape::kLdY + Shape::col(j));
#pragma unroll
        for (int i = 0; i < Shape::kTM; ++i)
#pragma unroll
          for (int j = 0; j < Shape::kTN; ++j) acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
      };
      const auto square = [&](int k) {
#pragma unroll
        for (int c = 0; c < kNormsMine; ++c) {
          const float v = ys[k * Shape::kLdY + me + c * T];
          squares[c] = fmaf(v, v, squares[c]);
        }
      };
      if (depth == kDepth) {
        if (needed) {
#pragma unroll 8
          for (int k = 0; k < kDepth; ++k) multiply(k);
        }
        if constexpr (kNorms) {
#pragma unroll
          for (int k = 0; k < kDepth; ++k) square(k);
        }
      } else {
        for (int k = 0; k < depth; ++k) {
          if (needed) multiply(k);
          if constexpr (kNorms) square(k);
        }
      }
      if (more) store(buffer ^ 1);
      if (last) {
        if constexpr (kNorms) {
#pragma unroll
          for (int c = 0; c < kNormsMine; ++c) inv[me + c * T] = inverse_norm(squares[c]);
          __syncthreads();
        }
        take(c0, acc, kNorms ? inv : static_cast<const float*>(nullptr));
      }
      __syncthreads();
    }
  }
}

// The tile of products in shared memory, kM rows of kScoresLd floats, to be read a row at a time: which of a row are
// wanted is a warp's vote then, where threads that each hold a patch would wait for one another's atomics. A barrier
// belongs behind it.
template <class Shape, class Acc>
__device__ inline void put_scores(float* scores, const Acc& acc, const float* inv) {
  static_assert(Shape::kVecN == 4);
#pragma unroll
  for (int i = 0; i < Shape::kTM; ++i)
#pragma unroll
    for (int j = 0; j < Shape::kTN; j += 4) {
      const int c = Shape::col(j);
      float4 v = make_float4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]);
      if (inv) v = make_float4(v.x * inv[c], v.y * inv[c + 1], v.z * inv[c + 2], v.w * inv[c + 3]);
      *reinterpret_cast<float4*>(scores + Shape::row(i) * Shape::kScoresLd + c) = v;
    }
}

}  // namespace ccdrec::cuda
