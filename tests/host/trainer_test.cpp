// The loop around the models: learning, stopping, resuming, threads, memory.
#include "host/training/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "data/error.h"
#include "data/graph.h"
#include "host/base/safetensors.h"
#include "host/ccdrec/cns.h"
#include "host/training/checkpoint.h"
#include "host/training/recommender.h"
#include "host/training/stepping.h"
#include "tests/host/looked_into.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"
#include "tests/support.h"

namespace ccdrec::test {
namespace {

const Named trainer_models[] = {
    {"BPR", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01; }},
    {"LightGCN", [](Settings& s) { s.model = "LightGCN", s.reg_weight = 1e-3; }},
    {"FREEDOM", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2, s.dropout = 0.3; }},
    {"CCDRec", [](Settings& s) { s.dropout = 0.3, s.dtau = 1, s.tau_end = 3, s.timesteps = 8; }},
    {"DMA+NDI", [](Settings& s) { s.dropout = 0.3, s.cns = false, s.timesteps = 8; }}};

Settings trainer_settings(const Named& m) {
  Settings s;
  s.embedding_size = 16, s.train_batch_size = 24, s.epochs = 6, s.knn_k = 3, s.seed = 11, s.threads = 1,
  s.learning_rate = 5e-3;
  m.set(s);
  return s;
}

template <class Models>
void expect_same_bits_with_any_threads(const Models& models) {
  for (const Named& m : models) {
    SCOPED_TRACE(m.name);
    const Folder dir;
    const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
    std::vector<std::vector<unsigned char>> states;
    for (const int threads : {1, 2, 3}) {
      Settings s = trainer_settings(m);
      s.threads = threads;
      Trainer t(s, data);
      t.run({});
      states.push_back(state_bytes(t, dir));
    }
    EXPECT_EQ(states[0], states[1]);
    EXPECT_EQ(states[0], states[2]);
  }
}

TEST(Trainer, SameBitsWithOneTwoAndThreeThreads) {
  expect_same_bits_with_any_threads(trainer_models);
  expect_same_bits_with_any_threads(hard_models);
}
TEST(SlowTrainer, SameBitsWithOneTwoAndThreeThreads) {
  expect_same_bits_with_any_threads(lattice_models);
  expect_same_bits_with_any_threads(denoised_models);
  expect_same_bits_with_any_threads(bm3_models);
  expect_same_bits_with_any_threads(mcdrec_models);
  expect_same_bits_with_any_threads(mmgcn_models);
}

template <class Models>
void expect_same_course_when_resumed(const Models& models, const std::vector<int>& stops = {9, 17, 21, 33}) {
  for (const Named& m : models) {
    SCOPED_TRACE(m.name);
    const Folder dir;
    const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
    const Settings s = trainer_settings(m);
    const auto log_to = [](std::vector<double>& to) {
      return [&to](const EpochReport& r) {
        to.push_back(r.loss), to.push_back(r.valid.at("recall@20"));
        for (const auto& [name, x] : r.hardness) to.push_back(x);
      };
    };
    std::vector<double> whole;
    Trainer unbroken(s, data);
    TrainHooks log;
    log.on_epoch = log_to(whole);
    const TrainSummary want = unbroken.run(log);
    const std::vector<unsigned char> end = state_bytes(unbroken, dir);
    EXPECT_EQ(whole.size(), 6u * (2 + (s.n_neg > 0 ? 5 : 0))) << "loss, metric, and how hard the negatives were";

    for (const int stop_after : stops) {  // steps; 9 an epoch: at the end, in the middle, early and late
      SCOPED_TRACE("stopped after " + std::to_string(stop_after) + " steps");
      std::vector<double> parts;
      int steps = 0;
      TrainHooks hooks;
      hooks.on_epoch = log_to(parts);
      hooks.on_step = [&](int, int64_t, int64_t) { ++steps; };
      hooks.interrupted = [&] { return steps == stop_after; };
      {
        Trainer first(s, data);
        EXPECT_EQ(first.run(hooks).reason, StopReason::interrupted);
        first.save_state(dir / "last.safetensors");
      }
      Trainer second(s, data);
      second.load_state(dir / "last.safetensors");
      hooks.interrupted = nullptr;
      const TrainSummary got = second.run(hooks);
      EXPECT_EQ(whole, parts);
      EXPECT_EQ(want.best_epoch, got.best_epoch);
      EXPECT_EQ(want.best_test, got.best_test);
      EXPECT_EQ(end, state_bytes(second, dir));
    }
  }
}

TEST(Trainer, ResumedAnywhereItTakesTheSameCourseBitForBit) { expect_same_course_when_resumed(trainer_models); }

// Before and after a batch that Mirror Gradient has twice, 0, 2, .. 8 of nine: after 21 steps the last was one, after
// 17 and 33 the next is, after 9 both.
TEST(Trainer, ResumedBesideMirrorBatchesAndWithHardNegativesToo) { expect_same_course_when_resumed(hard_models); }

// What it does not train is no part of a state: the seed gives it again.
TEST(Trainer, ResumedWithTablesThatAreNotTrainedToo) { expect_same_course_when_resumed(mmgcn_models); }

// The graph of the epoch is of parameters that are gone.
TEST(Trainer, ResumedWithALearnedGraphToo) { expect_same_course_when_resumed(lattice_models); }

