// Whole models on a GPU: the real one of this program, or the emulated one of tests/simt. They must train as the CPU
// does, whether a step runs directly or is replayed, and on the emulator under any schedule.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "bench/gpu/agreement.h"
#include "data/error.h"
#include "host/base/device.h"
#include "host/base/safetensors.h"
#include "host/systems/registry.h"
#include "host/training/recommender.h"
#include "host/training/trainer.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"
#include "tests/support.h"
#if defined(CCDREC_TEST_SIMT)
#include "tests/simt/simt.h"
#endif

namespace ccdrec::test {
namespace {

// They stand for the others, which `make test-all` goes through.
const Named kModels[] = {
    {"BPR", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01, s.n_neg = 2; }},
    {"LightGCN", [](Settings& s) { s.model = "LightGCN", s.reg_weight = 1e-3; }},
    {"FREEDOM", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2, s.dropout = 0.3, s.n_mm_layers = 2; }},
    {"CCDRec", [](Settings& s) { s.dropout = 0.3, s.dtau = 1, s.tau_end = 2; }},
    {"DMA+NDI", [](Settings& s) { s.dropout = 0.3, s.cns = false; }},
    {"Transformer", [](Settings& s) { s.dropout = 0.3, s.dtau = 1, s.tau_end = 2, s.estimator = "transformer"; }},
    hard_models[1],
    hard_models[2],
    hard_models[3],
    hard_models[4],
    lattice_models[2],
    denoised_models[0],
    bm3_models[1],
    slmrec_models[1],
    mcdrec_models[0],
    mmgcn_models[1],
};
const Named& kTransformer = kModels[5];
const Named kOthers[] = {
    {"FREEDOM, no modality terms", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 0, s.dropout = 0.8; }},
    {"CCDRec, features kept",
     [](Settings& s) { s.dropout = 0.3, s.dtau = 1, s.tau_end = 2, s.train_features = false, s.cns_cosine = true; }},
    {"CCDRec on LightGCN", [](Settings& s) { s.backbone = "LightGCN", s.dtau = 1, s.tau_end = 2; }},
    {"DMA", [](Settings& s) { s.dropout = 0.3, s.ndi = s.cns = false; }},
    hard_models[0],
    lattice_models[0],
    lattice_models[1],
    lattice_models[3],
    bm3_models[0],
    slmrec_models[0],
    denoised_models[1],
    denoised_models[2],
    mcdrec_models[1],
    mcdrec_models[2],
    mcdrec_models[3],
    mmgcn_models[0],
};

Settings small(const Named& m, const char* device) {
  Settings s;
  s.embedding_size = 16, s.train_batch_size = 24, s.epochs = 4, s.knn_k = 3, s.seed = 11, s.threads = 1,
  s.learning_rate = 5e-3, s.timesteps = 6;
  s.candidate_ratio = 0.5, s.kappa = 0.3;
  m.set(s);
  // The curriculum has random negatives, two stages and the model's own pool; RealHNS begins in epoch 2; the U-Net's
  // small steps take as long to be told from roundings.
  const Outline has = outline_of(s);
  if (!has.searches && !has.bands && !has.unet) s.epochs = 2;
  // The U-Net's group norms of two values are nearly signs: what differs by a rounding differs by a hundred times as
  // much a step later. Small steps keep two right courses together; gradients are compared in
  // tests/kernels/unet_test.cpp.
  if (has.unet) s.learning_rate = 1e-6;
  s.device = device;
  return s;
}

struct Course {
  std::vector<double> loss, valid, reg;
  std::map<std::string, std::vector<float>> tensors;
};
Course course(const Settings& s, const Dataset& data, const Folder& dir) {
  Course c;
  Trainer t(s, data);
  TrainHooks log;
  log.on_epoch = [&](const EpochReport& r) { c.loss.push_back(r.loss), c.valid.push_back(r.valid.at("recall@20")); };
  t.run(log);
  t.save_best(dir / "best.safetensors");
  for (const auto& [name, tensor] : read_safetensors(dir / "best.safetensors").tensors) {
    if (tensor.dtype != "F32") continue;
    std::vector<float>& v = c.tensors[name];
    v.resize(tensor.bytes.size() / sizeof(float));
    std::memcpy(v.data(), tensor.bytes.data(), tensor.bytes.size());
  }
  return c;
}

