// The library calls of the CUDA operations, in plain loops for the emulator.
#include "kernels/cuda/library.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/simt/simt.h"

namespace ccdrec::cuda::library {
namespace {

// The toolkit's calls need room, which may not grow while a step is recorded: it is asked for here too.
void take_room(Ctx& ctx, int64_t n, size_t of_one) {
  if (n) ctx.scratch(8, size_t(n) * of_one);
}

// Addresses handed over, in order.
template <class... T>
void check_arguments(const char* who, const T&... v) {
  int argument = 0;
  (simt::check_argument(who, "kernels/cuda/library.h", 0, ++argument, v), ...);
}

// cuBLAS and cuSPARSE are opened by their first call, which takes memory: not while a step is recorded.
enum Opened { kBlas, kSparse };
void open_library(Ctx& ctx, Opened which) {
  auto* b = static_cast<simt::Backend*>(ctx.backend);
  if (b->recording && !b->library_open[which])
    throw std::runtime_error(std::string(which == kBlas ? "cuBLAS" : "cuSPARSE") +
                             " was first needed while a step was recorded");
  b->library_open[which] = true;
}

// x with so many explicit bits of its mantissa, to nearest, of two the even one: a factor as TF32 (10) and BF16 (7)
// products take it.
float shortened(float x, int bits) {
  if (bits == 23 || !std::isfinite(x)) return x;
  const int drop = 23 - bits;
  uint32_t b = simt::from_bits<uint32_t>(simt::to_bits(x));
  b += (uint32_t(1) << (drop - 1)) - 1 + ((b >> drop) & 1);
  return simt::from_bits<float>(b & ~((uint32_t(1) << drop) - 1));
}

template <class Key>
void sort_both(Ctx& ctx, Key* keys_out, int32_t* values_out, const Key* keys, const int32_t* values, int64_t n,
               int bits) {
  CHECK_THAT(keys_out + n <= keys || keys + n <= keys_out);
  CHECK_THAT(!values_out || values_out + n <= values || values + n <= values_out);
  check_arguments("sort", keys_out, values_out, keys, values);
  take_room(ctx, n, sizeof(Key) + sizeof(int32_t));
  simt::submit(ctx, [=] {
    const Key mask = bits >= int(sizeof(Key)) * 8 ? ~Key(0) : (Key(1) << bits) - 1;
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), int64_t(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return (keys[a] & mask) < (keys[b] & mask); });
    for (int64_t j = 0; j < n; ++j) {
      keys_out[j] = keys[order[size_t(j)]];
      if (values_out) values_out[j] = values[order[size_t(j)]];
    }
  });
}
template <class Out>
void sum_before(Ctx& ctx, Out* out, const int32_t* in, int64_t n) {
  check_arguments("exclusive_sum", out, in);
  take_room(ctx, n, 1);
  simt::submit(ctx, [=] {
    Out sum = 0;
    for (int64_t j = 0; j < n; ++j) {
      const int32_t v = in[j];
      out[j] = sum, sum += Out(v);
    }
  });
}

}  // namespace

void gemm_strided(Ctx& ctx, Mat c, int64_t c_stride, CMat a, bool trans_a, int64_t a_stride, CMat b, bool trans_b,
                  int64_t b_stride, int64_t count, bool accumulate) {
  const int64_t m = c.rows, n = c.cols, k = trans_a ? a.rows : a.cols;
  CHECK_SHAPE(a, trans_a ? k : m, trans_a ? m : k);
  CHECK_SHAPE(b, trans_b ? n : k, trans_b ? k : n);
  if (m == 0 || n == 0 || count == 0) return;
  check_arguments("gemm", c, a, b);
  if (k > 0) open_library(ctx, kBlas);
  const int bits = static_cast<simt::Backend*>(ctx.backend)->mantissa;
  simt::submit(ctx, [=] {
    for (int64_t s = 0; s < count; ++s)
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          float sum = 0;
          for (int64_t l = 0; l < k; ++l)
            sum = std::fma(shortened((a.p + s * a_stride)[trans_a ? l * m + i : i * k + l], bits),
                           shortened((b.p + s * b_stride)[trans_b ? j * k + l : l * n + j], bits), sum);
          float& out = (c.p + s * c_stride)[i * n + j];
          out = accumulate ? out + sum : sum;
        }
  });
}
void gemm(Ctx& ctx, Mat c, CMat a, bool trans_a, CMat b, bool trans_b, bool accumulate) {
  gemm_strided(ctx, c, 0, a, trans_a, 0, b, trans_b, 0, 1, accumulate);
}