// Where nothing measures and not every epoch is evaluated, an epoch's start builds what no end before it has built.
TEST(Trainer, ResumedWithALearnedGraphThatAnEpochsStartBuilt) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  Settings s = trainer_settings(lattice_models[0]);
  s.eval_step = 2, s.negative_stats = 0;
  const auto log_to = [](std::vector<double>& to) {
    return [&to](const EpochReport& r) {
      EXPECT_EQ(r.evaluated, r.epoch % 2 == 1);
      EXPECT_TRUE(r.hardness.empty());
      to.push_back(r.loss);
      if (r.evaluated) to.push_back(r.valid.at("recall@20"));
    };
  };
  std::vector<double> whole;
  Trainer unbroken(s, data);
  TrainHooks log;
  log.on_epoch = log_to(whole);
  unbroken.run(log);
  EXPECT_EQ(whole.size(), 6u + 3u);
  // nine steps an epoch: before an epoch that an evaluation precedes and before one without, and in the middle of both
  for (const int stop_after : {9, 13, 18, 21, 44}) {
    SCOPED_TRACE(stop_after);
    std::vector<double> parts;
    int steps = 0;
    TrainHooks hooks;
    hooks.on_epoch = log_to(parts);
    hooks.on_step = [&](int, int64_t, int64_t) { ++steps; };
    hooks.interrupted = [&] { return steps == stop_after; };
    {
      Trainer first(s, data);
      EXPECT_EQ(first.run(hooks).reason, StopReason::interrupted);
      first.save_state(dir / "last.safetensors");
    }
    Trainer second(s, data);
    second.load_state(dir / "last.safetensors");
    hooks.interrupted = nullptr;
    second.run(hooks);
    EXPECT_EQ(parts, whole);
    EXPECT_EQ(state_bytes(second, dir), state_bytes(unbroken, dir));
  }
}

// At the third step of epoch 2: the embeddings that its graph was made of are gone.
TEST(Trainer, ResumedOnADenoisedGraphToo) { expect_same_course_when_resumed(denoised_models, {9, 21}); }
TEST(Trainer, ResumedWithoutNegativesToo) { expect_same_course_when_resumed(bm3_models); }
TEST(SlowTrainer, ResumedWithEveryItemDiffusedToo) { expect_same_course_when_resumed(mcdrec_models, {9, 21}); }

std::map<std::string, std::vector<unsigned char>> tensors_of(const Settings& s, const Dataset& data,
                                                             const Folder& dir) {
  Trainer t(s, data);
  t.run({});
  t.save_state(dir / "state.safetensors");
  std::map<std::string, std::vector<unsigned char>> all;
  for (const auto& [name, tensor] : read_safetensors(dir / "state.safetensors").tensors)
    if (name != "dgd.edge_weight" && name != "state.losses") all[name] = tensor.bytes;
  EXPECT_GT(all.size(), 5u);
  return all;
}

// Spec mcdrec 11: off is FREEDOM bit for bit, and so is on without guidance. (The weights of FREEDOM's edges come from
// the host's pow, those of DGD from a root: rounded to float they are the same.)
TEST(Trainer, ADenoisedGraphWithoutGuidanceIsFreedoms) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const Named& m : denoised_models) {
    SCOPED_TRACE(m.name);
    Settings s = trainer_settings(m);
    const double tau = s.dgd_tau;
    s.backbone = "FREEDOM";
    const auto freedom = tensors_of(s, data, dir);
    s.backbone = "MCDRec", s.dgd = "off";
    EXPECT_TRUE(tensors_of(s, data, dir) == freedom);
    for (const char* dgd : {"on", "direct"}) {
      s.dgd = dgd, s.dgd_tau = 0;
      EXPECT_TRUE(tensors_of(s, data, dir) == freedom) << dgd;
      s.dgd_tau = tau;
      EXPECT_FALSE(tensors_of(s, data, dir) == freedom) << dgd;
    }
    s.dropout = 0;
    const auto whole = tensors_of(s, data, dir);
    s.backbone = "FREEDOM";
    EXPECT_TRUE(tensors_of(s, data, dir) == whole) << "the whole graph, whatever dgd says";
  }
}

// Spec mcdrec 11: without its diffusion and its graph, MCDRec is FREEDOM bit for bit.
TEST(Trainer, MCDRecWithoutBothItsModulesIsFreedom) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const double reg : {0.0, 1e-2}) {
    Settings s = trainer_settings({"", [](Settings& z) { z.dropout = 0.3; }});
    s.reg_weight = reg;
    s.model = "FREEDOM";
    const auto freedom = tensors_of(s, data, dir);
    s.model = "MCDRec", s.mrd = false, s.dgd = "off";
    EXPECT_TRUE(tensors_of(s, data, dir) == freedom);
    s.dgd = "on";
    EXPECT_FALSE(tensors_of(s, data, dir) == freedom);
    s.mrd = true, s.dgd = "off", s.estimator = "attention", s.timesteps = 4;
    EXPECT_FALSE(tensors_of(s, data, dir) == freedom);
  }
}

