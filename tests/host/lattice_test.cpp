// LATTICE's item graph: when it is built, what it is built of, and which steps owe it a gradient (spec baselines 8).
// Losses and gradients themselves: model_test.cpp.
#include <gtest/gtest.h>

#include <cmath>

#include "host/training/trainer.h"
#include "tests/host/looked_into.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"

namespace ccdrec::test {
namespace {

Settings lattice_settings(const std::string& device) {
  Settings s;
  s.model = "LATTICE", s.device = device;
  s.embedding_size = 8, s.train_batch_size = 24, s.epochs = 4, s.knn_k = 3, s.seed = 11, s.threads = 2;
  s.learning_rate = 5e-3, s.lambda_coeff = 0.5, s.reg_weight = 1e-3;
  return s;
}

std::vector<int32_t> learned_lists(Trainer& t) {
  Watch shown(t.device());
  t.model().model().graphs(shown);
  std::vector<int32_t> all;
  for (const Shown& a : shown.all)
    if (a.name.starts_with("graph.learned.")) all.insert(all.end(), a.indices.begin(), a.indices.end());
  return all;
}

// Other maps of the features: another graph, once it is built anew.
void turn_maps(Recommender& model) {
  for (const Window& w : windows_of(model)) {
    if (!w.name.ends_with("_trs.weight")) continue;
    std::vector<float> v = values_of(w);
    for (size_t k = 0; k < v.size(); ++k) v[k] += std::sin(float(k) * 1.3f);
    put(w, v);
  }
}

void train_epoch(Recommender& model, int epoch) {
  model.begin_epoch(epoch);
  for (int64_t k = 0; k < model.steps_per_epoch(); ++k) model.step(epoch, k);
  model.end_epoch(epoch);
}

struct Place {
  std::string device;
  int rows;  // whose negatives are measured, by representations of the epoch's end
};
std::vector<Place> places() {
  std::vector<Place> all;
  for (const std::string& device : devices_here())
    for (const int rows : {0, 64}) all.push_back({device, rows});
  return all;
}

// Parameters are turned under the model's feet: what was built before stays until its next construction.
TEST(Lattice, OneConstructionServesEvaluationAndTheEpochAfterIt) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const Place& at : places()) {
    SCOPED_TRACE(at.device + ", rows measured: " + std::to_string(at.rows));
    Settings s = lattice_settings(at.device);
    s.negative_stats = at.rows;
    Trainer t(s, data);
    Recommender& model = t.model();
    train_epoch(model, 0);
    CMat h_u, h_i;
    model.represent(h_u, h_i);
    const std::vector<int32_t> evaluated = learned_lists(t);
    turn_maps(model);
    model.represent(h_u, h_i);
    model.begin_epoch(1);
    EXPECT_EQ(learned_lists(t), evaluated);
    for (int64_t k = 0; k < model.steps_per_epoch(); ++k) model.step(1, k);
    EXPECT_EQ(learned_lists(t), evaluated) << "in the middle of an epoch";
    model.end_epoch(1);
    model.represent(h_u, h_i);
    EXPECT_NE(learned_lists(t), evaluated) << "the parameters have moved on";
  }
}

TEST(Lattice, WithoutAnEvaluationTheEpochBuildsItsOwn) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const std::string& device : devices_here()) {
    Settings s = lattice_settings(device);
    s.negative_stats = 0;
    Trainer t(s, data);
    train_epoch(t.model(), 0);
    const std::vector<int32_t> first = learned_lists(t);
    turn_maps(t.model());
    t.model().begin_epoch(1);
    EXPECT_NE(learned_lists(t), first) << device;
  }
}

