#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/sample.h"

namespace ccdrec::cpu {
namespace {

// The exponential race: edge e arrives at -log(1-u)/w_e, and the first n_keep arrivals are a weighted draw without
// replacement. Arrival times are not negative, so their bits order as they do; the edge in the lower half sends ties to
// the lower edge.
uint64_t arrival(Stream s, int64_t e, float w) {
  const float u = uniform01(draw(s, uint32_t(e)).v[0]);
  const float t = std::max(0.0f, -portable_log(1.0f - u)) / w + 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &t, sizeof bits);
  return uint64_t(bits) << 32 | uint32_t(e);
}

// The n_keep-th smallest key, by its leading 12 bits first (sign, exponent, 3 bits of fraction): one pass, then only
// one bucket is ranked.
uint64_t last_kept(const uint64_t* key, int64_t n, int64_t n_keep, uint64_t* room, int64_t* count) {
  constexpr int64_t kBuckets = 1 << 12;
  std::fill_n(count, kBuckets, int64_t(0));
  for (int64_t e = 0; e < n; ++e) ++count[key[e] >> 52];
  int64_t bucket = 0, before = 0;
  while (before + count[bucket] < n_keep) before += count[bucket++];
  int64_t m = 0;
  for (int64_t e = 0; e < n; ++e) {
    room[m] = key[e];
    m += int64_t(key[e] >> 52) == bucket;
  }
  std::nth_element(room, room + (n_keep - before - 1), room + m);
  return room[n_keep - before - 1];
}

}  // namespace

void prune(Ctx& ctx, const MutableCsr& out, const EdgeList& edges, double rho, Stream s) {
  const int64_t E = edges.n, U = edges.users, N = edges.users + edges.items;
  const int64_t n_keep = rho <= 0 ? E : std::clamp(int64_t(std::floor(double(E) * (1.0 - rho))), int64_t(0), E);
  CHECK_THAT(out.rows == N && out.cols == N);
  CHECK_THAT(2 * n_keep <= out.capacity);
  uint64_t* key = static_cast<uint64_t*>(ctx.scratch(0, size_t(E) * sizeof(uint64_t)));
  uint64_t* room = static_cast<uint64_t*>(ctx.scratch(1, size_t(E + 1) * sizeof(uint64_t)));
  int64_t* count = static_cast<int64_t*>(ctx.scratch(2, sizeof(int64_t) << 12));
  uint64_t limit = ~uint64_t(0);
  if (n_keep < E) {
#pragma omp parallel for num_threads(ctx.threads)
    for (int64_t e = 0; e < E; ++e) key[e] = arrival(s, e, edges.weight[e]);
    limit = n_keep ? last_kept(key, E, n_keep, room, count) : 0;
  }
  const auto kept = [&](int64_t e) { return n_keep == E || (n_keep > 0 && key[e] <= limit); };

  // CSR by counting. Edges come sorted by (user, item): walking them in order fills a user's row by ascending item and
  // an item's by ascending user.
  int64_t* deg = out.row_ptr + 1;
  std::fill_n(out.row_ptr, N + 1, int64_t(0));
  for (int64_t e = 0; e < E; ++e)
    if (kept(e)) ++deg[edges.user[e]], ++deg[U + edges.item[e]];
  double* half = static_cast<double*>(ctx.scratch(3, size_t(N) * sizeof(double)));  // deg^(-1/2)
  int64_t* next = static_cast<int64_t*>(ctx.scratch(4, size_t(N) * sizeof(int64_t)));
  for (int64_t v = 0; v < N; ++v) {
    half[v] = 1.0 / std::sqrt(double(deg[v]) + 1e-7);
    next[v] = out.row_ptr[v];
    out.row_ptr[v + 1] += out.row_ptr[v];
  }
  for (int64_t e = 0; e < E; ++e) {
    if (!kept(e)) continue;
    const int64_t u = edges.user[e], i = U + edges.item[e];
    const float w = float(half[u] * half[i]);
    out.col[next[u]] = int32_t(i), out.val[next[u]++] = w;
    out.col[next[i]] = int32_t(u), out.val[next[i]++] = w;
  }
}

void prune_scratch(ScratchPlan& p, int64_t edges, int64_t, int64_t nodes) {
  p.need(0, edges * 8), p.need(1, (edges + 1) * 8), p.need(2, int64_t(8) << 12), p.need(3, nodes * 8),
      p.need(4, nodes * 8);
}

}  // namespace ccdrec::cpu
