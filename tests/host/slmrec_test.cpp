// SLMRec (spec baselines 6): losses and gradients against a dense reference in double, and what is its own beside other
// models: P and Q in the arena, weight decay, two modalities in their places, no negatives.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "host/systems/registry.h"
#include "host/training/trainer.h"
#include "tests/host/looked_into.h"
#include "tests/host/model_reference.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"

namespace ccdrec::test {
namespace {

const std::string kP = "user_embedding.weight", kQ = "item_id_embedding.weight";

// Straight from the specification, everything dense and everything formed.
struct Reference {
  int64_t U = 0, I = 0;
  int layers = 0;
  double temp = 0, ssl_temp = 0, ssl_alpha = 0;
  Dense A;                         // (N,N)
  std::vector<std::string> names;  // of the modalities, in their places
  std::vector<Dense> X;            // their features, as they come
  std::map<std::string, Dense> w;  // parameters, (in,out)

  Dense map(const Dense& x, const std::string& name) const {
    Dense y = times(x, w.at(name + ".weight"));
    for (int64_t r = 0; r < y.rows; ++r)
      for (int64_t c = 0; c < y.cols; ++c) y(r, c) += w.at(name + ".bias")(0, c);
    return y;
  }
  static Dense rows_of_length_1(Dense x) {
    for (int64_t r = 0; r < x.rows; ++r) {
      double squares = 0;
      for (int64_t c = 0; c < x.cols; ++c) squares += x(r, c) * x(r, c);
      for (int64_t c = 0; c < x.cols; ++c) x(r, c) /= std::max(std::sqrt(squares), 1e-12);
    }
    return x;
  }
  static Dense picked(const Dense& x, const std::vector<int32_t>& rows) {
    Dense y(int64_t(rows.size()), x.cols);
    for (size_t b = 0; b < rows.size(); ++b)
      for (int64_t c = 0; c < x.cols; ++c) y(int64_t(b), c) = x(rows[b], c);
    return y;
  }
  static double nce(const Dense& x, const Dense& y, double tau) {
    double loss = 0;
    for (int64_t b = 0; b < x.rows; ++b) {
      std::vector<double> s(static_cast<size_t>(x.rows));
      for (int64_t j = 0; j < x.rows; ++j)
        for (int64_t c = 0; c < x.cols; ++c) s[size_t(j)] += x(b, c) * y(j, c) / tau;
      const double top = *std::max_element(s.begin(), s.end());
      double sum = 0;
      for (const double v : s) sum += std::exp(v - top);
      loss += top + std::log(sum) - s[size_t(b)];
    }
    return loss / double(x.rows);
  }
  Dense propagated(const Dense& items) const {
    const Dense& P = w.at(kP);
    Dense e(U + I, P.cols);
    std::copy(P.v.begin(), P.v.end(), e.v.begin());
    std::copy(items.v.begin(), items.v.end(), e.v.begin() + U * P.cols);
    Dense h = e;
    for (int l = 0; l < layers; ++l) {
      e = times(A, e);
      for (size_t k = 0; k < h.v.size(); ++k) h.v[k] += e.v[k];
    }
    for (double& v : h.v) v /= double(layers + 1);
    return h;
  }
  std::vector<Dense> towers() const {  // (N,d) each
    std::vector<Dense> all = {propagated(w.at(kQ))};
    for (size_t m = 0; m < X.size(); ++m) all.push_back(propagated(map(rows_of_length_1(X[m]), names[m] + "_dense")));
    return all;
  }
  Dense fused(const std::vector<Dense>& h, const std::string& name, int64_t first, int64_t n) const {
    const int64_t d = h[0].cols;
    Dense cat(n, 3 * d);
    for (int64_t r = 0; r < n; ++r)
      for (int64_t c = 0; c < 3 * d; ++c) cat(r, c) = h[size_t(c / d)](first + r, c % d);
    return map(cat, name);
  }
  std::vector<double> losses(const std::vector<int32_t>& u, const std::vector<int32_t>& p) const {
    const std::vector<Dense> h = towers();
    const Dense z_u = fused(h, "fuse_user", 0, U), z_i = fused(h, "fuse_item", U, I);
    std::vector<int32_t> nodes;
    for (const int32_t i : p) nodes.push_back(int32_t(U) + i);
    const Dense x1 = map(picked(h[0], nodes), "ssl.g1"), x2 = map(picked(h[1], nodes), "ssl.g2");
    const Dense x4 = map(map(x1, "ssl.g3"), "ssl.g4"), x5 = map(picked(h[2], nodes), "ssl.g5");
    return {nce(rows_of_length_1(picked(z_u, u)), rows_of_length_1(picked(z_i, p)), temp),
            ssl_alpha * nce(x1, x2, ssl_temp), ssl_alpha * nce(x4, x5, ssl_temp)};
  }
  double loss(const std::vector<int32_t>& u, const std::vector<int32_t>& p) const {
    const std::vector<double> all = losses(u, p);
    return std::accumulate(all.begin(), all.end(), 0.0);
  }
};

Dense dense(const std::vector<float>& v, int64_t rows, int64_t cols) {
  Dense x(rows, cols);
  std::copy(v.begin(), v.end(), x.v.begin());
  return x;
}

Reference reference(Trainer& t, const Settings& s, const Dataset& data) {
  Reference r;
  r.U = data.n_users, r.I = data.n_items, r.layers = s.n_ui_layers;
  r.temp = double(float(s.temp)), r.ssl_temp = double(float(s.ssl_temp)), r.ssl_alpha = double(float(s.ssl_alpha));
  r.A = Dense(r.U + r.I, r.U + r.I);
  Watch shown(t.device());
  t.model().model().graphs(shown);
  for (const ShownGraph& g : shown.graphs)
    for (int64_t x = 0; x < g.graph.rows; ++x)
      for (int64_t e = g.graph.row_ptr[size_t(x)]; e < g.graph.row_ptr[size_t(x) + 1]; ++e)
        r.A(x, g.graph.col[size_t(e)]) = g.graph.val[size_t(e)];
  r.names = t.model().model().modalities();
  for (const std::string& name : r.names)
    for (const Feature& f : data.features) {
      if (f.name != name) continue;
      std::vector<float> x(size_t(r.I * f.matrix.cols()));
      f.matrix.read_rows(x.data(), 0, r.I);
      r.X.push_back(dense(x, r.I, f.matrix.cols()));
    }
  for (const Window& w : windows_of(t.model())) r.w[w.name] = dense(values_of(w), w.rows, w.cols);
  return r;
}

struct SlmRecCase {
  std::string name;
  void (*set)(Settings&);
  std::vector<int64_t> widths = {6, 3};
};
const SlmRecCase slmrec_cases[] = {
    {"as published", [](Settings&) {}},
    {"one layer", [](Settings& s) { s.n_ui_layers = 1; }, {2, 5}},
    {"no layers", [](Settings& s) { s.n_ui_layers = 0; }},
    {"two layers, width 6", [](Settings& s) { s.n_ui_layers = 2, s.embedding_size = 6; }, {1, 9}},
    {"width 2", [](Settings& s) { s.embedding_size = 2; }},
    {"the main contrast alone", [](Settings& s) { s.ssl_alpha = 0; }},
    {"other temperatures", [](Settings& s) { s.temp = 1.5, s.ssl_temp = 0.4, s.ssl_alpha = 2; }},
    {"the textual one first",
     [](Settings& s) {
       s.modalities = {"text", "image"};
     }},
};

Settings small(const SlmRecCase& c, const std::string& device) {
  Settings s;
  s.model = "SLMRec", s.n_neg = s.negative_stats = 0, s.n_ui_layers = 3;
  s.embedding_size = 4, s.train_batch_size = 6, s.epochs = 2, s.seed = 3, s.threads = 2, s.device = device;
  s.ssl_alpha = 0.5, s.ssl_temp = 0.2, s.weight_decay = 1e-4;
  c.set(s);
  return s;
}

std::vector<std::string> devices_looked_into() {  // the emulated GPU's memory is the host's
  return gpu_info().usable && gpu_info().emulated ? std::vector<std::string>{"cpu", "cuda"}
                                                  : std::vector<std::string>{"cpu"};
}

void expect_gradients(const Reference& ref, const Arrays& given, ccdrec::Device& dev, Recommender& model) {
  const std::vector<int32_t>&u = given.ids.at("batch.users"), &p = given.ids.at("batch.positives");
  const Watch shown = shown_of(dev, model);
  constexpr double kStep = 1e-5;
  for (const Window& w : windows_of(model)) {
    const std::vector<float> got = gradient_of(shown, w);
    Reference moved = ref;
    std::vector<double>& at = moved.w.at(w.name).v;
    std::vector<double> want(at.size());
    ASSERT_EQ(got.size(), want.size()) << w.name;
    double top = 0;
    for (size_t k = 0; k < at.size(); ++k) {
      const double before = at[k];
      at[k] = before + kStep;
      const double up = moved.loss(u, p);
      at[k] = before - kStep;
      want[k] = (up - moved.loss(u, p)) / (2 * kStep);
      at[k] = before;
      top = std::max(top, std::fabs(want[k]));
    }
    for (size_t k = 0; k < at.size(); ++k)
      ASSERT_TRUE(std::fabs(got[k] - want[k]) <= 3e-5 * top + 1e-7)
          << w.name << "[" << k << "]: got " << got[k] << ", want " << want[k] << ", largest " << top;
    const bool blind = w.name == "ssl.g2.bias" || w.name == "ssl.g5.bias";
    for (const float x : got) EXPECT_TRUE(!blind || x == 0) << w.name << ": 0, not rounding";
  }
}

void expect_reference(const SlmRecCase& c, const std::string& device) {
  SCOPED_TRACE(c.name + " on " + device);
  const Folder dir;
  const Dataset data = random_data(dir, 7, 11, 3, c.widths);
  const Settings s = small(c, device);
  Trainer trainer(s, data);
  Recommender& model = trainer.model();
  // users and items that occur twice, and an item without interactions
  Arrays given;
  given.ids["batch.users"] = {0, 2, 2, 5, 1, 0};
  given.ids["batch.positives"] = {data.train[0].item, data.train[6].item, data.train[7].item, 10,
                                  data.train[0].item, data.train[1].item};
  const Reference ref = reference(trainer, s, data);
  model.begin_epoch(0);
  model.give(given);
  model.set_losses({});
  model.forward_backward(1, 0);
  const std::vector<double> want = ref.losses(given.ids["batch.users"], given.ids["batch.positives"]);
  const Losses got = model.losses();
  ASSERT_EQ(got.size(), 3u);
  for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(got[k], want[k], 3e-6 * (std::fabs(want[k]) + 0.1)) << k;
  expect_gradients(ref, given, trainer.device(), model);

  CMat h_u, h_i;
  model.represent(h_u, h_i);
  const std::vector<Dense> h = ref.towers();
  const Dense z_u = ref.fused(h, "fuse_user", 0, ref.U), z_i = ref.fused(h, "fuse_item", ref.U, ref.I);
  const std::vector<float> got_u = host_copy(trainer.device(), h_u), got_i = host_copy(trainer.device(), h_i);
  for (size_t k = 0; k < z_u.v.size(); ++k) EXPECT_NEAR(got_u[k], z_u.v[k], 2e-6);
  for (size_t k = 0; k < z_i.v.size(); ++k) EXPECT_NEAR(got_i[k], z_i.v[k], 2e-6);
}

TEST(SlowSlmRec, LossesGradientsAndRepresentationsMatchTheDoubleReference) {
  for (const SlmRecCase& c : slmrec_cases)
    for (const std::string& device : devices_looked_into()) expect_reference(c, device);
}

// Several batches and epochs after the start too: what a step leaves in its buffers is no part of the next.
TEST(SlmRec, InTheMiddleOfTrainingToo) {
  for (const std::string& device : devices_looked_into()) {
    SCOPED_TRACE(device);
    const Folder dir;
    const Dataset data = random_data(dir, 7, 11, 3, {6, 3});
    Settings s = small(slmrec_cases[0], device);
    s.learning_rate = 0.02, s.epochs = 3;
    Trainer trainer(s, data);
    Recommender& model = trainer.model();
    for (int epoch = 0; epoch < 2; ++epoch) {
      model.begin_epoch(epoch);
      for (int64_t k = 0; k < model.steps_per_epoch(); ++k) model.step(epoch, k);
      model.end_epoch(epoch);
    }
    Arrays given;
    given.ids["batch.users"] = {1, 4, 4}, given.ids["batch.positives"] = {3, 0, 9};
    const Reference ref = reference(trainer, s, data);
    model.begin_epoch(2);
    model.give(given);
    model.set_losses({});
    model.forward_backward(2, 0);
    expect_gradients(ref, given, trainer.device(), model);
  }
}

Settings run_settings(const Named& m, const std::string& device) {
  Settings s;
  s.embedding_size = 16, s.train_batch_size = 24, s.epochs = 4, s.seed = 11, s.threads = 1, s.learning_rate = 5e-3;
  s.device = device;
  m.set(s);
  return s;
}

TEST(SlmRec, SameBitsWithOneTwoAndThreeThreads) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const Named& m : slmrec_models) {
    std::vector<std::vector<unsigned char>> states;
    for (const int threads : {1, 2, 3}) {
      Settings s = run_settings(m, "cpu");
      s.threads = threads;
      Trainer t(s, data);
      t.run({});
      states.push_back(state_bytes(t, dir));
    }
    EXPECT_TRUE(states[0] == states[1]) << m.name;
    EXPECT_TRUE(states[0] == states[2]) << m.name;
  }
}