// Of an epoch's batches the first alone reaches the modalities' weights, maps and features, and there every item's; of
// Mirror Gradient's passes over it the first.
void expect_only_the_first_batch_to_learn_the_graph(const std::string& device) {
  SCOPED_TRACE(device);
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  Settings s = lattice_settings(device);
  s.use_mg = true, s.beta = 4;
  Trainer t(s, data);
  Recommender& model = t.model();
  train_epoch(model, 0);
  model.begin_epoch(1);
  const auto top = [&](const Watch& shown, const std::string& name) {
    double most = 0;
    for (const float x : gradient_of(shown, window_of(model, name))) most = std::max(most, std::fabs(double(x)));
    return most;
  };
  const char* const of_graph[] = {"modal_weight",    "image_trs.weight",       "image_trs.bias",
                                  "text_trs.weight", "image_embedding.weight", "text_embedding.weight"};
  const auto expect = [&](int64_t step, Pass pass, bool some) {
    model.forward_backward(1, step, pass);
    const Watch shown = shown_of(t.device(), model);
    for (const char* name : of_graph) EXPECT_EQ(top(shown, name) > 0, some) << name << ", step " << step;
    EXPECT_GT(top(shown, "item_id_embedding.weight"), 0);
    if (some) {
      const std::vector<float> theta = gradient_of(shown, window_of(model, "modal_weight"));
      EXPECT_NEAR(theta[0] + theta[1], 0, 1e-6 * std::fabs(theta[0])) << "softmax is blind to a common shift";
    }
  };
  expect(0, {0, 1.0f}, true);
  expect(0, {1, -0.2f}, false);
  expect(1, {0, 1.0f}, false);
}
TEST(Lattice, OnlyTheFirstBatchHasAGradientOfTheGraph) {
  for (const std::string& device : devices_here()) expect_only_the_first_batch_to_learn_the_graph(device);
}

// All weight on the frozen part leaves the learned lists out of S, but not the weights of the modalities.
TEST(Lattice, AFrozenGraphAloneStillLearnsTheWeightsOfModalities) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const std::string& device : devices_here()) {
    Settings s = lattice_settings(device);
    s.lambda_coeff = 1;
    Trainer t(s, data);
    Recommender& model = t.model();
    model.begin_epoch(0);
    model.forward_backward(0, 0);
    const Watch shown = shown_of(t.device(), model);
    EXPECT_NE(gradient_of(shown, window_of(model, "modal_weight"))[0], 0) << device;
    for (const float x : gradient_of(shown, window_of(model, "image_trs.weight"))) EXPECT_EQ(x, 0) << device;
  }
}

// O_m: the cosines of the raw features, scaled by the roots of the row sums at both ends.
void expect_scaled_similarities_of_raw_features(const std::string& device) {
  SCOPED_TRACE(device);
  const Folder dir;
  const Dataset data = random_data(dir, 12, 25, 4, {9, 5});
  Settings s = lattice_settings(device);
  s.knn_center = true;  // FREEDOM's setting: no part of this
  std::vector<std::string> notes;
  std::string note;
  const std::unique_ptr<ccdrec::Device> dev = make_device(device, 2, note, "fp32", "auto");
  GraphsOfData graphs(*dev, s, data, notes);
  const int64_t I = 25, k = 3;
  for (size_t m = 0; m < 2; ++m) {
    const int64_t F = data.features[m].matrix.cols();
    std::vector<float> x(size_t(I * F));
    data.features[m].matrix.read_rows(x.data(), 0, I);
    const auto cosine = [&](int64_t a, int64_t b) {
      double ab = 0, aa = 0, bb = 0;
      for (int64_t f = 0; f < F; ++f) {
        const double p = x[size_t(a * F + f)], q = x[size_t(b * F + f)];
        ab += p * q, aa += p * p, bb += q * q;
      }
      return ab / std::sqrt(aa * bb);
    };
    const NeighbourLists got = graphs.frozen(m);
    ASSERT_EQ(int64_t(got.idx.size()), I * k);
    std::vector<double> c(size_t(I), 0.0);
    for (int64_t e = 0; e < I * k; ++e) c[size_t(e / k)] += cosine(e / k, got.idx[size_t(e)]);
    for (int64_t e = 0; e < I * k; ++e) {
      const int64_t i = e / k, j = got.idx[size_t(e)];
      if (e % k == 0) { EXPECT_EQ(j, i) << "itself first"; }
      EXPECT_NEAR(got.val[size_t(e)], cosine(i, j) / std::sqrt(c[size_t(i)] * c[size_t(j)]), 1e-6);
      int64_t nearer = 0;
      for (int64_t other = 0; other < I; ++other) nearer += other != i && cosine(i, other) > cosine(i, j) + 1e-9;
      EXPECT_LT(nearer, k) << "one of the k nearest";
    }
  }
}
TEST(Lattice, FrozenListsHoldTheScaledSimilaritiesOfRawFeatures) {
  for (const std::string& device : devices_here()) expect_scaled_similarities_of_raw_features(device);
}

