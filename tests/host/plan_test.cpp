// The memory plan: against what training takes on each device, and the sentence for a run that does not fit.
#include <gtest/gtest.h>

#include "data/error.h"
#include "host/base/device.h"
#include "host/cli/memory.h"
#include "host/systems/registry.h"
#include "tests/host/looked_into.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"

namespace ccdrec::test {
namespace {

Settings plan_settings(void (*set)(Settings&), const std::string& device) {
  Settings s;
  s.embedding_size = 16, s.train_batch_size = 160, s.epochs = 3, s.knn_k = 5, s.threads = 2, s.dtau = 1, s.tau_end = 1,
  s.timesteps = 3;
  s.dropout = 0.3, s.device = device;
  set(s);
  return s;
}

size_t bytes_of(const MemoryPlan& plan, const std::string& what) {
  for (const PlanLine& l : plan.lines)
    if (l.what == what) return l.bytes;
  return 0;
}

// Three epochs: at random, from the pools, from the model's own rows, two where nothing is searched; the third step
// records on a GPU. Each with its evaluation, or one at the end. A GPU takes its scratch as planned, so it is what
// operations have asked for that the plan must not exceed by much.
void expect_planned(const Named& m, const Dataset& data, const std::string& device) {
  Settings s = plan_settings(m.set, device);
  if (!outline_of(s).searches) s.epochs = std::min(s.epochs, 2);
  SCOPED_TRACE(std::string(m.name) + " on " + device + ", eval_step " + std::to_string(s.eval_step));
  const MemoryPlan plan = Trainer::plan(s, data);
  Trainer t(s, data);
  t.run({});
  const size_t scratch = device == "cuda" ? t.device().ctx.asked().bytes() : t.device().ctx.scratch_bytes(),
               planned_scratch = bytes_of(plan, "scratch") + bytes_of(plan, "libraries");
  EXPECT_GT(scratch, 0u);
  EXPECT_GE(planned_scratch, scratch);
  const ScratchPlan slots = Trainer::scratch(s, data), asked = t.device().ctx.asked();
  for (int k = 0; k < kScratchSlots; ++k) EXPECT_GE(slots.slot[k], asked.slot[k]) << "slot " << k;
  EXPECT_LE(double(bytes_of(plan, "scratch")), 1.5 * double(scratch) + 100e3);
  EXPECT_GE(plan.total(), t.device_bytes());
  // the CPU's lists are not all the device's
  const size_t beside = bytes_of(plan, "libraries") + (device == "cpu" ? bytes_of(plan, "evaluation") : 0);
  EXPECT_LE(double(plan.total() - beside), 1.3 * double(t.device_bytes()) + 100e3);
  if (device == "cuda") { EXPECT_EQ(t.device().ctx.scratch_bytes(), bytes_of(plan, "scratch")) << "nothing has grown"; }
}

// They ask for every operation's scratch between them: on both devices.
const Named planned_models[] = {
    {"LightGCN, three negatives", [](Settings& s) { s.model = "LightGCN", s.n_neg = 3, s.embedding_size = 20; }},
    {"FREEDOM", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2; }},
    {"CCDRec", [](Settings&) {}},
    {"CCDRec, transformer", [](Settings& s) { s.estimator = "transformer", s.estimator_layers = 2; }},
    {"CCDRec on MCDRec", [](Settings& s) { s.backbone = "MCDRec"; }},
    {"LightGCN, MixGCF, three layers",
     [](Settings& s) { s.model = "LightGCN", s.n_ui_layers = 3, s.sampler = "mixgcf"; }},
    {"MG(FREEDOM), MixGCF",
     [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2, s.use_mg = true, s.beta = 1, s.sampler = "mixgcf"; }},
    {"LATTICE", [](Settings& s) { s.model = "LATTICE", s.reg_weight = 1e-3; }},
    {"CCDRec on LATTICE", [](Settings& s) { s.backbone = "LATTICE"; }},
    {"MMGCN", [](Settings& s) { s.model = "MMGCN", s.reg_weight = 0.1; }},
    {"SLMRec", slmrec_models[0].set},
    {"BPR, RealHNS", [](Settings& s) { s.model = "BPR", s.sampler = "realhns", s.realhns_start = 0; }},
    bm3_models[0],
};
const Named planned_on_the_cpu[] = {
    {"CCDRec on LightGCN", [](Settings& s) { s.backbone = "LightGCN", s.n_neg = 2; }},
    {"DMA and NDI", [](Settings& s) { s.cns = false; }},
    {"BPR", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01; }},
    {"BPR, all items ranked", [](Settings& s) { s.model = "BPR", s.topk = {520}; }},
    {"LightGCN", [](Settings& s) { s.model = "LightGCN", s.reg_weight = 1e-3; }},
    {"FREEDOM, features frozen",
     [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2, s.train_features = false, s.dropout = 0; }},
    {"FREEDOM without modality terms", [](Settings& s) { s.model = "FREEDOM", s.knn_center = true; }},
    {"CCDRec, late evaluation", [](Settings& s) { s.eval_step = 3, s.candidate_ratio = 1; }},
    {"CCDRec on MCDRec, nearly every edge",
     [](Settings& s) { s.backbone = "MCDRec", s.dropout = 0.01, s.cns = false; }},
    {"CCDRec on MCDRec, every edge", [](Settings& s) { s.backbone = "MCDRec", s.dropout = 0; }},
    {"MCDRec", [](Settings& s) { s.model = "MCDRec", s.estimator = "unet", s.embedding_size = 64, s.timesteps = 5; }},
    {"MCDRec, attention, modality terms, features frozen",
     [](Settings& s) { s.model = "MCDRec", s.estimator = "attention", s.reg_weight = 1e-2, s.train_features = false; }},
    {"MCDRec without its diffusion", [](Settings& s) { s.model = "MCDRec", s.mrd = false; }},
    {"CCDRec on MCDRec with the U-Net, nothing dropped",
     [](Settings& s) {
       s.backbone = "MCDRec", s.estimator = "unet", s.embedding_size = 64, s.unet_dropout = 0, s.timesteps = 5;
     }},
    {"MG(MMGCN), two negatives, wider than its features",
     [](Settings& s) { s.model = "MMGCN", s.n_neg = 2, s.embedding_size = 48, s.use_mg = true; }},
    {"BPR, popularity", [](Settings& s) { s.model = "BPR", s.sampler = "popularity"; }},
    {"MG(LightGCN), DNS", [](Settings& s) { s.model = "LightGCN", s.use_mg = true, s.sampler = "dns"; }},
    {"DMA, DNS", [](Settings& s) { s.ndi = s.cns = false, s.sampler = "dns"; }},
    {"LATTICE, two item layers, features frozen, MixGCF",
     [](Settings& s) { s.model = "LATTICE", s.n_mm_layers = 2, s.train_features = false, s.sampler = "mixgcf"; }},
    {"DMA on BPR, MixGCF", [](Settings& s) { s.ndi = s.cns = false, s.backbone = "BPR", s.sampler = "mixgcf"; }},
    {"BPR, MixGCF", [](Settings& s) { s.model = "BPR", s.sampler = "mixgcf", s.n_neg = 2; }},
    {"LightGCN, DNS at omega 0",
     [](Settings& s) { s.model = "LightGCN", s.sampler = "dns", s.omega = 0, s.negative_stats = 0; }},
    {"LightGCN, MixGCF at omega 0", [](Settings& s) { s.model = "LightGCN", s.sampler = "mixgcf", s.omega = 0; }},
    {"FREEDOM, RealHNS of the whole ranking",
     [](Settings& s) {
       s.model = "FREEDOM", s.sampler = "realhns", s.realhns_start = 0, s.realhns_p_max = 100, s.use_mg = true;
     }},
    {"LightGCN, RealHNS at omega 0",
     [](Settings& s) { s.model = "LightGCN", s.sampler = "realhns", s.realhns_start = 0, s.omega = 0; }},
    {"DMA, RealHNS", [](Settings& s) { s.ndi = s.cns = false, s.sampler = "realhns", s.realhns_start = 1; }},
    {"DMA, MixGCF", [](Settings& s) { s.ndi = s.cns = false, s.sampler = "mixgcf"; }},
    {"MG(CCDRec)", [](Settings& s) { s.use_mg = true; }},
    bm3_models[1],
    {"BM3 without layers, features frozen, nothing masked",
     [](Settings& s) {
       s.model = "BM3", s.n_neg = s.negative_stats = 0, s.n_ui_layers = 0, s.train_features = false, s.dropout = 0;
     }},
    {"MG(SLMRec), no layers", [](Settings& s) { slmrec_models[1].set(s), s.n_ui_layers = 0, s.embedding_size = 18; }},
};