// The graph of an epoch from the definition: weights by P and the guide at its start - Q, and from the first reverse
// process on what the last one made of it -, values by the weighted degrees of the edges kept.
TEST(Trainer, TheDenoisedGraphFollowsTheLastReverseProcess) {
  const Folder dir;
  const int64_t U = 40, I = 30, d = 16;
  const Dataset data = random_data(dir, U, I, 5, {12, 7});
  const HostCsr pairs = pairs_by_user(data.train, U, I);
  std::vector<Named> models(std::begin(denoised_models), std::end(denoised_models));
  models.push_back(mcdrec_models[0]);
  for (const Named& m : models) {
    SCOPED_TRACE(m.name);
    const Settings s = trainer_settings(m);
    Trainer t(s, data);
    Recommender& model = t.model();
    for (int epoch = 0; epoch < 3; ++epoch) {
      const std::vector<float> p = values_of(window_of(model, "user_embedding.weight")),
                               q = values_of(window_of(model, "item_id_embedding.weight"));
      const bool guided = epoch > 0 && model.model().reverses();
      const std::vector<float> x = guided ? pool_of(t.device(), model, 3) : q;
      ASSERT_EQ(x.size(), size_t(I * d));
      EXPECT_EQ(x == q, !guided);
      model.begin_epoch(epoch);
      Watch shown(t.device());
      model.model().graphs(shown);
      const Shown* const weights = shown.find("dgd.edge_weight");
      ASSERT_NE(weights, nullptr);
      ASSERT_EQ(weights->floats.size(), pairs.col.size());
      const HostCsr& kept = shown.graphs[0].graph;
      EXPECT_TRUE(shown.graphs[0].of_epoch);
      EXPECT_EQ(kept.nnz(), 2 * int64_t(std::floor(double(pairs.nnz()) * 0.7)));
      std::vector<double> degree(size_t(U + I), 1e-7);
      std::map<std::pair<int64_t, int64_t>, double> a;
      for (int64_t u = 0; u < U; ++u)
        for (int64_t e = pairs.row_ptr[size_t(u)]; e < pairs.row_ptr[size_t(u) + 1]; ++e) {
          const int64_t i = pairs.col[size_t(e)];
          double dot = 0, pp = 0, xx = 0;
          for (int64_t j = 0; j < d; ++j) {
            const double y = p[size_t(u * d + j)], z = x[size_t(i * d + j)];
            dot += y * z, pp += y * y, xx += z * z;
          }
          const double want = 1 + s.dgd_tau * dot / std::sqrt(pp * xx);
          EXPECT_NEAR(weights->floats[size_t(e)], want, 2e-7);
          a[{u, U + i}] = want;
        }
      for (int64_t r = 0; r < U; ++r)
        for (int64_t e = kept.row_ptr[size_t(r)]; e < kept.row_ptr[size_t(r) + 1]; ++e) {
          ASSERT_TRUE(a.count({r, kept.col[size_t(e)]})) << "no training pair";
          degree[size_t(r)] += a[{r, kept.col[size_t(e)]}],
              degree[size_t(kept.col[size_t(e)])] += a[{r, kept.col[size_t(e)]}];
        }
      for (int64_t r = 0; r < U + I; ++r)
        for (int64_t e = kept.row_ptr[size_t(r)]; e < kept.row_ptr[size_t(r) + 1]; ++e) {
          const int64_t c = kept.col[size_t(e)];
          const double own = s.dgd == "direct" ? a[{std::min(r, c), std::max(r, c)}] : 1;
          const double want = own / std::sqrt(degree[size_t(r)] * degree[size_t(c)]);
          EXPECT_NEAR(kept.val[size_t(e)], want, 1e-6 * want);
        }
      for (int64_t step = 0; step < model.steps_per_epoch(); ++step) model.step(epoch, step);
      model.end_epoch(epoch);
    }
  }
}

// The hard term has no weight: what is left is training without a sampler, and nothing is chosen.
TEST(Trainer, ASamplerAtOmegaZeroChoosesNothing) {
  for (const std::string model : {"BPR", "LightGCN", "FREEDOM"}) {
    const Folder dir;
    const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
    std::vector<std::vector<float>> tables;
    for (const std::string sampler : {"none", "popularity", "dns", "mixgcf", "realhns"}) {
      SCOPED_TRACE(model + " " + sampler);
      Settings s = trainer_settings(trainer_models[0]);
      s.model = model, s.sampler = sampler, s.omega = 0, s.epochs = 2;
      Trainer t(s, data);
      t.run({});
      Watch drawn(t.device());
      t.model().draws(drawn);
      EXPECT_EQ(drawn.find("hard.items"), nullptr);
      EXPECT_EQ(drawn.find("hard.alpha"), nullptr);
      tables.push_back(values_of(window_of(t.model(), "item_id_embedding.weight")));
      EXPECT_EQ(tables.back(), tables[0]);
    }
  }
}

