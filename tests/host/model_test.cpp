// Every model against a double-precision reference: the loss, and every gradient by finite differences; and the
// published golden numbers.
#include <gtest/gtest.h>

#include <numeric>

#include "data/graph.h"
#include "host/ccdrec/cns.h"
#include "host/training/trainer.h"
#include "kernels/hard.h"
#include "tests/host/model_reference.h"
#include "tests/host/tiny_data.h"

namespace ccdrec::test {
namespace {

struct Case {
  std::string name;
  void (*set)(Settings&);
  std::vector<int64_t> widths = {6, 3};
  bool curricular = false;
  bool on_emulator = false;  // too
  bool later = false;        // not the first batch of an epoch: LATTICE's graph is a constant
};

const Case cases[] = {
    {"BPR", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.1; }, {}, false},
    {"BPR two negatives", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.3, s.n_neg = 2; }, {}, false},
    {"LightGCN", [](Settings& s) { s.model = "LightGCN", s.reg_weight = 0.1; }, {}, false},
    {"LightGCN three layers, no regulariser", [](Settings& s) { s.model = "LightGCN", s.n_ui_layers = 3; }, {}, false},
    {"FREEDOM", [](Settings& s) { s.model = "FREEDOM"; }, {6, 3}, false},
    {"FREEDOM with modality terms", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 0.4; }, {6, 3}, false},
    {"FREEDOM pruned, two item layers, two negatives, three modalities",
     [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 0.4, s.dropout = 0.4, s.n_mm_layers = 2, s.n_neg = 2; },
     {6, 3, 4},
     false},
    {"CCDRec first epoch", [](Settings&) {}, {6, 3}, false},
    {"CCDRec", [](Settings&) {}, {6, 3}, true},
    {"CCDRec pruned, one modality", [](Settings& s) { s.dropout = 0.5; }, {5}, true},
    {"CCDRec three modalities, T = 1", [](Settings& s) { s.timesteps = 1; }, {6, 3, 4}, true},
    {"CCDRec two item layers, modality terms, T = 5",
     [](Settings& s) { s.timesteps = 5, s.n_mm_layers = 2, s.reg_weight = 0.3; },
     {6, 3},
     true},
    {"CCDRec features frozen", [](Settings& s) { s.train_features = false; }, {6, 3}, true},
    {"CCDRec two negatives", [](Settings& s) { s.n_neg = 2; }, {6, 3}, true},
    {"DMA alone", [](Settings& s) { s.ndi = s.cns = false, s.n_neg = 2; }, {6, 3}, false},
    {"DMA and NDI, pool rows as constants", [](Settings& s) { s.cns = false; }, {6, 3}, true},
    {"DMA and NDI, index only", [](Settings& s) { s.cns = false, s.ndi_negative = "index"; }, {6, 3}, true},
    {"NDI and CNS without DMA", [](Settings& s) { s.dma = false; }, {6, 3}, true},
    {"CNS alone", [](Settings& s) { s.dma = s.ndi = false; }, {6, 3}, true},
    {"CCDRec with a Transformer encoder",
     [](Settings& s) { s.estimator = "transformer", s.estimator_heads = 2; },
     {6, 3},
     true},
    {"CCDRec with two encoder layers",
     [](Settings& s) { s.estimator = "transformer", s.estimator_layers = 2, s.estimator_heads = 1; },
     {5},
     true},
    {"CCDRec on LightGCN", [](Settings& s) { s.backbone = "LightGCN"; }, {6, 3}, true},
    {"CCDRec on BPR-MF", [](Settings& s) { s.backbone = "BPR"; }, {6, 3}, true},
    {"BPR + DNS", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.1, s.sampler = "dns"; }, {}, false, true},
    {"BPR + MixGCF", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.1, s.sampler = "mixgcf"; }, {}, false, true},
    {"LightGCN + DNS, two negatives",
     [](Settings& s) { s.model = "LightGCN", s.reg_weight = 0.1, s.n_neg = 2, s.sampler = "dns"; },
     {},
     false,
     true},
    {"LightGCN + MixGCF, three layers",
     [](Settings& s) { s.model = "LightGCN", s.n_ui_layers = 3, s.sampler = "mixgcf"; },
     {},
     false,
     true},
    {"FREEDOM + MixGCF, two item layers, modality terms",
     [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 0.4, s.n_mm_layers = 2, s.sampler = "mixgcf"; },
     {6, 3},
     false,
     true},
    {"FREEDOM + MixGCF, pruned, the mixture alone",
     [](Settings& s) { s.model = "FREEDOM", s.dropout = 0.4, s.omega = 1, s.sampler = "mixgcf"; },
     {6, 3}},
    {"FREEDOM + popularity",
     [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 0.4, s.sampler = "popularity"; },
     {6, 3},
     false,
     true},
    {"FREEDOM + RealHNS",
     [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 0.4, s.sampler = "realhns", s.realhns_p_max = 60; },
     {6, 3},
     false,
     true},
    {"DMA + DNS", [](Settings& s) { s.ndi = s.cns = false, s.sampler = "dns"; }, {6, 3}, false, true},
    {"DMA on BPR-MF + MixGCF",
     [](Settings& s) { s.ndi = s.cns = false, s.backbone = "BPR", s.sampler = "mixgcf"; },
     {6, 3},
     false,
     true},
    {"DMA + MixGCF, two item layers",
     [](Settings& s) { s.ndi = s.cns = false, s.n_mm_layers = 2, s.reg_weight = 0.3, s.sampler = "mixgcf"; },
     {6, 3}},
    {"LightGCN + MixGCF without layers",
     [](Settings& s) { s.model = "LightGCN", s.n_ui_layers = 0, s.sampler = "mixgcf"; },
     {}},
    {"FREEDOM + MixGCF without layers",
     [](Settings& s) { s.model = "FREEDOM", s.n_ui_layers = 0, s.sampler = "mixgcf"; },
     {6, 3}},
    {"LATTICE, the first batch of an epoch",
     [](Settings& s) { s.model = "LATTICE", s.reg_weight = 0.3, s.lambda_coeff = 0.4; },
     {6, 3},
     false,
     true},
    {"LATTICE, a later batch",
     [](Settings& s) { s.model = "LATTICE", s.reg_weight = 0.3, s.lambda_coeff = 0.4; },
     {6, 3},
     false,
     true,
     true},
    {"LATTICE, a smaller batch than configured",
     [](Settings& s) { s.model = "LATTICE", s.reg_weight = 0.3, s.train_batch_size = 10; },
     {6, 3}},
    {"LATTICE, one modality", [](Settings& s) { s.model = "LATTICE", s.lambda_coeff = 0.3; }, {5}},
    {"LATTICE, three modalities, two item layers, two negatives",
     [](Settings& s) { s.model = "LATTICE", s.reg_weight = 0.2, s.lambda_coeff = 0.2, s.n_mm_layers = 2, s.n_neg = 2; },
     {6, 3, 4},
     false,
     true},
    {"LATTICE, features frozen, three item layers",
     [](Settings& s) { s.model = "LATTICE", s.train_features = false, s.lambda_coeff = 0.5, s.n_mm_layers = 3; },
     {6, 3}},
    {"LATTICE, learned lists alone", [](Settings& s) { s.model = "LATTICE", s.lambda_coeff = 0; }, {6, 3}},
    {"LATTICE without user-item layers", [](Settings& s) { s.model = "LATTICE", s.n_ui_layers = 0; }, {6, 3}},
    {"LATTICE + DNS", [](Settings& s) { s.model = "LATTICE", s.reg_weight = 0.2, s.sampler = "dns"; }, {6, 3}},
    {"LATTICE + MixGCF, two item layers",
     [](Settings& s) { s.model = "LATTICE", s.reg_weight = 0.2, s.n_mm_layers = 2, s.sampler = "mixgcf"; },
     {6, 3},
     false,
     true},
    {"CCDRec on LATTICE, first batch",
     [](Settings& s) { s.backbone = "LATTICE", s.reg_weight = 0.2, s.lambda_coeff = 0.4; },
     {6, 3},
     true,
     true},
    {"CCDRec on LATTICE, later batch, two item layers",
     [](Settings& s) { s.backbone = "LATTICE", s.reg_weight = 0.2, s.lambda_coeff = 0.4, s.n_mm_layers = 2; },
     {6, 3, 4},
     true,
     true,
     true},
    {"CCDRec on LATTICE, features frozen",
     [](Settings& s) { s.backbone = "LATTICE", s.lambda_coeff = 0.4, s.train_features = false; },
     {6, 3},
     true},
    {"DMA on LATTICE + MixGCF, two item layers",
     [](Settings& s) {
       s.ndi = s.cns = false, s.backbone = "LATTICE", s.n_mm_layers = 2, s.lambda_coeff = 0.5, s.sampler = "mixgcf";
     },
     {6, 3}},
    {"CNS alone on LATTICE",
     [](Settings& s) { s.dma = s.ndi = false, s.backbone = "LATTICE", s.lambda_coeff = 0.4; },
     {6, 3},
     true},
    {"MCDRec", [](Settings& s) { s.model = "MCDRec", s.estimator = "attention"; }, {6, 3}, false, true},
    {"MCDRec, two item layers, modality terms, two negatives",
     [](Settings& s) {
       s.model = "MCDRec", s.estimator = "attention", s.n_mm_layers = 2, s.reg_weight = 0.3, s.n_neg = 2;
     },
     {6, 3, 4},
     false,
     true},
    {"MCDRec, features frozen, without user-item layers",
     [](Settings& s) { s.model = "MCDRec", s.estimator = "attention", s.train_features = false, s.n_ui_layers = 0; },
     {5}},
    {"MCDRec with a Transformer encoder + MixGCF",
     [](Settings& s) { s.model = "MCDRec", s.estimator = "transformer", s.estimator_heads = 2, s.sampler = "mixgcf"; },
     {6, 3}},
    {"MCDRec without its diffusion + DNS",
     [](Settings& s) { s.model = "MCDRec", s.mrd = false, s.reg_weight = 0.2, s.sampler = "dns"; },
     {6, 3}},
    {"omega 0 leaves no hard negative", [](Settings& s) { s.model = "LightGCN", s.omega = 0, s.sampler = "dns"; }, {}},
};

