#include "kernels/cuda/library.h"
#include "kernels/cuda/reduce.h"
#include "kernels/encoder.h"
#include "kernels/numbers.h"

// The Transformer estimator: library products on (rows*K,d) matrices and, between them, one kernel for what touches a
// row once. All products run over the capacity, since the count is known on the device only: tokens past the count are
// zero going in and their gradients are zero coming back, so they add nothing to a weight's gradient.
namespace ccdrec::cuda {
namespace {

constexpr int kWarpsPerBlock = 8;            // of the row kernels
constexpr int kItemsPerBlock = 4;            // of the attention kernels, a warp each
constexpr int64_t kEncoderChunk = 256;       // rows of one partial column sum
constexpr int64_t kReverseBytes = 32 << 20;  // activations of a tile of the reverse process: stays in a large L2
constexpr int kSums = 10;                    // bias and LayerNorm gradients of a layer

// --- forward ---------------------------------------------------------------------------------------------------------

// What a token is made of. In the reverse process all items are at the same step.
struct Tokens {
  EstimatorTokens in;
  int32_t t_of_all = 0;  // where in.t is null
  RowList rows;
  int64_t room = 0;  // items there are rows for
  __device__ const float* at(int64_t j, int64_t c) const {
    return c == 0 ? in.e_t.row(j) : c <= in.modalities ? in.h[c - 1].row(j) : in.tau.row(in.t ? in.t[j] : t_of_all);
  }
};

// z_r = the token (the first layer), or z_r + bias: what the product before left out. x_r = (z_r - mean) rstd, n_r =
// x_r scale + shift.
// Geometry  one warp a row, 8 rows a block; lane l owns columns l, l+32, ...
// Traffic   a row of z read and written, x and n written; the second and third pass over z hit the L1.
// Order     mean and variance: a lane's columns ascending, then a butterfly.
__global__ void encoder_norm_warp_per_row(Mat normed, float* x, float* rstd, Mat z, const float* bias, Tokens tokens,
                                          const float* scale, const float* shift, int32_t* fault) {
  const int64_t r = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp, d = z.cols;
  const int lane = int(threadIdx.x) % kWarp;
  if (r >= z.rows) return;  // the whole warp
  float* z_r = z.row(r);
  const float* from = z_r;
  if (!bias) {
    const int64_t K = tokens.in.modalities + 2, j = r / K;
    from = j < rows_within(tokens.rows, tokens.room, fault) ? tokens.at(j, r % K) : nullptr;
  }
  float sum = 0, squares = 0;
  for (int64_t i = lane; i < d; i += kWarp) {
    const float v = (from ? from[i] : 0.0f) + (bias ? bias[i] : 0.0f);
    z_r[i] = v;
    sum += v;
  }
  const float mean = team_sum(sum, 5) / float(d);
  for (int64_t i = lane; i < d; i += kWarp) squares = fmaf(z_r[i] - mean, z_r[i] - mean, squares);
  const float r_r = 1.0f / sqrtf(team_sum(squares, 5) / float(d) + 1e-5f);
  for (int64_t i = lane; i < d; i += kWarp) {
    const float x_ri = (z_r[i] - mean) * r_r;
    if (x) x[r * d + i] = x_ri;
    normed.row(r)[i] = fmaf(x_ri, scale[i], shift[i]);
  }
  if (rstd && lane == 0) rstd[r] = r_r;
}

// q, k, v += their biases; per head a = softmax(q k^T / sqrt(d/H)), o = a v.
// Geometry  one warp an item, 4 items a block, its K*K*H weights in shared memory. A lane computes whole dot products
//           of width d/H, then whole softmax rows, then columns of o.
// Traffic   q, k, v read and written, o and a written: 28 K d bytes an item and 4 K K H; later passes hit the L1.
__global__ void encoder_attention_warp_per_item(float* a_out, Mat o, Mat q, Mat k, Mat v, const float* b_q,
                                                const float* b_k, const float* b_v, int K, int H) {
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp, scores = K * K * H;
  const int64_t first = (int64_t(blockIdx.x) * kItemsPerBlock + warp) * K, d = q.cols, width = d / H;
  if (first >= q.rows) return;  // the whole warp
  float* a = dynamic_shared<float>() + warp * scores;
  for (int64_t i = lane; i < d; i += kWarp) {
    for (int r = 0; r < K; ++r) {
      q.row(first + r)[i] += b_q[i];
      k.row(first + r)[i] += b_k[i];
      v.row(first + r)[i] += b_v[i];
    }
  }
  __syncwarp();
  for (int p = lane; p < scores; p += kWarp) {  // (r, c, head)
    const float* q_r = q.row(first + p / (K * H)) + (p % H) * width;
    const float* k_c = k.row(first + p / H % K) + (p % H) * width;
    float sum = 0;
    for (int64_t i = 0; i < width; ++i) sum = fmaf(q_r[i], k_c[i], sum);
    a[p] = sum;
  }
  __syncwarp();
  const float scale = 1.0f / sqrtf(float(width));
  for (int p = lane; p < K * H; p += kWarp) {  // (r, head)
    float* a_r = a + p / H * K * H + p % H;
    float top = a_r[0], sum = 0;
    for (int c = 1; c < K; ++c) top = a_r[c * H] > top ? a_r[c * H] : top;
    for (int c = 0; c < K; ++c) sum += a_r[c * H] = portable_exp((a_r[c * H] - top) * scale);
    const float inv = 1.0f / sum;
    for (int c = 0; c < K; ++c) a_r[c * H] *= inv;
  }
  __syncwarp();
  if (a_out)
    for (int p = lane; p < scores; p += kWarp) a_out[first * K * H + p] = a[p];
  for (int64_t i = lane; i < d; i += kWarp) {
    const int head = int(i / width);
    for (int r = 0; r < K; ++r) {
      float sum = 0;
      for (int c = 0; c < K; ++c) sum = fmaf(a[(r * K + c) * H + head], v.row(first + c)[i], sum);
      o.row(first + r)[i] = sum;
    }
  }
}

// u += bias, act = gelu(u); act may be u.
// Geometry  teams of a row (reduce.h).
// Traffic   12 bytes an element.
__global__ void encoder_gelu(Mat act, Mat u, const float* bias, int shift) {
  const int64_t r = team_row(shift);
  if (r >= u.rows) return;
  for (int64_t i = team_lane(shift); i < u.cols; i += int64_t(1) << shift) {
    const float x = u.row(r)[i] + bias[i];
    float cdf, pdf;
    normal_cdf(x, cdf, pdf);
    u.row(r)[i] = x;
    act.row(r)[i] = x * cdf;
  }
}

// The mean of an item's K rows of z, each with the bias that the last product left out.
__device__ inline float mean_of_rows(Mat z, const float* bias, int64_t j, int K, int64_t i) {
  float sum = 0;
  for (int c = 0; c < K; ++c) sum = fmaf(1.0f / float(K), z.row(j * K + c)[i] + bias[i], sum);
  return sum;
}

// e0_hat[j], j < n.
// Geometry  teams of a row.
// Traffic   4 (K+1) d bytes an item.
__global__ void encoder_mean(Mat e0_hat, Mat z, const float* bias, RowList rows, int64_t room, int K, int shift) {
  const int64_t j = team_row(shift), n = rows.n() < room ? rows.n() : room;
  if (j >= n) return;
  for (int64_t i = team_lane(shift); i < z.cols; i += int64_t(1) << shift)
    e0_hat.row(j)[i] = mean_of_rows(z, bias, j, K, i);
}

// --- backward --------------------------------------------------------------------------------------------------------

// d_z = d_e0_hat / K for each of an item's rows, 0 past the count.
// Geometry  teams of a row.
__global__ void encoder_spread(Mat d_z, CMat d_e0_hat, RowList rows, int64_t room, int K, int shift, int32_t* fault) {
  const int64_t r = team_row(shift), j = r / K;
  if (r >= d_z.rows) return;
  const bool in_use = j < rows_within(rows, room, fault);
  for (int64_t i = team_lane(shift); i < d_z.cols; i += int64_t(1) << shift)
    d_z.row(r)[i] = in_use ? d_e0_hat.row(j)[i] / float(K) : 0.0f;
}

// act = gelu(u), d_u = d_y gelu'(u) in place of d_y, gelu' = Phi + u phi; and n2 = x2 scale + shift: computed again,
// cheaper than kept.
// Geometry  teams of a row.
// Traffic   16 bytes an element of u, 8 of x2.
__global__ void encoder_gelu_backward(Mat act, Mat d_u, CMat u, Mat normed, CMat x, const float* scale,
                                      const float* shift_by, int shift) {
  const int64_t r = team_row(shift);
  if (r >= u.rows) return;
  for (int64_t i = team_lane(shift); i < u.cols; i += int64_t(1) << shift) {
    float cdf, pdf;
    const float u_ri = u.row(r)[i];
    normal_cdf(u_ri, cdf, pdf);
    act.row(r)[i] = u_ri * cdf;
    d_u.row(r)[i] *= fmaf(u_ri, pdf, cdf);
  }
  for (int64_t i = team_lane(shift); i < x.cols; i += int64_t(1) << shift)
    normed.row(r)[i] = fmaf(x.row(r)[i], scale[i], shift_by[i]);
}

// Given d_n, with dx = d_n scale: d_z += rstd (dx - mean(dx) - x mean(dx x)).
// Geometry  one warp a row, 8 rows a block.
// Traffic   16 d bytes a row; the second pass hits the L1.
__global__ void encoder_norm_backward_warp_per_row(Mat d_z, CMat d_n, CMat x, CMat rstd, const float* scale) {
  const int64_t r = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp, d = x.cols;
  const int lane = int(threadIdx.x) % kWarp;
  if (r >= d_z.rows) return;  // the whole warp
  const float *d_n_r = d_n.row(r), *x_r = x.row(r);
  float sum = 0, along = 0;
  for (int64_t i = lane; i < d; i += kWarp) {
    const float dx = d_n_r[i] * scale[i];
    sum += dx;
    along = fmaf(dx, x_r[i], along);
  }
  const float mean = team_sum(sum, 5) / float(d), slope = -team_sum(along, 5) / float(d);
  for (int64_t i = lane; i < d; i += kWarp) {
    const float dx = d_n_r[i] * scale[i];
    d_z.row(r)[i] = fmaf(rstd.p[r], fmaf(slope, x_r[i], dx - mean), d_z.row(r)[i]);
  }
}

// Given d_o: da_rc = do_r . v_c, g_rc = a_rc (da_rc - sum_c' a_rc' da_rc') / sqrt(d/H); dv_c = sum_r a_rc do_r, dq_r =
// sum_c g_rc k_c, dk_c = sum_r g_rc q_r. Also n1 = x1 scale + shift, computed again. Past the count d_o is zero and so
// are the results.
// Geometry  as the forward kernel, a and g of an item in shared memory.
// Traffic   q, k, v, x1, d_o read, d_q, d_k, d_v, n1 written: 36 K d bytes an item and 4 K K H.
__global__ void encoder_attention_backward_warp_per_item(Mat d_q, Mat d_k, Mat d_v, CMat d_o, CMat q, CMat k, CMat v,
                                                         const float* a_in, Mat normed, CMat x, const float* scale_by,
                                                         const float* shift_by, int K, int H) {
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp, scores = K * K * H;
  const int64_t first = (int64_t(blockIdx.x) * kItemsPerBlock + warp) * K, d = q.cols, width = d / H;
  if (first >= q.rows) return;  // the whole warp
  float *a = dynamic_shared<float>() + 2 * warp * scores, *g = a + scores;
  for (int p = lane; p < scores; p += kWarp) {  // (r, c, head)
    const float* do_r = d_o.row(first + p / (K * H)) + (p % H) * width;
    const float* v_c = v.row(first + p / H % K) + (p % H) * width;
    float sum = 0;
    for (int64_t i = 0; i < width; ++i) sum = fmaf(do_r[i], v_c[i], sum);
    g[p] = sum;
    a[p] = a_in[first * K * H + p];
  }
  __syncwarp();
  const float scale = 1.0f / sqrtf(float(width));
  for (int p = lane; p < K * H; p += kWarp) {  // (r, head)
    const int at = p / H * K * H + p % H;
    float mean = 0;
    for (int c = 0; c < K; ++c) mean = fmaf(a[at + c * H], g[at + c * H], mean);
    for (int c = 0; c < K; ++c) g[at + c * H] = scale * a[at + c * H] * (g[at + c * H] - mean);
  }
  __syncwarp();
  for (int64_t i = lane; i < d; i += kWarp) {
    const int head = int(i / width);
    for (int r = 0; r < K; ++r) {
      float dq = 0, dk = 0, dv = 0;  // of row r; as a column, r is named by the other index
      for (int c = 0; c < K; ++c) {
        const int rc = (r * K + c) * H + head, cr = (c * K + r) * H + head;
        dq = fmaf(g[rc], k.row(first + c)[i], dq);
        dk = fmaf(g[cr], q.row(first + c)[i], dk);
        dv = fmaf(a[cr], d_o.row(first + c)[i], dv);
      }
      d_q.row(first + r)[i] = dq, d_k.row(first + r)[i] = dk, d_v.row(first + r)[i] = dv;
      normed.row(first + r)[i] = fmaf(x.row(first + r)[i], scale_by[i], shift_by[i]);
    }
  }
}

// Column sums of one chunk of rows: part[chunk, at + i] = sum_r y[r,i]; with x, part[chunk, at + i] = sum_r y[r,i]
// x[r,i] and the plain sum d columns later. Several matrices of `rows` rows that lie behind one another are summed by
// one launch: matrix z to columns at + z d.
// Geometry  a block a chunk (x), 32 columns (y) and matrix (z): warp w adds rows w, w+8, ..; lanes are columns.
// Traffic   4 bytes an element, 8 with x.
// Order     rows of a warp ascending, warps in order.
__global__ void encoder_column_sums_of_chunk(float* part, int64_t part_cols, int64_t at, CMat y, const float* x,
                                             int64_t rows) {
  SHARED(float, sums, [2][kWarpsPerBlock][kWarp]);
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  const int64_t chunk = blockIdx.x, d = y.cols, i = int64_t(blockIdx.y) * kWarp + lane, before = blockIdx.z * rows;
  const int64_t end = (chunk + 1) * kEncoderChunk < rows ? (chunk + 1) * kEncoderChunk : rows;
  float sum = 0, along = 0;
  if (i < d) {
    for (int64_t r = chunk * kEncoderChunk + warp; r < end; r += kWarpsPerBlock) {
      const float y_ri = y.row(before + r)[i];
      sum += y_ri;
      if (x) along = fmaf(y_ri, x[r * d + i], along);
    }
  }
  sums[0][warp][lane] = sum, sums[1][warp][lane] = along;
  __syncthreads();
  if (warp != 0 || i >= d) return;
  sum = along = 0;
  for (int w = 0; w < kWarpsPerBlock; ++w) sum += sums[0][w][lane], along += sums[1][w][lane];
  float* to = part + chunk * part_cols + at + blockIdx.z * d + i;
  if (x) *to = along, to += d;
  *to = sum;
}

// The vectors that receive the column sums of a layer, in the order of part's columns: nine of width d, then c1.
struct SumsTo {
  float* p[kSums];
};

// to += sum over chunks in order.
// Geometry  one thread a column.
// Traffic   4 bytes a column and chunk, coalesced.
__global__ void encoder_add_column_sums(SumsTo to, const float* part, int64_t part_cols, int64_t chunks, int64_t d) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= part_cols) return;
  float sum = 0;
  for (int64_t c = 0; c < chunks; ++c) sum += part[c * part_cols + i];
  const int64_t which = i / d < kSums - 1 ? i / d : kSums - 1;
  to.p[which][i - which * d] += sum;
}