// Evaluated every second epoch, ended at the fifth, gone on to the ninth: the same course as nine epochs at once.
TEST(Trainer, TheLastEvaluationOfAShorterRunLeavesNoTrace) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  // 7: the shorter run ends before the first evaluation, and is evaluated for its own sake
  for (const int eval_step : {2, 4, 7}) {
    SCOPED_TRACE(eval_step);
    Settings s = trainer_settings(trainer_models[1]);
    s.eval_step = eval_step, s.epochs = 9;
    Trainer whole(s, data);
    const TrainSummary want = whole.run({});
    s.epochs = 5;
    {
      Trainer first(s, data);
      int evaluations = 0;
      TrainHooks count;
      count.on_epoch = [&](const EpochReport& r) { evaluations += r.evaluated; };
      const TrainSummary sum = first.run(count);
      EXPECT_EQ(evaluations, std::max(1, 5 / eval_step));
      EXPECT_GE(sum.best_epoch, 0) << "a run ends with a model";
      first.save_state(dir / "last.safetensors");
    }
    s.epochs = 9;
    Trainer second(s, data);
    second.load_state(dir / "last.safetensors");
    const TrainSummary got = second.run({});
    EXPECT_EQ(want.best_epoch, got.best_epoch);
    EXPECT_EQ(want.best_test, got.best_test);
    EXPECT_EQ(state_bytes(whole, dir), state_bytes(second, dir));
  }
}

TEST(Trainer, AStoppedRunStaysStoppedAndAShorterOneIsRefused) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  Settings s = trainer_settings(trainer_models[0]);
  s.epochs = 200, s.stopping_step = 1;
  Trainer first(s, data);
  const TrainSummary sum = first.run({});
  ASSERT_EQ(sum.reason, StopReason::early);
  first.save_state(dir / "last.safetensors");
  EXPECT_TRUE(is_over(saved_run(dir / "last.safetensors", s), s));
  EXPECT_EQ(saved_run(dir / "last.safetensors", s).best_score, sum.best_score)
      << "what the progress bar of the continued run starts with";
  EXPECT_EQ(saved_run(dir / "last.safetensors", s).best_epoch, sum.best_epoch);
  Trainer again(s, data);
  again.load_state(dir / "last.safetensors");
  TrainHooks hooks;
  hooks.on_step = [](int, int64_t, int64_t) { FAIL() << "another epoch"; };
  const TrainSummary same = again.run(hooks);
  EXPECT_EQ(same.reason, StopReason::early);
  EXPECT_EQ(same.message, sum.message);
  EXPECT_EQ(same.epochs_run, sum.epochs_run);

  s.epochs = sum.epochs_run - 1;
  Trainer shorter(s, data);
  EXPECT_THROW(shorter.load_state(dir / "last.safetensors"), UserError);
  EXPECT_THROW(saved_run(dir / "last.safetensors", s), UserError);
}

TEST(Trainer, WithoutValidationRowsTheLatestModelIsTheBest) {
  const Folder dir;
  Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  data.valid.clear();
  Settings s = trainer_settings(trainer_models[0]);
  s.stopping_step = 0;
  Trainer t(s, data);
  bool noted = false;
  for (const std::string& note : t.notes()) noted |= note.find("no validation rows") == 0;
  EXPECT_TRUE(noted);
  std::vector<int> best;
  TrainHooks hooks;
  hooks.on_epoch = [&](const EpochReport& r) {
    if (r.improved) best.push_back(r.epoch);
  };
  const TrainSummary sum = t.run(hooks);
  EXPECT_EQ(sum.reason, StopReason::max_epochs);
  EXPECT_EQ(sum.best_epoch, 5);
  EXPECT_EQ(best, (std::vector<int>{0, 1, 2, 3, 4, 5}));
}

