// A sampler and a backbone that are in no registry, put into a system by hand and taken through steps.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "docs/adding/growing.h"
#include "docs/adding/last_layer.h"
#include "host/models/lightgcn.h"
#include "host/systems/ranked.h"
#include "tests/host/tiny_data.h"
#include "tests/temp_folder.h"

namespace ccdrec::test {
namespace {

// What training/recommender.cpp does of a step, for one batch that stays the same.
class SmallSystem {
 public:
  SmallSystem(const Settings& settings, const Dataset& data, const std::string& device)
      : s(settings), dev(make_device(device, 1, note)), graphs(*dev, s, data, notes), train(*dev, data, graphs.train) {}
  Setup setup(const Dataset& data) { return {*dev, s, data, graphs, train, notes}; }

  void start(const Dataset& data, RankedParts parts) {
    parts.arena->take(*dev);
    model = std::make_unique<Ranked>(setup(data), std::vector<const char*>{"bpr", "reg"}, std::move(parts));
    users = Array<int32_t>(*dev, 24), items = Array<int32_t>(*dev, 24 * 3);
    batch = {24, 1, users.p(), items.p()};
    Array<int32_t> rows(*dev, 24);
    dev->ops.candidates(dev->ctx, rows.p(), 24, train.rows(), Stream{3, Use::test, 0, 0});
    dev->ops.take(dev->ctx, users.p(), train.user.p(), rows.p(), 0, 24);
    dev->ops.take(dev->ctx, items.p(), train.item.p(), rows.p(), 0, 24);
    dev->ops.negatives(dev->ctx, batch.items + 24, users.p(), 24, 1, 0, train.by_user.view(), train.occurring.p(),
                       train.occurring.n(), Stream{3, Use::neg_uniform, 0, 0});
    losses = Array<double>(*dev, int64_t(model->losses().size()));
    std::vector<AdamCoef> steps;
    for (int k = 1; k <= 50; ++k) steps.push_back(adam_coef(0.01, AdamHyper{}, k));
    coef = Array<AdamCoef>(*dev, steps);
  }

  // The loss of the batch, its gradients where `keep` asks for them, and the step unless it does.
  double step(int epoch, bool keep) {
    losses.upload(std::vector<double>(size_t(losses.n())).data(), losses.n());
    const Step now{{uint32_t(epoch), 0, 0}, {coef.p(), coef.n(), AdamHyper{}}, t, losses.p(), keep, clock()};
    model->prepare(epoch, 0);
    model->sample(batch, now);
    model->forward(batch, now);
    model->backward(batch, now);
    if (!keep) model->update(now), ++t;
    double sum = 0;
    for (const double x : losses.host()) sum += x;
    return sum;
  }
  Clock& clock() { return *(clock_ = std::make_unique<Clock>(*dev)); }

  std::string note;
  std::vector<std::string> notes;
  const Settings s;
  std::unique_ptr<Device> dev;
  GraphsOfData graphs;
  Interactions train;
  std::unique_ptr<Ranked> model;
  Array<int32_t> users, items;
  Batch batch;
  Array<double> losses;
  Array<AdamCoef> coef;
  std::unique_ptr<Clock> clock_;
  int64_t t = 0;
};

Settings small_settings() {
  Settings s;
  s.model = "LightGCN", s.embedding_size = 16, s.train_batch_size = 24, s.n_ui_layers = 2, s.reg_weight = 0,
  s.omega = 0.5, s.n_candidates = 16;
  return s;
}

std::vector<std::string> devices_here() {
  std::vector<std::string> all = {"cpu"};
  if (gpu_info().usable) all.emplace_back("cuda");
  return all;
}

TEST(Growing, DrawsFromMoreCandidatesEveryFewEpochs) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {});
  for (const std::string& device : devices_here()) {
    SmallSystem z(small_settings(), data, device);
    RankedParts parts;
    parts.backbone = std::make_unique<LightGcn>(z.setup(data), Start::q);
    parts.sampler = std::make_unique<Growing>(z.setup(data), 2);
    z.start(data, std::move(parts));
    std::set<int> kinds;
    for (int epoch = 0; epoch < 10; ++epoch) kinds.insert(z.model->prepare(epoch, 0));
    EXPECT_EQ(kinds, (std::set<int>{2, 4, 8, 16}));
    const double before = z.step(9, true);
    for (int k = 0; k < 20; ++k) z.step(9, false);
    EXPECT_LT(z.step(9, true), 0.9 * before);
    const HostCsr seen = pairs_by_user(data.train, data.n_users, data.n_items);
    const std::vector<int32_t> user = z.users.host(), item = z.items.host();
    for (size_t b = 0; b < 24; ++b)
      EXPECT_FALSE(std::binary_search(seen.col.begin() + seen.row_ptr[size_t(user[b])],
                                      seen.col.begin() + seen.row_ptr[size_t(user[b]) + 1], item[48 + b]));
  }
}

TEST(LastLayer, GradientsMatchFiniteDifferences) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {});
  for (const std::string& device : devices_here()) {
    SmallSystem z(small_settings(), data, device);
    RankedParts parts;
    parts.backbone = std::make_unique<LastLayer>(z.setup(data), Start::q);
    z.start(data, std::move(parts));
    Windows all;
    z.model->parameters(all);
    z.step(0, true);
    Watch shown(*z.dev);
    z.model->show(z.batch, shown);
    int checked = 0;
    for (const Window& w : all) {
      const Shown* const gradient = shown.find("grad." + w.name);
      ASSERT_NE(gradient, nullptr) << w.name;
      for (int64_t k = 0; k < w.rows * w.cols; k += 7) {
        float old = 0;
        w.value->download(&old, 1, w.offset + k);
        const auto at = [&](float x) {
          w.value->upload(&x, 1, w.offset + k);
          return z.step(0, true);
        };
        const double slope = (at(old + 0.01f) - at(old - 0.01f)) / 0.02;
        at(old);
        EXPECT_NEAR(gradient->floats[size_t(k)], slope, 1e-4 * std::fabs(slope) + 2e-7) << w.name << " " << k;
        checked += slope != 0;
      }
    }
    EXPECT_GT(checked, 50);
  }
}

}  // namespace
}  // namespace ccdrec::test