TEST(SlowPlan, CoversArraysAndScratchOfTrainingAndEvaluation) {
  const Folder dir;
  const Dataset data = random_data(dir, 100, 530, 4, {40, 12});
  for (const std::string& device : devices_here())
    for (const Named& m : planned_models) expect_planned(m, data, device);
  for (const Named& m : planned_on_the_cpu) expect_planned(m, data, "cpu");
}

TEST(ExhaustivePlan, CoversEveryModelOnAGpu) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  const Folder dir;
  const Dataset data = random_data(dir, 100, 530, 4, {40, 12});
  for (const Named& m : planned_on_the_cpu) expect_planned(m, data, "cuda");
}

// What is looked at when a run is over takes less than training did, which is given back by then; else the plan says
// so.
TEST(Plan, CountsTheFiguresOfTheListsWhereTheyTakeMore) {
  const Folder dir;
  const Dataset data = random_data(dir, 100, 530, 4, {});
  const char* const line = "more for the figures of the lists, at the end";
  Settings s = plan_settings([](Settings& z) { z.model = "BPR"; }, "cpu");
  EXPECT_EQ(bytes_of(Trainer::plan(s, data), line), 0u);
  s.embedding_size = 1;
  const size_t with_four = Trainer::plan(s, data).total();
  for (int k = 1; k <= 60; ++k) s.topk.push_back(k + 50);
  const MemoryPlan many = Trainer::plan(s, data);
  // of 99 users in each split, 64 lengths: six metrics as computed and as kept
  EXPECT_GT(bytes_of(many, line), 0u);
  EXPECT_GT(many.total(), with_four + 2 * 99 * 60 * 6 * (8 + 4));
}

