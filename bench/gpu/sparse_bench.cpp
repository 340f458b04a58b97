// Sparse products: of whole graphs beside the gather yardstick, and those of a training step, which cover the rows that
// its batch reaches.
#include <fmt/format.h>

#include <algorithm>

#include "bench/gpu/bench.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = kWidth;
constexpr int kLayers = 2;

double spmm_bytes(double edges, double rows) { return edges * (8 + 4 * d) + rows * (8 + 4 * d); }

// One product both ways. Their ratio decides spmm_rule (kernels/spmm.h): over 100 %, and beyond the spread of both,
// cuSPARSE is the faster one.
Line& measure_spmm(Bench& b, const std::string& shape, const Csr& a, Mat y, CMat x) {
  Device& dev = b.dev();
  const double bytes = spmm_bytes(double(a.nnz), double(a.rows)), flop = 2.0 * double(a.nnz) * d;
  const auto call = [&] { dev.ops.spmm(dev.ctx, y, a, x, false); };
  dev.ctx.spmm = SpmmBy::own;
  const size_t at = b.report().lines.size();
  const double own = b.measure("spmm", shape, bytes, flop, call).warm;
  if (gpu_info().cusparse) {
    dev.ctx.spmm = SpmmBy::cusparse;
    try {
      Line& l = b.measure("spmm by cuSPARSE", shape, bytes, flop, call);
      l.at_least("our spmm of the same graph", own / l.warm);
    } catch (const std::exception& e) { b.failed("spmm by cuSPARSE, " + shape, e.what()); }
  }
  dev.ctx.spmm = SpmmBy::automatic;
  return b.report().lines[at];
}

void whole_graph(Bench& b, const std::string& name, const DeviceGraph& g) {
  Device& dev = b.dev();
  const DeviceMatrix x(dev, g.N, d);
  Matrix y(dev, g.N, d);
  // The yardstick: as many random rows of the same table as the graph has edges.
  const int64_t reads = std::max<int64_t>(32, g.nnz / 32 * 32);
  const Array<int32_t> ids(dev, random_ids(reads, g.N, 7));
  Matrix acc(dev, reads / 32, d);
  const Line& gather = b.measure("row gather (yardstick)", fmt::format("{}: {} random rows of 256 B", name, reads),
                                 double(reads) * (4 + 4 * d), 0, [&] { gather_random_rows(dev.ctx, acc, x, ids.p()); });
  const double rate = gather.bytes / gather.warm;
  Line& l = measure_spmm(b, fmt::format("{}: {} edges, {} rows", name, g.nnz, g.N), g.view(), y, x);
  l.at_least("random 256-byte row gather", l.bytes / l.warm / rate, name == "elec" ? 0.8 : 0);
}

// As an evaluation propagates: every row, by the whole graph.
void all_rows(Bench& b, const std::string& name, const DeviceGraph& g) {
  Device& dev = b.dev();
  const DeviceMatrix x(dev, g.N, d);
  Matrix h(dev, g.N, d), room[kLayers] = {{dev, g.N, d}, {dev, g.N, d}};
  Mat work[kMaxLayers] = {room[0], room[1]};
  Frontier all;
  all.layers = kLayers;
  for (int l = 0; l <= kLayers; ++l) all.rows[l] = RowList{nullptr, nullptr, g.N};
  b.measure("propagate", fmt::format("{}: all {} rows, {} edges", name, g.N, g.nnz),
            kLayers * spmm_bytes(double(g.nnz), double(g.N)) + 4.0 * d * double(g.N) * (kLayers + 2),
            2.0 * kLayers * double(g.nnz) * d, [&] { dev.ops.propagate(dev.ctx, h, work, g.view(), all, x); });
}

// What a popular node is at its worst: one row with all the edges, which is one block of ours.
void heavy_row(Bench& b) {
  Device& dev = b.dev();
  const int64_t edges = b.n(1000000), N = b.n(200000);
  const Array<int64_t> ptr(dev, std::vector<int64_t>{0, edges});
  std::vector<int32_t> columns = random_ids(edges, N, 11);
  std::sort(columns.begin(), columns.end());
  const Array<int32_t> col(dev, columns);
  const Array<float> val = floats(dev, edges);
  const DeviceMatrix x(dev, N, d);
  Matrix y(dev, 1, d);
  measure_spmm(b, fmt::format("one row of {} edges", edges), {1, N, ptr.p(), col.p(), val.p(), edges}, y, x);
}

// The nodes that a batch names: users, positives and as many random items, ascending.
std::vector<int32_t> nodes_of_batch(const SkewedPairs& p, int64_t B) {
  std::vector<int32_t> nodes;
  const std::vector<int32_t> pair = random_ids(B, int64_t(p.user.size()), 21), other = random_ids(B, p.shape.I, 22);
  for (size_t j = 0; j < size_t(B); ++j)
    for (const int64_t node :
         {int64_t(p.user[size_t(pair[j])]), p.shape.U + p.item[size_t(pair[j])], p.shape.U + other[j]})
      nodes.push_back(int32_t(node));
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  return nodes;
}

struct Reached {  // rows of each layer and the edges that lead into them
  double rows[kLayers + 1] = {}, edges[kLayers + 1] = {};
  std::vector<int32_t> widest;  // rows[0]
};
Reached reached(const DeviceGraph& g, const OwnedRows (&lists)[kLayers + 1], Device& dev) {
  Reached r;
  for (int l = kLayers; l >= 0; --l) {
    const RowList list = lists[l].list();
    int64_t n = 0;
    dev.ops.download(dev.ctx, &n, list.count, sizeof n);
    r.widest.resize(size_t(n));
    dev.ops.download(dev.ctx, r.widest.data(), list.idx, size_t(n) * sizeof(int32_t));
    r.rows[l] = double(n);
    for (const int32_t at : r.widest) r.edges[l] += double(g.host_ptr[size_t(at) + 1] - g.host_ptr[size_t(at)]);
  }
  return r;
}

