// What `ccdrec case` writes of a step, `ccdrec step` computes as training did.
#include "host/files/case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "data/error.h"
#include "host/files/step.h"
#include "host/systems/registry.h"
#include "host/training/recommender.h"
#include "host/training/tensors.h"
#include "tests/host/looked_into.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"
#include "tests/support.h"

namespace ccdrec::test {
namespace {

const Named case_models[] = {
    {"BPR", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01; }},
    {"BPR, two negatives", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01, s.n_neg = 2; }},
    {"LightGCN", [](Settings& s) { s.model = "LightGCN", s.reg_weight = 1e-3; }},
    {"FREEDOM, reg 0", [](Settings& s) { s.model = "FREEDOM"; }},
    {"FREEDOM", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2, s.n_mm_layers = 2; }},
    {"CCDRec", [](Settings&) {}},
    {"CCDRec, two negatives, modality loss", [](Settings& s) { s.n_neg = 2, s.reg_weight = 1e-2; }},
    {"CCDRec, fixed features", [](Settings& s) { s.train_features = false; }},
    {"CCDRec on LightGCN", [](Settings& s) { s.backbone = "LightGCN"; }},
    {"CCDRec on MCDRec", [](Settings& s) { s.backbone = "MCDRec"; }},
    {"CCDRec on MCDRec, direct, CNS alone",
     [](Settings& s) { s.backbone = "MCDRec", s.dgd = "direct", s.dma = s.ndi = false; }},
    {"MCDRec, attention, modality terms",
     [](Settings& s) { s.model = "MCDRec", s.estimator = "attention", s.reg_weight = 1e-2, s.n_mm_layers = 2; }},
    {"MCDRec", [](Settings& s) { s.model = "MCDRec", s.estimator = "unet", s.embedding_size = 64, s.timesteps = 4; }},
    {"CCDRec on MCDRec with the U-Net",
     [](Settings& s) { s.backbone = "MCDRec", s.estimator = "unet", s.embedding_size = 64, s.timesteps = 4; }},
    {"MCDRec without its diffusion", [](Settings& s) { s.model = "MCDRec", s.mrd = false; }},
    {"CCDRec with the encoder", [](Settings& s) { s.estimator = "transformer", s.estimator_heads = 2; }},
    {"omega 0", [](Settings& s) { s.omega = 0; }},
    {"DMA", [](Settings& s) { s.ndi = s.cns = false; }},
    {"DMA+NDI", [](Settings& s) { s.cns = false; }},
    {"DMA+NDI, index", [](Settings& s) { s.cns = false, s.ndi_negative = "index"; }},
    {"DMA+CNS", [](Settings& s) { s.ndi = false; }},
    {"NDI+CNS", [](Settings& s) { s.dma = false; }},
    {"CNS", [](Settings& s) { s.dma = s.ndi = false; }},
    {"BPR, popularity", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01, s.sampler = "popularity"; }},
    {"LightGCN, DNS", [](Settings& s) { s.model = "LightGCN", s.reg_weight = 1e-3, s.sampler = "dns"; }},
    {"FREEDOM, DNS, one of the two best, two negatives",
     [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2, s.sampler = "dns", s.top_m = 2, s.n_neg = 2; }},
    {"BPR, MixGCF", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01, s.sampler = "mixgcf"; }},
    {"LightGCN, MixGCF", [](Settings& s) { s.model = "LightGCN", s.reg_weight = 1e-3, s.sampler = "mixgcf"; }},
    {"FREEDOM, MixGCF",
     [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2, s.n_mm_layers = 2, s.sampler = "mixgcf"; }},
    {"FREEDOM, RealHNS",
     [](Settings& s) {
       s.model = "FREEDOM", s.reg_weight = 1e-2, s.sampler = "realhns", s.realhns_start = 1, s.realhns_p_max = 60;
     }},
    {"DMA, DNS", [](Settings& s) { s.ndi = s.cns = false, s.sampler = "dns"; }},
    {"DMA, MixGCF", [](Settings& s) { s.ndi = s.cns = false, s.sampler = "mixgcf"; }},
    {"MixGCF without weight", [](Settings& s) { s.model = "LightGCN", s.sampler = "mixgcf", s.omega = 0; }},
    {"BPR, Mirror Gradient", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01, s.use_mg = true; }},
    {"FREEDOM, MixGCF, Mirror Gradient",
     [](Settings& s) {
       s.model = "FREEDOM", s.reg_weight = 1e-2, s.sampler = "mixgcf", s.use_mg = true, s.alpha1 = 0.5, s.alpha2 = 0.3;
     }},
    {"CCDRec, Mirror Gradient", [](Settings& s) { s.use_mg = true; }},
    {"LATTICE", [](Settings& s) { s.model = "LATTICE", s.reg_weight = 1e-2, s.lambda_coeff = 0.5; }},
    {"LATTICE, two item layers, two negatives, DNS, a falling rate",
     [](Settings& s) {
       s.model = "LATTICE", s.reg_weight = 1e-2, s.lambda_coeff = 0.5, s.n_mm_layers = 2, s.n_neg = 2;
       s.sampler = "dns", s.learning_rate_scheduler = {0.8, 2.0};
     }},
    {"LATTICE, fixed features", [](Settings& s) { s.model = "LATTICE", s.train_features = false; }},
    {"LATTICE, MixGCF, Mirror Gradient",
     [](Settings& s) { s.model = "LATTICE", s.lambda_coeff = 0.5, s.sampler = "mixgcf", s.use_mg = true; }},
    {"CCDRec on LATTICE", [](Settings& s) { s.backbone = "LATTICE", s.reg_weight = 1e-2, s.lambda_coeff = 0.5; }},
    {"CCDRec on LATTICE, Mirror Gradient",
     [](Settings& s) { s.backbone = "LATTICE", s.lambda_coeff = 0.5, s.use_mg = true; }},
    {"SLMRec", slmrec_models[0].set},
    {"SLMRec, the textual modality first",
     [](Settings& s) {
       slmrec_models[0].set(s), s.modalities = {"text", "image"};
     }},
    {"SLMRec, Mirror Gradient", slmrec_models[1].set},
    {"DMA+NDI, Mirror Gradient", [](Settings& s) { s.cns = false, s.use_mg = true; }},
    bm3_models[0],
    {"BM3, fixed features, nothing masked",
     [](Settings& s) {
       s.model = "BM3", s.n_neg = s.negative_stats = 0, s.n_ui_layers = 2, s.reg_weight = 0.1, s.cl_weight = 0.5;
       s.dropout = 0, s.train_features = false;
     }},
    {"BM3, Mirror Gradient",
     [](Settings& s) { s.model = "BM3", s.n_neg = s.negative_stats = 0, s.reg_weight = 0.1, s.use_mg = true; }},
    {"MMGCN", [](Settings& s) { s.model = "MMGCN", s.reg_weight = 0.1; }},
    {"MMGCN, two negatives, Mirror Gradient", [](Settings& s) { s.model = "MMGCN", s.n_neg = 2, s.use_mg = true; }},
};
const Named& model_named(const std::string& name) {
  for (const Named& m : case_models)
    if (m.name == name) return m;
  throw std::runtime_error(name);
}