// A list as long as all candidates holds the same items whatever the model: 30 items, 5 of them trained on.
TEST(Trainer, AMetricThatCannotSelectKeepsTheLatestModel) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  Settings s = trainer_settings(trainer_models[0]);
  s.stopping_step = 0, s.valid_metric = "Recall@25", s.epochs = 6;
  Trainer t(s, data);
  const auto note_of = [](const Trainer& trainer) {
    for (const std::string& note : trainer.notes())
      if (note.starts_with("valid_metric ")) return note;
    return std::string();
  };
  EXPECT_EQ(note_of(t),
            "valid_metric Recall@25 is the same for every model: its list takes all candidates of each validation user "
            "(items without those of "
            "training, at most 25); valid_metric=Recall@20 can select; nothing to stop early by, so all 6 epochs are "
            "trained and the last model "
            "evaluated is kept as the best");
  std::vector<int> best;
  TrainHooks hooks;
  hooks.on_epoch = [&](const EpochReport& r) {
    EXPECT_TRUE(r.latest);
    if (r.improved) best.push_back(r.epoch);
  };
  const TrainSummary sum = t.run(hooks);
  EXPECT_EQ(sum.reason, StopReason::max_epochs);
  EXPECT_TRUE(sum.latest);
  EXPECT_EQ(best, (std::vector<int>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(sum.best_valid.at("recall@25"), 1.0);

  // Stopped and continued it takes the same course; a state of earlier programs, which knew no such rule, goes on by
  // theirs.
  Trainer first(s, data);
  hooks.interrupted = [&] { return first.epoch() == 2; };
  EXPECT_EQ(first.run(hooks).reason, StopReason::interrupted);
  const std::string state = dir / "last.safetensors";
  first.save_state(state);
  Trainer again(s, data);
  again.load_state(state);
  EXPECT_EQ(again.run({}).best_epoch, 5);
  EXPECT_EQ(state_bytes(again, dir), state_bytes(t, dir));

  edit_state(state, state, [](TensorFile& file) { EXPECT_EQ(file.metadata.erase("keeps_latest"), 1u); });
  Trainer old(s, data);
  old.load_state(state);
  EXPECT_TRUE(note_of(old).ends_with("goes on as it began, with the first epoch as the best")) << note_of(old);
  const TrainSummary as_before = old.run({});
  EXPECT_EQ(as_before.reason, StopReason::early);
  EXPECT_EQ(as_before.best_epoch, 1);

  // Where the order counts, and where the list is shorter, nothing changes; where some lists are, a note says so.
  for (const char* metric : {"NDCG@25", "Recall@24", "MRR@25", "Hit@24"}) {
    s.valid_metric = metric;
    Trainer selecting(s, data);
    EXPECT_EQ(note_of(selecting), "");
    EXPECT_FALSE(selecting.run({}).latest);
  }
  Dataset uneven = random_data(dir, 40, 30, 5, {12, 7});
  uneven.train.erase(uneven.train.begin());  // user 0 has 26 candidates
  s.valid_metric = "Recall@25";
  s.topk = {25, 50};  // none of them helps
  Trainer some(s, uneven);
  EXPECT_EQ(note_of(some),
            "valid_metric Recall@25 has no say for 38 of 39 validation users: its list takes all of their candidates "
            "(items without those of training, "
            "at most 25); valid_metric=Recall@12 with 12 among topk would hear all");
  EXPECT_FALSE(some.run({}).latest);

  // Two held out of 25 or 26 candidates: from 24 or 25 places on a list holds one of them.
  for (const Pair& p : data.test) uneven.valid.push_back(p);
  s.valid_metric = "Hit@24", s.topk = {5, 24};
  Trainer hit(s, uneven);
  EXPECT_EQ(note_of(hit),
            "valid_metric Hit@24 has no say for 38 of 39 validation users: its list holds a hit in any order (from at "
            "most 24 places on); valid_metric=Hit@5 would hear all");
  s.valid_metric = "Hit@25";
  Trainer none(s, uneven);
  EXPECT_TRUE(
      note_of(none).starts_with("valid_metric Hit@25 is the same for every model: its list holds a hit of each "
                                "validation user in any order (from at most 25 places on); valid_metric=Hit@5 "
                                "can select"))
      << note_of(none);
}

// Matrices that cannot be read where they lie are copied while the item graph is built, before the rest is taken: only
// what exceeds the rest counts.
TEST(Trainer, ThePlanCountsTheCopyOfTheItemGraph) {
  const Folder dir;
  Dataset data = random_data(dir, 20, 200, 5, {4096});
  Settings s = trainer_settings(trainer_models[2]);
  s.reg_weight = 0, s.device = "cpu";  // training itself reads no features
  const auto line = [&] {
    for (const PlanLine& l : Trainer::plan(s, data).lines)
      if (l.what == "more while the item graph is built") return l.bytes;
    return size_t(0);
  };
  EXPECT_EQ(line(), 0u) << "float32 by rows is read in place";
  std::vector<double> x(size_t(200 * 4096), 0.5);
  const std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': (200, 4096), }\n";
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += char(header.size()), bytes += '\0';
  dir.write("double_feat.npy", bytes + header + std::string(reinterpret_cast<const char*>(x.data()), x.size() * 8));
  data.features[0] = {"image", NpyMatrix(dir / "double_feat.npy")};
  EXPECT_GT(line(), size_t(200 * 4096 * 4 / 2));
  EXPECT_GE(Trainer::plan(s, data).total(), size_t(200 * 4096 * 4));
}

TEST(Trainer, RefusesAStateOfOtherSettingsOrData) {
  const Folder dir;
  Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  Settings s = trainer_settings(trainer_models[2]);
  {
    Trainer t(s, data);
    t.save_state(dir / "last.safetensors");
  }
  s.learning_rate *= 2;
  Trainer other(s, data);
  EXPECT_THROW(other.load_state(dir / "last.safetensors"), UserError);
  s = trainer_settings(trainer_models[2]);
  data.checksum = "changed";
  Trainer moved(s, data);
  EXPECT_THROW(moved.load_state(dir / "last.safetensors"), UserError);
}

// Two settings of LATTICE that decide a run's numbers.
TEST(Trainer, RefusesAStateOfAnotherLearnedGraphOrRate) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const Settings s = trainer_settings(lattice_models[0]);
  {
    Trainer t(s, data);
    t.save_state(dir / "last.safetensors");
  }
  const auto sentence = [&](void (*set)(Settings&)) -> std::string {
    Settings other = s;
    set(other);
    Trainer t(other, data);
    try {
      t.load_state(dir / "last.safetensors");
    } catch (const UserError& e) { return e.what(); }
    return "no complaint";
  };
  EXPECT_EQ(sentence([](Settings&) {}), "no complaint");
  const std::string lambda = sentence([](Settings& z) { z.lambda_coeff = 0.25; });
  EXPECT_NE(lambda.find("lambda_coeff = 0.5 there and 0.25 in this run"), std::string::npos) << lambda;
  for (const std::string& rate : {sentence([](Settings& z) {
                                    z.learning_rate_scheduler = {0.9, 3};
                                  }),
                                  sentence([](Settings& z) {
                                    z.learning_rate_scheduler = {0.8, 2};
                                  })})
    EXPECT_NE(rate.find("learning_rate_scheduler = "), std::string::npos) << rate;
}