// The emulated GPU's memory is the host's: the reference reads graphs from it.
std::vector<const char*> devices_of(const Case& c) {
  if (c.on_emulator && gpu_info().emulated) return {"cpu", "cuda"};
  return {"cpu"};
}

// Gradients of a float32 model against central differences in double: rounding of both is far below 2e-5 of the
// tensor's largest gradient.
void expect_gradient(const std::string& what, const Dense& want, const std::vector<float>& got) {
  ASSERT_EQ(want.v.size(), got.size()) << what;
  double top = 0;
  for (const double x : want.v) top = std::max(top, std::fabs(x));
  for (size_t k = 0; k < got.size(); ++k)
    ASSERT_TRUE(std::fabs(got[k] - want.v[k]) <= 2e-5 * top + 2e-8)
        << what << "[" << k << "]: got " << got[k] << ", want " << want.v[k] << ", largest " << top;
}

std::vector<int32_t> distinct_items(const RefBatch& batch) {
  std::vector<int32_t> D(batch.p);
  D.insert(D.end(), batch.r.begin(), batch.r.end());
  std::sort(D.begin(), D.end());
  D.erase(std::unique(D.begin(), D.end()), D.end());
  return D;
}

// Given as a case gives it: a sampler's items, and for a mixture items and weights of every layer.
void give_hard(RefBatch& batch, Arrays& given, const Outline& o) {
  const size_t B = batch.u.size();
  if (!o.mixes) {
    batch.c = {3, 3, 10, 8, 5, 0};
    given.ids["hard.items"] = batch.c;
    return;
  }
  std::vector<float> alpha;
  for (size_t k = 0; k < size_t(o.layers + 1) * B; ++k)
    batch.mixed.push_back(int32_t((3 + 5 * k + k / B) % 11)),
        alpha.push_back(k == 1 ? 0.0f : float(std::fmod(0.37 * double(k) + 0.11, 1.0)));
  batch.mixed[2] = batch.p[2];  // an item may be positive and chosen at once
  batch.alpha.assign(alpha.begin(), alpha.end());
  given.ids["hard.items"] = batch.mixed, given.reals["hard.alpha"] = alpha;
}

