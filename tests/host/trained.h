// What the tests of training share.
#pragma once
#include <gtest/gtest.h>

#include <functional>
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

// Hard negatives and Mirror Gradient, which has batches 0, 2, 4, .. twice; RealHNS begins in epoch 2.
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
     [](Settings& s) { s.dropout = 0.3, s.dtau = 1, s.tau_end = 2, s.timesteps = 6, s.use_mg = true, s.beta = 2; }},
    {"MG(FREEDOM)+RealHNS", [](Settings& s) {
       s.model = "FREEDOM", s.reg_weight = 1e-2, s.dropout = 0.3, s.use_mg = true, s.beta = 2, s.omega = 0.5;
       s.sampler = "realhns", s.realhns_start = 2, s.realhns_p_max = 80, s.realhns_candidates = 17;
       s.realhns_clusters = 6, s.realhns_top = 0.3;
     }}};

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
    {"CCDRec on LATTICE",
     [](Settings& s) {
       s.backbone = "LATTICE", s.reg_weight = 1e-3, s.lambda_coeff = 0.5, s.dtau = 1, s.tau_end = 2, s.timesteps = 6;
     }},
    {"LATTICE+RealHNS", [](Settings& s) {
       s.model = "LATTICE", s.reg_weight = 1e-3, s.lambda_coeff = 0.5, s.omega = 0.5;
       s.sampler = "realhns", s.realhns_start = 0, s.realhns_p_max = 80, s.realhns_candidates = 17;
       s.realhns_clusters = 6, s.realhns_top = 0.3;
     }}};

// CCDRec on the graph of MCDRec: with all modules, guided by Q alone, and with the weights counted directly.
inline constexpr Named denoised_models[] = {
    {"CCDRec(MCDRec)",
     [](Settings& s) { s.backbone = "MCDRec", s.dropout = 0.3, s.dtau = 1, s.tau_end = 3, s.timesteps = 6; }},
    {"CCDRec(MCDRec) without modules",
     [](Settings& s) { s.backbone = "MCDRec", s.dropout = 0.3, s.dma = s.ndi = s.cns = false; }},
    {"DMA(MCDRec), direct, Transformer", [](Settings& s) {
       s.backbone = "MCDRec", s.dropout = 0.3, s.ndi = s.cns = false, s.dgd = "direct", s.dgd_tau = -0.8;
       s.estimator = "transformer", s.timesteps = 6;
     }}};

// No negatives, all rows in every step; masks of each pass.
inline constexpr Named bm3_models[] = {
    {"BM3",
     [](Settings& s) {
       s.model = "BM3", s.n_neg = s.negative_stats = 0, s.n_ui_layers = 1, s.reg_weight = 0.1, s.dropout = 0.5;
     }},
    {"MG(BM3), two layers", [](Settings& s) {
       s.model = "BM3", s.n_neg = s.negative_stats = 0, s.n_ui_layers = 2, s.reg_weight = 0.1, s.dropout = 0.3;
       s.use_mg = true, s.beta = 2;
     }}};

// A model of its own kind: without negatives, P and Q in the arena.
inline constexpr Named slmrec_models[] = {{"SLMRec",
                                           [](Settings& s) {
                                             s.model = "SLMRec", s.n_neg = s.negative_stats = 0, s.n_ui_layers = 3;
                                             s.ssl_alpha = 0.3, s.weight_decay = 1e-3;
                                           }},
                                          {"MG(SLMRec)", [](Settings& s) {
                                             s.model = "SLMRec", s.n_neg = s.negative_stats = 0, s.use_mg = true,
                                             s.beta = 2;
                                             s.ssl_alpha = 0.3, s.weight_decay = 1e-3;
                                           }}};

// MCDRec: its diffusion over all items, by attention and by the U-Net, which has a width of its own; and without it.
inline constexpr Named mcdrec_models[] = {
    {"MCDRec, attention",
     [](Settings& s) {
       s.model = "MCDRec", s.estimator = "attention", s.reg_weight = 1e-2, s.dropout = 0.3, s.timesteps = 6;
     }},
    {"MG(MCDRec)+DNS",
     [](Settings& s) {
       s.model = "MCDRec", s.estimator = "unet", s.embedding_size = 64, s.dropout = 0.3, s.timesteps = 4;
       s.use_mg = true, s.beta = 2, s.sampler = "dns", s.n_candidates = 8, s.omega = 0.5;
     }},
    {"CCDRec(MCDRec) with the U-Net",
     [](Settings& s) {
       s.backbone = "MCDRec", s.estimator = "unet", s.embedding_size = 64, s.dropout = 0.3, s.timesteps = 4;
       s.dtau = 1, s.tau_end = 2;
     }},
    {"MCDRec without its diffusion", [](Settings& s) { s.model = "MCDRec", s.mrd = false, s.dropout = 0.3; }}};
// Graph networks of each modality, whose steps compute every node.
inline constexpr Named mmgcn_models[] = {
    {"MMGCN", [](Settings& s) { s.model = "MMGCN", s.reg_weight = 0.1; }},
    {"MG(MMGCN), two negatives", [](Settings& s) { s.model = "MMGCN", s.n_neg = 2, s.use_mg = true, s.beta = 2; }}};

// A state with something else in it.
inline void edit_state(const std::string& from, const std::string& to, const std::function<void(TensorFile&)>& edit) {
  TensorFile file = read_safetensors(from);
  edit(file);
  std::vector<TensorView> views;
  for (const auto& [name, tensor] : file.tensors)
    views.push_back({name, tensor.dtype, tensor.shape, tensor.bytes.data()});
  write_safetensors(to, views, file.metadata);
}

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
