#include "kernels/cuda/reduce.h"
#include "kernels/denoise.h"

namespace ccdrec::cuda {
namespace {

// Inverse norms of P's rows, then of X's.
// Geometry  eight lanes a row, 32 rows a block; lane l owns columns l, l+8, ..: a row is read in whole sectors.
// Traffic   4 d bytes a row.
__global__ void edge_norms_by_eight(double* inv, CMat p, CMat x) {
  const int64_t v = team_row(kEightShift), U = p.rows;
  const bool here = v < U + x.rows;
  const float* const row = !here ? p.p : v < U ? p.row(v) : x.row(v - U);
  const double squares = dot_by_eight(row, row, here ? p.cols : 0);
  if (here && team_lane(kEightShift) == 0) inv[v] = inverse_or_zero(squares);
}

// Geometry  eight lanes an edge, 32 edges a block.
// Traffic   4 d bytes of X an edge in whole sectors, 12 of the edge; a user's edges are neighbours, so its row of P
//           mostly comes from L1.
__global__ void edge_cosines_by_eight(float* a, EdgeList edges, CMat p, CMat x, const double* inv, float tau) {
  const int64_t e = team_row(kEightShift);
  const bool here = e < edges.n;
  const int64_t u = here ? edges.user[e] : 0, i = here ? edges.item[e] : 0;
  const double dot = dot_by_eight(p.row(u), x.row(i), here ? p.cols : 0);
  if (here && team_lane(kEightShift) == 0) a[e] = edge_weight(dot, inv[u], inv[p.rows + i], tau);
}

}  // namespace

void edge_cosines(Ctx& ctx, float* a, const EdgeList& edges, CMat p, CMat x, float tau) {
  CHECK_SHAPE(p, edges.users, p.cols);
  CHECK_SHAPE(x, edges.items, p.cols);
  const int64_t N = edges.users + edges.items;
  double* const inv = static_cast<double*>(ctx.scratch(0, size_t(N) * sizeof(double)));
  launch(edge_norms_by_eight, team_blocks(N, kEightShift), kTeamThreads, 0, ctx, inv, p, x);
  launch(edge_cosines_by_eight, team_blocks(edges.n, kEightShift), kTeamThreads, 0, ctx, a, edges, p, x, inv, tau);
}

void edge_cosines_scratch(ScratchPlan& p, int64_t nodes) { p.need(0, nodes * 8); }

}  // namespace ccdrec::cuda