TEST(SlowSlmRec, ResumedAnywhereItTakesTheSameCourseBitForBit) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const std::string& device : devices_here())
    for (const Named& m : slmrec_models) {
      const bool gpu = device != "cpu";
      if (gpu && &m == &slmrec_models[0]) continue;  // Mirror Gradient's steps are of both kinds
      const Settings s = run_settings(m, device);
      std::vector<double> whole;
      const auto log_to = [](std::vector<double>& to) {
        return [&to](const EpochReport& r) {
          EXPECT_TRUE(r.hardness.empty());
          EXPECT_EQ(r.negatives, "");
          to.push_back(r.loss), to.push_back(r.valid.at("recall@20"));
        };
      };
      Trainer unbroken(s, data);
      TrainHooks log;
      log.on_epoch = log_to(whole);
      unbroken.run(log);
      // nine steps an epoch
      for (const int stop_after : gpu ? std::vector<int>{13} : std::vector<int>{9, 13, 21}) {
        SCOPED_TRACE(std::string(m.name) + " on " + device + ", stopped after " + std::to_string(stop_after));
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
        EXPECT_TRUE(state_bytes(second, dir) == state_bytes(unbroken, dir));
      }
    }
}

// Two blocks of users and items that never meet: a user's own block is ranked first. A GPU trains as the CPU does
// (tests/host/gpu_test.cpp).
TEST(SlowSlmRec, LearnsTwoBlocks) {
  const Folder dir;
  const int32_t U = 40, I = 24;
  Dataset data = random_data(dir, U, I, 1, {});
  data.train.clear(), data.valid.clear(), data.test.clear();
  std::vector<float> image, text;
  for (int32_t u = 0; u < U; ++u)
    for (int32_t k = 0; k < 6; ++k) {
      const int32_t item = 2 * ((u + 2 * k) % (I / 2)) + u % 2;  // of the user's parity
      auto& to = k < 4 ? data.train : k == 4 ? data.valid : data.test;
      to.push_back({u, item});
    }
  for (int32_t i = 0; i < I; ++i) {
    for (int k = 0; k < 5; ++k) image.push_back(std::sin(float(3 * i + 7 * k)));
    for (int k = 0; k < 4; ++k) text.push_back(std::cos(float(5 * i + 2 * k)));
  }
  add_feature(data, dir, "image", image, 5), add_feature(data, dir, "text", text, 4);
  Settings s = run_settings(slmrec_models[0], "cpu");
  s.epochs = 30, s.learning_rate = 0.01;
  Trainer t(s, data);
  std::vector<double> loss;
  TrainHooks hooks;
  hooks.on_epoch = [&](const EpochReport& r) { loss.push_back(r.loss); };
  t.run(hooks);
  EXPECT_LT(loss.back(), loss.front() - 0.3);
  CMat h_u, h_i;
  t.model().represent(h_u, h_i);
  const std::vector<float> z_u = host_copy(t.device(), h_u), z_i = host_copy(t.device(), h_i);
  int right = 0;
  for (int32_t u = 0; u < U; ++u) {
    double best[2] = {-1e30, -1e30};
    for (int32_t i = 0; i < I; ++i) {
      double score = 0;
      for (int k = 0; k < 16; ++k) score += double(z_u[size_t(u * 16 + k)]) * double(z_i[size_t(i * 16 + k)]);
      best[i % 2] = std::max(best[i % 2], score);
    }
    right += best[u % 2] > best[1 - u % 2];
  }
  EXPECT_GE(right, U - 1);
}

