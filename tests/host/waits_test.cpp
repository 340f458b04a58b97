// How often the host waits for a GPU, and what it takes of its memory: counted by the runtime (Ctx::calls), on the
// emulator as on a GPU. An epoch of replayed steps waits once for its losses and flags and then reads how hard its
// negatives were, and an evaluation waits once a batch of users, for its lists; neither takes memory.
#include <gtest/gtest.h>

#include "host/base/device.h"
#include "host/systems/registry.h"
#include "host/training/recommender.h"
#include "host/training/trainer.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"

namespace ccdrec::test {
namespace {

using Calls = Ctx::Calls;
// of a step of a ranked system, before the pool is the model itself; of the others
constexpr int64_t kStepPhases = 7, kOwnStepPhases = 4;

const Named kCounted[] = {
    {"BPR", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01, s.n_neg = 2; }},
    {"LightGCN", [](Settings& s) { s.model = "LightGCN", s.reg_weight = 1e-3; }},
    {"FREEDOM", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2, s.dropout = 0.3, s.n_mm_layers = 2; }},
    {"CCDRec", [](Settings& s) { s.dropout = 0.3, s.dtau = 1, s.tau_end = 4; }},
    denoised_models[0],
    mmgcn_models[0],
    {"CCDRec, cuSPARSE",
     [](Settings& s) { s.dropout = 0.3, s.dtau = 1, s.tau_end = 4, s.spmm = "cusparse", s.candidate_ratio = 1; }},
};

// Batches of 24 of 195 rows, the last smaller; every second epoch is evaluated, the first time in epoch 1.
Settings counted_settings(const Named& m, int epochs) {
  Settings s;
  s.embedding_size = 16, s.train_batch_size = 24, s.epochs = epochs, s.knn_k = 3, s.seed = 11, s.threads = 1,
  s.timesteps = 6;
  s.candidate_ratio = 0.5, s.kappa = 0.3, s.eval_step = 2, s.device = "cuda";
  m.set(s);
  return s;
}

// Of each epoch with its evaluation, from the end of the one before.
std::vector<Calls> epochs_of(Trainer& t) {
  std::vector<Calls> all;
  const Calls& now = t.device().ctx.calls;
  Calls before = now;
  TrainHooks hooks;
  hooks.on_epoch = [&](const EpochReport&) {
    all.push_back({now.waits - before.waits, now.allocations - before.allocations, now.recordings - before.recordings});
    before = now;
  };
  t.run(hooks);
  return all;
}

// An epoch that is timed waits at the end of every phase: pruning and shuffling, those of the steps, the flush, the
// measured negatives and the reverse process.
int64_t phases(Trainer& t, const Settings& s) {
  return 2 + (outline_of(s).ranks ? kStepPhases : kOwnStepPhases) * t.model().steps_per_epoch() + 2 +
         (t.model().model().reverses() ? 1 : 0);
}

TEST(SlowWaits, ACapturedEpochWaitsAtItsEndAndAnEvaluationOnceAndNeitherTakesMemory) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  for (const Named& m : kCounted) {
    const Folder dir;
    const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
    Settings s = counted_settings(m, 4);
    if (outline_of(s).searches) s.epochs = 8;  // two with the model's own pool
    if (s.spmm == "cusparse" && !gpu_info().cusparse) continue;
    Trainer t(s, data);
    const std::vector<Calls> epochs = epochs_of(t);
    ASSERT_EQ(epochs.size(), size_t(s.epochs));
    int64_t recordings = 0;
    for (size_t e = 0; e < epochs.size(); ++e) {
      SCOPED_TRACE(std::string(m.name) + ", epoch " + std::to_string(e));
      const int64_t evaluations = e % 2;
      EXPECT_EQ(epochs[e].waits, 2 + evaluations + (e == 0 ? phases(t, s) : 0));
      if (e > 0 || gpu_info().emulated) {  // a GPU's first epoch opens cuBLAS
        EXPECT_EQ(epochs[e].allocations, 0);
      }
      recordings += epochs[e].recordings;
    }
    EXPECT_EQ(recordings, t.model().recordings()) << "each kind of step once";
    EXPECT_EQ(epochs.back().recordings, 0);
    EXPECT_GT(recordings, 1);
  }
}

// A resumed run times its first epoch, or the rest of it, and then waits as any other.
TEST(SlowWaits, AResumedRunWaitsInItsFirstEpochOnly) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const Settings s = counted_settings(kCounted[3], 6);
  // interrupted so many steps after epoch 2; -1: when that epoch has ended, 0: before its end is dealt with
  for (const int64_t done : {-1, 0, 2}) {
    SCOPED_TRACE(done);
    int64_t steps = 0;  // of the epoch that goes on
    {
      Trainer first(s, data);
      int64_t left = 3 * first.model().steps_per_epoch() + done;
      bool ended = false;
      TrainHooks hooks;
      hooks.on_step = [&](int, int64_t, int64_t) { --left; };
      hooks.on_epoch = [&](const EpochReport& r) { ended = done < 0 && r.epoch == 2; };
      hooks.interrupted = [&] { return done < 0 ? ended : left == 0; };
      ASSERT_EQ(first.run(hooks).reason, StopReason::interrupted);
      steps = first.next_step();
      EXPECT_EQ(steps, done < 0 ? 0 : done == 0 ? first.model().steps_per_epoch() : done);
      first.save_state(dir / "last.safetensors");
    }
    Trainer second(s, data);
    second.load_state(dir / "last.safetensors");
    const int64_t epoch = second.epoch();
    const std::vector<Calls> epochs = epochs_of(second);
    ASSERT_EQ(int64_t(epochs.size()), s.epochs - epoch);
    for (size_t k = 0; k < epochs.size(); ++k) {
      SCOPED_TRACE("epoch " + std::to_string(epoch + int64_t(k)));
      const int64_t evaluations = (epoch + int64_t(k)) % 2, losses_so_far = k == 0 && steps > 0 ? 1 : 0;
      EXPECT_EQ(epochs[k].waits,
                2 + evaluations + losses_so_far + (k == 0 ? phases(second, s) - kStepPhases * steps : 0));
      if (k > 0 || gpu_info().emulated) { EXPECT_EQ(epochs[k].allocations, 0); }
    }
  }
}

}  // namespace
}  // namespace ccdrec::test
