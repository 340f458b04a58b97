#include <cmath>

#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/ordered.h"
#include "kernels/sample.h"

namespace ccdrec::cuda {
namespace {

constexpr int kPruneBlock = 256;

// When edge e arrives, -log(1-u)/w_e: not negative, so the bits order as the times do.
// Geometry  one thread an edge.
// Traffic   4 bytes read, 8 written.
__global__ void prune_arrivals(uint32_t* time, int32_t* index, const float* weight, int64_t n, Stream stream,
                               const Late* late) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= n) return;
  const float u = uniform01(draw(resolved(stream, late), uint32_t(e)).v[0]);
  const float wait = -portable_log(1.0f - u);
  time[e] = __float_as_uint((wait > 0.0f ? wait : 0.0f) / weight[e] + 0.0f);
  index[e] = int32_t(e);
}

// The two ends of each kept edge, and the users' half of the columns: kept edges are in the order of (user, item),
// which is that half's.
// Geometry  one thread a kept edge.
// Traffic   4 bytes read in order, 8 in ascending jumps, 12 written.
__global__ void prune_ends(int32_t* user, uint32_t* item, int32_t* col, const int32_t* kept, EdgeList edges,
                           int64_t n_keep) {
  const int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= n_keep) return;
  const int64_t e = kept ? kept[j] : j;
  user[j] = edges.user[e];
  item[j] = uint32_t(edges.item[e]);
  col[j] = int32_t(edges.users) + edges.item[e];
}

// Row v of the graph starts behind the ends of all lower rows.
// Geometry  one thread a row, and one for the end.
// Traffic   two searches' log2(n_keep) reads, mostly from cache, and 8 bytes written: neither counters nor a scan of
//           them is needed, since both halves are sorted.
__global__ void prune_row_starts(int64_t* row_ptr, const int32_t* user, const uint32_t* item_sorted, int64_t n_keep,
                                 int64_t U, int64_t N) {
  const int64_t v = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (v > N) return;
  row_ptr[v] = v < U ? first_not_below(user, n_keep, int32_t(v))
                     : n_keep + first_not_below(item_sorted, n_keep, uint32_t(v - U));
}

__device__ inline double root_of_degree(const int64_t* row_ptr, int64_t v) {
  return 1.0 / std::sqrt(double(row_ptr[v + 1] - row_ptr[v]) + 1e-7);
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
  out.val[k] = float(root_of_degree(out.row_ptr, u) * root_of_degree(out.row_ptr, U + i));
}

// The n_keep edges that arrive first, ascending. The sort is stable: of equal times the lower edge wins.
const int32_t* earliest(Ctx& ctx, const EdgeList& edges, int64_t n_keep, Stream s) {
  const int64_t E = edges.n;
  auto* time = static_cast<uint32_t*>(ctx.scratch(0, size_t(E) * sizeof(uint32_t)));
  auto* time_sorted = static_cast<uint32_t*>(ctx.scratch(1, size_t(E) * sizeof(uint32_t)));
  auto* index = static_cast<int32_t*>(ctx.scratch(2, size_t(E) * sizeof(int32_t)));
  auto* by_time = static_cast<int32_t*>(ctx.scratch(3, size_t(E) * sizeof(int32_t)));
  auto* kept = static_cast<int32_t*>(ctx.scratch(4, size_t(n_keep) * sizeof(int32_t)));
  launch(prune_arrivals, blocks_for(E, kPruneBlock), kPruneBlock, 0, ctx, time, index, edges.weight, E, s, ctx.late);
  library::sort_pairs(ctx, time_sorted, by_time, time, index, E);
  library::sort_keys(ctx, reinterpret_cast<uint32_t*>(kept), reinterpret_cast<const uint32_t*>(by_time), n_keep,
                     bits_below(E));
  return kept;
}

}  // namespace

void prune(Ctx& ctx, const MutableCsr& out, const EdgeList& edges, double rho, Stream s) {
  const int64_t E = edges.n, U = edges.users, N = edges.users + edges.items;
  const int64_t n_keep = rho <= 0 ? E : std::clamp(int64_t(std::floor(double(E) * (1.0 - rho))), int64_t(0), E);
  CHECK_THAT(E < int64_t(1) << 31);
  CHECK_THAT(out.rows == N && out.cols == N);
  CHECK_THAT(2 * n_keep <= out.capacity);
  const int32_t* kept = n_keep > 0 && n_keep < E ? earliest(ctx, edges, n_keep, s) : nullptr;  // null: all
  auto* user = static_cast<int32_t*>(ctx.scratch(5, size_t(n_keep) * sizeof(int32_t)));
  auto* item = static_cast<uint32_t*>(ctx.scratch(6, size_t(n_keep) * sizeof(uint32_t)));
  auto* item_sorted = static_cast<uint32_t*>(ctx.scratch(7, size_t(n_keep) * sizeof(uint32_t)));
  launch(prune_ends, blocks_for(n_keep, kPruneBlock), kPruneBlock, 0, ctx, user, item, out.col, kept, edges, n_keep);
  // The items' half is the kept edges by item, users ascending within one: a stable sort leaves them so, and its values
  // are the columns.
  library::sort_pairs(ctx, item_sorted, out.col + n_keep, item, user, n_keep, bits_below(edges.items));
  launch(prune_row_starts, blocks_for(N + 1, kPruneBlock), kPruneBlock, 0, ctx, out.row_ptr, user, item_sorted, n_keep,
         U, N);
  launch(prune_values, blocks_for(2 * n_keep, kPruneBlock), kPruneBlock, 0, ctx, out, user, item, item_sorted, n_keep,
         U);
}

void prune_scratch(ScratchPlan& p, int64_t edges, int64_t kept, int64_t) {
  for (int slot = 0; slot < 4 && kept > 0 && kept < edges; ++slot) p.need(slot, edges * 4);
  for (int slot = 4; slot < 8; ++slot) p.need(slot, kept * 4);
  library::sort_scratch(p, edges, 4);
}

}  // namespace ccdrec::cuda