struct GradTokens {
  Mat p[kMaxModalities + 1];  // d_e_t, d_h[0], ..
};

// d_e_t[j], d_h[m][j] = rows of d_z, j < n.
// Geometry  teams of a row of d_z.
__global__ void encoder_scatter(GradTokens to, Mat d_z, RowList rows, int64_t room, int K, int shift) {
  const int64_t r = team_row(shift), j = r / K, c = r % K, n = rows.n() < room ? rows.n() : room;
  if (j >= n || c == K - 1) return;  // the time token is a constant
  for (int64_t i = team_lane(shift); i < d_z.cols; i += int64_t(1) << shift) to.p[c].row(j)[i] = d_z.row(r)[i];
}

// --- reverse ---------------------------------------------------------------------------------------------------------

struct Pools {
  float* p[4];  // where this step's e goes besides, or null
};

// Arriving at e_t: e = sqrt_abar q + sqrt_1m_abar z_start at t = T, else e = A mean(z) + B e + sigma z_noise, without
// noise at t = 0 (the arrays' entry t belongs to step t+1).
// Geometry  teams of a row, a lane for the four columns of a draw.
// Traffic   4 (K+3) d bytes an item.
__global__ void encoder_reverse_step(Mat e, Pools pools, CMat q, Mat z, const float* bias, Schedule schedule, int64_t t,
                                     Stream stream, const Late* late, int64_t first, int K, int shift) {
  const int64_t j = team_row(shift), d = e.cols, T = schedule.steps;
  if (j >= e.rows) return;
  const bool start = t == T;
  const float a = start ? 0.0f : schedule.a[t], b = start ? schedule.sqrt_abar[T - 1] : schedule.b[t];
  const float sigma = start ? schedule.sqrt_1m_abar[T - 1] : schedule.sigma[t];
  const Stream s = resolved(stream, late);
  for (int64_t sub = team_lane(shift); sub * 4 < d; sub += int64_t(1) << shift) {
    float noise[4] = {};
    if (t > 0) {
      const Draw4 v = draw(s, uint32_t(first + j), uint32_t(sub));
      normal_pair(v.v[0], v.v[1], noise[0], noise[1]);
      normal_pair(v.v[2], v.v[3], noise[2], noise[3]);
    }
    for (int k = 0; k < 4 && sub * 4 + k < d; ++k) {
      const int64_t i = sub * 4 + k;
      const float from = b * (start ? q.row(first + j)[i] : e.row(j)[i]);
      const float mean = start ? from : fmaf(a, mean_of_rows(z, bias, j, K, i), from);
      const float to = t > 0 ? fmaf(sigma, noise[k], mean) : mean;
      e.row(j)[i] = to;
      for (int p = 0; p < 4; ++p)
        if (pools.p[p]) pools.p[p][(first + j) * d + i] = to;
    }
  }
}

