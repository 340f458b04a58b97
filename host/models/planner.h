// What a model of its own kind will take of its device, by formula and before anything is built: its `plan` adds up
// what its constructor takes and what its operations ask for. tests/host/plan_test.cpp holds the sums to what is taken.
#pragma once
#include "data/dataset.h"
#include "host/base/settings.h"
#include "kernels/ops.h"

namespace ccdrec {

struct Planner {
  const Settings& s;
  const Dataset& data;
  const Ops& ops;
  ScratchPlan& scratch;  // filled by the operations' *_scratch
  bool on_gpu;
  int64_t U, I, N, d, E, B;  // as in types.h; B: most rows of a step

  int64_t dense = 0;       // values of the parameters in the arena: each has gradient and moments
  int64_t features = 0;    // floats of raw features, with their moments where they are trained
  int64_t propagated = 0;  // floats of arrays with a row a node
  int64_t items = 0;       // floats of arrays with a row an item
  int64_t graphs = 0;      // bytes of graphs and lists of rows
  int64_t step = 0;        // floats of a step's slots

  static int64_t csr(int64_t rows, int64_t nnz) { return 8 * (rows + 1) + 8 * nnz; }  // bytes

  // What operations ask for. gemm of (m,k) with (k,n), either of them the right one's transpose:
  void product(int64_t m, int64_t n, int64_t k) const { ops.project_scratch(scratch, m, k, n, false); }
  // of the transpose of what is stored as (k,m); a GPU's library asks for nothing
  void product_transposed(int64_t m, int64_t n, int64_t k) const {
    if (!on_gpu) ops.project_backward_scratch(scratch, k, m, n, false);
  }
  // project and its way back, of all rows; a GPU gathers none of them
  void project_all(int64_t rows, int64_t F, int64_t width) const {
    ops.project_scratch(scratch, rows, F, width, false);
    ops.project_backward_scratch(scratch, rows, on_gpu ? 0 : F, width, false);
  }
  // spmm of so many rows, by the setting's library
  void whole_graph(int64_t rows, int64_t nnz, int64_t width) const {
    const SpmmBy by = s.spmm == "auto"       ? spmm_rule(nnz, rows, width)
                      : s.spmm == "cusparse" ? SpmmBy::cusparse
                                             : SpmmBy::own;
    ops.spmm_scratch(scratch, rows, nnz, by == SpmmBy::cusparse);
  }
};

}  // namespace ccdrec