// What a model keeps of an epoch's start is looked at before anything is taken of a state: numbers that are no items,
// and arrays without which the rest of the epoch would be another one.
TEST(Trainer, RefusesAStateWhoseKeptArraysAreDamaged) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const auto id = [](const std::string& array, int32_t x) {
    return [=](TensorFile& f) { std::memcpy(f.tensors.at(array).bytes.data() + 4 * 5, &x, 4); };
  };
  const auto without = [](const std::string& start) {
    return [=](TensorFile& f) {
      EXPECT_GT(std::erase_if(f.tensors, [&](const auto& t) { return t.first.starts_with(start); }), 0u) << start;
    };
  };
  const std::string image = "graph.learned.image.index", text = "graph.learned.text.index", table = "realhns.table";
  struct Damage {
    const char* what;
    const Named& model;
    std::string named;  // by the sentence
    std::function<void(TensorFile&)> damage;
  };
  const std::vector<Damage> all = {
      {"an item far beyond the last", lattice_models[0], image, id(image, 2000000000)},
      {"an item below the first", lattice_models[0], image, id(image, -7)},
      {"an item behind the last", lattice_models[0], text, id(text, 30)},
      {"a list that marks nothing", lattice_models[2], text, id(text, -1)},
      {"no graph", lattice_models[0], "graph.", without("graph.")},
      {"no lists of a modality", lattice_models[0], image, without(image)},
      {"no weights", lattice_models[2], "graph.modal_weight", without("graph.modal_weight")},
      {"a candidate far beyond the last", hard_models[4], table, id(table, 2000000000)},
      {"a candidate behind the last", hard_models[4], table, id(table, 30)},
      {"a candidate below none", hard_models[4], table, id(table, -2)},
      {"no candidates", hard_models[4], table, without(table)},
      {"nothing of RealHNS", hard_models[4], "realhns.", without("realhns.")},
      {"no weights of the edges", denoised_models[0], "dgd.edge_weight", without("dgd.edge_weight")}};
  for (const Damage& d : all) {
    SCOPED_TRACE(std::string(d.model.name) + ": " + d.what);
    const Settings s = trainer_settings(d.model);
    Trainer t(s, data);
    TrainHooks hooks;
    hooks.interrupted = [&] { return t.epoch() == 3 && t.next_step() == 3; };
    t.run(hooks);
    t.save_state(dir / "good.safetensors");
    edit_state(dir / "good.safetensors", dir / "bad.safetensors", d.damage);
    Trainer other(s, data);
    const std::vector<unsigned char> before = state_bytes(other, dir);
    try {
      other.load_state(dir / "bad.safetensors");
      ADD_FAILURE() << "no complaint";
      continue;
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("tensor '" + d.named), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(dir / "bad.safetensors"), std::string::npos) << e.what();
    }
    EXPECT_TRUE(state_bytes(other, dir) == before) << "something was taken of it";
    other.load_state(dir / "good.safetensors");
    EXPECT_EQ(other.next_step(), 3);
  }
}

// The last and the first item, and -1, which marks the place of none.
TEST(Trainer, TakesAStateWhoseCandidatesAreAnyItemOrNone) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const Settings s = trainer_settings(hard_models[4]);
  Trainer t(s, data);
  TrainHooks hooks;
  hooks.interrupted = [&] { return t.epoch() == 3 && t.next_step() == 3; };
  t.run(hooks);
  t.save_state(dir / "good.safetensors");
  const std::vector<int32_t> ids = {-1, 0, 29};
  edit_state(dir / "good.safetensors", dir / "other.safetensors", [&](TensorFile& f) {
    std::memcpy(f.tensors.at("realhns.table").bytes.data(), ids.data(), 4 * ids.size());
  });
  Trainer other(s, data);
  other.load_state(dir / "other.safetensors");
  const std::vector<int32_t> table = kept_values<int32_t>(other.device(), other.model(), "realhns.table");
  EXPECT_TRUE(std::equal(ids.begin(), ids.end(), table.begin()));
  EXPECT_EQ(other.run({}).reason, StopReason::max_epochs);
}

// Of epochs from 0: lr gamma^(e / epochs), as LATTICE's learning_rate_scheduler [0.96, 50] says.
TEST(Trainer, TheRateFallsByItsScheduler) {
  Settings s;
  s.learning_rate = 1e-3;
  for (const int epoch : {0, 1, 50, 999}) EXPECT_EQ(rate_of(s, epoch), 1e-3) << "constant where nothing is said";
  s.learning_rate_scheduler = {0.96, 50};
  EXPECT_EQ(rate_of(s, 0), 1e-3);
  EXPECT_NEAR(rate_of(s, 1), 9.99183893305958e-4, 1e-15);
  EXPECT_NEAR(rate_of(s, 50), 9.6e-4, 1e-15);
  EXPECT_NEAR(rate_of(s, 100), 9.216e-4, 1e-15);
  s.learning_rate_scheduler = {1, 7};
  for (const int epoch : {0, 1, 50}) EXPECT_EQ(rate_of(s, epoch), 1e-3) << epoch;
}