// 195 pairs in batches of 24: nine steps an epoch, the last of three rows. Curriculum: epochs 0 random, 1 to 3 three
// pools, then the model's own.
Settings case_settings(const Named& m) {
  Settings s;
  s.embedding_size = 16, s.train_batch_size = 24, s.epochs = 6, s.knn_k = 3, s.seed = 11, s.threads = 1,
  s.learning_rate = 5e-3;
  s.dropout = 0.3, s.dtau = 1, s.tau_end = 3, s.timesteps = 8, s.candidate_ratio = 0.5;
  s.n_candidates = 5, s.beta = 4;  // steps 0, 4 and 8 are mirrored
  m.set(s);
  return s;
}

struct Position {
  int epoch;
  int64_t step;
};

// The run itself, up to and including that step: its losses and its parameters, by name.
struct Taken {
  Losses losses;
  std::map<std::string, std::vector<float>> parameters;
};
Taken take_step(const Settings& s, const Dataset& data, Position at) {
  Trainer t(s, data);
  Recommender& model = t.model();
  TrainHooks hooks;
  hooks.interrupted = [&] { return t.epoch() == at.epoch && t.next_step() == at.step; };
  if (at.epoch > 0 || at.step > 0) t.run(hooks);
  if (at.step == 0) model.begin_epoch(at.epoch);
  model.set_losses({});
  model.step(at.epoch, at.step);
  Taken out;
  out.losses = model.losses();
  model.flush();
  for (const Window& w : windows(model)) {
    const std::vector<float> v = values_of(w);
    out.parameters[w.name] = w.transposed ? transposed(v, w.rows, w.cols) : v;
  }
  return out;
}

