// Where a model's graphs, and what else of its form the data decide, come from: made from the data as here, or read
// from a case (host/files/loaded_case.h). A model asks when it is built.
#pragma once
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/graph.h"
#include "host/base/device.h"
#include "host/base/settings.h"

namespace ccdrec {

struct NeighbourLists {  // (I,k) each
  std::vector<int32_t> idx;
  std::vector<float> val;
};

class GraphSource {
 public:
  explicit GraphSource(const Dataset& data) : train(pairs_by_user(data.train, data.n_users, data.n_items)) {}
  virtual ~GraphSource() = default;
  virtual HostCsr user_item() = 0;                      // (N,N), symmetric
  virtual HostCsr user_item_mean(bool self_loops) = 0;  // (N,N): mean_graph (data/graph.h)
  virtual HostCsr items() = 0;                          // S (I,I)
  // MMGCN: what a modality is mapped to before all else; 0: it keeps the width of its features
  virtual int64_t latent_width(size_t modality) = 0;
  // O_m of LATTICE, from the raw features of a modality (spec baselines 8.2)
  virtual NeighbourLists frozen(size_t modality) = 0;
  const HostCsr train;  // (U,I) pattern
};

class GraphsOfData : public GraphSource {
 public:
  GraphsOfData(Device&, const Settings&, const Dataset&, std::vector<std::string>& notes);
  HostCsr user_item() override;
  HostCsr user_item_mean(bool self_loops) override;
  int64_t latent_width(size_t modality) override;
  HostCsr items() override;  // S = sum_m weight[m] K_m of the k nearest neighbours in each modality
  // The cosines of the k nearest neighbours, c_i their sum: lap(K)_ij = K_ij / sqrt(c_i c_j), 0 where either is not > 0
  NeighbourLists frozen(size_t modality) override;

 private:
  std::vector<int32_t> neighbours(const Feature&, bool centre);
  Device& dev_;
  const Settings& s_;
  const Dataset& data_;
  std::vector<std::string>& notes_;
};

// MMGCN's rule in training (GraphSource): mmgcn_latent for features wider than 1,024, 0 for others.
int64_t latent_width(const Settings&, int64_t F);

// The weight of each modality in S. UserError: mm_weights does not fit their number.
std::vector<float> modality_weights(const Settings&, size_t count);

}  // namespace ccdrec