// --- the encoder -----------------------------------------------------------------------------------------------------

Mat scratch(Ctx& ctx, int slot, int64_t rows, int64_t cols) {
  return {static_cast<float*>(ctx.scratch(slot, size_t(rows * cols) * sizeof(float))), rows, cols};
}

void check_encoder(const EstimatorTokens& in, const EncoderParams& params, int64_t d) {
  CHECK_THAT(in.modalities >= 1 && in.modalities <= kMaxModalities);
  CHECK_THAT(params.layers >= 1 && params.layers <= kMaxEncoderLayers && params.heads >= 1 &&
             params.heads <= kMaxEncoderHeads && d % params.heads == 0);
  CHECK_THAT(in.e_t.cols == d && in.tau.cols == d);
  for (int m = 0; m < in.modalities; ++m) CHECK_THAT(in.h[m].cols == d);
}

// Items that all arguments have rows for: more in the list is a fault that the first kernel notes.
int64_t room_of(const EstimatorTokens& in, const RowList& rows, int64_t out_rows) {
  int64_t room = std::min({rows.capacity, out_rows, in.e_t.rows});
  for (int m = 0; m < in.modalities; ++m) room = std::min(room, in.h[m].rows);
  return room;
}

EncoderSaved::Layer first_rows(const EncoderSaved::Layer& s, int64_t rows) {
  auto cut = [&](const Mat& m) {
    CHECK_THAT(m.rows >= rows);
    return m.slice(0, rows);
  };
  return {cut(s.x1), cut(s.rstd1), cut(s.q), cut(s.k), cut(s.v), cut(s.a), cut(s.o), cut(s.x2), cut(s.rstd2), cut(s.u)};
}

