#include "kernels/cuda/reduce.h"
#include "kernels/diffusion.h"

// make_schedule is the host's: kernels/cpu/diffusion.cpp. Here the rows of a batch's items; all but the loss of `align`
// has the CPU's bits.
namespace ccdrec::cuda {
namespace {

// t[j] = the draw of address j, or of the mirrored half: T-1 less the draw of j-h. The halves split at h = n/2+1, known
// here only.
// Geometry  one thread a row.
// Traffic   4 bytes a row.
__global__ void draw_timesteps_by_address(int32_t* t, RowList rows, int steps, bool mirrored, Stream stream,
                                          const Late* late) {
  const int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, n = rows.n(), h = mirrored ? n / 2 + 1 : n;
  if (j >= n) return;
  const Stream s = resolved(stream, late);
  const int32_t drawn = int32_t(below(draw(s, uint32_t(j < h ? j : j - h)).v[0], uint32_t(steps)));
  t[j] = j < h ? drawn : steps - 1 - drawn;
}

// eps[j, 4s .. 4s+3] = the two pairs of draw(stream, rows[j], s).
// Geometry  one team a row (reduce.h), a lane for four columns.
// Traffic   4 d bytes a row, written once; bound by the arithmetic of the draws.
template <int V>
__global__ void draw_normals_by_address(Mat eps, RowList rows, Stream stream, const Late* late, int shift,
                                        int32_t* fault) {
  const int64_t j = team_row(shift), d = eps.cols;
  if (j >= rows_within(rows, eps.rows, fault)) return;
  const Stream s = resolved(stream, late);
  const uint32_t row = uint32_t(rows.at(j));
  for (int64_t sub = team_lane(shift); sub * 4 < d; sub += int64_t(1) << shift) {
    const Draw4 v = draw(s, row, uint32_t(sub));
    Columns<4> z;
    normal_pair(v.v[0], v.v[1], z.v[0], z.v[1]);
    normal_pair(v.v[2], v.v[3], z.v[2], z.v[3]);
    float* to = eps.row(j) + sub * 4;
    if constexpr (V == 4) {
      store<4>(to, z);
    } else {
      for (int k = 0; k < 4; ++k)
        if (sub * 4 + k < d) to[k] = z.v[k];
    }
  }
}

// The elementwise kernels below.
// Geometry  one team a row, V columns a lane; rows past the count cost a look at it.

// e_t[j] = sqrt_abar[t_j] q[i] + sqrt_1m_abar[t_j] eps[j].
// Traffic   12 d bytes a row.
template <int V>
__global__ void diffuse_rows(Mat e_t, CMat q, CMat eps, const int32_t* t, RowList rows, Schedule schedule, int64_t room,
                             int shift, int32_t* fault) {
  const int64_t j = team_row(shift), d = q.cols;
  if (j >= rows_within(rows, room, fault)) return;
  const float signal = schedule.sqrt_abar[t[j]], noise = schedule.sqrt_1m_abar[t[j]];
  const float* q_i = q.row(rows.at(j));
  for (int64_t c = int64_t(team_lane(shift)) * V; c < d; c += int64_t(V) << shift) {
    const Columns<V> x = load<V>(q_i + c), z = load<V>(eps.row(j) + c);
    Columns<V> e;
    for (int v = 0; v < V; ++v) e.v[v] = fmaf(signal, x.v[v], noise * z.v[v]);
    store<V>(e_t.row(j) + c, e);
  }
}

// d_q[i] += sqrt_abar[t_j] d_e_t[j]; rows are distinct.
// Traffic   12 d bytes a row.
template <int V>
__global__ void diffuse_backward_rows(Mat d_q, CMat d_e_t, const int32_t* t, RowList rows, Schedule schedule, int shift,
                                      int32_t* fault) {
  const int64_t j = team_row(shift), d = d_q.cols;
  if (j >= rows_within(rows, d_e_t.rows, fault)) return;
  const float signal = schedule.sqrt_abar[t[j]];
  float* d_q_i = d_q.row(rows.at(j));
  for (int64_t c = int64_t(team_lane(shift)) * V; c < d; c += int64_t(V) << shift) {
    const Columns<V> g = load<V>(d_e_t.row(j) + c);
    Columns<V> to = load<V>(d_q_i + c);
    for (int v = 0; v < V; ++v) to.v[v] = fmaf(signal, g.v[v], to.v[v]);
    store<V>(d_q_i + c, to);
  }
}

// ego[i] = (1-mu) hhat[i] + mu e0_hat[j]; ego may be hhat.
// Traffic   12 d bytes a row.
template <int V>
__global__ void fuse_rows(Mat ego, CMat hhat, CMat e0_hat, RowList rows, float mu, int shift, int32_t* fault) {
  const int64_t j = team_row(shift), d = ego.cols;
  if (j >= rows_within(rows, e0_hat.rows, fault)) return;
  const int64_t i = rows.at(j);
  for (int64_t c = int64_t(team_lane(shift)) * V; c < d; c += int64_t(V) << shift) {
    const Columns<V> h = load<V>(hhat.row(i) + c), e0 = load<V>(e0_hat.row(j) + c);
    Columns<V> to;
    for (int v = 0; v < V; ++v) to.v[v] = fmaf(mu, e0.v[v], (1 - mu) * h.v[v]);
    store<V>(ego.row(i) + c, to);
  }
}

// g = 2 s m_i (q[i] - e0_hat[j]): d_e0_hat[j] = mu g_ego[i] - g, d_q[i] += g, g_ego[i] *= 1-mu; part[block] = the
// block's sum of m_i ||q[i]-e0_hat[j]||^2.
// Traffic   28 d bytes a row.
// Order     of the loss: a lane's columns ascending, then block_sum, blocks as sum_of_partials.
template <int V>
__global__ void align_team_per_row(double* part, Mat d_e0_hat, Mat d_q, Mat g_ego, CMat q, CMat e0_hat, Groups groups,
                                   double s, float mu, int64_t room, int shift, int32_t* fault) {
  const int64_t j = team_row(shift), d = q.cols, n = rows_within(groups.rows, room, fault);
  if (j - (threadIdx.x >> shift) >= n) return;  // the whole block
  double sum = 0;
  if (j < n) {
    const int64_t i = groups.rows.at(j);
    const double m_i = groups.ptr[j + 1] - groups.ptr[j];
    const float two_s_m = float(2 * s * m_i);
    for (int64_t c = int64_t(team_lane(shift)) * V; c < d; c += int64_t(V) << shift) {
      const Columns<V> x = load<V>(q.row(i) + c), e0 = load<V>(e0_hat.row(j) + c);
      Columns<V> dq = load<V>(d_q.row(i) + c), ge = load<V>(g_ego.row(i) + c), de;
      for (int v = 0; v < V; ++v) {
        const float diff = x.v[v] - e0.v[v], g = two_s_m * diff;
        sum += double(diff) * double(diff);
        de.v[v] = fmaf(mu, ge.v[v], -g);
        dq.v[v] += g;
        ge.v[v] *= 1 - mu;
      }
      store<V>(d_e0_hat.row(j) + c, de), store<V>(d_q.row(i) + c, dq), store<V>(g_ego.row(i) + c, ge);
    }
    sum *= m_i;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

// *loss += s * sum of part, over the blocks that had rows.
// Geometry  one block.
__global__ void align_add_loss(double* loss, const double* part, RowList rows, int64_t room, int rows_per_block,
                               double s) {
  const int64_t n = rows.n() < room ? rows.n() : room;
  if (n == 0) return;
  const double sum = sum_of_partials(part, (n + rows_per_block - 1) / rows_per_block);
  if (threadIdx.x == 0) *loss += s * sum;
}

}  // namespace

void draw_timesteps(Ctx& ctx, int32_t* t, RowList rows, int steps, bool mirrored, Stream stream) {
  launch(draw_timesteps_by_address, blocks_for(rows.capacity, 256), 256, 0, ctx, t, rows, steps, mirrored, stream,
         ctx.late);
}

void draw_normals(Ctx& ctx, Mat eps, RowList rows, Stream stream) {
  const int shift = team_shift((eps.cols + 3) / 4);
  const int64_t blocks = team_blocks(rows.capacity, shift);
  const bool four = four_columns(eps.cols, {eps.p});
  launch((four ? draw_normals_by_address<4> : draw_normals_by_address<1>), blocks, kTeamThreads, 0, ctx, eps, rows,
         stream, ctx.late, shift, ctx.fault);
}

void diffuse(Ctx& ctx, Mat e_t, CMat q, CMat eps, const int32_t* t, RowList rows, const Schedule& schedule) {
  const int64_t d = q.cols, room = std::min(e_t.rows, eps.rows);
  CHECK_THAT(e_t.cols == d && eps.cols == d);
  const bool four = four_columns(d, {e_t.p, q.p, eps.p});
  const int shift = team_shift(four ? d / 4 : d);
  const int64_t blocks = team_blocks(rows.capacity, shift);
  launch((four ? diffuse_rows<4> : diffuse_rows<1>), blocks, kTeamThreads, 0, ctx, e_t, q, eps, t, rows, schedule, room,
         shift, ctx.fault);
}

void diffuse_backward(Ctx& ctx, Mat d_q, CMat d_e_t, const int32_t* t, RowList rows, const Schedule& schedule) {
  const int64_t d = d_q.cols;
  CHECK_THAT(d_e_t.cols == d);
  const bool four = four_columns(d, {d_q.p, d_e_t.p});
  const int shift = team_shift(four ? d / 4 : d);
  const int64_t blocks = team_blocks(rows.capacity, shift);
  launch((four ? diffuse_backward_rows<4> : diffuse_backward_rows<1>), blocks, kTeamThreads, 0, ctx, d_q, d_e_t, t,
         rows, schedule, shift, ctx.fault);
}

void fuse(Ctx& ctx, Mat ego, CMat hhat, CMat e0_hat, RowList rows, float mu) {
  const int64_t d = ego.cols;
  CHECK_SHAPE(hhat, ego.rows, d);
  CHECK_THAT(e0_hat.cols == d);
  const bool four = four_columns(d, {ego.p, hhat.p, e0_hat.p});
  const int shift = team_shift(four ? d / 4 : d);
  const int64_t blocks = team_blocks(rows.capacity, shift);
  launch((four ? fuse_rows<4> : fuse_rows<1>), blocks, kTeamThreads, 0, ctx, ego, hhat, e0_hat, rows, mu, shift,
         ctx.fault);
}

void align(Ctx& ctx, double* loss, Mat d_e0_hat, Mat d_q, Mat g_ego, CMat q, CMat e0_hat, const Groups& groups,
           float lambda, int64_t terms, float mu) {
  const int64_t d = q.cols, room = std::min(e0_hat.rows, d_e0_hat.rows);
  CHECK_SHAPE(d_q, q.rows, d);
  CHECK_SHAPE(g_ego, q.rows, d);
  CHECK_THAT(e0_hat.cols == d && d_e0_hat.cols == d);
  const double s = double(lambda) / (double(terms) * double(d));
  const bool four = four_columns(d, {d_e0_hat.p, d_q.p, g_ego.p, q.p, e0_hat.p});
  const int shift = team_shift(four ? d / 4 : d);
  const int64_t blocks = team_blocks(groups.rows.capacity, shift);
  if (blocks == 0) return;
  double* part = static_cast<double*>(ctx.scratch(0, size_t(blocks) * sizeof(double)));
  launch((four ? align_team_per_row<4> : align_team_per_row<1>), blocks, kTeamThreads, 0, ctx, part, d_e0_hat, d_q,
         g_ego, q, e0_hat, groups, s, mu, room, shift, ctx.fault);
  launch(align_add_loss, 1, 256, 0, ctx, loss, part, groups.rows, room, kTeamThreads >> shift, s);
}

}  // namespace ccdrec::cuda
