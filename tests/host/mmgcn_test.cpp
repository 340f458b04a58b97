// MMGCN (spec baselines 5) against dense matrices in double precision: the loss, every gradient, what is ranked by;
// what it trains and what it does not, which modalities it maps, and that it learns.
#include <gtest/gtest.h>

#include <cmath>

#include "data/error.h"
#include "host/files/case.h"
#include "host/files/step.h"
#include "host/systems/registry.h"
#include "host/training/metrics.h"
#include "tests/host/model_reference.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"
#include "tests/support.h"

namespace ccdrec::test::mmgcn {
namespace {

struct RefLayer {
  Dense c, a, a_bias, z, z_bias;
};
struct RefBranch {
  Dense x, w, b, preference;  // w: no rows where the features keep their width
  RefLayer layer[3];
};

Dense lrelu(Dense x) {
  for (double& v : x.v) v *= v > 0 ? 1 : 0.01;
  return x;
}
Dense plus(Dense x, const Dense& y) {  // y (1,n): to every row
  for (size_t k = 0; k < x.v.size(); ++k) x.v[k] += y.v[k % y.v.size()];
  return x;
}
Dense beside(const Dense& x, const Dense& y) {
  Dense both(x.rows, x.cols + y.cols);
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t c = 0; c < both.cols; ++c) both(r, c) = c < x.cols ? x(r, c) : y(r, c - x.cols);
  return both;
}
Dense unit_rows_of(const Dense& above, const Dense& below) {
  Dense all(above.rows + below.rows, above.cols);
  std::copy(above.v.begin(), above.v.end(), all.v.begin());
  std::copy(below.v.begin(), below.v.end(), all.v.begin() + int64_t(above.v.size()));
  for (int64_t r = 0; r < all.rows; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < all.cols; ++c) squares += all(r, c) * all(r, c);
    for (int64_t c = 0; c < all.cols; ++c) all(r, c) /= std::max(std::sqrt(squares), 1e-12);
  }
  return all;
}
double mean_square(const Dense& x) {
  double sum = 0;
  for (const double v : x.v) sum += v * v;
  return sum / double(x.v.size());
}

struct RefMmgcn {
  int64_t U = 0, d = 0;
  double reg = 0;
  Dense m, id;
  std::vector<RefBranch> branches;

  Dense representations() const {
    Dense r(id.rows, d);
    for (const RefBranch& b : branches) {
      Dense x = unit_rows_of(b.preference, b.w.rows ? plus(times(b.x, b.w), b.b) : b.x);
      for (const RefLayer& l : b.layer) {
        const Dense h = lrelu(times(m, times(x, l.c))), y = plus(lrelu(plus(times(x, l.a), l.a_bias)), id);
        x = lrelu(plus(times(beside(h, y), l.z), l.z_bias));
      }
      for (size_t k = 0; k < r.v.size(); ++k) r.v[k] += x.v[k] / double(branches.size());
    }
    return r;
  }
  // The regulariser: rows (u,p), (u,n); of several negatives the mean.
  double constant(const RefBatch& batch) const {
    const size_t B = batch.u.size();
    double sum = 0;
    const auto row = [&](int64_t r) {
      double squares = 0;
      for (int64_t c = 0; c < d; ++c) squares += id(r, c) * id(r, c);
      return squares;
    };
    const double share = double(B) / double(batch.r.size());
    for (size_t k = 0; k < B; ++k) sum += 2 * row(batch.u[k]) + row(U + batch.p[k]);
    for (const int32_t i : batch.r) sum += share * row(U + i);
    return reg * (sum / double(2 * int64_t(B) * d) + mean_square(branches[0].preference));  // `image` is the first
  }
  double loss(const RefBatch& batch) const {
    const Dense r = representations();
    const size_t B = batch.u.size();
    double sum = 0;
    for (size_t k = 0; k < batch.r.size(); ++k) {
      double x = 0;
      for (int64_t c = 0; c < d; ++c) x += r(batch.u[k % B], c) * (r(U + batch.p[k % B], c) - r(U + batch.r[k], c));
      sum += std::log1p(std::exp(-x));
    }
    return sum / double(batch.r.size()) + constant(batch);
  }
};