// LATTICE's lists as a case gives them, and its graph where it is a constant, as another step's would be.
void give_lists(ccdrec::Device& dev, Recommender& model, bool later, Arrays& given, RefModel& ref) {
  Watch shown(dev);
  model.model().graphs(shown);
  for (const Shown& a : shown.all) {
    if (a.name.starts_with("graph.learned.") && !a.indices.empty()) given.ids[a.name] = a.indices;
    if (!later) continue;
    if (a.name.starts_with("graph.learned.") && !a.floats.empty()) given.reals[a.name] = a.floats;
    if (a.name == "graph.modal_weight") given.reals[a.name] = a.floats;
  }
  if (!later) return;
  ref.latent.constant = ref.latent.graph(ref.projections(), ref.s.lambda_coeff);
  ref.latent.theta.v[0] += 1;  // and moved since
}

void expect_reference(const Case& c, const char* device) {
  SCOPED_TRACE(c.name + " on " + device);
  const int32_t U = 7, I = 11;
  const Folder dir;
  const Dataset data = random_data(dir, U, I, 3, c.widths);
  Settings s;
  s.embedding_size = 4, s.train_batch_size = 6, s.epochs = 2, s.knn_k = 3, s.dropout = 0, s.seed = 3, s.threads = 2;
  s.lambda = 0.7, s.mu = 0.4, s.omega = 0.6, s.device = device;
  c.set(s);
  Trainer trainer(s, data);
  Recommender& model = trainer.model();
  ccdrec::Device& dev = trainer.device();
  const Outline outline = outline_of(s);
  model.begin_epoch(0);
  if (outline.diffusion && !s.cns) model.end_epoch(0);  // fills the pool that the constants come from

  // A batch with repeated users, items that are positive and negative at once, and an item without interactions.
  RefBatch batch;
  batch.u = {0, 2, 2, 5, 1, 0};
  batch.p = {data.train[0].item,  data.train[6].item, data.train[7].item,
             data.train[15].item, data.train[3].item, data.train[1].item};
  batch.r = {4, 10, batch.p[0], 7, 4, 1};
  if (s.n_neg == 2) batch.r.insert(batch.r.end(), {9, 9, 0, 2, 10, 3});
  if (c.curricular) batch.c = {3, 3, 10, 8, 5, 0};
  Arrays given;
  given.ids = {{"batch.users", batch.u}, {"batch.positives", batch.p}, {"batch.negatives", batch.r}};
  if (c.curricular) given.ids["batch.curricular"] = batch.c;
  if (outline.hard && s.sampler != "none") give_hard(batch, given, outline);
  RefModel ref = reference_of(dev, model, s);
  if (outline.learned_graph) give_lists(dev, model, c.later, given, ref);
  if (outline.diffusion) {
    std::vector<int32_t> D = distinct_items(batch);
    if (outline.fuses_all) D.resize(size_t(I)), std::iota(D.begin(), D.end(), 0);
    std::vector<float> eps;
    for (size_t n = 0; n < D.size(); ++n) batch.t.push_back(int32_t(n) % s.timesteps);
    for (size_t k = 0; k < D.size() * 4; ++k) eps.push_back(std::sin(float(k) * 1.7f + 0.3f));
    batch.eps.assign(eps.begin(), eps.end());
    given.ids["diffusion.items"] = D, given.ids["diffusion.t"] = batch.t, given.reals["diffusion.noise"] = eps;
  }
  if (c.curricular && outline.constant_rows && s.ndi_negative == "pool") {
    const std::vector<float> pool = pool_of(dev, model, 3);
    std::vector<float> rows;
    for (const int32_t i : batch.c) rows.insert(rows.end(), pool.begin() + 4 * i, pool.begin() + 4 * (i + 1));
    batch.frozen = dense_of(rows, 6, 4);
    given.reals["batch.frozen"] = rows;
  }
  model.give(given);
  model.set_losses({});
  model.forward_backward(1, 0);

  double got = 0;
  for (const double x : model.losses()) got += x;
  const double want = ref.loss(batch);
  EXPECT_NEAR(got, want, 2e-6 * std::fabs(want));

  // Dropping L_dm's pull on Q when DMA is off is the definition of that ablation, so Q's reference gradient leaves the
  // term out there.
  const bool free_of_align = outline.diffusion && !outline.fuses;
  RefModel for_q = ref;
  if (free_of_align) for_q.s.lambda = 0;
  const Watch shown = shown_of(dev, model);
  Windows trained;
  model.model().parameters(trained);
  size_t of_encoder = 0;
  for (const Window& w : trained) {
    Dense* at = w.name == "user_embedding.weight"                      ? &for_q.P
                : w.name == "item_id_embedding.weight"                 ? &for_q.Q
                : !ref.enc.empty() && w.name.starts_with("estimator.") ? &ref.enc[of_encoder++]
                : w.name == "estimator.w_q.weight"                     ? &ref.Wq
                : w.name == "estimator.w_k.weight"                     ? &ref.Wk
                : w.name == "estimator.w_v.weight"                     ? &ref.Wv
                : w.name == "modal_weight"                             ? &ref.latent.theta
                                                                       : nullptr;
    RefModel& of = at == &for_q.P || at == &for_q.Q ? for_q : ref;
    const std::vector<std::string> modalities = model.model().modalities();
    for (size_t m = 0; m < modalities.size(); ++m) {
      if (w.name == modalities[m] + "_embedding.weight") at = &ref.X[m];
      if (w.name == modalities[m] + "_trs.weight") at = &ref.W[m];
      if (w.name == modalities[m] + "_trs.bias") at = &ref.b[m];
    }
    ASSERT_NE(at, nullptr) << w.name;
    expect_gradient(w.name, gradient(of, *at, batch), gradient_of(shown, w));
  }
}