void expect_trains_as_the_cpu(const Named& m) {
  SCOPED_TRACE(m.name);
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const Course cpu = course(small(m, "cpu"), data, dir), gpu = course(small(m, "cuda"), data, dir);
  ASSERT_EQ(cpu.loss.size(), gpu.loss.size());
  for (size_t e = 0; e < cpu.loss.size(); ++e) {
    EXPECT_LE(std::fabs(gpu.loss[e] - cpu.loss[e]), 2e-5 * std::fabs(cpu.loss[e])) << "epoch " << e;
    // at most one user's list differs by a near-tie
    EXPECT_LE(std::fabs(gpu.valid[e] - cpu.valid[e]), 1.01 / 39) << "epoch " << e;
  }
  ASSERT_EQ(cpu.tensors.size(), gpu.tensors.size());
  for (const auto& [name, want] : cpu.tensors) {
    // softmax is blind to it: its gradient is rounding, which Adam turns into steps
    if (name.find("w_k.bias") != std::string::npos) continue;
    const std::vector<float>& got = gpu.tensors.at(name);
    ASSERT_EQ(got.size(), want.size()) << name;
    double most = 0, norm = 0, off = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      most = std::max(most, std::fabs(double(want[i])));
      norm += double(want[i]) * want[i], off += (double(got[i]) - want[i]) * (double(got[i]) - want[i]);
    }
    EXPECT_LE(std::sqrt(off), 5e-3 * std::sqrt(norm) + 1e-12)
        << name;  // Adam turns the sign of a rounding into a step: whole tensors, not elements
  }
}

TEST(Gpu, TrainsAsTheCpuDoes) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  for (const Named& m : kModels) {
    // three: what the others add is arithmetic, and operations that have tests of their own
    if (sanitized() && &m != &kModels[2] && &m != &kModels[3] && &m != &kTransformer) continue;
    expect_trains_as_the_cpu(m);
  }
}

TEST(ExhaustiveGpu, TrainsAsTheCpuDoes) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  for (const Named& m : kOthers) expect_trains_as_the_cpu(m);
}

// precision = tf32 and bf16: the run says so, models without large products are those of fp32 bit for bit, and the
// losses of the others move, but by no more than the mantissas say.
TEST(SlowGpu, PrecisionLowersTheLargeProductsAndNothingElse) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  for (const Named& m : {kModels[0], kModels[2], kModels[3]}) {
    SCOPED_TRACE(m.name);
    const Folder dir;
    const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
    const auto losses = [&](const char* precision) {
      Settings s = small(m, "cuda");
      s.precision = precision, s.epochs = 2;
      Trainer t(s, data);
      EXPECT_NE(t.notes()[0].find(std::string("large products in ") + precision), std::string::npos) << t.notes()[0];
      std::vector<double> loss;
      TrainHooks log;
      log.on_epoch = [&](const EpochReport& r) { loss.push_back(r.loss); };
      t.run(log);
      return loss;
    };
    const auto fp32 = losses("fp32");
    double moved[2] = {0, 0};
    for (const bool half : {false, true}) {
      const char* const precision = half ? "bf16" : "tf32";
      const auto lowered = losses(precision);
      ASSERT_EQ(lowered.size(), fp32.size());
      for (size_t e = 0; e < fp32.size(); ++e)
        bench::keep_worst(moved[half], std::fabs(lowered[e] - fp32[e]) / fp32[e]);
      if (!outline_of(small(m, "cuda")).projects) {  // no large products
        EXPECT_EQ(lowered, fp32) << precision;
        continue;
      }
      EXPECT_LE(moved[half], bench::loss_limit(precision)) << precision;
      if (gpu_info().emulated) { EXPECT_GT(moved[half], 0) << precision; }
    }
    std::printf("%s: losses move by %.1e in tf32, %.1e in bf16\n", m.name, moved[0], moved[1]);
  }
}