// The data's graphs, but the features wider than `wide` are mapped: small ones too.
class MappedAbove : public GraphsOfData {
 public:
  MappedAbove(ccdrec::Device& dev, const Settings& s, const Dataset& data, std::vector<std::string>& notes,
              int64_t wide)
      : GraphsOfData(dev, s, data, notes), width_(s.mmgcn_latent), wide_(wide), data_(data) {}
  int64_t latent_width(size_t m) override { return data_.features[m].matrix.cols() > wide_ ? width_ : 0; }

 private:
  const int64_t width_, wide_;
  const Dataset& data_;
};

struct MmgcnCase {
  const char* name;
  int32_t U, I;
  std::vector<int64_t> widths;
  int64_t wide;  // features of more columns are mapped, to 5
  int d = 4, n_neg = 1;
};
const MmgcnCase mmgcn_cases[] = {{"one modality", 9, 7, {6}, 99},
                                 {"one modality, mapped", 9, 7, {6}, 5},
                                 {"two modalities, the first mapped", 9, 7, {8, 3}, 5, 4, 2},
                                 {"two modalities, more items than users", 7, 11, {8, 3}, 5},
                                 {"two modalities, none mapped, more items than users", 7, 11, {2, 3}, 5, 3},
                                 {"three modalities, two mapped, odd width", 12, 7, {9, 6, 2}, 5, 5},
                                 {"as many users as items, width one", 8, 8, {1, 7}, 5, 1, 2}};

Settings mmgcn_settings(const std::string& device) {
  Settings s;
  s.model = "MMGCN", s.device = device, s.threads = 2, s.seed = 3, s.epochs = 3, s.train_batch_size = 6;
  s.mmgcn_latent = 5, s.learning_rate = 5e-3;
  return s;
}

struct Built {
  Folder dir;
  Dataset data;
  Settings s;
  std::vector<std::string> notes;
  std::string note;
  std::unique_ptr<ccdrec::Device> dev;
  std::unique_ptr<Recommender> model;

  Built(const MmgcnCase& c, const std::string& device, double reg)
      : data(random_data(dir, c.U, c.I, 3, c.widths)), s(mmgcn_settings(device)) {
    s.embedding_size = c.d, s.n_neg = c.n_neg, s.reg_weight = reg;
    dev = make_device(device, s.threads, note);
    MappedAbove graphs(*dev, s, data, notes, c.wide);
    model = std::make_unique<Recommender>(*dev, s, data, graphs, notes);
    // Values with gradients of the size of 1, the frozen ones too.
    int n = 0;
    for (const Window& w : windows_of(*model)) {
      if (w.name.ends_with("_embedding.weight")) continue;  // the features
      std::vector<float> v(size_t(w.rows * w.cols));
      for (size_t k = 0; k < v.size(); ++k) v[k] = float(0.2 + 0.6 * std::sin(1.0 + 1.7 * n + 0.9 * double(k)));
      put(w, v), ++n;
    }
    model->model().restored();
  }
  Dense value(const std::string& name) const {
    const Window w = window_of(*model, name);
    return dense_of(values_of(w), w.rows, w.cols);
  }
  RefMmgcn reference() const {
    RefMmgcn ref;
    ref.U = model->users(), ref.d = s.embedding_size, ref.reg = s.reg_weight, ref.id = value("id_embedding");
    const HostCsr m = mean_graph(pairs_by_user(data.train, data.n_users, data.n_items), false);
    ref.m = dense_of(m.view());
    std::set<std::string> mapped;
    for (const Window& w : windows_of(*model)) mapped.insert(w.name);
    for (const Feature& f : data.features) {
      RefBranch b;
      b.x = value(f.name + "_embedding.weight"), b.preference = value(f.name + ".preference");
      if (mapped.count(f.name + ".mlp.weight")) b.w = value(f.name + ".mlp.weight"), b.b = value(f.name + ".mlp.bias");
      for (int k = 0; k < 3; ++k) {
        const auto of = [&](const char* part, const char* end) {
          return value(f.name + "." + part + std::to_string(k + 1) + "." + end);
        };
        b.layer[k] = {of("conv", "weight"), of("linear", "weight"), of("linear", "bias"), of("g", "weight"),
                      of("g", "bias")};
      }
      ref.branches.push_back(std::move(b));
    }
    return ref;
  }
};

