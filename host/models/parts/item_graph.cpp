#include "host/models/parts/item_graph.h"

namespace ccdrec {

ItemGraph::ItemGraph(const Setup& z, const HostCsr& s, int layers) : ItemGraph(z, {}, {}, layers) {
  own_ = OwnedCsr(z.dev, s), own_t_ = OwnedCsr(z.dev, transpose(s));
  s_ = own_.view(), s_t_ = own_t_.view();
}

ItemGraph::ItemGraph(const Setup& z, Csr s, Csr s_t, int layers) : dev_(z.dev), s_(s), s_t_(s_t) {
  touched_.layers = layers;
  for (int l = 0; l < layers; ++l) work_.emplace_back(z.dev, z.items(), z.width());
  for (int l = 0; l <= layers; ++l) {
    lists_.emplace_back(z.dev, z.items()), masks_.emplace_back(z.dev, z.items());
    touched_.rows[l] = lists_.back().list(), touched_.mask[l] = masks_.back().p();
  }
}

void ItemGraph::touch(RowList wanted) { dev_.ops.frontier(dev_.ctx, touched_, s_, s_t_, wanted); }

CMat ItemGraph::forward(CMat q) {
  CMat x = q;
  for (int l = 1; l <= touched_.layers; ++l) {
    const Mat y = work_[size_t(l - 1)];
    dev_.ops.spmm_rows(dev_.ctx, y, s_, x, touched_.rows[l], nullptr, false);
    x = y;
  }
  return x;
}

void ItemGraph::backward(Mat g_q, CMat g_hhat, const std::function<void(CMat d, CMat z)>& on_layer, CMat q) {
  CMat y = g_hhat;
  for (int l = touched_.layers; l >= 1; --l) {  // on rows[l-1], reading rows[l]; all of work_ but Hhat is free again
    const bool last = l == 1;
    const Mat out = last ? g_q : work_[size_t(l - 2)].mat();
    if (on_layer) {
      on_layer(y, last ? q : CMat(out));
      if (!last) dev_.ops.fill_zero(dev_.ctx, out);
    }
    dev_.ops.spmm_rows(dev_.ctx, out, s_t_, y, touched_.rows[l - 1], touched_.mask[l], last);
    y = out;
  }
}

CMat ItemGraph::all(CMat q) {
  CMat x = q;
  for (const Matrix& y : work_) {
    dev_.ops.spmm(dev_.ctx, y, s_, x, false);
    x = y;
  }
  return x;
}

void ItemGraph::graphs(Watch& w) const { w.graph("graph.item_item", s_, false); }

}  // namespace ccdrec