TEST(Model, LossAndEveryGradientMatchTheDoubleReference) {
  for (const Case& c : cases)
    for (const char* device : devices_of(c)) expect_reference(c, device);
}

double largest_difference(const Dense& a, const Dense& b) {
  double top = 0;
  for (size_t k = 0; k < a.v.size(); ++k) top = std::max(top, std::fabs(a.v[k] - b.v[k]));
  return top;
}

// What users and items are ranked by: the whole graph, not that of the epoch, and with DMA the ehat_0 of every item
// fused in.
TEST(Model, EvaluationMatchesTheDoubleReference) {
  const Case evaluated[] = {
      {"BPR", [](Settings& s) { s.model = "BPR"; }, {}, false},
      {"LightGCN", [](Settings& s) { s.model = "LightGCN"; }, {}, false},
      {"FREEDOM", [](Settings& s) { s.model = "FREEDOM"; }, {6, 3}, false},
      {"CCDRec", [](Settings&) {}, {6, 3}, false},
      {"CCDRec two item layers", [](Settings& s) { s.n_mm_layers = 2; }, {5}, false},
      {"CCDRec on LightGCN", [](Settings& s) { s.backbone = "LightGCN"; }, {6, 3}, false},
      {"CCDRec on BPR-MF", [](Settings& s) { s.backbone = "BPR"; }, {6, 3}, false},
      {"DMA alone", [](Settings& s) { s.ndi = s.cns = false; }, {6, 3}, false},
      {"NDI and CNS without DMA", [](Settings& s) { s.dma = false; }, {6, 3}, false},
      {"MCDRec", [](Settings& s) { s.model = "MCDRec", s.estimator = "attention"; }, {6, 3}, false},
      {"MCDRec, two item layers, dgd off",
       [](Settings& s) { s.model = "MCDRec", s.estimator = "attention", s.n_mm_layers = 2, s.dgd = "off"; },
       {5},
       false},
      {"LATTICE", [](Settings& s) { s.model = "LATTICE", s.lambda_coeff = 0.5; }, {6, 3}, false},
      {"LATTICE two item layers", [](Settings& s) { s.model = "LATTICE", s.n_mm_layers = 2; }, {5}, false},
      {"CCDRec on LATTICE", [](Settings& s) { s.backbone = "LATTICE", s.lambda_coeff = 0.5; }, {6, 3}, false},
  };
  for (const Case& c : evaluated) {
    SCOPED_TRACE(c.name);
    const int32_t U = 9, I = 13;
    const Folder dir;
    const Dataset data = random_data(dir, U, I, 4, c.widths);
    Settings s;
    s.embedding_size = 8, s.train_batch_size = 8, s.epochs = 2, s.knn_k = 3, s.dropout = 0.5, s.seed = 4, s.threads = 2,
    s.learning_rate = 0.05;
    s.timesteps = 6, s.mu = 0.4;
    c.set(s);
    Trainer trainer(s, data);
    Recommender& model = trainer.model();
    const Outline outline = outline_of(s);
    Dense whole;
    const HostCsr train = pairs_by_user(data.train, U, I);
    if (outline.layers > 0)
      whole = dense_of((outline.learned_graph ? mean_graph(train, true) : user_item_graph(train)).view());
    const auto ranked_by = [&] {
      CMat hu, hi;
      model.represent(hu, hi);
      Dense h(U + I, s.embedding_size);
      std::copy(hu.p, hu.p + hu.size(), h.v.begin());
      std::copy(hi.p, hi.p + hi.size(), h.v.begin() + hu.size());
      return h;
    };
    const Dense at_first = ranked_by();
    EXPECT_LT(largest_difference(at_first, reference_of(trainer.device(), model, s).evaluated(whole, nullptr)), 1e-6)
        << "no ehat_0 yet";
    for (int epoch = 0; epoch < 2; ++epoch) {
      model.begin_epoch(epoch);
      for (int64_t step = 0; step < model.steps_per_epoch(); ++step) model.step(epoch, step);
      model.end_epoch(epoch);
      const RefModel ref = reference_of(trainer.device(), model, s);
      Dense e0_hat;
      if (outline.fuses) e0_hat = dense_of(pool_of(trainer.device(), model, 3), I, s.embedding_size);
      const Dense got = ranked_by();
      EXPECT_LT(largest_difference(got, ref.evaluated(whole, outline.fuses ? &e0_hat : nullptr)), 2e-6);
      if (outline.fuses) {
        EXPECT_GT(largest_difference(got, ref.evaluated(whole, nullptr)), 1e-2) << "the test would not see the fusion";
      }
    }
  }
}

