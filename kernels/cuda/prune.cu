#include <cmath>

#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/ordered.h"
#include "kernels/denoise.h"

namespace ccdrec::cuda {
namespace {

constexpr int kPruneBlock = 256;

// Geometry  one thread an edge.
// Traffic   4 bytes read, 8 written.
__global__ void prune_arrivals(uint32_t* time, int32_t* index, const float* weight, int64_t n, Stream stream,
                               const Late* late) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= n) return;
  time[e] = arrival_time(draw(resolved(stream, late), uint32_t(e)).v[0], weight[e]);
  index[e] = int32_t(e);
}

// The two ends of each edge of a set, and the users' half of the columns: the edges are in the order of (user, item),
// which is that half's. place: the numbers 0 .. n-1. col and place may be null.
// Geometry  one thread an edge.
// Traffic   4 bytes read in order, 8 in ascending jumps, 12 written.
__global__ void prune_ends(int32_t* user, uint32_t* item, int32_t* col, int32_t* place, const int32_t* kept,
                           EdgeList edges, int64_t n) {
  const int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= n) return;
  const int64_t e = kept ? kept[j] : j;
  user[j] = edges.user[e];
  item[j] = uint32_t(edges.item[e]);
  if (col) col[j] = int32_t(edges.users) + edges.item[e];
  if (place) place[j] = int32_t(j);
}

// Row v of the graph starts behind the ends of all lower rows.
// Geometry  one thread a row, and one for the end.
// Traffic   two searches' log2(n) reads, mostly from cache, and 8 bytes written: neither counters nor a scan of
//           them is needed, since both halves are sorted.
__global__ void prune_row_starts(int64_t* row_ptr, const int32_t* user, const uint32_t* item_sorted, int64_t n,
                                 int64_t U, int64_t N) {
  const int64_t v = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (v > N) return;
  row_ptr[v] = v < U ? first_not_below(user, n, int32_t(v)) : n + first_not_below(item_sorted, n, uint32_t(v - U));
}

__device__ inline double counted_root(const int64_t* row_ptr, int64_t v) {
  return root_of_degree(double(row_ptr[v + 1] - row_ptr[v]));
}

// val = deg_u^(-1/2) deg_i^(-1/2) in double: the CPU's operations one for one, so that the bits agree.
// Geometry  one thread an entry of either half.
// Traffic   8 bytes read in order, two pairs of row starts, 4 written.
__global__ void prune_values(MutableCsr out, const int32_t* user, const uint32_t* item, const uint32_t* item_sorted,
                             int64_t n_keep, int64_t U) {
  const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= 2 * n_keep) return;
  const int64_t u = k < n_keep ? user[k] : out.col[k];
  const int64_t i = k < n_keep ? item[k] : item_sorted[k - n_keep];
  out.val[k] = weighted_value(counted_root(out.row_ptr, u), counted_root(out.row_ptr, U + i), 1.0f);
}

// ---- by weights

// The entries of a graph's two halves: entry k < n is the k-th of the set's edges, which come by user; entry n + k is
// the edge that stands at k when they are sorted by item.
struct WeightedEdges {
  const float* a;
  const int32_t* kept;     // the set's edges, ascending; null: all
  const int32_t* by_item;  // (n) places in the set
  int64_t n;
  __device__ int64_t place(int64_t entry) const { return entry < n ? entry : by_item[entry - n]; }
  __device__ float weight(int64_t entry) const { return a[kept ? kept[place(entry)] : place(entry)]; }
};

// root[v] = d_v^(-1/2).
// Geometry  one warp a node, eight nodes a block: it reads the weights of 32 edges at once, and each lane adds them up
//           in their order.
// Traffic   4 bytes of a an edge and end, for items by jumps and with 4 of by_item; 4 of kept.
// Limits    a node of n edges is n additions one after another.
__global__ void weighted_roots_warp_per_node(double* root, WeightedEdges edges, const int64_t* row_ptr, int64_t N) {
  const int64_t v = int64_t(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (v >= N) return;
  const int lane = int(threadIdx.x) % kWarp;
  const int64_t end = row_ptr[v + 1];
  double sum = 0;
  for (int64_t first = row_ptr[v]; first < end; first += kWarp) {
    const float mine = first + lane < end ? edges.weight(first + lane) : 0.0f;
    const int n = int(end - first < kWarp ? end - first : kWarp);
    for (int l = 0; l < n; ++l) sum += double(__shfl_sync(kAll, mine, l));
  }
  if (lane == 0) root[v] = root_of_degree(sum);
}

// What the edges are kept by.
// Geometry  one thread an edge.
// Traffic   12 bytes read in order and a root at a random place, 4 written.
__global__ void weighted_chances(float* weight, EdgeList edges, const double* root, const float* a, bool direct) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e < edges.n)
    weight[e] = weighted_value(root[edges.user[e]], root[edges.users + edges.item[e]], direct ? a[e] : 1.0f);
}

