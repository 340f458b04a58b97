#include "kernels/cpu/fast/beside.h"

#include <initializer_list>

#include "kernels/cpu/fast/adam16.h"
#include "kernels/cpu/fast/tile512.h"

namespace ccdrec::cpu {
namespace {

// Floats ahead at which a row is asked for: sixteen by sixteen, it comes too slowly for the hardware's prefetchers (2 %
// of catch_up_project).
constexpr int64_t kAsk = 256;
constexpr int64_t kNever = -(int64_t(1) << 60);

}  // namespace

bool steps_fit_beside_tiles() {
#if defined(__x86_64__)
  return &micro_kernel() == find_kernel("avx512") && __builtin_cpu_is("amd");
#else
  return false;
#endif
}

void Replays::take(RowList rows, int64_t j, int64_t n, int64_t terms) {
  const int64_t F = x_.value.cols;
  int64_t steps = 0;
  n_ = 0;
  for (int64_t i = j; i < n; ++i) {
    const int64_t r = rows.at(i);
    const Reached at{x_.value_at[r], x_.moments_at[r]};
    if (at.value >= t_) continue;
    rows_[n_++] = {x_.value.row(r), x_.m.row(r), x_.v.row(r), r, at};
    steps += t_ - at.value;
  }
  begin(steps * (F / 16), terms);
  begun_ = false, left_ = 0;
}

void Replays::finish() {
  const int64_t F = x_.value.cols;
  const auto from = [&](const Row& row, int64_t c) {
    if (c < F) adam_row_.catch_up(row.p + c, row.m + c, row.v + c, F - c, s_, row.at, t_, false);
  };
  for (int64_t i = 0; i < n_; ++i) {
    // a sixteen that was only begun is not stored yet
    from(rows_[i], i < row_ ? F / 16 * 16 : i > row_ ? 0 : begun_ ? col_ - 16 : col_);
    x_.value_at[rows_[i].r] = int32_t(t_);
  }
  n_ = 0;
}

void Gradients::take(RowList rows, int64_t j, int64_t n, const float* g, int64_t terms) {
  const int64_t F = x_.value.cols;
  n_ = n - j;
  for (int64_t i = 0; i < n_; ++i) {
    const int64_t r = rows.at(j + i);
    bring_up(adam_row_, x_, r, s_, t_ - 1);
    rows_[i] = {at_once_ ? x_.value.row(r) : nullptr, x_.m.row(r), x_.v.row(r), g + i * F, r, x_.moments_at[r]};
  }
  begin(n_ * (F / 16), terms);
}

void Gradients::finish() {
  const int64_t F = x_.value.cols;
  for (int64_t i = 0; i < n_; ++i) {
    const Row& row = rows_[i];
    const int64_t c = i < row_ ? F / 16 * 16 : i > row_ ? 0 : col_;
    if (c < F)
      adam_row_.gradient(row.p ? row.p + c : nullptr, row.m + c, row.v + c, row.g + c, F - c, s_, row.moments, t_);
    x_.value_at[row.r] = int32_t(at_once_ ? t_ : t_ - 1), x_.moments_at[row.r] = int32_t(t_);
  }
  n_ = 0;
}

#if defined(__x86_64__)
// The sixteen in hand lives in three registers beside the tile's 27, and its root is the instruction's: with root16 for
// one step in four it is no faster, and has to ask whether v is fit. Elements at rest are stepped too, which moves no
// value.
AVX512 void Replays::with_512(float* c, int64_t ldc, const float* const* a, const float* b, int64_t k, bool add) {
  const int64_t F = x_.value.cols, rate = rate_;
  const AdamHyper h = s_.hyper;
  Tile512 tile;
  Element16 e = {_mm512_load_ps(p_), _mm512_load_ps(m_), _mm512_load_ps(v_)};
  int64_t left = left_, owed = owed_;
  const AdamCoef* coef = s_.coef + (t_ - left);
  for (int64_t t = 0; t < k; ++t) {
    tile.add_term(a, b, t);
    for (owed += rate; owed >= kOne; owed -= kOne) {
      if (left == 0) {
        if (begun_) _mm512_storeu_ps(rows_[row_].p + col_ - 16, e.p), begun_ = false;
        if (col_ + 16 > F) ++row_, col_ = 0;
        if (row_ == n_) {
          owed = kNever, rate_ = 0;
          break;
        }
        const Row& row = rows_[row_];
        const float *const p = row.p + col_, *const m = row.m + col_, *const v = row.v + col_;
        for (const float* now : {p, m, v}) __builtin_prefetch(now + kAsk, 0, 2);
        e = {_mm512_loadu_ps(p), _mm512_loadu_ps(m), _mm512_loadu_ps(v)};
        col_ += 16, begun_ = true;
        left = t_ - row.at.value, coef = s_.coef + row.at.value;
        for (int64_t u = row.at.moments; u <= row.at.value; ++u) e.decay(h);
      }
      e.move(h, *coef, sqrt16(e.v));
      e.decay(h);
      --left, ++coef;
    }
  }
  left_ = left, owed_ = owed;
  _mm512_store_ps(p_, e.p), _mm512_store_ps(m_, e.m), _mm512_store_ps(v_, e.v);
  tile.store(c, ldc, add);
}

AVX512 void Gradients::with_512(float* c, int64_t ldc, const float* const* a, const float* b, int64_t k, bool add) {
  const int64_t F = x_.value.cols, rate = rate_;
  Tile512 tile;
  int64_t owed = owed_;
  const AdamHyper h = s_.hyper;
  const AdamRest rest = adam_rest(s_);
  for (int64_t t = 0; t < k; ++t) {
    tile.add_term(a, b, t);
    owed += rate;
    if (owed < kOne) continue;
    owed -= kOne;
    const Row& row = rows_[row_];
    float *const m = row.m + col_, *const v = row.v + col_;
    __builtin_prefetch(m + kAsk, 1, 2), __builtin_prefetch(v + kAsk, 1, 2);
    Element16 e = {_mm512_setzero_ps(), _mm512_loadu_ps(m), _mm512_loadu_ps(v)};
    for (int64_t u = row.moments + 1; u < t_; ++u) e.decay(h);
    e.moments(h, rest, _mm512_loadu_ps(row.g + col_));
    _mm512_storeu_ps(m, e.m), _mm512_storeu_ps(v, e.v);
    if (row.p) {
      e.p = _mm512_loadu_ps(row.p + col_);
      e.move(h, s_.coef[t_ - 1], sqrt16(e.v));
      _mm512_storeu_ps(row.p + col_, e.p);
    }
    col_ += 16;
    if (col_ + 16 > F) ++row_, col_ = 0;
    if (row_ == n_) owed = kNever, rate_ = 0;
  }
  owed_ = owed;
  tile.store(c, ldc, add);
}
#endif

void Replays::tile(float* c, int64_t ldc, int64_t rows, int64_t cols, const float* const* a, const float* b, int64_t k,
                   bool add) {
#if defined(__x86_64__)
  if (has_work(rows, cols)) return with_512(c, ldc, a, b, k, add);
#endif
  partial_tile(mk_, c, ldc, rows, cols, a, b, k, add);
}

void Gradients::tile(float* c, int64_t ldc, int64_t rows, int64_t cols, const float* const* a, const float* b,
                     int64_t k, bool add) {
#if defined(__x86_64__)
  if (has_work(rows, cols)) return with_512(c, ldc, a, b, k, add);
#endif
  partial_tile(mk_, c, ldc, rows, cols, a, b, k, add);
}

}  // namespace ccdrec::cpu