// Whole batches as training draws them, at every stage of the curriculum. The reference knows the addresses of the
// draws, ranks the candidates in double by the pool of the stage (or, after tau_end, by its own h_i of this step) and
// takes the most similar; its loss is that of the model only if that was the pool, and the choice.
TEST(Model, CurricularNegativesComeFromThePoolOfTheStage) {
  const int32_t U = 20, I = 30;
  const int64_t d = 8, step = 1;
  const Folder dir;
  const Dataset data = random_data(dir, U, I, 5, {6, 3});
  const HostCsr train = pairs_by_user(data.train, U, I);
  for (const int epoch : {0, 1, 2, 3, 4, 5, 6}) {  // random, four pools, the last again, the model's own
    SCOPED_TRACE(epoch);
    Settings s;
    s.embedding_size = int(d), s.train_batch_size = 24, s.epochs = 9, s.knn_k = 3, s.dropout = 0, s.seed = 6,
    s.threads = 2, s.timesteps = 5;
    // one stands for election: the most similar
    s.first_stage = 2, s.dtau = 1, s.tau_end = 5, s.candidate_ratio = 1, s.kappa = 0.03;
    Trainer trainer(s, data);
    Recommender& model = trainer.model();
    ccdrec::Device& dev = trainer.device();
    Dense pools[4];
    for (int k = 0; k < 4; ++k) {
      std::vector<float> rows;
      for (int64_t e = 0; e < I * d; ++e) rows.push_back(float(std::sin(1.0 + 7.3 * double(e) + 2.1 * k * double(e))));
      put_pool(dev, model, k, rows);
      pools[k] = dense_of(rows, I, d);
    }
    model.begin_epoch(epoch);
    model.forward_backward(epoch, step);

    Ctx ctx(1);
    RefBatch batch;
    const auto E = int64_t(data.train.size()), B = std::min<int64_t>(24, E - 24 * step), first = 24 * step;
    std::vector<int32_t> order(static_cast<size_t>(E)), occur, cand(static_cast<size_t>(I));
    cpu::shuffle(ctx, order.data(), E, Stream{s.seed, Use::shuffle, uint32_t(epoch), 0});
    for (int64_t b = 0; b < B; ++b) {
      const Pair& pair = data.train[size_t(order[size_t(first + b)])];
      batch.u.push_back(pair.user), batch.p.push_back(pair.item);
    }
    for (const Pair& pair : data.train) occur.push_back(pair.item);
    std::sort(occur.begin(), occur.end());
    occur.erase(std::unique(occur.begin(), occur.end()), occur.end());
    batch.r.resize(size_t(B));
    cpu::negatives(ctx, batch.r.data(), batch.u.data(), B, 1, first, train.view(), occur.data(), int64_t(occur.size()),
                   Stream{s.seed, Use::neg_uniform, uint32_t(epoch), uint32_t(step)});
    cpu::candidates(ctx, cand.data(), I, I, Stream{s.seed, Use::candidates, uint32_t(epoch), uint32_t(step)});
    Watch drawn(dev);
    model.draws(drawn);
    EXPECT_EQ(drawn.ids("batch.negatives"), batch.r);
    EXPECT_EQ(drawn.ids("diffusion.items"), distinct_items(batch));
    batch.t = drawn.ids("diffusion.t");
    const std::vector<float>& eps = drawn.find("diffusion.noise")->floats;
    batch.eps.assign(eps.begin(), eps.end());

    const RefModel ref = reference_of(dev, model, s);
    const Dense h = ref.forward(batch).h;
    Dense own(I, d);
    std::copy(h.v.begin() + U * d, h.v.end(), own.v.begin());
    const auto most_similar = [&](const Dense& pool) {
      std::vector<int32_t> chosen;
      for (size_t b = 0; b < batch.u.size(); ++b) {
        const auto row = train.col.begin() + train.row_ptr[size_t(batch.u[b])],
                   end = train.col.begin() + train.row_ptr[size_t(batch.u[b]) + 1];
        double top = -INFINITY;
        chosen.push_back(batch.r[b]);
        for (const int32_t j : cand) {
          double dot = 0;
          for (int64_t x = 0; x < d; ++x) dot += pool(batch.p[b], x) * pool(j, x);
          if (dot > top && !std::binary_search(row, end, j)) top = dot, chosen.back() = j;
        }
      }
      return chosen;
    };
    const auto loss_with = [&](const std::vector<int32_t>& c) {
      RefBatch with = batch;
      with.c = c;
      return ref.loss(with);
    };
    const int stage = epoch == 0 ? -1 : std::min(3, epoch - 1);
    const double want = epoch == 0 ? ref.loss(batch) : loss_with(most_similar(epoch == 6 ? own : pools[stage]));
    double got = 0;
    for (const double x : model.losses()) got += x;
    EXPECT_NEAR(got, want, 2e-6 * std::fabs(want)) << model.model().negatives(epoch);
    EXPECT_STREQ(model.model().negatives(epoch), epoch == 0   ? "random"
                                                 : epoch == 6 ? "model"
                                                              : pool_name(Pool(int(Pool::stage0) + stage)));
    for (int k = 0; k < 4; ++k)  // the test sees it when another pool is taken
      if (k != stage || epoch == 6) {
        EXPECT_GT(std::fabs(loss_with(most_similar(pools[k])) - want), 1e-4 * std::fabs(want)) << k;
      }
    if (epoch != 6) { EXPECT_GT(std::fabs(loss_with(most_similar(own)) - want), 1e-4 * std::fabs(want)); }
  }
}