// Features that are mapped first; fewer users than items.
TEST(SlowPlan, CoversAMappedModality) {
  const Folder dir;
  const Dataset data = random_data(dir, 60, 130, 4, {1100, 12});
  for (const std::string& device : devices_here())
    expect_planned({"MMGCN, mapped", [](Settings& s) { s.model = "MMGCN", s.mmgcn_latent = 40; }}, data, device);
}

// What a sampler, its measured negatives and Mirror Gradient add to the plan is what they take, to the rounding of
// allocations and what of a plan is an upper bound (scratch).
TEST(Plan, WhatHardNegativesAddIsWhatTheyTake) {
  const Folder dir;
  const Dataset data = random_data(dir, 100, 530, 4, {40, 12});
  const auto arrays = [&](const Settings& s) {  // planned, taken
    Trainer t(s, data);
    const MemoryPlan plan = Trainer::plan(s, data);
    return std::pair{
        int64_t(plan.total() - bytes_of(plan, "scratch") - bytes_of(plan, "libraries") - bytes_of(plan, "evaluation")),
        int64_t(t.device_bytes() - t.device().ctx.scratch_bytes())};
  };
  for (const std::string& device : devices_here())
    for (const char* model : {"LightGCN", "BPR", "FREEDOM", "LATTICE", "CCDRec"}) {
      Settings s = plan_settings([](Settings&) {}, device);
      s.model = model, s.ndi = s.cns = false, s.negative_stats = 0;
      const auto [planned, taken] = arrays(s);
      const auto expect_added = [&](const Settings& z, const std::string& what) {
        const auto [with_planned, with_taken] = arrays(z);
        EXPECT_GT(with_taken, taken) << model << ", " << what << " on " << device;
        EXPECT_NEAR(double(with_planned - planned), double(with_taken - taken),
                    0.02 * double(with_taken - taken) + 8192)
            << model << ", " << what << " on " << device;
      };
      for (const char* sampler : {"popularity", "dns", "mixgcf", "realhns"}) {
        Settings z = s;
        z.sampler = sampler;
        expect_added(z, sampler);
      }
      Settings z = s;
      z.negative_stats = 1 << 20;
      expect_added(z, "measured");
      z = s;
      z.use_mg = true, z.beta = 1, z.epochs = 2000;
      const auto [plain_planned, plain_taken] = [&] {
        Settings plain = z;
        plain.use_mg = false;
        return arrays(plain);
      }();
      const auto [with_planned, with_taken] = arrays(z);
      EXPECT_GT(with_taken, plain_taken);
      EXPECT_NEAR(double(with_planned - plain_planned), double(with_taken - plain_taken), 512)
          << model << " on " << device;
      if (device == "cuda") break;  // one is enough: arrays are the same everywhere
    }
}

// More candidates than stay in shared memory: a GPU keeps what lies in each row's bracket.
TEST(SlowPlan, CoversTheListsOfManyCandidates) {
  const Folder dir;
  const Dataset data = random_data(dir, 24, 4110, 4, {8});
  const Named many{"CCDRec, 4110 candidates", [](Settings& s) {
                     s.candidate_ratio = 1, s.train_batch_size = 64, s.epochs = 2, s.embedding_size = 8, s.dropout = 0;
                   }};
  for (const std::string& device : devices_here()) expect_planned(many, data, device);
}

// Batches whose slots a GPU sorts by the library.
TEST(Plan, CoversTheSortOfLargeBatches) {
  const Folder dir;
  const Dataset data = random_data(dir, 500, 60, 12, {});
  const Named large{"BPR, two batches", [](Settings& s) {
                      s.model = "BPR", s.train_batch_size = 3200, s.n_neg = 2, s.epochs = 2, s.embedding_size = 4;
                    }};
  for (const std::string& device : devices_here()) expect_planned(large, data, device);
}