// spmm = own against cusparse: the products of whole graphs, which evaluation runs, are equal to rounding; a step's, of
// listed rows, are the same.
TEST(SlowGpu, EvaluatesByCusparseAsByOwnProducts) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  if (!gpu_info().cusparse) GTEST_SKIP() << "built without cuSPARSE";
  for (const Named& m : {kModels[1], kModels[2], kModels[3]}) {
    SCOPED_TRACE(m.name);
    const Folder dir;
    const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
    std::vector<double> loss[2], valid[2];
    std::vector<float> items[2];
    for (const bool library : {false, true}) {
      Settings s = small(m, "cuda");
      s.spmm = library ? "cusparse" : "own";
      Trainer t(s, data);
      EXPECT_NE(t.notes()[0].find(library ? "of whole graphs by cuSPARSE" : "by own kernels"), std::string::npos)
          << t.notes()[0];
      TrainHooks log;
      log.on_epoch = [&](const EpochReport& r) {
        loss[library].push_back(r.loss), valid[library].push_back(r.valid.at("recall@20"));
      };
      t.run(log);
      CMat hu, hi;
      t.model().represent(hu, hi);
      items[library].resize(size_t(hi.size()));
      t.device().ops.download(t.device().ctx, items[library].data(), hi.p, items[library].size() * sizeof(float));
#if defined(CCDREC_TEST_SIMT)
      const int64_t asked = static_cast<const simt::Backend*>(t.device().ctx.backend)->sparse_products;
      EXPECT_EQ(asked, library ? (2 * s.epochs + 1) * (outline_of(s).layers + outline_of(s).item_layers) : 0)
          << "an evaluation and a measurement an epoch, and one more";
#endif
    }
    ASSERT_GE(loss[0].size(), 2u);
    ASSERT_EQ(loss[1].size(), loss[0].size());
    for (size_t e = 0; e < loss[0].size(); ++e) {
      EXPECT_LE(std::fabs(loss[1][e] - loss[0][e]), 2e-5 * std::fabs(loss[0][e])) << "epoch " << e;
      EXPECT_LE(std::fabs(valid[1][e] - valid[0][e]), 1.01 / 39) << "epoch " << e;
    }
    double norm = 0, off = 0;
    for (size_t i = 0; i < items[0].size(); ++i)
      norm += double(items[0][i]) * items[0][i],
          off += (double(items[1][i]) - items[0][i]) * (double(items[1][i]) - items[0][i]);
    EXPECT_GT(norm, 0);
    EXPECT_LE(std::sqrt(off), 1e-6 * std::sqrt(norm));
  }
}

// The switch: what it may be, and what a build without the library answers.
TEST(Gpu, WhoseSparseProductsIsASetting) {
  GpuInfo with, without;
  with.cusparse = true;
  EXPECT_EQ(spmm_choice("auto", without), SpmmBy::automatic);
  EXPECT_EQ(spmm_choice("own", without), SpmmBy::own);
  EXPECT_EQ(spmm_choice("cusparse", with), SpmmBy::cusparse);
  const auto sentence = [](const std::function<void()>& call) -> std::string {
    try {
      call();
    } catch (const UserError& e) { return e.what(); }
    return "";
  };
  EXPECT_EQ(sentence([&] { spmm_choice("cusparse", without); }),
            "spmm is cusparse, but this program was built without it (libcusparse with its header was not found); use "
            "spmm auto or own");
  EXPECT_EQ(sentence([&] { spmm_choice("cusp", with); }), "spmm is 'cusp', expected auto, own or cusparse");
  std::string note;
  EXPECT_EQ(make_device("cpu", 1, note, "fp32", "cusparse")->ctx.spmm, SpmmBy::automatic) << "the CPU has one";
}

// cuBLAS obeys the variable whatever the run asks for: the line that says which precision was used must not hide that.
TEST(Gpu, TheRunSaysWhereTheEnvironmentOverridesItsPrecision) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  std::string plain, overridden;
  make_device("cuda", 1, plain, "fp32", "own");
  setenv("NVIDIA_TF32_OVERRIDE", "1", 1);
  make_device("cuda", 1, overridden, "fp32", "own");
  unsetenv("NVIDIA_TF32_OVERRIDE");
  EXPECT_NE(plain.find("large products in fp32, sparse"), std::string::npos) << plain;
  EXPECT_NE(
      overridden.find("fp32 (unless NVIDIA_TF32_OVERRIDE=1, set in the environment, has cuBLAS do otherwise), sparse"),
      std::string::npos)
      << overridden;
}