// Values of both halves, and the items' half of the columns.
// Geometry  one thread an entry of either half.
// Traffic   8 to 16 bytes read and two roots at random places, 4 or 8 written.
__global__ void weighted_values(MutableCsr out, WeightedEdges edges, const int32_t* user, const uint32_t* item,
                                const double* root, int64_t U, bool direct) {
  const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= 2 * edges.n) return;
  const int64_t j = edges.place(k), u = user[j], i = item[j];
  if (k >= edges.n) out.col[k] = int32_t(u);
  out.val[k] = weighted_value(root[u], root[U + i], direct ? edges.weight(k) : 1.0f);
}

// ---- sets of edges

// The n_keep edges that arrive first, ascending; null: all of them. The sort is stable: of equal times the lower edge
// wins.
const int32_t* earliest(Ctx& ctx, const float* weight, int64_t E, int64_t n_keep, Stream s) {
  auto* time = static_cast<uint32_t*>(ctx.scratch(0, size_t(E) * sizeof(uint32_t)));
  auto* time_sorted = static_cast<uint32_t*>(ctx.scratch(1, size_t(E) * sizeof(uint32_t)));
  auto* index = static_cast<int32_t*>(ctx.scratch(2, size_t(E) * sizeof(int32_t)));
  auto* by_time = static_cast<int32_t*>(ctx.scratch(3, size_t(E) * sizeof(int32_t)));
  auto* kept = static_cast<int32_t*>(ctx.scratch(4, size_t(n_keep) * sizeof(int32_t)));
  launch(prune_arrivals, blocks_for(E, kPruneBlock), kPruneBlock, 0, ctx, time, index, weight, E, s, ctx.late);
  library::sort_pairs(ctx, time_sorted, by_time, time, index, E);
  library::sort_keys(ctx, reinterpret_cast<uint32_t*>(kept), reinterpret_cast<const uint32_t*>(by_time), n_keep,
                     bits_below(E));
  return kept;
}

// The ends of a set of n edges, in the order of either half of its graph.
struct Ends {
  int32_t* user;
  uint32_t *item, *item_sorted;
};
// Sorts by item, and finds where the rows of both halves start. `carried` goes along to `sorted`; a stable sort leaves
// the users of an item ascending.
void sort_by_item(Ctx& ctx, int64_t* row_ptr, const Ends& ends, int32_t* sorted, const int32_t* carried,
                  const EdgeList& edges, int64_t n) {
  const int64_t U = edges.users, N = U + edges.items;
  library::sort_pairs(ctx, ends.item_sorted, sorted, ends.item, carried, n, bits_below(edges.items));
  launch(prune_row_starts, blocks_for(N + 1, kPruneBlock), kPruneBlock, 0, ctx, row_ptr, ends.user, ends.item_sorted, n,
         U, N);
}

int64_t checked_kept(const MutableCsr& out, const EdgeList& edges, double rho) {
  const int64_t N = edges.users + edges.items, n_keep = kept_edges(edges.n, rho);
  CHECK_THAT(edges.n < int64_t(1) << 31);
  CHECK_THAT(out.rows == N && out.cols == N);
  CHECK_THAT(2 * n_keep <= out.capacity);
  return n_keep;
}

template <class T>
T* room(Ctx& ctx, int slot, int64_t n) {
  return static_cast<T*>(ctx.scratch(slot, size_t(n) * sizeof(T)));
}