// Users repeated, items that are positive and negative at once, and one without interactions.
RefBatch some_batch(const Built& z) {
  RefBatch batch;
  const std::vector<Pair>& train = z.data.train;
  batch.u = {0, 2, 2, 5, 1, 0};
  batch.p = {train[0].item, train[6].item, train[7].item, train[15].item, train[3].item, train[1].item};
  const int32_t last = int32_t(z.data.n_items - 1);
  batch.r = {4, last, batch.p[0], 5, 4, 1};
  if (z.s.n_neg == 2) batch.r.insert(batch.r.end(), {0, 3, 0, 2, last, 3});
  return batch;
}

// Central differences of the reference at every element, or at a few hundred of a large tensor.
void expect_gradient(const std::string& name, const RefMmgcn& ref, Dense& at, const RefBatch& batch,
                     const std::vector<float>& got) {
  ASSERT_EQ(got.size(), at.v.size()) << name;
  std::vector<double> want;
  double top = 0;
  for (double& x : at.v) {
    constexpr double kStep = 1e-6;
    const double kept = x;
    x = kept + kStep;
    const double up = ref.loss(batch);
    x = kept - kStep;
    want.push_back((up - ref.loss(batch)) / (2 * kStep));
    x = kept;
    top = std::max(top, std::fabs(want.back()));
  }
  EXPECT_GT(top, 3e-8) << name << " would not be seen";
  for (size_t k = 0; k < want.size(); ++k)
    ASSERT_NEAR(got[k], want[k], 2e-5 * top + 3e-9) << name << "[" << k << "], largest " << top;
}

void expect_reference(const MmgcnCase& c, const std::string& device) {
  SCOPED_TRACE(std::string(c.name) + " on " + device);
  Built z(c, device, 0.3);
  const RefBatch batch = some_batch(z);
  Arrays given;
  given.ids = {{"batch.users", batch.u}, {"batch.positives", batch.p}, {"batch.negatives", batch.r}};
  z.model->begin_epoch(0);
  z.model->give(given);
  z.model->set_losses({});
  z.model->forward_backward(0, 0);

  RefMmgcn ref = z.reference();
  const Losses losses = z.model->losses();
  ASSERT_EQ(losses.size(), 2u);
  EXPECT_NEAR(losses[0] + losses[1], ref.loss(batch), 2e-6 * ref.loss(batch));
  EXPECT_NEAR(losses[1], ref.constant(batch), 2e-7 * ref.constant(batch));

  const Watch shown = shown_of(*z.dev, *z.model);
  Windows trained;
  z.model->model().parameters(trained);
  size_t tensors = 0;
  for (size_t m = 0; m < ref.branches.size(); ++m) {
    RefBranch& b = ref.branches[m];
    const std::string& name = z.data.features[m].name;
    const auto expect = [&](const std::string& of, Dense& at) {
      expect_gradient(name + of, ref, at, batch, gradient_of(shown, window_of(*z.model, name + of)));
      ++tensors;
    };
    if (b.w.rows) expect(".mlp.weight", b.w), expect(".mlp.bias", b.b);
    for (int k = 0; k < 3; ++k) {
      RefLayer& l = b.layer[k];
      const std::string n = std::to_string(k + 1);
      expect(".conv" + n + ".weight", l.c);
      expect(".linear" + n + ".weight", l.a), expect(".linear" + n + ".bias", l.a_bias);
      expect(".g" + n + ".weight", l.z), expect(".g" + n + ".bias", l.z_bias);
    }
  }
  EXPECT_EQ(tensors, trained.size());

  CMat h_u, h_i;  // of the parameters as they are now
  z.model->update();
  z.model->represent(h_u, h_i);
  const Dense r = z.reference().representations();
  std::vector<float> got = host_copy(*z.dev, h_u);
  const std::vector<float> of_items = host_copy(*z.dev, h_i);
  got.insert(got.end(), of_items.begin(), of_items.end());
  ASSERT_EQ(got.size(), r.v.size());
  const double size = std::sqrt(mean_square(r));
  for (size_t k = 0; k < got.size(); ++k) EXPECT_NEAR(got[k], r.v[k], 3e-6 * size);
}