// Whole batches with the negatives that samplers give them. The reference knows the addresses of the draws; of the
// candidates it takes the one whose mixture, made as published, scores highest with the user: for DNS with weight 0 and
// the pooled rows.
TEST(Model, HardNegativesAreTheHardestOfTheirDraws) {
  const Case hard[] = {
      {"BPR + DNS", [](Settings& s) { s.model = "BPR", s.sampler = "dns"; }, {}},
      {"LightGCN + DNS", [](Settings& s) { s.model = "LightGCN", s.sampler = "dns"; }, {}},
      {"LightGCN + MixGCF", [](Settings& s) { s.model = "LightGCN", s.sampler = "mixgcf"; }, {}},
      {"FREEDOM + MixGCF", [](Settings& s) { s.model = "FREEDOM", s.sampler = "mixgcf", s.reg_weight = 0.1; }, {6, 3}},
      {"DMA + DNS", [](Settings& s) { s.ndi = s.cns = false, s.sampler = "dns"; }, {6, 3}},
      {"DMA + MixGCF", [](Settings& s) { s.ndi = s.cns = false, s.sampler = "mixgcf"; }, {6, 3}},
  };
  const int32_t U = 20, I = 30;
  const int64_t d = 8, step = 1, B = 24, N = 5;
  const uint32_t epoch = 1;
  for (const Case& c : hard) {
    SCOPED_TRACE(c.name);
    const Folder dir;
    const Dataset data = random_data(dir, U, I, 5, c.widths);
    const HostCsr train = pairs_by_user(data.train, U, I);
    Settings s;
    s.embedding_size = int(d), s.train_batch_size = int(B), s.epochs = 3, s.knn_k = 3, s.dropout = 0.3, s.seed = 6,
    s.threads = 2, s.timesteps = 5;
    s.n_candidates = int(N), s.omega = 0.6;
    c.set(s);
    Trainer trainer(s, data);
    Recommender& model = trainer.model();
    model.begin_epoch(int(epoch));
    model.set_losses({});
    model.forward_backward(int(epoch), step);
    Watch drawn(trainer.device());
    model.draws(drawn);

    RefBatch batch;
    batch.u = drawn.ids("batch.users"), batch.p = drawn.ids("batch.positives"), batch.r = drawn.ids("batch.negatives"),
    batch.t = drawn.ids("diffusion.t");
    if (const Shown* const eps = drawn.find("diffusion.noise"))
      batch.eps.assign(eps->floats.begin(), eps->floats.end());
    const RefModel ref = reference_of(trainer.device(), model, s);
    const RefModel::Forward f = ref.forward(batch);
    std::vector<Dense> tables = f.v;
    const bool mixes = outline_of(s).mixes;
    if (!mixes) tables = {f.h};

    Ctx ctx(1);
    std::vector<int32_t> occur, candidates(static_cast<size_t>(N));
    for (const Pair& pair : data.train) occur.push_back(pair.item);
    std::sort(occur.begin(), occur.end());
    occur.erase(std::unique(occur.begin(), occur.end()), occur.end());
    std::vector<float> alpha(tables.size() * size_t(B), 0.0f);
    if (mixes)
      cpu::draw_mixing(ctx, {alpha.data(), int64_t(tables.size()), B}, B * step,
                       Stream{s.seed, Use::mix, epoch, uint32_t(step)});
    std::vector<int32_t> want(alpha.size());
    for (int64_t b = 0; b < B; ++b) {
      const std::vector<int32_t> user(size_t(N), batch.u[size_t(b)]);
      cpu::negatives(ctx, candidates.data(), user.data(), N, 1, (B * step + b) * N, train.view(), occur.data(),
                     int64_t(occur.size()), Stream{s.seed, Use::hard, epoch, uint32_t(step)});
      for (size_t l = 0; l < tables.size(); ++l) {
        const size_t at = l * size_t(B) + size_t(b);
        double top = -INFINITY;
        for (const int32_t m : candidates) {
          const std::vector<double> e = ref.mixed_at(tables[l], batch.p[size_t(b)], m, double(alpha[at]));
          double score = 0;
          for (int64_t j = 0; j < d; ++j) score += f.h(batch.u[size_t(b)], j) * e[size_t(j)];
          if (score > top) top = score, want[at] = m;
        }
      }
    }
    EXPECT_EQ(drawn.ids("hard.items"), want);
    if (mixes) {
      EXPECT_EQ(drawn.find("hard.alpha")->floats, alpha);
      batch.mixed = want, batch.alpha.assign(alpha.begin(), alpha.end());
    } else {
      EXPECT_EQ(drawn.find("hard.alpha"), nullptr);
      batch.c = want;
    }
    double got = 0;
    for (const double x : model.losses()) got += x;
    const double loss = ref.loss(batch);
    EXPECT_NEAR(got, loss, 2e-6 * std::fabs(loss));
  }
}