// The last step of an epoch and the first of the next one, computed again in double from the moments that they leave:
// halved every epoch, the one moves by lr / 2^e and the other by half of that.
TEST(Trainer, AnEpochsStepsHaveItsRate) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  struct Values {
    std::vector<float> p, m, v;
  };
  for (const std::string& device : devices_here())
    for (const double gamma : {0.5, 1.0}) {
      SCOPED_TRACE(device + ", gamma " + std::to_string(gamma));
      Settings s = trainer_settings(trainer_models[0]);
      s.learning_rate_scheduler = {gamma, 1}, s.device = device;
      Trainer t(s, data);
      Recommender& model = t.model();
      const Window q = window_of(model, "item_id_embedding.weight");
      const auto now = [&] {
        model.flush();
        const auto copy = [&](const Array<float>& a) {
          std::vector<float> x(size_t(q.rows * q.cols));
          a.download(x.data(), q.rows * q.cols, q.offset);
          return x;
        };
        return Values{copy(*q.value), copy(*q.m), copy(*q.v)};
      };
      const auto expect_adam = [&](int epoch, int64_t step) {
        const Values before = now();
        model.step(epoch, step);
        const Values after = now();
        const double lr = 5e-3 * std::pow(gamma, epoch), steps = double(model.t());
        const double m_bias = 1 - std::pow(double(0.9f), steps), v_bias = 1 - std::pow(double(0.999f), steps);
        size_t moved = 0;
        for (size_t k = 0; k < after.p.size(); ++k) {
          const double m = double(after.m[k]) / m_bias, v = double(after.v[k]) / v_bias;
          const double move = lr * m / (std::sqrt(v) + 1e-8);
          ASSERT_NEAR(double(before.p[k]) - double(after.p[k]), move, 1e-4 * lr) << "epoch " << epoch << ", " << k;
          moved += std::fabs(move) > 0.2 * lr;
        }
        EXPECT_GT(moved, after.p.size() / 10) << "far enough to tell the rates apart";
      };
      for (int epoch = 0; epoch < 3; ++epoch) {
        model.begin_epoch(epoch);
        expect_adam(epoch, 0);
        for (int64_t k = 1; k + 1 < model.steps_per_epoch(); ++k) model.step(epoch, k);
        expect_adam(epoch, model.steps_per_epoch() - 1);
        model.end_epoch(epoch);
      }
    }
}

// Two blocks: users of a block like the items of their block, features name the block. The held-out item of the own
// block must rank above the other block's.
Dataset two_blocks(const Folder& dir) {
  Dataset data;
  data.name = "blocks", data.checksum = "blocks";
  data.n_users = 60, data.n_items = 40;
  data.users = IdMap::dense_of(60), data.items = IdMap::dense_of(40);
  uint32_t n = 0;
  const auto bits = [&] { return draw(Stream{17, Use::test, 3}, n++).v[0]; };
  for (int32_t u = 0; u < 60; ++u) {
    std::vector<int32_t> items;
    while (items.size() < 9) {
      const auto i = int32_t(below(bits(), 20)) * 2 + u % 2;
      if (std::find(items.begin(), items.end(), i) == items.end()) items.push_back(i);
    }
    for (size_t k = 0; k < 7; ++k) data.train.push_back({u, items[k]});
    data.valid.push_back({u, items[7]});
    data.test.push_back({u, items[8]});
  }
  std::vector<float> x;
  for (int i = 0; i < 40; ++i)
    for (int f = 0; f < 8; ++f) x.push_back((f % 2 == i % 2 ? 1.0f : 0.0f) + 0.3f * uniform01(bits()));
  add_feature(data, dir, "image", x, 8);
  return data;
}

TEST(Trainer, EveryModelRecoversPlantedStructure) {
  std::vector<Named> models(std::begin(trainer_models), std::end(trainer_models));
  models.push_back(denoised_models[0]);
  models.push_back(lattice_models[0]);
  models.push_back(mmgcn_models[0]);
  for (const Named& m : models) {
    SCOPED_TRACE(m.name);
    const Folder dir;
    const Dataset data = two_blocks(dir);
    Settings s = trainer_settings(m);
    s.train_batch_size = 64, s.epochs = 25, s.threads = 2, s.train_features = false;
    Trainer t(s, data);
    const TrainSummary sum = t.run({});
    // By chance a test item is among the best 13 of 33 candidates in 0.39 of cases; 13 of its own block remain once the
    // training items are masked.
    Trainer& done = t;
    CMat hu, hi;
    done.model().represent(hu, hi);
    const HeldOut test = held_out(data.test);
    const HostCsr train = pairs_by_user(data.train, 60, 40);
    Ctx ctx(2);
    const EvalResult r = evaluate(ctx, cpu_ops(), hu, hi, train.view(), test, test, {13});
    EXPECT_GT(r.test.at("recall@13"), 0.93);
    EXPECT_GT(sum.best_score, 0.9);
  }
}

TEST(Trainer, StopsAtTheTwentyFirstFailureWithoutImprovement) {
  const Folder dir;
  const Dataset data = random_data(dir, 20, 15, 3, {});
  Settings s;
  s.model = "BPR", s.embedding_size = 4, s.learning_rate = 1e-12, s.epochs = 100, s.train_batch_size = 64,
  s.threads = 1;                              // nothing moves: a constant validation value
  s.topk = {5}, s.valid_metric = "Recall@5";  // of 15 items: Recall@20 could not tell models apart
  Trainer t(s, data);
  const TrainSummary sum = t.run({});
  EXPECT_EQ(sum.reason, StopReason::early);
  EXPECT_EQ(sum.best_epoch, 0);
  EXPECT_EQ(sum.epochs_run, 22);  // zero-based epoch 21 is the last (spec baselines 12)
}