// Each row as two interleaved sums, so that it has other bits than ours, as cuSPARSE's.
bool has_spmm() { return true; }
void spmm(Ctx& ctx, Mat y, const Csr& a, const int32_t* row_ptr, CMat x, bool accumulate) {
  CHECK_SHAPE(x, a.cols, x.cols);
  CHECK_SHAPE(y, a.rows, x.cols);
  CHECK_THAT(a.nnz > 0 && (y.p + y.size() <= x.p || x.p + x.size() <= y.p));
  check_arguments("spmm", y, a, row_ptr, x);
  open_library(ctx, kSparse);
  take_room(ctx, a.rows + a.nnz, 1);
  ++static_cast<simt::Backend*>(ctx.backend)->sparse_products;
  simt::submit(ctx, [=] {
    CHECK_THAT(row_ptr[0] == 0 && row_ptr[a.rows] == a.nnz);  // what the descriptor says and what the arrays hold
    for (int64_t r = 0; r < a.rows; ++r)
      for (int64_t j = 0; j < x.cols; ++j) {
        float sum[2] = {0, 0};
        for (int32_t e = row_ptr[r]; e < row_ptr[r + 1]; ++e)
          sum[e & 1] = std::fma(a.val[e], x.row(a.col[e])[j], sum[e & 1]);
        float& out = y.row(r)[j];
        out = accumulate ? out + (sum[0] + sum[1]) : sum[0] + sum[1];
      }
  });
}

void sort_keys(Ctx& ctx, uint32_t* out, const uint32_t* in, int64_t n, int bits) {
  sort_both<uint32_t>(ctx, out, nullptr, in, nullptr, n, bits);
}
void sort_keys(Ctx& ctx, uint64_t* out, const uint64_t* in, int64_t n, int bits) {
  sort_both<uint64_t>(ctx, out, nullptr, in, nullptr, n, bits);
}
void sort_pairs(Ctx& ctx, uint32_t* keys_out, int32_t* values_out, const uint32_t* keys, const int32_t* values,
                int64_t n, int bits) {
  sort_both(ctx, keys_out, values_out, keys, values, n, bits);
}
void sort_pairs(Ctx& ctx, uint64_t* keys_out, int32_t* values_out, const uint64_t* keys, const int32_t* values,
                int64_t n, int bits) {
  sort_both(ctx, keys_out, values_out, keys, values, n, bits);
}

void sort_segments(Ctx& ctx, uint32_t* keys_out, int32_t* values_out, const uint32_t* keys, const int32_t* values,
                   int64_t segments, int64_t length) {
  for (int64_t s = 0; s < segments; ++s)
    sort_both(ctx, keys_out + s * length, values_out + s * length, keys + s * length, values + s * length, length, 32);
}

void exclusive_sum(Ctx& ctx, int32_t* out, const int32_t* in, int64_t n) { sum_before(ctx, out, in, n); }
void exclusive_sum(Ctx& ctx, int64_t* out, const int32_t* in, int64_t n) { sum_before(ctx, out, in, n); }
void inclusive_sum(Ctx& ctx, int32_t* out, const int32_t* in, int64_t n) {
  check_arguments("inclusive_sum", out, in);
  take_room(ctx, n, 1);
  simt::submit(ctx, [=] { std::partial_sum(in, in + n, out); });
}
void select_flagged(Ctx& ctx, int32_t* out, int64_t* count, const uint8_t* flag, int64_t n) {
  check_arguments("select_flagged", out, count, flag);
  take_room(ctx, n, 1);
  simt::submit(ctx, [=] {
    int64_t found = 0;
    for (int64_t j = 0; j < n; ++j)
      if (flag[j]) out[found++] = int32_t(j);
    *count = found;
  });
}

void fill(Ctx& ctx, void* p, int byte, size_t bytes) {
  if (bytes) check_arguments("fill", p);
  simt::submit(ctx, [=] {
    if (bytes) std::memset(p, byte, bytes);
  });
}
void copy(Ctx& ctx, void* to, const void* from, size_t bytes) {
  if (bytes) check_arguments("copy", to, from);
  simt::submit(ctx, [=] {
    if (bytes) std::memcpy(to, from, bytes);
  });
}

}  // namespace ccdrec::cuda::library