// What the edges are kept by, from the weighted degrees of all of them: to slot 5.
const float* chances(Ctx& ctx, const EdgeList& edges, const float* a, bool direct) {
  const int64_t E = edges.n, N = edges.users + edges.items;
  const Ends ends{room<int32_t>(ctx, 0, E), room<uint32_t>(ctx, 1, E), room<uint32_t>(ctx, 2, E)};
  auto *place = room<int32_t>(ctx, 3, E), *by_item = room<int32_t>(ctx, 4, E);
  auto* weight = room<float>(ctx, 5, E);
  auto* root = room<double>(ctx, 6, N);
  auto* row_ptr = room<int64_t>(ctx, 7, N + 1);
  launch(prune_ends, blocks_for(E, kPruneBlock), kPruneBlock, 0, ctx, ends.user, ends.item, nullptr, place, nullptr,
         edges, E);
  sort_by_item(ctx, row_ptr, ends, by_item, place, edges, E);
  launch(weighted_roots_warp_per_node, blocks_for(N, kPruneBlock / kWarp), kPruneBlock, 0, ctx, root,
         WeightedEdges{a, nullptr, by_item, E}, row_ptr, N);
  launch(weighted_chances, blocks_for(E, kPruneBlock), kPruneBlock, 0, ctx, weight, edges, root, a, direct);
  return weight;
}

}  // namespace

void prune(Ctx& ctx, const MutableCsr& out, const EdgeList& edges, double rho, Stream s) {
  const int64_t E = edges.n, n_keep = checked_kept(out, edges, rho);
  const int32_t* kept = n_keep > 0 && n_keep < E ? earliest(ctx, edges.weight, E, n_keep, s) : nullptr;
  const Ends ends{room<int32_t>(ctx, 5, n_keep), room<uint32_t>(ctx, 6, n_keep), room<uint32_t>(ctx, 7, n_keep)};
  launch(prune_ends, blocks_for(n_keep, kPruneBlock), kPruneBlock, 0, ctx, ends.user, ends.item, out.col, nullptr, kept,
         edges, n_keep);
  // The items' half of the columns is the users, sorted by item.
  sort_by_item(ctx, out.row_ptr, ends, out.col + n_keep, ends.user, edges, n_keep);
  launch(prune_values, blocks_for(2 * n_keep, kPruneBlock), kPruneBlock, 0, ctx, out, ends.user, ends.item,
         ends.item_sorted, n_keep, edges.users);
}

void prune_weighted(Ctx& ctx, const MutableCsr& out, const EdgeList& edges, const float* a, bool direct, double rho,
                    Stream s) {
  const int64_t E = edges.n, U = edges.users, N = U + edges.items, n_keep = checked_kept(out, edges, rho);
  const int32_t* kept =
      n_keep > 0 && n_keep < E ? earliest(ctx, chances(ctx, edges, a, direct), E, n_keep, s) : nullptr;  // slot 4
  const Ends ends{room<int32_t>(ctx, 5, n_keep), room<uint32_t>(ctx, 6, n_keep), room<uint32_t>(ctx, 7, n_keep)};
  auto *place = room<int32_t>(ctx, 0, n_keep), *by_item = room<int32_t>(ctx, 1, n_keep);
  auto* root = room<double>(ctx, 2, N);
  launch(prune_ends, blocks_for(n_keep, kPruneBlock), kPruneBlock, 0, ctx, ends.user, ends.item, out.col, place, kept,
         edges, n_keep);
  sort_by_item(ctx, out.row_ptr, ends, by_item, place, edges, n_keep);
  const WeightedEdges set{a, kept, by_item, n_keep};
  launch(weighted_roots_warp_per_node, blocks_for(N, kPruneBlock / kWarp), kPruneBlock, 0, ctx, root, set, out.row_ptr,
         N);
  launch(weighted_values, blocks_for(2 * n_keep, kPruneBlock), kPruneBlock, 0, ctx, out, set, ends.user, ends.item,
         root, U, direct);
}

void prune_scratch(ScratchPlan& p, int64_t edges, int64_t kept, int64_t) {
  for (int slot = 0; slot < 4 && kept > 0 && kept < edges; ++slot) p.need(slot, edges * 4);
  for (int slot = 4; slot < 8; ++slot) p.need(slot, kept * 4);
  library::sort_scratch(p, edges, 4);
}

void prune_weighted_scratch(ScratchPlan& p, int64_t edges, int64_t kept, int64_t nodes) {
  prune_scratch(p, edges, kept, nodes);
  p.need(0, kept * 4), p.need(1, kept * 4), p.need(2, nodes * 8);
  if (kept <= 0 || kept >= edges) return;
  p.need(4, edges * 4), p.need(5, edges * 4), p.need(6, nodes * 8), p.need(7, (nodes + 1) * 8);
}

}  // namespace ccdrec::cuda