void norm(Ctx& ctx, Mat normed, Mat x, Mat rstd, Mat z, const float* bias, const Tokens& tokens, CMat scale,
          CMat shift) {
  launch(encoder_norm_warp_per_row, blocks_for(z.rows, kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, ctx, normed, x.p,
         rstd.p, z, bias, tokens, scale.p, shift.p, ctx.fault);
}

// All layers: tokens to z, of which c2 of the last layer is still missing. `saved` gives layer l's room; x, rstd and a
// may be empty, u may be act and o may be normed.
template <class SavedOf>
void run_layers(Ctx& ctx, Mat z, Mat normed, Mat act, const Tokens& tokens, const EncoderParams& params,
                SavedOf&& saved_of) {
  const int K = tokens.in.modalities + 2, H = params.heads, shift = team_shift(act.cols);
  for (int l = 0; l < params.layers; ++l) {
    const EncoderLayer<CMat>& p = params.layer[l];
    const EncoderSaved::Layer s = saved_of(l);
    norm(ctx, normed, s.x1, s.rstd1, z, l == 0 ? nullptr : params.layer[l - 1].c2.p, tokens, p.s1, p.b1);
    library::gemm(ctx, s.q, normed, false, p.wq, false, false);
    library::gemm(ctx, s.k, normed, false, p.wk, false, false);
    library::gemm(ctx, s.v, normed, false, p.wv, false, false);
    launch(encoder_attention_warp_per_item, blocks_for(z.rows / K, kItemsPerBlock), kItemsPerBlock * kWarp,
           size_t(kItemsPerBlock * K * K * H) * sizeof(float), ctx, s.a.p, s.o, s.q, s.k, s.v, p.bq.p, p.bk.p, p.bv.p,
           K, H);
    library::gemm(ctx, z, s.o, false, p.wo, false, true);
    norm(ctx, normed, s.x2, s.rstd2, z, p.bo.p, tokens, p.s2, p.b2);
    library::gemm(ctx, s.u, normed, false, p.w1, false, false);
    launch(encoder_gelu, team_blocks(z.rows, shift), kTeamThreads, 0, ctx, act, s.u, p.c1.p, shift);
    library::gemm(ctx, z, act, false, p.w2, false, true);
  }
}

}  // namespace