TEST(SlowMmgcn, LossGradientsAndRepresentationsMatchTheDoubleReference) {
  for (const std::string& device : devices_here())
    for (const MmgcnCase& c : mmgcn_cases) expect_reference(c, device);
}

std::map<std::string, std::vector<float>> parameters_of(Recommender& model) {
  std::map<std::string, std::vector<float>> all;
  Windows trained;
  model.model().parameters(trained);
  for (const Window& w : trained) all[w.name] = values_of(w);
  return all;
}

// The regulariser is shown, and is a constant.
TEST(Mmgcn, ParametersDoNotDependOnTheRegularisersWeight) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const std::string& device : devices_here()) {
    std::vector<std::map<std::string, std::vector<float>>> ends;
    std::vector<double> shown;
    for (const double reg : {0.0, 0.1}) {
      Settings s = mmgcn_settings(device);
      s.embedding_size = 8, s.train_batch_size = 24, s.reg_weight = reg;
      Trainer t(s, data);
      TrainHooks hooks;
      hooks.on_epoch = [&](const EpochReport& r) { shown.push_back(r.losses.at("reg")); };
      t.run(hooks);
      ends.push_back(parameters_of(t.model()));
    }
    EXPECT_EQ(ends[0], ends[1]) << device;
    ASSERT_EQ(shown.size(), 6u);
    for (size_t e = 0; e < 3; ++e) {
      EXPECT_EQ(shown[e], 0);
      EXPECT_GT(shown[3 + e], 0);
    }
  }
}

// ID and pref are drawn from the seed: with the spreads of the specification, and the same at the end.
TEST(SlowMmgcn, FrozenTablesAreDrawnFromTheSeedAndStay) {
  const Folder dir;
  const Dataset data = random_data(dir, 400, 300, 5, {12, 7});
  for (const std::string& device : devices_here()) {
    SCOPED_TRACE(device);
    Settings s = mmgcn_settings(device);
    s.embedding_size = 32, s.train_batch_size = 512, s.epochs = 1;
    Trainer t(s, data), other_seed(
                            [&] {
                              Settings z = s;
                              z.seed = 4;
                              return z;
                            }(),
                            data);
    const auto frozen = [](Trainer& of) {
      std::map<std::string, std::vector<float>> all;
      for (const char* name : {"id_embedding", "image.preference", "text.preference"})
        all[name] = values_of(window_of(of.model(), name));
      return all;
    };
    const auto start = frozen(t);
    t.run({});
    EXPECT_EQ(frozen(t), start);
    EXPECT_NE(frozen(other_seed), start);
    for (const auto& [name, v] : start) {
      const Window w = window_of(t.model(), name);
      EXPECT_EQ(w.m, nullptr) << name;
      double squares = 0;
      for (const float x : v) squares += double(x) * x;
      const double want = 2.0 / double(w.rows + w.cols), spread = std::sqrt(2.0 / double(v.size()));
      EXPECT_NEAR(squares / double(v.size()) / want, 1, 6 * spread) << name;
    }
  }
}