// Every parameter moves at every step, that of a user without training rows by its decay alone.
TEST(SlmRec, WeightDecayMovesWhatNoGradientReaches) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const std::string& device : devices_here())
    for (const double decay : {0.0, 0.01}) {
      Settings s = run_settings(slmrec_models[0], device);
      s.weight_decay = decay, s.epochs = 1;
      Trainer t(s, data);
      const std::vector<float> before = values_of(window_of(t.model(), kP));
      t.run({});
      const std::vector<float> after = values_of(window_of(t.model(), kP));
      for (int64_t k = 39 * 16; k < 40 * 16; ++k)
        if (decay == 0)
          EXPECT_EQ(after[size_t(k)], before[size_t(k)]) << device;
        else
          EXPECT_LT(std::fabs(after[size_t(k)]), std::fabs(before[size_t(k)])) << device;
    }
}

// Features are no parameters: nothing of them is in a state. A row of zeros stays one, whatever length 1 means there.
TEST(SlmRec, FeaturesAreConstantsAndARowOfZerosStaysOne) {
  const Folder dir;
  Dataset data = random_data(dir, 12, 9, 3, {4});
  std::vector<float> text(9 * 5, 0.5f);
  std::fill_n(text.begin() + 10, 5, 0.0f);
  add_feature(data, dir, "text", text, 5);
  for (const std::string& device : devices_here()) {
    Settings s = run_settings(slmrec_models[0], device);
    s.train_batch_size = 8, s.epochs = 2;
    Trainer t(s, data);
    const TrainSummary sum = t.run({});
    EXPECT_EQ(sum.reason, StopReason::max_epochs) << sum.message;
    t.save_state(dir / "state.safetensors");
    for (const auto& [name, tensor] : read_safetensors(dir / "state.safetensors").tensors)
      EXPECT_EQ(name.find("_embedding.weight") != std::string::npos,
                name.find(kP) != std::string::npos || name.find(kQ) != std::string::npos)
          << name;
  }
}