// Ten neighbours an item, as FREEDOM's item graph has at least.
OwnedCsr item_graph(Device& dev, int64_t I) {
  struct {
    int64_t rows, cols;
    std::vector<int64_t> row_ptr{0};
    std::vector<int32_t> col;
    std::vector<float> val;
  } h;
  h.rows = h.cols = I;
  const int64_t k = std::min<int64_t>(10, I);
  const std::vector<int32_t> first = random_ids(I, I, 23);
  for (int64_t i = 0; i < I; ++i) {
    std::vector<int32_t> row;
    for (int64_t e = 0; e < k; ++e) row.push_back(int32_t((first[size_t(i)] + e * (I / k)) % I));
    std::sort(row.begin(), row.end());
    h.col.insert(h.col.end(), row.begin(), row.end());
    h.row_ptr.push_back(int64_t(h.col.size()));
  }
  h.val.assign(h.col.size(), 0.1f);
  return {dev, h};
}

// A step of FREEDOM or CCDRec on the graph of an epoch, pruned by 0.8. Bytes as in spmm.h, edge by edge without reuse.
void step(Bench& b, const std::string& name, const DeviceGraph& g, int64_t B) {
  Device& dev = b.dev();
  const int64_t N = g.N, U = g.pairs.shape.U, I = g.pairs.shape.I;
  const DeviceRows seed(dev, nodes_of_batch(g.pairs, B));
  const OwnedRows lists[kLayers + 1] = {{dev, N}, {dev, N}, {dev, N}};
  const Array<uint8_t> masks(dev, (kLayers + 1) * N);
  Frontier f;
  f.layers = kLayers;
  for (int l = 0; l <= kLayers; ++l) f.rows[l] = lists[l].list(), f.mask[l] = masks.p() + l * N;
  dev.ops.frontier(dev.ctx, f, g.view(), g.view(), seed.list());
  const Reached r = reached(g, lists, dev);
  // Masks set to 0 and read once more, lists written, row starts and columns of the rows that are followed, a mark for
  // each edge.
  double frontier = double(N) * (2 * kLayers + 1), forward = 4.0 * d * r.rows[kLayers] * (kLayers + 2), backward = 0,
         flop = 0;
  for (int l = 1; l <= kLayers; ++l) {
    frontier += 20 * r.rows[l] + 5 * r.edges[l] + 4 * r.rows[l - 1];
    forward += spmm_bytes(r.edges[l], r.rows[l]), flop += 2 * r.edges[l] * d;
    // Into rows[l-1] go the same edges the other way; all edges of those rows are looked up in the mask, and G is
    // added.
    backward += 5 * r.edges[l - 1] + r.edges[l] * (4 + 4 * d) + r.rows[l - 1] * (8 + 8 * d);
  }
  const std::string shape = fmt::format("{}, B {}: {} of {} rows reached", name, B, r.rows[0], N);
  b.measure("frontier", shape, frontier, 0, [&] { dev.ops.frontier(dev.ctx, f, g.view(), g.view(), seed.list()); });
  const DeviceMatrix x(dev, N, d);
  Matrix h(dev, N, d), room[kLayers] = {{dev, N, d}, {dev, N, d}};
  Mat work[kMaxLayers] = {room[0], room[1]};
  b.measure("propagate", shape, forward, flop, [&] { dev.ops.propagate(dev.ctx, h, work, g.view(), f, x); });
  b.measure("propagate_backward", shape, backward, flop,
            [&] { dev.ops.propagate_backward(dev.ctx, h, work, g.view(), f, x); });
  // A row more of each layer's own gradient; H's read and Z_L written once more.
  const double by_layer = backward + 4.0 * d * r.rows[kLayers] * (kLayers + 3);
  const CMat own[kLayers + 1] = {x, x, x};
  b.measure("propagate_backward_layers", shape, by_layer, flop,
            [&] { dev.ops.propagate_backward_layers(dev.ctx, h, work, g.view(), f, x, own); });
  std::vector<int32_t> items;
  for (const int32_t node : r.widest)
    if (node >= U) items.push_back(int32_t(node - U));
  const DeviceRows listed(dev, items);
  const OwnedCsr s = item_graph(dev, I);
  const double n = double(listed.n), edges = n * double(s.view().nnz) / double(I);
  const Mat y = h.mat().slice(0, I);
  b.measure("spmm_rows", fmt::format("{}: {} of {} items, {:.0f} edges", name, listed.n, I, edges),
            spmm_bytes(edges, n) + 4 * n, 2 * edges * d,
            [&] { dev.ops.spmm_rows(dev.ctx, y, s.view(), CMat(x).slice(0, I), listed.list(), nullptr, false); });
}

}  // namespace

void sparse(Bench& b) {
  const bool whole = b.wanted({"spmm"}),
             steps =
                 b.wanted({"frontier", "propagate", "propagate_backward", "propagate_backward_layers", "spmm_rows"});
  if (!whole && !steps) return;
  for (const auto& [name, shape] : {std::pair("baby", kBaby), std::pair("elec", kElec)}) {
    const DeviceGraph g(b.dev(), scaled(shape, b.scale()));
    if (whole) whole_graph(b, name, g);
    if (steps) all_rows(b, name, g), step(b, name, DeviceGraph(b.dev(), g.pairs, 0.8), b.n(512));
  }
  if (whole) heavy_row(b);
}

}  // namespace ccdrec::bench