// Maps of nothing: no row of a graph made of them has a scale.
void clear_maps(Recommender& model) {
  for (const Window& w : windows_of(model))
    if (w.name.find("_trs.") != std::string::npos) put(w, std::vector<float>(size_t(w.rows * w.cols)));
}

// Rows whose similarities sum to nothing have no scale: they are counted, and no number is lost.
TEST(Lattice, RowsWithoutAScaleAreCounted) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const std::string& device : devices_here()) {
    SCOPED_TRACE(device);
    Trainer t(lattice_settings(device), data), zero(lattice_settings(device), data);
    std::map<std::string, double> figures;
    t.model().begin_epoch(0);
    EXPECT_TRUE(t.model().state().finite());  // reads the counts
    t.model().model().figures(figures);
    EXPECT_TRUE(figures.empty()) << "none on real data";
    clear_maps(zero.model());
    zero.model().begin_epoch(0);
    zero.model().step(0, 0);
    EXPECT_TRUE(zero.model().state().finite());
    zero.model().model().figures(figures);
    EXPECT_EQ(figures.at("graph_rows_without_scale"), 30);
  }
}

// The maps are nothing after the last step of epoch 0, and something again by the end of epoch 1: the graph that epoch
// 1's steps used lacks the scales, whether measuring or evaluation, both at an epoch's end, or nothing else made it.
TEST(Lattice, RowsWithoutAScaleBelongToTheEpochWhoseStepsUsedTheGraph) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const Place& at : places())
    for (const int eval_step : {1, 2}) {
      SCOPED_TRACE(at.device + ", rows measured: " + std::to_string(at.rows) + ", evaluated every " +
                   std::to_string(eval_step));
      Settings s = lattice_settings(at.device);
      s.negative_stats = at.rows, s.eval_step = eval_step;
      Trainer t(s, data);
      std::vector<double> counted;
      TrainHooks hooks;
      hooks.on_step = [&](int epoch, int64_t step, int64_t steps) {
        if (epoch == 0 && step + 1 == steps) clear_maps(t.model());
      };
      hooks.on_epoch = [&](const EpochReport& r) {
        const auto it = r.figures.find("graph_rows_without_scale");
        counted.push_back(it == r.figures.end() ? 0 : it->second);
      };
      t.run(hooks);
      EXPECT_EQ(counted, (std::vector<double>{0, 30, 0, 0}));
    }
}

// What a trainer has built before it is given a state is none of the state's: in the same epoch, at the same step, and
// at the end.
TEST(SlowLattice, AStateIntoATrainerThatHasTrainedGoesOnAsIntoAFreshOne) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  struct Stop {
    int epoch;
    int64_t step;
  };
  const auto train_until = [](Trainer& t, Stop at) {
    TrainHooks hooks;
    hooks.interrupted = [&t, at] { return t.epoch() == at.epoch && t.next_step() == at.step; };
    t.run(hooks);
  };
  for (const Place& at : {Place{"cpu", 0}, Place{"cpu", 64}, Place{devices_here().back(), 64}})
    for (const Stop saved : {Stop{1, 3}, Stop{2, 0}}) {
      if (at.device == "cuda" && saved.step == 0) continue;  // which place it is, the host decides
      Settings s = lattice_settings(at.device);
      s.negative_stats = at.rows;
      Trainer first(s, data);
      train_until(first, saved);
      first.save_state(dir / "last.safetensors");
      const auto go_on = [&](Trainer& t) {
        t.load_state(dir / "last.safetensors");
        std::vector<double> course;
        TrainHooks hooks;
        hooks.on_epoch = [&](const EpochReport& r) {
          course.push_back(r.loss), course.push_back(r.valid.at("recall@20"));
        };
        t.run(hooks);
        return std::pair(course, state_bytes(t, dir));
      };
      Trainer fresh(s, data);
      const auto [course, state] = go_on(fresh);
      for (const Stop used : {Stop{1, 6}, saved, Stop{s.epochs, 0}}) {
        SCOPED_TRACE(at.device + ", rows measured: " + std::to_string(at.rows) + ", saved in epoch " +
                     std::to_string(saved.epoch) + ", read in epoch " + std::to_string(used.epoch));
        Trainer t(s, data);
        train_until(t, used);
        turn_maps(t.model());  // even where it stands at the same step
        const auto [again, end] = go_on(t);
        EXPECT_EQ(again, course);
        EXPECT_TRUE(end == state);
      }
    }
}

}  // namespace
}  // namespace ccdrec::test