TEST(SlmRec, WhatItCannotHaveIsOneSentence) {
  const Folder dir;
  const auto sentence = [&](const std::vector<int64_t>& widths, void (*set)(Settings&)) -> std::string {
    const Dataset data = random_data(dir, 12, 9, 3, widths);
    Settings s = run_settings(slmrec_models[0], "cpu");
    set(s);
    try {
      Trainer::check_settings(s, data);
    } catch (const UserError& e) { return e.what(); }
    return "";
  };
  const auto nothing = [](Settings&) {};
  EXPECT_EQ(sentence({3, 2}, nothing), "");
  EXPECT_EQ(sentence({3}, nothing),
            "model SLMRec takes exactly 2 modalities, the first named in the visual place, the second in the textual "
            "one, and there is 1 (image); name 2 with modalities");
  EXPECT_EQ(sentence({3, 2, 4}, nothing),
            "model SLMRec takes exactly 2 modalities, the first named in the visual place, the second in the textual "
            "one, and there are 3 (image, text, audio); name 2 with modalities");
  EXPECT_NE(sentence({}, nothing).find("has no *_feat.npy"), std::string::npos);
  EXPECT_EQ(
      sentence({3, 2}, [](Settings& s) { s.embedding_size = 7; }),
      "embedding_size = 7 (settings): SLMRec contrasts modalities at half of the width too and needs an even one");
  EXPECT_EQ(sentence({3, 2}, [](Settings& s) { s.sampler = "dns"; }),
            "sampler = dns (settings): SLMRec learns from no pairs of a positive and a negative; leave it away");
}

}  // namespace
}  // namespace ccdrec::test