// The arithmetic is the same, so the bits are: every product and sum over a step's rows has an order that does not
// depend on what else a graph or a table holds.
void expect_case_computes_the_step(const Settings& s, const Dataset& data, Position at, const Folder& dir) {
  SCOPED_TRACE("epoch " + std::to_string(at.epoch) + ", step " + std::to_string(at.step));
  std::vector<TensorFile> cases, results;  // a pass each
  std::vector<std::string> parts;
  for (const bool mirrored : {false, true}) {
    if (mirrored && !(s.use_mg && at.step % s.beta == 0)) continue;
    Trainer t(s, data);
    EXPECT_EQ(train_to(t, s, at.epoch, at.step, {}).reason, StopReason::interrupted);
    write_case(t, s, mirrored, dir / "case.safetensors");
    parts.assign(t.model().model().losses().begin(), t.model().model().losses().end());
    run_step_case(dir / "case.safetensors", dir / "result.safetensors", s.device, 2);
    cases.push_back(read_safetensors(dir / "case.safetensors")),
        results.push_back(read_safetensors(dir / "result.safetensors"));
  }
  const Taken want = take_step(s, data, at);
  ASSERT_EQ(want.losses.size(), parts.size());
  for (size_t k = 0; k < parts.size(); ++k) {  // those of the first pass
    double loss = 0;
    std::memcpy(&loss, results[0].tensors.at("loss." + parts[k]).bytes.data(), sizeof loss);
    EXPECT_EQ(loss, want.losses[k]) << parts[k];
  }
  if (cases.size() > 1) {
    EXPECT_EQ(std::stoi(cases[1].metadata.at("t")), std::stoi(cases[0].metadata.at("t")) + 1);
    EXPECT_EQ(std::stof(cases[1].metadata.at("gradient")), float(-s.alpha2));
    for (const auto& [name, values] : want.parameters)
      EXPECT_TRUE(results[0].tensors.at("new." + name).bytes == cases[1].tensors.at("param." + name).bytes)
          << name << " between the passes";
  }
  const TensorFile &given = cases.back(), &got = results.back();
  for (const auto& [name, values] : want.parameters) {
    const TensorData& t = got.tensors.at("new." + name);
    ASSERT_EQ(t.bytes.size(), values.size() * sizeof(float)) << name;
    size_t other = 0, moved = 0;
    for (size_t k = 0; k < values.size(); ++k) {
      other += !(t.f32()[k] == values[k]);
      moved += t.f32()[k] != given.tensors.at("param." + name).f32()[k];
    }
    EXPECT_EQ(other, 0u) << name << ", of " << values.size();
    EXPECT_GT(moved, 0u) << name;
  }
}

// Everywhere the first step, without moments, and one in a stage of the curriculum, with both passes of Mirror
// Gradient; where there is a curriculum the model's own pool. ExhaustiveCase has the rest.
TEST(SlowCase, StepComputesWhatTrainingDid) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const Named& m : case_models) {
    SCOPED_TRACE(m.name);
    const Settings s = case_settings(m);
    for (const Position at : {Position{0, 0}, {2, 4}}) expect_case_computes_the_step(s, data, at, dir);
    if (outline_of(s).searches) expect_case_computes_the_step(s, data, {5, 8}, dir);
  }
}

TEST(ExhaustiveCase, StepComputesWhatTrainingDid) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const Named& m : case_models) {
    SCOPED_TRACE(m.name);
    const Settings s = case_settings(m);
    for (const Position at : {Position{0, 8}, {1, 0}}) expect_case_computes_the_step(s, data, at, dir);
    if (!outline_of(s).searches) expect_case_computes_the_step(s, data, {5, 8}, dir);
  }
}

