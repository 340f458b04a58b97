// Mirror Gradient (spec baselines 10): which batches have two passes, what a pass draws anew and what it keeps, and
// that the passes are the two steps of one Adam.
#include <gtest/gtest.h>

#include <cmath>

#include "host/base/device.h"
#include "host/systems/registry.h"
#include "host/training/recommender.h"
#include "tests/host/looked_into.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"

namespace ccdrec::test {
namespace {

const Named mirrored[] = {
    {"BPR", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01; }},
    {"LightGCN+DNS",
     [](Settings& s) { s.model = "LightGCN", s.reg_weight = 1e-3, s.sampler = "dns", s.n_candidates = 8; }},
    {"FREEDOM+MixGCF",
     [](Settings& s) {
       s.model = "FREEDOM", s.reg_weight = 1e-2, s.dropout = 0.3, s.sampler = "mixgcf", s.n_candidates = 8;
     }},
    // random, a pool, the model's own
    {"CCDRec", [](Settings& s) { s.dropout = 0.3, s.dtau = 1, s.tau_end = 1, s.timesteps = 6; }},
    {"BM3", [](Settings& s) { s.model = "BM3", s.n_neg = s.negative_stats = 0, s.reg_weight = 0.1, s.dropout = 0.3; }},
    {"MMGCN", [](Settings& s) { s.model = "MMGCN"; }},
    slmrec_models[0]};

// 195 rows in batches of 25: eight an epoch, as in the specification.
Settings mirror_settings(const Named& m) {
  Settings s;
  s.embedding_size = 8, s.train_batch_size = 25, s.epochs = 3, s.knn_k = 3, s.seed = 11, s.threads = 1,
  s.learning_rate = 0.02;
  s.use_mg = true, s.alpha1 = 0.7, s.alpha2 = 0.3;
  m.set(s);
  return s;
}

struct Data {
  Folder dir;
  Dataset rows = random_data(dir, 40, 30, 5, {12, 7});
};

// The step of the definition: g1 at the parameters there are, g2 of the same batch at those that the first one left.
void by_hand(Recommender& model, const Settings& s, int epoch, int64_t step) {
  const bool twice = s.use_mg && step % s.beta == 0;
  const auto pass = [&](uint32_t number, double factor) {
    model.forward_backward(epoch, step, {number, float(factor)});
    model.update(float(factor));
  };
  pass(0, twice ? s.alpha1 : 1);
  if (twice) pass(1, -s.alpha2);
}

TEST(Mirror, AStepIsTwoPassesByHand) {
  const Data data;
  for (const Named& m : mirrored) {
    SCOPED_TRACE(m.name);
    const Settings s = mirror_settings(m);
    Trainer steps(s, data.rows), passes(s, data.rows);
    for (int epoch = 0; epoch < s.epochs; ++epoch) {
      steps.model().begin_epoch(epoch), passes.model().begin_epoch(epoch);
      for (int64_t k = 0; k < 8; ++k) {
        steps.model().step(epoch, k), by_hand(passes.model(), s, epoch, k);
        ASSERT_EQ(steps.model().t(), passes.model().t());
      }
      EXPECT_EQ(steps.model().losses(), passes.model().losses());
      steps.model().end_epoch(epoch), passes.model().end_epoch(epoch);
    }
    EXPECT_EQ(state_bytes(steps, data.dir), state_bytes(passes, data.dir));
  }
}

TEST(Mirror, AdamsStepCountsUpdates) {
  const Data data;
  Settings s = mirror_settings(mirrored[0]);
  for (const auto& [beta, of_an_epoch] : {std::pair{1, 16}, {2, 12}, {3, 11}, {7, 10}, {8, 9}, {100, 9}}) {
    SCOPED_TRACE(beta);
    s.beta = beta;
    Trainer t(s, data.rows);
    ASSERT_EQ(t.model().steps_per_epoch(), 8);
    t.model().begin_epoch(0);
    int64_t want = 0;
    for (int64_t k = 0; k < 8; ++k) {
      t.model().step(0, k);
      EXPECT_EQ(t.model().t(), want += k % beta == 0 ? 2 : 1) << "step " << k;
    }
    EXPECT_EQ(want, of_an_epoch);
    t.model().end_epoch(0);
    t.model().begin_epoch(1);
    t.model().step(1, 0);
    EXPECT_EQ(t.model().t(), want + 2) << "batches count anew in each epoch";
  }
}

// Beyond batch 0 an epoch with a beta that it never reaches again is one of plain steps.
TEST(Mirror, ABetaLongerThanTheEpochConcernsItsFirstBatchAlone) {
  const Data data;
  Settings s = mirror_settings(mirrored[0]);
  s.beta = 100;
  Trainer mirror(s, data.rows);
  s.use_mg = false;
  Trainer plain(s, data.rows), never(s, data.rows);
  for (Trainer* t : {&mirror, &plain, &never}) t->model().begin_epoch(0);
  for (const double factor : {s.alpha1, -s.alpha2}) {
    plain.model().forward_backward(0, 0);  // BPR draws nothing of its own in a pass
    plain.model().update(float(factor));
  }
  mirror.model().step(0, 0), never.model().step(0, 0);
  EXPECT_EQ(mirror.model().losses(), never.model().losses()) << "of the first pass";
  for (int64_t k = 1; k < 8; ++k)
    for (Trainer* t : {&mirror, &plain, &never}) t->model().step(0, k);
  for (const char* name : {"user_embedding.weight", "item_id_embedding.weight"}) {
    const auto of = [&](Trainer& t) {
      t.model().flush();
      return values_of(window_of(t.model(), name));
    };
    EXPECT_EQ(of(mirror), of(plain)) << name;
    EXPECT_NE(of(mirror), of(never)) << name;
  }
}

// A second pass without a way back still moves: along the momentum, and t goes on.
TEST(Mirror, WithoutAWayBackAdamStillTakesMoreSteps) {
  const Data data;
  Settings s = mirror_settings(mirrored[0]);
  s.alpha1 = 1, s.alpha2 = 0, s.epochs = 1;
  Trainer mirror(s, data.rows);
  s.use_mg = false;
  Trainer plain(s, data.rows);
  mirror.run({}), plain.run({});
  const auto of = [](Trainer& t, const char* name) { return values_of(window_of(t.model(), name)); };
  for (const char* name : {"user_embedding.weight", "item_id_embedding.weight"})
    EXPECT_NE(of(mirror, name), of(plain, name)) << name;
}

struct Drawn {
  std::vector<int32_t> users, positives, negatives, hard, candidates, t, masks;
  std::vector<float> alpha, noise;
};

// Spec negative_sampling 11.8. With hooks that look, the run is the same one.
TEST(Mirror, TheSecondPassKeepsTheBatchAndDrawsTheRestAnew) {
  const Data data;
  for (const Named& m : mirrored) {
    SCOPED_TRACE(m.name);
    const Settings s = mirror_settings(m);
    const Outline o = outline_of(s);
    Trainer t(s, data.rows);
    std::vector<Drawn> passes[2];
    t.model().after_pass = [&](uint32_t pass) {
      Watch w(t.device());
      t.model().draws(w);
      const auto reals = [&](const char* name) { return w.find(name) ? w.find(name)->floats : std::vector<float>(); };
      passes[pass].push_back({w.ids("batch.users"), w.ids("batch.positives"), w.ids("batch.negatives"),
                              w.ids(s.sampler == "none" ? "batch.curricular" : "hard.items"), w.ids("cns.candidates"),
                              w.ids("diffusion.t"), w.ids("mask.items"), reals("hard.alpha"),
                              reals("diffusion.noise")});
    };
    t.run({});
    ASSERT_EQ(passes[0].size(), 24u);
    ASSERT_EQ(passes[1].size(), 9u);
    int same_hard = 0, same_candidates = 0, same_t = 0, same_alpha = 0, same_noise = 0, same_masks = 0, with_hard = 0;
    for (size_t k = 0; k < 9; ++k) {
      const Drawn &first = passes[0][k / 3 * 8 + k % 3 * 3], &second = passes[1][k];
      EXPECT_EQ(first.users, second.users);
      EXPECT_EQ(first.positives, second.positives);
      EXPECT_EQ(first.negatives, second.negatives);
      EXPECT_EQ(first.hard.size(), second.hard.size());
      with_hard += !second.hard.empty();
      same_hard += first.hard == second.hard, same_candidates += first.candidates == second.candidates,
          same_t += first.t == second.t;
      same_alpha += first.alpha == second.alpha, same_noise += first.noise == second.noise;
      same_masks += first.masks == second.masks;
    }
    const int hard = !o.hard ? 0 : o.curricular ? 6 : 9;  // batches; CNS has none in its first epoch
    EXPECT_EQ(with_hard, hard);
    EXPECT_EQ(same_hard, 9 - hard);
    EXPECT_EQ(same_candidates, o.searches ? 3 : 9);
    EXPECT_EQ(same_t, o.diffusion ? 0 : 9);
    EXPECT_EQ(same_noise, o.diffusion ? 0 : 9);
    EXPECT_EQ(same_alpha, o.mixes ? 0 : 9);
    EXPECT_EQ(same_masks, o.views ? 0 : 9);
    Trainer unseen(s, data.rows);
    unseen.run({});
    EXPECT_EQ(state_bytes(t, data.dir), state_bytes(unseen, data.dir));
  }
}

// The second pass's loss is not reported, and looked at all the same: one batch, whose first step throws the parameters
// far away.
TEST(Mirror, ASecondPassWithoutAFiniteLossIsNoticed) {
  const Data data;
  Settings s = mirror_settings(mirrored[0]);
  s.train_batch_size = 1000, s.learning_rate = 1e300, s.epochs = 1;
  Trainer mirror(s, data.rows);
  EXPECT_EQ(mirror.run({}).reason, StopReason::diverged);
  s.use_mg = false;
  Trainer plain(s, data.rows);
  plain.model().begin_epoch(0);
  plain.model().step(0, 0);
  EXPECT_TRUE(plain.model().state().all_finite) << "its one loss is that of the first pass";
}

}  // namespace
}  // namespace ccdrec::test