// Steps as they come, against recorded and replayed ones: the same bits, and the recordings are really used.
void expect_replayed_as_direct(const Named& m) {
  SCOPED_TRACE(m.name);
  const Folder dir;
  const Dataset data = random_data(dir, 24, 16, 4, {12, 7});
  std::vector<std::vector<unsigned char>> states;
  std::vector<double> losses[2];
  for (const bool direct : {true, false}) {
    Settings s = small(m, "cuda");
    const bool searches = outline_of(s).searches, learned = outline_of(s).learned_graph,
               late = outline_of(s).bands && s.realhns_start > 0;
    // six stages; without them what comes twice has come a third time
    s.dtau = s.first_stage = 2, s.tau_end = 7, s.epochs = searches ? 10 : late ? 5 : 3;
    Trainer t(s, data);
    Recommender& model = t.model();
    model.set_timed(direct);
    for (int epoch = 0; epoch < s.epochs; ++epoch) {
      model.begin_epoch(epoch);
      for (int64_t k = 0; k < model.steps_per_epoch(); ++k) model.step(epoch, k);
      model.end_epoch(epoch);
      for (const double x : model.losses()) losses[direct].push_back(x);
    }
    if (direct) {
      EXPECT_EQ(model.recordings(), 0);
    } else {
      // What comes twice is recorded. Full batches of six stages (no pool yet, four pools, the model's own), last
      // batches of those four that take two epochs; without the sampler, of both with a pool and full ones before.
      // With Mirror Gradient steps 0 and 2 of the four are of another kind than 1 and the last: the full ones of all
      // stages, and 1 of those four.
      // RealHNS may have epochs without a choice before those with one.
      // A learned graph has a kind of its own for the first batch of an epoch: one, or in each stage of two epochs.
      const int64_t of_stages = s.use_mg ? 14 : 10, plain = (s.use_mg ? 3 : 2) * (late ? 2 : 1);
      EXPECT_EQ(model.recordings(), (searches                           ? of_stages
                                     : std::string(m.name) == "DMA+NDI" ? 3
                                                                        : plain) +
                                        (learned ? searches ? 4 : 1 : 0));
    }
    states.push_back(state_bytes(t, dir));
  }
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_TRUE(states[0] == states[1]);
}

TEST(SlowGpu, ReplayedStepsAreTheDirectOnes) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  for (const Named& m : kModels)
    if (&m != &kTransformer) expect_replayed_as_direct(m);
}

TEST(ExhaustiveGpu, ReplayedStepsAreTheDirectOnes) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  for (const Named& m : kOthers) expect_replayed_as_direct(m);
  expect_replayed_as_direct(kTransformer);
}

// stops: steps after which a run stops; an epoch has nine.
void expect_same_course_on_a_gpu(const Named& m, const std::vector<int>& stops) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const Settings s = small(m, "cuda");
  Trainer unbroken(s, data);
  unbroken.run({});
  for (const int stop_after : stops) {
    SCOPED_TRACE(std::string(m.name) + ", " + std::to_string(stop_after));
    int steps = 0;
    TrainHooks hooks;
    hooks.on_step = [&](int, int64_t, int64_t) { ++steps; };
    hooks.interrupted = [&] { return steps == stop_after; };
    {
      Trainer first(s, data);
      EXPECT_EQ(first.run(hooks).reason, StopReason::interrupted);
      first.save_state(dir / "last.safetensors");
    }
    Trainer second(s, data);
    second.load_state(dir / "last.safetensors");
    second.run({});
    EXPECT_TRUE(state_bytes(unbroken, dir) == state_bytes(second, dir));
  }
}

// In the first epoch, between two, and among the pools; the CPU's tests go through all of it.
TEST(SlowGpu, ResumedInTheMiddleItTakesTheSameCourseBitForBit) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  expect_same_course_on_a_gpu(bm3_models[1], {3});
  expect_same_course_on_a_gpu(kModels[3], {9});
  expect_same_course_on_a_gpu(denoised_models[0], {21});
}

TEST(ExhaustiveGpu, ResumedInTheMiddleItTakesTheSameCourseBitForBit) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  expect_same_course_on_a_gpu(bm3_models[1], {9, 12});
  expect_same_course_on_a_gpu(kModels[3], {3, 21});
  expect_same_course_on_a_gpu(denoised_models[0], {3, 9});
}

#if defined(CCDREC_TEST_SIMT)
TEST(SlowGpu, NoScheduleChangesABit) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const Named& m : {kModels[2], kModels[3], denoised_models[0], bm3_models[1]}) {
    SCOPED_TRACE(m.name);
    std::vector<std::vector<unsigned char>> states;
    for (const simt::Config& c :
         {simt::Config{simt::Order::ascending, 0xff, 1}, simt::Config{simt::Order::descending, 0x55, 1},
          simt::Config{simt::Order::random, 0xff, 3}}) {
      simt::default_config() = c;
      Trainer t(small(m, "cuda"), data);
      simt::default_config() = {};
      t.run({});
      states.push_back(state_bytes(t, dir));
    }
    EXPECT_TRUE(states[0] == states[1]);
    EXPECT_TRUE(states[0] == states[2]);
  }
}
#endif

}  // namespace
}  // namespace ccdrec::test
