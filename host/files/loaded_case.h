// A model whose batch, graphs, parameters and moments are those of a case, ready for its step or its reverse process.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "host/files/case_file.h"
#include "host/systems/registry.h"
#include "host/training/recommender.h"

namespace ccdrec {

enum class Of { step, reverse };

struct LoadedCase {
  const CaseFile& c;
  const std::vector<std::string> named;  // modalities of the case
  std::vector<std::string> modalities;   // those that the model reads: all or none
  const int64_t t;
  int64_t U = 1, I = 0, d = 0;
  Settings s;
  Dataset data;  // its training rows are the batch; of the reverse process: every item
  std::unique_ptr<Device> dev;
  std::unique_ptr<Recommender> model;

  LoadedCase(const CaseFile&, const std::string& device, int threads, Of);

 private:
  void load_data(const Outline&, Of what);
  void load(const Window&);
};

}  // namespace ccdrec