// --- the sentence ----------------------------------------------------------------------------------------------------

std::string refusal(const Settings& s, const Dataset& data, const cli::FreeMemory& free) {
  try {
    cli::refuse_if_too_large(Trainer::plan(s, data), s, data, free);
  } catch (const UserError& e) { return e.what(); }
  return "";
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// The number after `key` in the sentence.
int64_t offered(const std::string& text, const std::string& key) {
  const size_t at = text.find(key);
  return at == std::string::npos ? -1 : std::stoll(text.substr(at + key.size()));
}

TEST(TooLarge, TheLargestBatchThatFitsIsNamed) {
  const Folder dir;
  const Dataset data = random_data(dir, 400, 300, 10, {96, 40});
  for (const std::string& device : devices_here()) {
    Settings s = plan_settings([](Settings& z) { z.train_batch_size = 2048; }, device);
    const size_t whole = Trainer::plan(s, data).total();
    EXPECT_EQ(refusal(s, data, {whole, false}), "");
    const cli::FreeMemory free{whole * 3 / 4, device == "cuda"};
    const std::string said = refusal(s, data, free);
    EXPECT_TRUE(has(said, device == "cuda" ? "and the GPU has" : "and the machine has")) << said;
    EXPECT_FALSE(has(said, "train_features")) << said;
    s.train_batch_size = int(offered(said, "train_batch_size="));
    ASSERT_GT(s.train_batch_size, 0) << said;
    EXPECT_EQ(refusal(s, data, free), "");
    ++s.train_batch_size;
    EXPECT_NE(refusal(s, data, free), "") << said;
  }
}

TEST(TooLarge, AnotherSettingIsNamedWhereTheBatchIsNotWhatTakesMemory) {
  const Folder dir;
  const Dataset data = random_data(dir, 3000, 2000, 3, {64});
  // The tables.
  Settings s =
      plan_settings([](Settings& z) { z.model = "BPR", z.embedding_size = 256, z.train_batch_size = 16; }, "cpu");
  const cli::FreeMemory half{Trainer::plan(s, data).total() / 2, false};
  const std::string said = refusal(s, data, half);
  EXPECT_FALSE(has(said, "train_features")) << "BPR reads none: " << said;
  s.embedding_size = int(offered(said, "; embedding_size="));
  ASSERT_GT(s.embedding_size, 0) << said;
  EXPECT_EQ(s.embedding_size % 4, 0);
  EXPECT_EQ(refusal(s, data, half), "");
  s.embedding_size += 4;
  EXPECT_NE(refusal(s, data, half), "") << said;
  // The features' optimiser state.
  const Dataset wide = random_data(dir, 300, 800, 3, {2000});
  s = plan_settings([](Settings& z) { z.train_batch_size = 16; }, "cpu");
  const cli::FreeMemory third{Trainer::plan(s, wide).total() * 6 / 10, false};
  const std::string frozen = refusal(s, wide, third);
  EXPECT_TRUE(has(frozen, "; train_features=false would fit (")) << frozen;
  EXPECT_TRUE(has(frozen, "the largest part is 'features with optimiser state'")) << frozen;
  s.train_features = false;
  EXPECT_EQ(refusal(s, wide, third), "");
}

TEST(TooLarge, NothingThatFitsIsSaidToo) {
  const Folder dir;
  const Dataset data = random_data(dir, 400, 300, 5, {96});
  const auto said = [&](const char* model) {
    Settings s = plan_settings([](Settings&) {}, "cpu");
    s.model = model;
    return refusal(s, data, {1000, false});
  };
  EXPECT_TRUE(has(said("BPR"), "; no train_batch_size or embedding_size would fit")) << said("BPR");
  EXPECT_FALSE(has(said("BPR"), "train_features")) << said("BPR");
  EXPECT_TRUE(has(said("CCDRec"), "; no train_batch_size or embedding_size would fit, nor would train_features=false"))
      << said("CCDRec");
}

TEST(TooLarge, TheHeadingNamesTheMemoryThatIsMeant) {
  const MemoryPlan plan{{{"tables", 2000000}, {"scratch", 1000000}}};
  EXPECT_EQ(cli::memory_lines(plan, {80000000000, true})[0], "memory plan (80.00 GB available on the GPU)");
  const std::vector<std::string> lines = cli::memory_lines(plan, {4000000, false});
  EXPECT_EQ(lines[0], "memory plan (4.0 MB available)");
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_TRUE(has(lines[3], "total") && has(lines[3], "3.0 MB")) << lines[3];
}

}  // namespace
}  // namespace ccdrec::test