TEST(Case, APassThatAStepHasNotIsOneSentence) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  Settings s = case_settings(case_models[0]);
  const auto sentence = [&](int64_t step, int pass) -> std::string {
    Trainer t(s, data);
    try {
      check_step(t, s, 0, step, pass);
    } catch (const UserError& e) { return e.what(); }
    return "no complaint";
  };
  EXPECT_EQ(sentence(0, 1), "--pass 1: a step has one pass, 0; Mirror Gradient (use_mg) has two");
  s.use_mg = true, s.beta = 3;
  EXPECT_EQ(sentence(3, 0), "no complaint");
  EXPECT_EQ(sentence(3, 1), "no complaint");
  EXPECT_EQ(sentence(3, 2), "--pass 2: this step has passes 0 and 1");
  EXPECT_EQ(sentence(4, 0), "no complaint");
  EXPECT_EQ(sentence(4, 1), "--pass 1: this step has pass 0 alone; steps 0, 3, 6, .. have two (beta = 3)");
  EXPECT_EQ(sentence(3, -1), "--pass -1: this step has passes 0 and 1");
}

TEST(SlowCase, OnAGpuToo) {
  if (!gpu_info().usable) GTEST_SKIP() << "no GPU, no emulator";
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const char* name : {"FREEDOM", "CCDRec", "CCDRec on MCDRec", "FREEDOM, MixGCF, Mirror Gradient",
                           "BM3, Mirror Gradient", "SLMRec"}) {
    SCOPED_TRACE(name);
    Settings s = case_settings(model_named(name));
    s.device = "cuda";
    expect_case_computes_the_step(s, data, {1, 8}, dir);  // the short last batch of the first stage
  }
}

// Which negatives a step had is visible in its case: that of the curriculum's stages differs from the first epoch's.
TEST(Case, HoldsTheArraysOfItsStep) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const auto case_of = [&](const Named& m, int epoch, int64_t step) {
    const Settings s = case_settings(m);
    Trainer t(s, data);
    train_to(t, s, epoch, step, {});
    write_case(t, s, 0, dir / "case.safetensors");
    return read_safetensors(dir / "case.safetensors");
  };
  const TensorFile first = case_of(model_named("CCDRec"), 0, 8), second = case_of(model_named("CCDRec"), 1, 0),
                   frozen = case_of(model_named("DMA+NDI"), 1, 2), bpr = case_of(model_named("BPR"), 2, 0);
  EXPECT_FALSE(first.tensors.count("batch.curricular"));
  EXPECT_EQ(first.tensors.at("batch.users").shape, std::vector<int64_t>{3});
  EXPECT_EQ(first.metadata.at("t"), "9");
  EXPECT_EQ(second.metadata.at("t"), "10");
  EXPECT_EQ(second.tensors.at("batch.curricular").shape, std::vector<int64_t>{24});
  EXPECT_EQ(frozen.tensors.at("batch.frozen").shape, (std::vector<int64_t>{24, 16}));
  EXPECT_EQ(second.metadata.at("modalities"), "[\"image\",\"text\"]");
  EXPECT_NE(second.metadata.at("settings").find("\"lambda_dm\":1"), std::string::npos)
      << second.metadata.at("settings");
  EXPECT_EQ(bpr.tensors.count("graph.user_item.index"), 0u);
  EXPECT_EQ(bpr.metadata.at("settings").find("omega"), std::string::npos) << "a key of other models";
  // pruned: floor(195 * 0.7) edges both ways
  EXPECT_EQ(second.tensors.at("graph.user_item.value").shape, std::vector<int64_t>{2 * 136});
}

