// The register tile behind every dense product: gemm, project, score_topk, knn_cosine. Private to kernels/cpu.
//
// One tile is C (mr,nr) = or += A (mr,k) B (k,nr). A is read in place, through mr row pointers or, where its transpose
// is what is stored, through k of them, or from a panel packed k-major; B from such a panel.
// Every element is one fma chain over ascending k from +0, so tile shape and vector width never show in a result.
#pragma once
#include <cstdint>

namespace ccdrec::cpu {

constexpr int64_t kMaxMr = 12, kMaxNr = 32;  // widest of all paths
// terms of one chain: a block of B, 256 x nr, fits in L1 beside A. Block sums are added in order
constexpr int64_t kBlock = 256;

constexpr int64_t kLine = 16;  // floats of a cache line

constexpr int64_t kLinesAhead = 3;

// Memory to be asked for while a tile is computed: kLinesAhead cache lines from row[i] + first on, i < n. It shows in
// no result.
struct Ahead {
  const float* const* row = nullptr;
  int64_t first = 0, n = 0;
};

struct MicroKernel {
  const char* name;
  int64_t mr, nr;
  // a[r][t] is A[r,t]; b[t*nr + c] is B[t,c]; c has leading dimension ldc.
  void (*in_place)(float* c, int64_t ldc, const float* const* a, const float* b, int64_t k, bool add);
  // a[t*mr + r] is A[r,t].
  void (*packed)(float* c, int64_t ldc, const float* a, const float* b, int64_t k, bool add);
  // a[t][first + r] is A[r,t].
  void (*across)(float* c, int64_t ldc, const float* const* a, int64_t first, const float* b, int64_t k, bool add,
                 const Ahead&);
  // Selection over a row of scores: writes the positions with !(x[at] <= limit), ascending, and returns how many. A NaN
  // limit takes all, and a NaN passes.
  int64_t (*above)(int32_t* at, const float* x, int64_t n, float limit);
  // The same for lo < x[at] <= hi.
  int64_t (*between)(int32_t* at, const int32_t* x, int64_t n, int32_t lo, int32_t hi);
};

inline void tile(const MicroKernel& mk, float* c, int64_t ldc, const float* const* rows, const float* b, int64_t k,
                 bool add) {
  mk.in_place(c, ldc, rows, b, k, add);
}
struct Across {  // columns from `first` on of the rows of the transpose
  const float* const* row;
  int64_t first;
  Ahead ahead;
};
inline void tile(const MicroKernel& mk, float* c, int64_t ldc, const Across& a, const float* b, int64_t k, bool add) {
  mk.across(c, ldc, a.row, a.first, b, k, add, a.ahead);
}

struct Packed {  // a panel, k-major
  const float* p;
};
inline void tile(const MicroKernel& mk, float* c, int64_t ldc, const Packed& a, const float* b, int64_t k, bool add) {
  mk.packed(c, ldc, a.p, b, k, add);
}

// The part of a tile that lies inside C: what is beyond the edge is computed beside it and dropped.
template <class A>  // row pointers, Across or Packed
void partial_tile(const MicroKernel& mk, float* c, int64_t ldc, int64_t rows, int64_t cols, A a, const float* b,
                  int64_t k, bool add) {
  if (rows == mk.mr && cols == mk.nr) return tile(mk, c, ldc, a, b, k, add);
  float whole[kMaxMr * kMaxNr];
  tile(mk, whole, mk.nr, a, b, k, false);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < cols; ++j)
      c[r * ldc + j] = add ? c[r * ldc + j] + whole[r * mk.nr + j] : whole[r * mk.nr + j];
}

// The widest path this machine runs, or the one that the environment variable CCDREC_ISA names (portable, avx2,
// avx512).
const MicroKernel& micro_kernel();
const MicroKernel* find_kernel(const char* name);  // null if unknown or not supported here
void set_micro_kernel(const MicroKernel*);         // for tests; null = back to the default

// Rows t < k, read from column `first` on, into panels of `width` columns: panel q holds columns q*width.. at panel +
// q*width*k, k-major. Columns from `count` on are 0. Row t is p + t*ld.
void pack_across(float* panel, int64_t width, const float* p, int64_t ld, int64_t k, int64_t first, int64_t count);
// panel[t*width + c] = row c's element t (minus mean[t]), for t < k and c < width; rows from `count` on are 0. Row c is
// p + c*ld.
void pack_along(float* panel, int64_t width, const float* p, int64_t ld, int64_t k, int64_t count,
                const float* mean = nullptr);

}  // namespace ccdrec::cpu
