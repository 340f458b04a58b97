// Every setting of a run, with MMRec's key names where MMRec has the key. config.cpp maps keys to these fields;
// defaults are the published settings (spec ccdrec 6, baselines 2-4, 9).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace ccdrec {

struct Settings {
  // what is run
  std::string model = "CCDRec";
  std::string backbone = "FREEDOM";  // of CCDRec
  std::string data_path;             // the data folder
  std::string dataset;               // name of the .inter file; "" = the folder's name
  uint32_t seed = 999;
  std::string device = "auto";     // auto | cpu | cuda
  std::string precision = "fp32";  // of a GPU's large products: fp32 | tf32 | bf16
  std::string spmm = "auto";       // a GPU's sparse products of whole graphs: auto | own | cusparse
  int threads = 0;                 // 0 = all cores
  std::string run_dir;             // "" = runs/<model>-<set>-<seed>-<time>

  // data
  std::string inter_file_name;  // "" = as `dataset` says
  std::string user_id_field = "userID", item_id_field = "itemID", inter_splitting_label = "x_label";
  std::vector<std::string> modalities;  // empty = every *_feat.npy found

  // training
  int embedding_size = 64;
  double learning_rate = 1e-3;
  // gamma, epochs: the rate of epoch e is learning_rate gamma^(e / epochs)
  std::vector<double> learning_rate_scheduler = {1.0, 50.0};
  int train_batch_size = 2048;
  int epochs = 1000;
  int stopping_step = 20;
  int n_neg = 1;  // random negatives per row; 0 with a model that learns from none
  // Mirror Gradient (spec baselines 10): every beta-th batch is stepped twice, with alpha1 and -alpha2 times the
  // gradient.
  bool use_mg = false;
  double alpha1 = 1.0, alpha2 = 0.2;
  int beta = 3;
  double reg_weight = 0.0;     // of a regulariser or a term that the model decides
  double weight_decay = 0.0;   // SLMRec: added to every gradient, times the parameter
  bool train_features = true;  // raw features are parameters (as published)
  int eval_step = 1;           // evaluate every n epochs; a run that ends before the first time is evaluated at its end
  std::vector<int> topk = {5, 10, 20, 50};
  std::string valid_metric = "Recall@20";
  double mem_limit_gb = 0;  // 0 = what the machine has

  // hard negatives (spec negative_sampling); `omega` below weighs them
  std::string sampler = "none";    // none | popularity | dns | mixgcf | realhns
  int n_candidates = 32;           // N of dns and mixgcf
  int top_m = 1;                   // dns: one of so many best
  double popularity_power = 0.75;  // popularity: P(j) ~ f_j^power
  // RealHNS: the band of a user's ranking in per cent of the items, N candidates of it, clusters whose cohesion bounds
  // the likeness to the positive, e0, and T / N
  double realhns_p_min = 0, realhns_p_max = 10;
  int realhns_candidates = 1000, realhns_clusters = 100, realhns_start = 5;
  double realhns_top = 0.1;
  int negative_stats = 1024;  // rows an epoch whose negatives are measured; 0: none

  // graphs
  int n_ui_layers = 2;  // LightGCN: also n_layers
  int n_mm_layers = 1;
  int knn_k = 10;
  bool knn_center = false;         // subtract column means before cosine
  double mm_image_weight = 0.1;    // a of S = a S_first + (1-a) S_second
  std::vector<double> mm_weights;  // one per modality, overrides mm_image_weight; must sum to 1
  double lambda_coeff = 0.9;       // LATTICE: share of the frozen graph
  double dropout = 0.8;            // rho: share of edges pruned per epoch
  std::string dgd = "on";          // MCDRec: edges weighed before: off (as FREEDOM) | on | direct
  double dgd_tau = 0.3;            // tau of a = 1 + tau cos
  std::string graph_cache;         // folder for kNN lists; "" = none

  // BM3: weight of the modalities' terms; `dropout` above is the share of a target's values that is masked
  double cl_weight = 2.0;
  // SLMRec: temperatures of the main and of the aligning contrasts, weight of the latter
  double temp = 0.2, ssl_temp = 0.1, ssl_alpha = 0.01;
  int mmgcn_latent = 256;  // MMGCN: width that a modality of more than 1,024 columns is mapped to first

  // MCDRec
  bool mrd = true;            // the diffusion module
  double unet_dropout = 0.1;  // of its U-Net

  // CCDRec
  bool dma = true, ndi = true, cns = true;  // the three modules
  double lambda = 1.0;                      // weight of L_dm                    (key: lambda_dm)
  double omega = 0.8;                       // weight of the hard BPR against the random one
  int timesteps = 20;                       // T
  std::string noise_schedule = "linear";    // linear | cosine | exponential | sqrt
  bool noise_prediction_form = false;       // the paper's Eq. 3 read literally
  bool mirrored_timesteps = true;
  double mu = 0.5;  // weight of the diffused row in fusion
  int dtau = 5;     // epochs per curriculum stage
  // length of the first stage; 0 = dtau (counted from epoch 0, which draws at random; the released Sports run: 6 with
  // dtau 10)
  int first_stage = 0;
  int tau_end = 30;              // after this epoch the pool is the model's own h_i
  double candidate_ratio = 0.1;  // C = max(1, floor(ratio I))
  double kappa = 0.1;            // k = max(1, floor(kappa C))
  bool cns_cosine = false;
  std::string ndi_negative = "pool";  // DMA+NDI without CNS: pool (the row stands for h_c) | index
  // attention (reference) | transformer (full pre-norm encoder) | unet (MCDRec's)
  std::string estimator = "attention";
  int estimator_layers = 1, estimator_heads = 4;  // of the transformer

  // checkpoints
  bool save_best = true, save_last = true;
  int save_every = 10;  // last.safetensors every n epochs; 0 = only at the end and when interrupted
};

}  // namespace ccdrec