// Spec baselines 12: U = 4, I = 5, d = 4, one batch of 8; parameter number n has value 0.5 sin(1 + n + 0.9 q).
struct Golden {
  std::string model;
  double loss;
  std::vector<double> scores;                                 // user 0, items 0..4
  std::map<std::string, std::pair<double, double>> gradient;  // name -> sum, norm
};

TEST(Model, GoldenNumbersOfTheReferencePrograms) {
  const Golden golden[] = {{"BPR",
                            0.817655,
                            {0.32909, -0.12614, -0.10286, 0.31062, -0.45424},
                            {{"P", {-5.541046e-03, 2.195013e-01}}, {"Q", {9.656326e-03, 1.990503e-01}}}},
                           {"LightGCN",
                            0.734198,
                            {0.15046, -0.02487, -0.00309, 0.06754, -0.07070},
                            {{"P", {-1.397883e-02, 3.889015e-02}}, {"Q", {-1.072613e-02, 3.104115e-02}}}},
                           {"FREEDOM",
                            0.766051,
                            {0.22917, -0.08019, -0.05842, 0.04887, -0.11936},
                            {{"P", {-1.679581e-02, 6.148044e-02}},
                             {"Q", {-1.422440e-02, 7.618169e-02}},
                             {"image_trs.weight", {-5.802508e-03, 9.365006e-03}},
                             {"text_trs.weight", {-1.415401e-03, 1.242801e-02}},
                             {"image", {0, 8.223162e-03}},
                             {"text", {0, 6.646470e-03}}}}};
  for (const Golden& g : golden) {
    SCOPED_TRACE(g.model);
    const Folder dir;
    Dataset data;
    data.name = "golden", data.n_users = 4, data.n_items = 5, data.checksum = "golden";
    data.train = {{0, 0}, {0, 1}, {0, 2}, {1, 1}, {1, 3}, {2, 0}, {2, 3}, {3, 2}};
    data.valid = {{0, 3}}, data.test = {{1, 0}};
    std::vector<float> xv, xt;
    for (int i = 0; i < 5; ++i) {
      for (int f = 0; f < 3; ++f) xv.push_back(float(1.5 + std::sin(1.3 * i + 0.7 * f + 0.5 * i * f)));
      for (int f = 0; f < 2; ++f) xt.push_back(float(1.5 + std::cos(0.9 * i + 1.1 * f + 0.3 * i * f)));
    }
    add_feature(data, dir, "image", xv, 3);
    add_feature(data, dir, "text", xt, 2);
    Settings s;
    s.model = g.model, s.embedding_size = 4, s.train_batch_size = 8, s.epochs = 1, s.reg_weight = 0.1, s.knn_k = 2,
    s.dropout = 0, s.threads = 1;
    Trainer trainer(s, data);
    Recommender& model = trainer.model();
    const auto values = [](int n, int64_t count) {
      std::vector<float> v;
      for (int64_t q = 0; q < count; ++q) v.push_back(float(0.5 * std::sin(1.0 + n + 0.9 * double(q))));
      return v;
    };
    // FREEDOM's parameters are numbered P, Q, X_v, X_t, W_v, b_v, W_t, b_t; the features keep their own values.
    const std::map<std::string, int> number = {{"user_embedding.weight", 0}, {"item_id_embedding.weight", 1},
                                               {"image_trs.weight", 4},      {"image_trs.bias", 5},
                                               {"text_trs.weight", 6},       {"text_trs.bias", 7}};
    for (const Window& w : windows_of(model))
      if (number.count(w.name)) put(w, values(number.at(w.name), w.rows * w.cols));
    model.begin_epoch(0);
    Arrays given;
    given.ids = {{"batch.users", {0, 0, 0, 1, 1, 2, 2, 3}},
                 {"batch.positives", {0, 1, 2, 1, 3, 0, 3, 2}},
                 {"batch.negatives", {3, 4, 3, 0, 4, 1, 2, 1}}};
    model.give(given);
    model.forward_backward(0, 0);
    double loss = 0;
    for (const double x : model.losses()) loss += x;
    EXPECT_NEAR(loss, g.loss, 1e-6);
    const auto check = [&](const std::string& name, const float* v, int64_t n) {
      double sum = 0, norm = 0;
      for (int64_t k = 0; k < n; ++k) sum += v[k], norm += double(v[k]) * v[k];
      const auto [want_sum, want_norm] = g.gradient.at(name);
      EXPECT_NEAR(std::sqrt(norm), want_norm, 2e-5 * want_norm) << name;
      EXPECT_NEAR(sum, want_sum, 2e-5 * want_norm) << name;
    };
    const Watch shown = shown_of(trainer.device(), model);
    for (const Window& w : windows_of(model)) {
      const std::string name = w.name == "user_embedding.weight"      ? "P"
                               : w.name == "item_id_embedding.weight" ? "Q"
                               : w.table                              ? w.name.substr(0, w.name.find('_'))
                                                                      : w.name;
      const std::vector<float> grad = gradient_of(shown, w);
      if (g.gradient.count(name))
        check(name, grad.data(), int64_t(grad.size()));
      else
        for (const float x : grad) EXPECT_NEAR(x, 0, 1e-8) << name;  // the bias cancels
    }
    CMat hu, hi;
    model.represent(hu, hi);
    for (int64_t i = 0; i < 5; ++i) {
      double score = 0;
      for (int64_t j = 0; j < 4; ++j) score += double(hu.row(0)[j]) * hi.row(i)[j];
      EXPECT_NEAR(score, g.scores[size_t(i)], 6e-6) << "item " << i;
    }
  }
}

}  // namespace
}  // namespace ccdrec::test
