// Dense products: the library's in the shapes of a step, and the modality maps forward and backward, their features
// trained or not.
#include <fmt/format.h>

#include "bench/gpu/bench.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = kWidth;

// op(A) (m,k), op(B) (k,n).
void product(Bench& b, const std::string& what, int64_t m, int64_t k, int64_t n, bool trans_a) {
  Device& dev = b.dev();
  const DeviceMatrix x(dev, trans_a ? k : m, trans_a ? m : k), w(dev, k, n);
  Matrix y(dev, m, n);
  b.measure("gemm", fmt::format("{}: {} x {} x {}", what, m, k, n),
            4.0 * (double(m) * double(k) + double(k) * double(n) + double(m) * double(n)),
            2.0 * double(m) * double(k) * double(n), [&] { dev.ops.gemm(dev.ctx, y, x, trans_a, w, false, false); });
}

void maps(Bench& b, int64_t features) {
  Device& dev = b.dev();
  const int64_t I = b.n(7050), n = b.n(1300), F = b.n(features);
  const DeviceMatrix x(dev, I, F), w(dev, F, d), bias(dev, 1, d), dy(dev, n, d);
  Matrix y(dev, n, d), dw(dev, F, d), db(dev, 1, d), dx(dev, n, F);
  const DeviceRows listed(dev, evenly(n, I));
  const RowList rows = listed.list();
  const double read = double(n) * double(F), weights = double(F) * d, out = double(n) * d;
  b.measure("project", fmt::format("{} rows of {}", n, F), 4 * (read + weights + out), 2 * read * d,
            [&] { dev.ops.project(dev.ctx, y, x, rows, w, bias); });
  b.measure("project_backward", fmt::format("{} rows of {}, features trained", n, F),
            4 * (2 * read + 2 * weights + out), 4 * read * d,
            [&] { dev.ops.project_backward(dev.ctx, dw, db, dx, dy, x, rows, w); });
}

// Trained features as a step of CCDRec on Baby meets them: the distinct items of 512 pairs, 13 % of all, each last read
// about seven steps ago.
void trained_maps(Bench& b) {
  Device& dev = b.dev();
  const int64_t I = b.n(7050), n = b.n(900), F = b.n(4096);
  const DeviceSteps steps(dev);
  const AdamSchedule s = steps.schedule();
  const DeviceMatrix w(dev, F, d), bias(dev, 1, d), dy(dev, n, d);
  Matrix y(dev, n, d), dw(dev, F, d), db(dev, 1, d);
  const DeviceRows listed(dev, evenly(n, I));
  const RowList rows = listed.list();
  const double elements = double(n) * double(F), weights = double(F) * d, out = double(n) * d;
  const DeviceTable behind(dev, I, F), read(dev, I, F, 7, 0);  // for the second, what the first one leaves
  b.measure("catch_up_project", fmt::format("{} rows of {}, 7 steps owed, put back", n, F),
            16 * elements + 4 * (weights + out) + 8.0 * double(I), 2 * elements * d, [&] {
              behind.restore_values(dev), dev.ops.catch_up_project(dev.ctx, y, behind.table(), rows, w, bias, s, 7);
            });
  // X read; both moments read and written; dW read and written. The values wait: that few rows do not move at once
  // (adam.h).
  b.measure("project_backward_step", fmt::format("{} rows of {}, 7 steps missed, put back", n, F),
            20 * elements + 4 * (3 * weights + out) + 16.0 * double(I), 4 * elements * d, [&] {
              read.restore_both(dev), dev.ops.project_backward_step(dev.ctx, dw, db, dy, read.table(), rows, w, s, 8);
            });
}

}  // namespace

void dense(Bench& b) {
  if (b.wanted({"gemm"})) {
    product(b, "tokens times G", b.n(4 * 1300), d, d, false);
    product(b, "dG of tokens", d, b.n(4 * 1300), d, true);
    product(b, "a map", b.n(900), b.n(4096), d, false);
    product(b, "dW of a map", b.n(4096), b.n(900), d, true);
  }
  if (b.wanted({"project", "project_backward"}))
    for (const int64_t F : {int64_t(384), int64_t(4096)}) maps(b, F);
  if (b.wanted({"catch_up_project", "project_backward_step"})) trained_maps(b);
}

}  // namespace ccdrec::bench
