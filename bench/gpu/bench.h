// What the families of bench_gpu share: a device that notes what is called, the clock, and inputs of the data's shape.
#pragma once
#include <cmath>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "bench/gpu/ceilings.h"
#include "bench/gpu/noted.h"
#include "bench/kernels/skewed.h"

namespace ccdrec::bench {

class Bench {
 public:
  Bench(double scale, std::string only);
  Device& dev() { return *dev_; }
  GpuClock& clock() { return *clock_; }
  int64_t n(int64_t full) const { return std::max<int64_t>(1, int64_t(std::llround(double(full) * scale()))); }
  double scale() const { return report_.scale; }
  // --only is part of a name of the group: the group is measured, or none of it
  bool wanted(std::initializer_list<std::string> group) const;
  GpuReport& report() { return report_; }
  const GpuCeilings& top() const { return report_.ceilings; }
  void failed(const std::string& what, const std::string& why);

  // Warm: as many calls as last a millisecond, recorded together and replayed within one pair of events, so that
  // neither the host's launches nor the start of a graph is measured; cold: one call, replayed after the cache was
  // overwritten. A call must be fit to be repeated: where an operation moves what it starts from, the call puts that
  // back first (`restore`), and its time is part of the line.
  Line& measure(const std::string& op, const std::string& shape, double bytes, double flop,
                const std::function<void()>& call);

 private:
  std::string only_;
  std::unique_ptr<Device> dev_;
  std::unique_ptr<GpuClock> clock_;
  GpuReport report_;
};

// Families, in the order in which they run: the most telling first. Each looks at `wanted` itself.
void diffusion(Bench&);
void sampling(Bench&);
void sparse(Bench&);
void optimiser(Bench&);
void ranking(Bench&);
void dense(Bench&);
void batch(Bench&);
void item_graphs(Bench&);
void models(Bench&);

constexpr int64_t kWidth = 64;  // d
constexpr Shape kElec{192403, 63001, 1689188};
Shape scaled(Shape s, double by);

Array<float> floats(Device&, int64_t n);  // in [-1, 1)
// n of 0 .. of-1, ascending, distinct where n <= of
std::vector<int32_t> evenly(int64_t n, int64_t of);
// an operation of its own: 8 bytes an entry
void restore(Device&, const Array<int32_t>& to, const Array<int32_t>& from);

struct DeviceMatrix {  // of random floats
  Array<float> a;
  int64_t rows, cols;
  DeviceMatrix(Device& dev, int64_t r, int64_t c) : a(floats(dev, r * c)), rows(r), cols(c) {}
  operator Mat() const { return {a.p(), rows, cols}; }
  operator CMat() const { return {a.p(), rows, cols}; }
};

// A list that lives on the device with its count.
struct DeviceRows {
  Array<int32_t> idx;
  Array<int64_t> count;
  int64_t n;
  DeviceRows(Device& dev, const std::vector<int32_t>& rows)
      : idx(dev, rows), count(dev, std::vector<int64_t>{int64_t(rows.size())}), n(int64_t(rows.size())) {}
  RowList list() const { return {idx.p(), count.p(), n}; }
};

// Pairs as skewed as the data and their symmetric graph, pruned by rho.
struct DeviceGraph {
  SkewedPairs pairs;
  Array<int64_t> train_ptr, ptr;
  Array<int32_t> train_col, col, user, item;
  Array<float> val, weight;
  std::vector<int64_t> host_ptr;
  int64_t N, nnz;
  DeviceGraph(Device& dev, Shape s) : DeviceGraph(dev, skewed_pairs(s), 0) {}
  DeviceGraph(Device& dev, SkewedPairs pairs, double rho);
  Csr view() const { return {N, N, ptr.p(), col.p(), val.p(), nnz}; }
  Csr train() const { return {pairs.shape.U, pairs.shape.I, train_ptr.p(), train_col.p(), nullptr}; }
  EdgeList edges() const {
    return {user.p(), item.p(), weight.p(), int64_t(pairs.user.size()), pairs.shape.U, pairs.shape.I};
  }
};

// Coefficients of 64 steps.
struct DeviceSteps {
  Array<AdamCoef> coef;
  explicit DeviceSteps(Device&);
  AdamSchedule schedule() const { return {coef.p(), coef.n(), {}}; }
};

// A table whose rows are stepped on demand, and what to put back before a call that moves them: steps reached by values
// and by moments.
struct DeviceTable {
  DeviceMatrix value, m;
  Matrix v;
  Array<int32_t> value_at, moments_at, value_from, moments_from;
  DeviceTable(Device&, int64_t rows, int64_t cols, int32_t value_step = 0, int32_t moments_step = 0);
  Table table() const { return {value, m, v, value_at.p(), moments_at.p()}; }
  void restore_values(Device& dev) const { restore(dev, value_at, value_from); }
  void restore_both(Device& dev) const { restore_values(dev), restore(dev, moments_at, moments_from); }
};

}  // namespace ccdrec::bench
