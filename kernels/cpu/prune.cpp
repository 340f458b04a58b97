#include <algorithm>
#include <cmath>

#include "kernels/denoise.h"

namespace ccdrec::cpu {
namespace {

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

// The edges of an epoch: those whose key is below `end`, or all of them.
struct KeptEdges {
  const uint64_t* key = nullptr;  // null: all
  uint64_t end = 0;
  bool operator()(int64_t e) const { return !key || key[e] < end; }
};

// The exponential race: edge e arrives at -log(1-u)/w_e, and the first n_keep arrivals are a weighted draw without
// replacement. The edge in a key's lower half makes keys distinct and sends ties to the lower edge.
KeptEdges first_arrivals(Ctx& ctx, const float* weight, int64_t E, int64_t n_keep, Stream s) {
  uint64_t* key = static_cast<uint64_t*>(ctx.scratch(0, size_t(E) * sizeof(uint64_t)));
  uint64_t* room = static_cast<uint64_t*>(ctx.scratch(1, size_t(E + 1) * sizeof(uint64_t)));
  int64_t* count = static_cast<int64_t*>(ctx.scratch(2, sizeof(int64_t) << 12));
  if (n_keep == E) return {};
  if (n_keep == 0) return {key, 0};
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t e = 0; e < E; ++e)
    key[e] = uint64_t(arrival_time(draw(s, uint32_t(e)).v[0], weight[e])) << 32 | uint32_t(e);
  return {key, last_kept(key, E, n_keep, room, count) + 1};
}

// root[v] = d_v^(-1/2) of the kept edges.
void weighted_roots(double* root, const EdgeList& edges, const KeptEdges& kept, const float* a) {
  const int64_t U = edges.users, N = U + edges.items;
  std::fill_n(root, N, 0.0);
  for (int64_t e = 0; e < edges.n; ++e)
    if (kept(e)) root[edges.user[e]] += double(a[e]), root[U + edges.item[e]] += double(a[e]);
  for (int64_t v = 0; v < N; ++v) root[v] = root_of_degree(root[v]);
}

// CSR by counting. Edges come sorted by (user, item): walking them in order fills a user's row by ascending item and
// an item's by ascending user. a: weights of the edges; null: each counts 1.
void build_graph(Ctx& ctx, const MutableCsr& out, const EdgeList& edges, const KeptEdges& kept, const float* a,
                 bool direct) {
  const int64_t E = edges.n, U = edges.users, N = U + edges.items;
  int64_t* deg = out.row_ptr + 1;
  std::fill_n(out.row_ptr, N + 1, int64_t(0));
  for (int64_t e = 0; e < E; ++e)
    if (kept(e)) ++deg[edges.user[e]], ++deg[U + edges.item[e]];
  double* root = static_cast<double*>(ctx.scratch(3, size_t(N) * sizeof(double)));
  int64_t* next = static_cast<int64_t*>(ctx.scratch(4, size_t(N) * sizeof(int64_t)));
  if (a) weighted_roots(root, edges, kept, a);
  for (int64_t v = 0; v < N; ++v) {
    if (!a) root[v] = root_of_degree(double(deg[v]));
    next[v] = out.row_ptr[v];
    out.row_ptr[v + 1] += out.row_ptr[v];
  }
  for (int64_t e = 0; e < E; ++e) {
    if (!kept(e)) continue;
    const int64_t u = edges.user[e], i = U + edges.item[e];
    const float w = weighted_value(root[u], root[i], direct ? a[e] : 1.0f);
    out.col[next[u]] = int32_t(i), out.val[next[u]++] = w;
    out.col[next[i]] = int32_t(u), out.val[next[i]++] = w;
  }
}

int64_t checked_kept(const MutableCsr& out, const EdgeList& edges, double rho) {
  const int64_t N = edges.users + edges.items, n_keep = kept_edges(edges.n, rho);
  CHECK_THAT(out.rows == N && out.cols == N);
  CHECK_THAT(2 * n_keep <= out.capacity);
  return n_keep;
}

}  // namespace

void prune(Ctx& ctx, const MutableCsr& out, const EdgeList& edges, double rho, Stream s) {
  const int64_t n_keep = checked_kept(out, edges, rho);
  build_graph(ctx, out, edges, first_arrivals(ctx, edges.weight, edges.n, n_keep, s), nullptr, false);
}

void prune_weighted(Ctx& ctx, const MutableCsr& out, const EdgeList& edges, const float* a, bool direct, double rho,
                    Stream s) {
  const int64_t E = edges.n, U = edges.users, n_keep = checked_kept(out, edges, rho);
  float* weight = nullptr;
  if (n_keep < E) {
    weight = static_cast<float*>(ctx.scratch(5, size_t(E) * sizeof(float)));
    double* root = static_cast<double*>(ctx.scratch(3, size_t(U + edges.items) * sizeof(double)));
    weighted_roots(root, edges, KeptEdges{}, a);
#pragma omp parallel for num_threads(ctx.threads)
    for (int64_t e = 0; e < E; ++e)
      weight[e] = weighted_value(root[edges.user[e]], root[U + edges.item[e]], direct ? a[e] : 1.0f);
  }
  build_graph(ctx, out, edges, first_arrivals(ctx, weight, E, n_keep, s), a, direct);
}

void prune_scratch(ScratchPlan& p, int64_t edges, int64_t, int64_t nodes) {
  p.need(0, edges * 8), p.need(1, (edges + 1) * 8), p.need(2, int64_t(8) << 12), p.need(3, nodes * 8),
      p.need(4, nodes * 8);
}

void prune_weighted_scratch(ScratchPlan& p, int64_t edges, int64_t kept, int64_t nodes) {
  prune_scratch(p, edges, kept, nodes);
  if (kept < edges) p.need(5, edges * 4);
}

}  // namespace ccdrec::cpu