// Weights by xavier_normal, biases and the rest by linear_default (spec baselines 5.1).
TEST(Mmgcn, ParametersBeginAsTheSpecificationSays) {
  const Folder dir;
  const Dataset data = random_data(dir, 12, 20, 3, {1100, 40});
  Settings s = mmgcn_settings("cpu");
  s.embedding_size = 24, s.mmgcn_latent = 30;
  Trainer t(s, data);
  Windows all;
  t.model().model().parameters(all);
  EXPECT_EQ(all.size(), 2 + 2 * 15u);
  for (const Window& w : all) {
    const std::vector<float> v = values_of(w);
    double squares = 0, top = 0;
    for (const float x : v) squares += double(x) * x, top = std::max(top, std::fabs(double(x)));
    const bool bias = w.name.ends_with("bias"), mlp = w.name.find(".mlp.") != std::string::npos;
    const bool uniform =
        bias || mlp || w.name.find(".g2.") != std::string::npos || w.name.find(".g3.") != std::string::npos;
    if (!uniform) {
      const double spread = std::sqrt(2.0 / double(v.size()));
      EXPECT_NEAR(squares / double(v.size()) * double(w.rows + w.cols) / 2, 1, 6 * spread) << w.name;
      continue;
    }
    const std::string weight = w.name.substr(0, w.name.rfind('.')) + ".weight";
    const double bound = 1 / std::sqrt(double(window_of(t.model(), weight).rows));
    EXPECT_LE(top, bound) << w.name;
    EXPECT_GT(top, 0.7 * bound) << w.name;
  }
}

// The rule of training, and the widths that follow from it.
TEST(SlowMmgcn, FeaturesWiderThan1024ColumnsAreMappedFirst) {
  const Folder dir;
  const Dataset data = random_data(dir, 12, 9, 3, {1025, 1024, 3});
  for (const std::string& device : devices_here()) {
    Settings s = mmgcn_settings(device);
    s.embedding_size = 4, s.mmgcn_latent = 6, s.epochs = 1;
    Trainer t(s, data);
    const auto shape = [&](const std::string& name) { return window_of(t.model(), name).shape(); };
    using Shape = std::vector<int64_t>;
    EXPECT_EQ(shape("image.mlp.weight"), (Shape{6, 1025})) << "(out,in)";
    EXPECT_EQ(shape("image.mlp.bias"), Shape{6});
    EXPECT_EQ(shape("image.conv1.weight"), (Shape{6, 6}));
    EXPECT_EQ(shape("image.linear1.weight"), (Shape{4, 6}));
    EXPECT_EQ(shape("image.g1.weight"), (Shape{4, 10}));
    EXPECT_EQ(shape("image.g1.bias"), Shape{4});
    EXPECT_EQ(shape("image.preference"), (Shape{12, 6}));
    EXPECT_EQ(shape("text.conv1.weight"), (Shape{1024, 1024}));
    EXPECT_EQ(shape("audio.linear1.weight"), (Shape{4, 3}));
    EXPECT_EQ(shape("audio.conv2.weight"), (Shape{4, 4}));
    EXPECT_EQ(shape("audio.g3.weight"), (Shape{4, 8}));
    EXPECT_EQ(shape("audio.preference"), (Shape{12, 3}));
    EXPECT_EQ(shape("id_embedding"), (Shape{21, 4}));
    EXPECT_THROW(shape("text.mlp.weight"), UserError);
    t.run({});
  }
}

// A case says by the map's array that a modality is mapped, and how wide: a step of training with one, and a case whose
// graph or arrays cannot be.
TEST(SlowMmgcn, ACaseOfAMappedModalityIsTheStepOfTraining) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {1100, 7});
  for (const std::string& device : devices_here()) {
    SCOPED_TRACE(device);
    Settings s = mmgcn_settings(device);
    s.embedding_size = 8, s.train_batch_size = 24, s.threads = 1, s.reg_weight = 0.1;
    Trainer t(s, data);
    ASSERT_EQ(train_to(t, s, 1, 2, {}).reason, StopReason::interrupted);
    write_case(t, s, 0, dir / "case.safetensors");
    const TensorFile got = run_step_case(dir / "case.safetensors", "", device, 2);
    t.model().set_losses({});
    t.model().step(1, 2);
    for (const auto& [name, v] : parameters_of(t.model())) {
      const Window w = window_of(t.model(), name);
      const std::vector<float> want = w.transposed ? transposed(v, w.rows, w.cols) : v;
      const TensorData& now = got.tensors.at("new." + name);
      ASSERT_EQ(now.bytes.size(), want.size() * sizeof(float)) << name;
      EXPECT_EQ(std::vector<float>(now.f32(), now.f32() + want.size()), want) << name;
    }
    const Losses losses = t.model().losses();
    double reg = 0;
    std::memcpy(&reg, got.tensors.at("loss.reg").bytes.data(), sizeof reg);
    EXPECT_EQ(reg, losses[1]);
  }
}

