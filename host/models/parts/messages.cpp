#include "host/models/parts/messages.h"

namespace ccdrec {
namespace {

// Rows first .. first+n-1 of M: their neighbours are nodes of the other side alone, counted from its first.
HostCsr rows_of(const HostCsr& m, int64_t first, int64_t n, int64_t other_first, int64_t other_n) {
  HostCsr part;
  part.rows = n, part.cols = other_n;
  for (int64_t r = first; r < first + n; ++r) {
    for (int64_t e = m.row_ptr[size_t(r)]; e < m.row_ptr[size_t(r) + 1]; ++e) {
      const int64_t c = m.col[size_t(e)] - other_first;
      CHECK_THAT(c >= 0 && c < other_n);
      part.col.push_back(int32_t(c)), part.val.push_back(m.val[size_t(e)]);
    }
    part.row_ptr.push_back(int64_t(part.col.size()));
  }
  return part;
}

}  // namespace

Messages::Messages(const Setup& z) : dev_(z.dev), whole_(z.graphs.user_item_mean(false)) {
  const Side users{0, z.users()}, items{z.users(), z.items()};
  near_ = items.n <= users.n ? items : users, far_ = items.n <= users.n ? users : items;
  const HostCsr ab = rows_of(whole_, near_.first, near_.n, far_.first, far_.n),
                ba = rows_of(whole_, far_.first, far_.n, near_.first, near_.n);
  m_ab_ = OwnedCsr(dev_, ab), m_ba_ = OwnedCsr(dev_, ba);
  m_ab_t_ = OwnedCsr(dev_, transpose(ab)), m_ba_t_ = OwnedCsr(dev_, transpose(ba));
}

void Messages::reserve(int64_t widest) { room_ = Matrix(dev_, near_.n, widest); }

void Messages::gather(Mat k, CMat x) const { dev_.ops.spmm(dev_.ctx, k, m_ab_.view(), far_.of(x), false); }

void Messages::send(Mat r, CMat k, CMat x, CMat c) const {
  const Mat sent = room(c.cols);
  dev_.ops.gemm(dev_.ctx, near_.of(r), k, false, c, false, false);
  dev_.ops.gemm(dev_.ctx, sent, near_.of(x), false, c, false, false);
  dev_.ops.spmm(dev_.ctx, far_.of(r), m_ba_.view(), sent, false);
}

void Messages::backward(Mat g_c, Mat g_x, Wanted wanted, CMat g_r, CMat k, CMat x, CMat c) const {
  const CMat g_a = near_.of(g_r), g_b = far_.of(g_r);
  const Mat t_a = room(c.cols);
  dev_.ops.spmm(dev_.ctx, t_a, m_ba_t_.view(), g_b, false);
  dev_.ops.gemm(dev_.ctx, g_c, near_.of(x), true, t_a, false, true);
  dev_.ops.gemm(dev_.ctx, g_c, k, true, g_a, false, true);
  const bool all = wanted == Wanted::all, of_items = wanted == Wanted::items;
  if (all || (of_items && items_are_near()))
    dev_.ops.gemm(dev_.ctx, all ? near_.of(g_x) : g_x, t_a, false, c, true, false);
  if (all || (of_items && !items_are_near())) {
    const Mat sent = room(c.rows);  // T_a has been used
    dev_.ops.gemm(dev_.ctx, sent, g_a, false, c, true, false);
    dev_.ops.spmm(dev_.ctx, all ? far_.of(g_x) : g_x, m_ab_t_.view(), sent, false);
  }
}

void Messages::graph(Watch& w) const { w.graphs.push_back({"graph.user_item", whole_, false}); }

// --- memory ----------------------------------------------------------------------------------------------------------

void Messages::plan(Planner& p, int64_t widest) {
  p.graphs += 2 * Planner::csr(p.U, p.E) + 2 * Planner::csr(p.I, p.E);
  p.items += std::min(p.U, p.I) * widest;
  for (const int64_t rows : {p.U, p.I}) p.whole_graph(rows, p.E, widest);
}

void Messages::plan_layer(Planner& p, int64_t c) {
  const int64_t a = std::min(p.U, p.I);
  p.items += a * c;
  p.product(a, c, c), p.product_transposed(c, c, a);
}

}  // namespace ccdrec
