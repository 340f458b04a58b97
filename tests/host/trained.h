// What the tests of training share.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "host/base/safetensors.h"
#include "host/training/trainer.h"
#include "tests/temp_folder.h"

namespace ccdrec::test {

struct Named {  // a setting of the models that a test goes through
  const char* name;
  void (*set)(Settings&);
};

// Hard negatives and Mirror Gradient, which has batches 0, 2, 4, .. twice.
inline constexpr Named hard_models[] = {
    {"BPR+popularity",
     [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01, s.sampler = "popularity", s.omega = 0.5; }},
    {"MG(LightGCN)+DNS",
     [](Settings& s) {
       s.model = "LightGCN", s.reg_weight = 1e-3, s.use_mg = true, s.beta = 2;
       s.sampler = "dns", s.n_candidates = 8, s.top_m = 2, s.omega = 0.5;
     }},
    {"MG(FREEDOM)+MixGCF",
     [](Settings& s) {
       s.model = "FREEDOM", s.reg_weight = 1e-2, s.dropout = 0.3, s.use_mg = true, s.beta = 2;
       s.sampler = "mixgcf", s.n_candidates = 8, s.omega = 0.5;
     }},
    {"MG(CCDRec)",
     [](Settings& s) { s.dropout = 0.3, s.dtau = 1, s.tau_end = 2, s.timesteps = 6, s.use_mg = true, s.beta = 2; }}};

// Item graphs that are made of the parameters once an epoch.
inline constexpr Named lattice_models[] = {
    {"LATTICE",
     [](Settings& s) {
       s.model = "LATTICE", s.reg_weight = 1e-3, s.lambda_coeff = 0.5, s.n_mm_layers = 2;
       s.learning_rate_scheduler = {0.9, 2.0};
     }},
    {"MG(LATTICE)+MixGCF",
     [](Settings& s) {
       s.model = "LATTICE", s.reg_weight = 1e-3, s.lambda_coeff = 0.5, s.use_mg = true, s.beta = 2;
       s.sampler = "mixgcf", s.n_candidates = 8, s.omega = 0.5;
     }},
    {"CCDRec on LATTICE", [](Settings& s) {
       s.backbone = "LATTICE", s.reg_weight = 1e-3, s.lambda_coeff = 0.5, s.dtau = 1, s.tau_end = 2, s.timesteps = 6;
     }}};

// All that a state holds, tensor by tensor.
inline std::vector<unsigned char> state_bytes(Trainer& t, const Folder& dir) {
  t.save_state(dir / "state.safetensors");
  std::vector<unsigned char> all;
  for (const auto& [name, tensor] : read_safetensors(dir / "state.safetensors").tensors)
    all.insert(all.end(), tensor.bytes.begin(), tensor.bytes.end());
  EXPECT_GT(all.size(), 1000u);
  return all;
}

}  // namespace ccdrec::test
