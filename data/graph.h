// Graphs on the host: built once, uploaded once (spec baselines 1.4, 9.2; ccdrec 2).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "kernels/ctx.h"
#include "kernels/ops.h"

namespace ccdrec {

struct HostCsr {
  int64_t rows = 0, cols = 0;
  std::vector<int64_t> row_ptr{0};
  std::vector<int32_t> col;
  std::vector<float> val;  // empty where only the pattern matters
  int64_t nnz() const { return int64_t(col.size()); }
  Csr view() const { return {rows, cols, row_ptr.data(), col.data(), val.empty() ? nullptr : val.data(), nnz()}; }
};

// pattern, distinct, columns ascending
HostCsr pairs_by_user(const std::vector<Pair>&, int64_t n_users, int64_t n_items);
HostCsr user_item_graph(const HostCsr& train);  // A_sym (N,N): (deg+1e-7)^-1/2 both sides, in double, stored float
// A_rw (N,N): row x has 1/(deg_x + 1) for each neighbour and for x itself; not symmetric, but in its pattern. Without
// self loops M_mean: 1/deg_x for each neighbour.
HostCsr mean_graph(const HostCsr& train, bool self_loops);
HostCsr transpose(const HostCsr&);
std::vector<float> edge_weights(const HostCsr& train);  // w_e = 1/sqrt((deg_u+1e-7)(deg_i+1e-7)) in CSR order

// S = sum_m weight[m] K_m, K_m[i,j] = 1/sqrt((k+1e-7)^2) for the k neighbours j of i; overlapping entries add. knn[m]:
// (I,k) row-major.
HostCsr item_graph(const std::vector<std::vector<int32_t>>& knn, const std::vector<float>& weight, int64_t n_items,
                   int64_t k);

struct KnnResult {
  std::vector<int32_t> idx;  // (I,k)
  int64_t tied_rows = 0;
  bool from_cache = false;
  // why the lists could not be kept on disk; empty when all went well. A damaged or foreign cache file is ignored and
  // replaced
  std::string note;
};
// The kNN lists of one modality through ops.knn_cosine, kept in cache_dir ("" = no cache) under a hash of the features'
// bytes, k, centre and seed.
KnnResult knn_lists(Ctx&, const Ops&, const Feature&, int64_t k, bool centre, uint32_t seed,
                    const std::string& cache_dir);

}  // namespace ccdrec