std::string refused(const std::string& path) {
  try {
    run_step_case(path, "", "cpu", 1);
  } catch (const UserError& e) { return e.what(); }
  return "no complaint";
}

TEST(Mmgcn, ACaseWithSomethingWrongIsOneSentence) {
  const Folder dir;
  const Dataset data = random_data(dir, 12, 9, 3, {5, 3});
  Settings s = mmgcn_settings("cpu");
  s.embedding_size = 4;
  Trainer t(s, data);
  write_case(t, s, 0, dir / "case");
  EXPECT_EQ(refused(dir / "case"), "no complaint");
  const auto expect = [&](const std::string& sentence, const std::function<void(TensorFile&)>& edit) {
    edit_state(dir / "case", dir / "bad", edit);
    const std::string got = refused(dir / "bad");
    EXPECT_NE(got.find(sentence), std::string::npos) << got;
  };
  const auto rename = [](const std::string& from, const std::string& to) {
    return [=](TensorFile& f) {
      f.tensors[to] = f.tensors.at(from);
      f.tensors.erase(from);
    };
  };
  expect(
      "'graph.user_item' has an entry at (0,1), between two users; this model's edges run between users and items "
      "alone",
      [](TensorFile& f) {  // both directions of an edge moved
        TensorData& index = f.tensors.at("graph.user_item.index");
        std::vector<int32_t> at(index.i32(), index.i32() + index.bytes.size() / 4);
        const size_t nnz = at.size() / 2;
        const int32_t item = at[nnz];
        ASSERT_EQ(at[0], 0);
        size_t back = 0;
        while (at[back] != item || at[nnz + back] != 0) ++back;
        at[nnz] = 1, at[back] = 1;
        std::memcpy(index.bytes.data(), at.data(), index.bytes.size());
      });
  expect("'param.id_embedding' has no rows behind those of the users",
         [](TensorFile& f) { f.tensors.at("param.image.preference") = f.tensors.at("param.id_embedding"); });
  expect("array 'param.text.preference' is missing", [](TensorFile& f) { f.tensors.erase("param.text.preference"); });
  expect("array 'param.image.conv4.weight' is none that such a case holds",
         rename("param.image.conv3.weight", "param.image.conv4.weight"));
  expect("array 'param.image.mlp.bias' is none",
         [](TensorFile& f) { f.tensors["param.image.mlp.bias"] = f.tensors.at("param.image.linear1.bias"); });
  expect("'batch.curricular' is given, but this model has no hard negatives; leave it away",
         [](TensorFile& f) { f.tensors["batch.curricular"] = f.tensors.at("batch.positives"); });
  expect("'diffusion.items' is not the ascending list",
         [](TensorFile& f) { f.tensors["diffusion.items"] = f.tensors.at("batch.positives"); });
}

TEST(Mmgcn, HardSamplersAreOneSentence) {
  Settings s = mmgcn_settings("cpu");
  s.sampler = "dns";
  std::string got;
  try {
    check_sampler(s, "--set");
  } catch (const UserError& e) { got = e.what(); }
  EXPECT_EQ(got,
            "sampler = dns (--set): MMGCN learns from random negatives alone, n_neg of them a row; leave it away, or "
            "choose BPR, LightGCN, FREEDOM, LATTICE or MCDRec");
}

}  // namespace
}  // namespace ccdrec::test::mmgcn