TEST(Trainer, FreedomWithoutModalityTermsLeavesFeaturesAlone) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  Settings s = trainer_settings(trainer_models[2]);
  s.reg_weight = 0, s.epochs = 2;
  Trainer t(s, data);
  EXPECT_TRUE(t.model().model().modalities().empty());  // not even loaded: skipping them is exact
  t.run({});
}

TEST(Trainer, SettingsTheDataCannotServeAreOneSentence) {
  const Folder dir;
  const Dataset data = random_data(dir, 20, 15, 3, {});
  const auto sentence = [&](void (*set)(Settings&)) -> std::string {
    Settings s;
    s.model = "LightGCN";
    set(s);
    try {
      Trainer t(s, data);
    } catch (const UserError& e) { return e.what(); }
    return "";
  };
  EXPECT_NE(sentence([](Settings& s) { s.model = "FREEDOM"; }).find("no *_feat.npy"), std::string::npos);
  EXPECT_NE(sentence([](Settings& s) {
              s.model = "GCMC";
            }).find("BPR | LightGCN | MMGCN | SLMRec | BM3 | FREEDOM | LATTICE | MCDRec | CCDRec"),
            std::string::npos);
  EXPECT_EQ(sentence([](Settings& s) { s.model = "MCDRec", s.estimator = "unet", s.embedding_size = 32; }),
            "embedding_size is 32, expected 64 with the estimator unet, whose images have 8 x 8 pixels");
  EXPECT_EQ(sentence([](Settings& s) { s.model = "MCDRec", s.estimator = "attention", s.embedding_size = 7; }),
            "embedding_size = 7 (settings): MCDRec's step encoding needs an even width of at least 4");
  EXPECT_NE(sentence([](Settings& s) { s.n_neg = 0; }).find("n_neg = 0 is not an integer 1 .. 1024"),
            std::string::npos);
  EXPECT_NE(sentence([](Settings& s) { s.device = "tpu"; }).find("auto | cpu | cuda"), std::string::npos);
  if (!gpu_info().usable) {
    EXPECT_NE(sentence([](Settings& s) { s.device = "cuda"; }).find("device is cuda, but "), std::string::npos);
  }
  EXPECT_NE(sentence([](Settings& s) { s.topk = {0}; }).find("topk"), std::string::npos);
}

TEST(Trainer, ANonFiniteLossStopsTheRunAndNamesTheStep) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  Settings s = trainer_settings(trainer_models[3]);
  Trainer t(s, data);
  const float nan = NAN;
  const Window q = window_of(t.model(), "item_id_embedding.weight");
  q.value->upload(&nan, 1, q.offset);
  const TrainSummary sum = t.run({});
  EXPECT_EQ(sum.reason, StopReason::diverged);
  EXPECT_NE(sum.message.find("epoch 0, step"), std::string::npos);
}

// Epoch n takes pool min(3, n/dtau), then the model's own (spec ccdrec 5); the first stage may have a length of its
// own.
TEST(Curriculum, StagesFollowTheSpecification) {
  Settings s;
  s.dtau = 5, s.tau_end = 30;
  const auto name = [&](int epoch) { return std::string(pool_name(pool_of_epoch(s, epoch))); };
  EXPECT_EQ(name(0), "random");
  EXPECT_EQ(name(1), "3T/4");
  EXPECT_EQ(name(4), "3T/4");
  EXPECT_EQ(name(5), "T/2");
  EXPECT_EQ(name(10), "T/4");
  EXPECT_EQ(name(15), "0");
  EXPECT_EQ(name(30), "0");
  EXPECT_EQ(name(31), "model");
  s.dtau = 10, s.first_stage = 6, s.tau_end = 75;  // the released Sports run: 1-5, 6-15, 16-25, 26-75
  EXPECT_EQ(name(5), "3T/4");
  EXPECT_EQ(name(6), "T/2");
  EXPECT_EQ(name(15), "T/2");
  EXPECT_EQ(name(16), "T/4");
  EXPECT_EQ(name(26), "0");
  EXPECT_EQ(name(75), "0");
  EXPECT_EQ(name(76), "model");
  s.ndi = false;
  EXPECT_EQ(name(0), "random");
  EXPECT_EQ(name(1), "model");
}

// C = max(1, floor(ratio I)) candidates, of which the max(1, floor(kappa C)) most similar stand for election (spec
// ccdrec 5).
TEST(Curriculum, CountsOfCandidatesFollowTheSpecification) {
  struct Case {
    int64_t items;
    double ratio, kappa;
    int64_t count, top;
  };
  for (const Case& c : {Case{7050, 0.1, 0.1, 705, 70}, Case{7050, 0.1, 0.2, 705, 141}, Case{30, 0.1, 0.1, 3, 1},
                        Case{5, 0.1, 0.1, 1, 1}, Case{64, 1.0, 1.0, 64, 64}}) {
    Settings s;
    s.candidate_ratio = c.ratio, s.kappa = c.kappa;
    EXPECT_EQ(Cns::candidates_of(s, c.items), c.count) << c.items;
    EXPECT_EQ(Cns::drawn_from(s, c.count), c.top) << c.items;
  }
}

}  // namespace
}  // namespace ccdrec::test