// The search that a case shows for its readers is the one that was made: the drawn rank names the negative.
TEST(Case, ShowsHowCurricularNegativesWereFound) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const bool cosine : {false, true})
    for (const Position at : {Position{1, 0}, {2, 4}, {3, 8}}) {
      Settings s = case_settings(model_named("CCDRec"));
      s.cns_cosine = cosine, s.kappa = 0.3;
      Trainer t(s, data);
      train_to(t, s, at.epoch, at.step, {});
      write_case(t, s, 0, dir / "case.safetensors");
      const TensorFile c = read_safetensors(dir / "case.safetensors");
      const TensorData &similarity = c.tensors.at("cns.similarity"), &excluded = c.tensors.at("cns.excluded");
      const int64_t B = similarity.shape[0], C = similarity.shape[1];
      ASSERT_EQ(C, 15);
      for (int64_t b = 0; b < B; ++b) {
        std::vector<std::pair<float, int64_t>> order;  // most similar first, then by place
        for (int64_t k = 0; k < C; ++k) {
          const int32_t item = c.tensors.at("cns.candidates").i32()[k], user = c.tensors.at("batch.users").i32()[b];
          const bool seen = std::any_of(data.train.begin(), data.train.end(),
                                        [&](const Pair& p) { return p.user == user && p.item == item; });
          EXPECT_EQ(excluded.i32()[b * C + k] != 0, seen);
          if (!seen) order.emplace_back(-similarity.f32()[b * C + k], k);
        }
        std::sort(order.begin(), order.end());
        const int32_t rank = c.tensors.at("cns.rank").i32()[b];
        ASSERT_GE(rank, 0);
        ASSERT_LT(rank, std::min<int64_t>(4, int64_t(order.size())));
        EXPECT_EQ(c.tensors.at("cns.candidates").i32()[order[size_t(rank)].second],
                  c.tensors.at("batch.curricular").i32()[b])
            << "row " << b;
      }
    }
}

// What `ccdrec case --reverse` writes, `ccdrec reverse` computes as the run did: its pools are those of the next epoch.
TEST(Case, ReverseComputesThePoolsOfTheRun) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const bool trained : {true, false})
    for (const Position at : {Position{0, 0}, {1, 4}}) {
      Settings s = case_settings(model_named("CCDRec"));
      s.train_features = trained, s.noise_prediction_form = !trained;
      {
        Trainer t(s, data);
        train_to(t, s, at.epoch, at.step, {});
        write_reverse_case(t, s, dir / "case.safetensors");
      }
      const TensorFile got = run_reverse_case(dir / "case.safetensors", "", "cpu", 1);
      Trainer t(s, data);
      train_to(t, s, at.epoch + 1, 0, {});
      for (int k = 0; k < 4; ++k) {
        const std::vector<float> want = pool_of(t.device(), t.model(), k);
        const TensorData& pool = got.tensors.at("pool." + std::to_string(k));
        ASSERT_EQ(pool.bytes.size(), want.size() * sizeof(float));
        for (size_t j = 0; j < want.size(); ++j)
          EXPECT_NEAR(pool.f32()[j], want[j], 2e-6f * (1 + std::fabs(want[j]))) << "pool " << k << ", " << j;
      }
    }
  Settings s = case_settings(model_named("FREEDOM"));
  Trainer t(s, data);
  EXPECT_THROW(write_reverse_case(t, s, dir / "none"), std::logic_error);
  EXPECT_FALSE(std::filesystem::exists(dir / "none"));
}

TEST(Case, AStepThatIsNotInTheRunIsOneSentence) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  Settings s = case_settings(model_named("BPR"));
  s.epochs = 100, s.stopping_step = 1, s.learning_rate = 0.05;
  const auto sentence = [&](int epoch, int64_t step) -> std::string {
    Trainer t(s, data);
    try {
      train_to(t, s, epoch, step, {});
    } catch (const UserError& e) { return e.what(); }
    return "no complaint";
  };
  EXPECT_EQ(sentence(100, 0), "--epoch 100: the run has epochs 0 to 99 (setting epochs)");
  EXPECT_EQ(sentence(-1, 0), "--epoch -1: the run has epochs 0 to 99 (setting epochs)");
  EXPECT_EQ(sentence(0, 9), "--step 9: an epoch of this run has steps 0 to 8");
  EXPECT_EQ(sentence(0, -1), "--step -1: an epoch of this run has steps 0 to 8");
  EXPECT_NE(sentence(99, 0).find("the run ends before it, after epoch "), std::string::npos);
}

}  // namespace
}  // namespace ccdrec::test