void encoder_forward(Ctx& ctx, Mat e0_hat, const EncoderSaved& saved, const EstimatorTokens& in,
                     const EncoderParams& params, RowList rows) {
  const int64_t d = e0_hat.cols, room = room_of(in, rows, e0_hat.rows);
  check_encoder(in, params, d);
  if (room == 0) return;
  const int K = in.modalities + 2, shift = team_shift(d);
  const int64_t N = room * K;
  const Mat z = scratch(ctx, 0, N, d), normed = scratch(ctx, 1, N, d),
            act = scratch(ctx, 2, N, params.layer[0].w1.cols);
  run_layers(ctx, z, normed, act, Tokens{in, 0, rows, room}, params,
             [&](int l) { return first_rows(saved.layer[l], N); });
  launch(encoder_mean, team_blocks(room, shift), kTeamThreads, 0, ctx, e0_hat, z, params.layer[params.layers - 1].c2.p,
         rows, room, K, shift);
}

// Given d_e0_hat, layers in reverse; dW += X^T dY and dX = dY W^T around each product, biases by column sums.
void encoder_backward(Ctx& ctx, Mat d_e_t, const Mat* d_h, const EncoderGrads& grads, CMat d_e0_hat,
                      const EstimatorTokens& in, const EncoderSaved& saved, const EncoderParams& params, RowList rows) {
  const int64_t d = d_e0_hat.cols, inner = params.layer[0].w1.cols;
  check_encoder(in, params, d);
  CHECK_THAT(d_e_t.cols == d);
  GradTokens to{};
  to.p[0] = d_e_t;
  int64_t room = std::min(room_of(in, rows, d_e0_hat.rows), d_e_t.rows);
  for (int m = 0; m < in.modalities; ++m) {
    CHECK_THAT(d_h[m].cols == d);
    to.p[m + 1] = d_h[m], room = std::min(room, d_h[m].rows);
  }
  if (room == 0) return;
  const int K = in.modalities + 2, H = params.heads, shift = team_shift(d), wide = team_shift(inner);
  const int64_t N = room * K, chunks = blocks_for(N, kEncoderChunk), sums = (kSums - 1) * d + inner;
  const Mat d_z = scratch(ctx, 0, N, d), normed = scratch(ctx, 1, N, d), act = scratch(ctx, 2, N, inner),
            d_act = scratch(ctx, 3, N, inner);
  const Mat d_qkv = scratch(ctx, 4, 3 * N, d), d_n = scratch(ctx, 5, N, d), part = scratch(ctx, 6, chunks, sums);
  const Mat d_q = d_qkv.slice(0, N), d_k = d_qkv.slice(N, N), d_v = d_qkv.slice(2 * N, N);
  const auto column_sums = [&](int64_t at, CMat y, const float* x, int64_t matrices) {
    launch(encoder_column_sums_of_chunk, Grid(chunks, blocks_for(y.cols, kWarp), matrices), kWarpsPerBlock * kWarp, 0,
           ctx, part.p, sums, at, y, x, N);
  };

  launch(encoder_spread, team_blocks(N, shift), kTeamThreads, 0, ctx, d_z, d_e0_hat, rows, room, K, shift, ctx.fault);
  for (int l = params.layers - 1; l >= 0; --l) {
    const EncoderLayer<CMat>& p = params.layer[l];
    const EncoderLayer<Mat>& g = grads.layer[l];
    const EncoderSaved::Layer s = first_rows(saved.layer[l], N);
    library::gemm(ctx, d_act, d_z, false, p.w2, true, false);
    launch(encoder_gelu_backward, team_blocks(N, wide), kTeamThreads, 0, ctx, act, d_act, s.u, normed, s.x2, p.s2.p,
           p.b2.p, wide);
    library::gemm(ctx, g.w2, act, true, d_z, false, true);
    column_sums(0, d_z, nullptr, 1);  // c2
    library::gemm(ctx, g.w1, normed, true, d_act, false, true);
    column_sums((kSums - 1) * d, d_act, nullptr, 1);  // c1
    library::gemm(ctx, d_n, d_act, false, p.w1, true, false);
    column_sums(d, d_n, s.x2.p, 1);  // s2, b2
    launch(encoder_norm_backward_warp_per_row, blocks_for(N, kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, ctx, d_z, d_n,
           s.x2, s.rstd2, p.s2.p);
    // d_z now reaches the attention's output.
    library::gemm(ctx, g.wo, s.o, true, d_z, false, true);
    column_sums(3 * d, d_z, nullptr, 1);  // bo
    library::gemm(ctx, d_n, d_z, false, p.wo, true, false);
    launch(encoder_attention_backward_warp_per_item, blocks_for(room, kItemsPerBlock), kItemsPerBlock * kWarp,
           size_t(2 * kItemsPerBlock * K * K * H) * sizeof(float), ctx, d_q, d_k, d_v, d_n, s.q, s.k, s.v, s.a.p,
           normed, s.x1, p.s1.p, p.b1.p, K, H);
    column_sums(4 * d, d_qkv, nullptr, 3);  // bq, bk, bv
    library::gemm(ctx, g.wq, normed, true, d_q, false, true);
    library::gemm(ctx, g.wk, normed, true, d_k, false, true);
    library::gemm(ctx, g.wv, normed, true, d_v, false, true);
    library::gemm(ctx, d_n, d_q, false, p.wq, true, false);
    library::gemm(ctx, d_n, d_k, false, p.wk, true, true);
    library::gemm(ctx, d_n, d_v, false, p.wv, true, true);
    column_sums(7 * d, d_n, s.x1.p, 1);  // s1, b1
    launch(encoder_norm_backward_warp_per_row, blocks_for(N, kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, ctx, d_z, d_n,
           s.x1, s.rstd1, p.s1.p);
    const SumsTo sums_to{{g.c2.p, g.s2.p, g.b2.p, g.bo.p, g.bq.p, g.bk.p, g.bv.p, g.s1.p, g.b1.p, g.c1.p}};
    launch(encoder_add_column_sums, blocks_for(sums, 256), 256, 0, ctx, sums_to, part.p, sums, chunks, d);
  }
  launch(encoder_scatter, team_blocks(N, shift), kTeamThreads, 0, ctx, to, d_z, rows, room, K, shift);
}

// Tiles of items whose activations take kReverseBytes: bounds the memory, changes no bit.
static int64_t reverse_tile(int64_t n, int64_t K, int64_t d, int64_t inner) {
  const int64_t fits = kReverseBytes / ((K * (5 * d + inner) + d) * int64_t(sizeof(float)));
  return std::min(n, std::max<int64_t>(32, fits / 32 * 32));
}

void encoder_scratch(ScratchPlan& p, int64_t rows, int modalities, int64_t d, int64_t inner) {
  const int64_t N = rows * (modalities + 2), sums = (kSums - 1) * d + inner;
  for (const int slot : {0, 1, 5}) p.need(slot, N * d * 4);
  p.need(2, N * inner * 4), p.need(3, N * inner * 4), p.need(4, 3 * N * d * 4),
      p.need(6, blocks_for(N, kEncoderChunk) * sums * 4);
}
void encoder_reverse_scratch(ScratchPlan& p, int64_t items, int modalities, int64_t d, int64_t inner, int, int) {
  const int64_t tile = reverse_tile(items, modalities + 2, d, inner), N = tile * (modalities + 2);
  p.need(0, N * d * 4), p.need(1, N * d * 4), p.need(2, N * inner * 4), p.need(3, 3 * N * d * 4),
      p.need(4, tile * d * 4);
}

// Tile by tile; nothing is kept for a backward.
void encoder_reverse(Ctx& ctx, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau,
                     const EncoderParams& params, const Schedule& schedule, uint32_t seed, uint32_t epoch) {
  const int64_t n = q.rows, d = q.cols, T = schedule.steps, inner = params.layer[0].w1.cols;
  CHECK_SHAPE(tau, T, d);
  if (n == 0) return;
  CHECK_THAT(modalities >= 1 && modalities <= kMaxModalities);
  EstimatorTokens in;
  in.e_t = q;
  for (int m = 0; m < modalities; ++m) in.h[m] = h[m];
  in.modalities = modalities, in.tau = tau;
  check_encoder(in, params, d);
  for (int m = 0; m < modalities; ++m) CHECK_SHAPE(h[m], n, d);
  for (int p = 0; p < 4; ++p)
    if (pools[p]) CHECK_SHAPE(pools[p], n, d);
  const int K = modalities + 2, shift = team_shift((d + 3) / 4);
  const int64_t tile = reverse_tile(n, K, d, inner);
  const Mat room_z = scratch(ctx, 0, tile * K, d), room_normed = scratch(ctx, 1, tile * K, d),
            room_act = scratch(ctx, 2, tile * K, inner);
  const Mat room_qkv = scratch(ctx, 3, 3 * tile * K, d), room_e = scratch(ctx, 4, tile, d);
  for (int64_t first = 0; first < n; first += tile) {
    const int64_t count = std::min(tile, n - first), N = count * K;
    const Mat e = room_e.slice(0, count), z = room_z.slice(0, N), normed = room_normed.slice(0, N),
              act = room_act.slice(0, N);
    EncoderSaved::Layer s;
    s.q = room_qkv.slice(0, N), s.k = room_qkv.slice(N, N), s.v = room_qkv.slice(2 * N, N), s.o = normed, s.u = act;
    in.e_t = e;
    for (int m = 0; m < modalities; ++m) in.h[m] = h[m].slice(first, count);
    for (int64_t t = T; t >= 0; --t) {
      if (t < T)
        run_layers(ctx, z, normed, act, Tokens{in, int32_t(t), RowList{nullptr, nullptr, count}, count}, params,
                   [&](int) { return s; });
      Pools to{};
      for (int64_t p = 0; p < 4; ++p) to.p[p] = T - t == (p + 1) * T / 4 ? pools[p].p : nullptr;
      const Stream stream = t < T ? Stream{seed, Use::reverse_noise, epoch, uint32_t(t + 1)}
                                  : Stream{seed, Use::reverse_start, epoch, uint32_t(T)};
      launch(encoder_reverse_step, team_blocks(count, shift), kTeamThreads, 0, ctx, e, to, q, z,
             params.layer[params.layers - 1].c2.p, schedule, t, stream, ctx.late, first, K, shift);
    }
  }
}

}  // namespace ccdrec::cuda
