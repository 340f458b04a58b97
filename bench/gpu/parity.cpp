// bench_parity: the same run on the CPU and on the GPU, side by side. From one seed both draw the same numbers; what
// differs is rounding.
//
//   bench_parity --preset baby [--epochs 3] [--models CCDRec,..] [--precision fp32|tf32|bf16] [--out FILE]
//
// The precision is that of the GPU's large products; the CPU computes in FP32. First such products by themselves: how
// far they are from double precision. Per model and epoch: the mean loss of both and how far apart they are. At the
// end, of each user's 20 recommendations: how far the devices' scores are apart, and the pairs of items that the
// devices put in opposite order, each of which must be a tie; and, for CCDRec, curricular negatives chosen by both from
// the GPU's pool, likewise. Limits: bench/gpu/agreement.h. Exit code 1 when something differs by more.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/arguments.h"
#include "bench/command.h"
#include "bench/gpu/agreement.h"
#include "bench/published.h"
#include "data/error.h"
#include "data/synth.h"
#include "host/base/device.h"
#include "host/files/config.h"
#include "host/systems/registry.h"
#include "host/training/recommender.h"
#include "host/training/trainer.h"

namespace ccdrec::bench {
namespace {
namespace fs = std::filesystem;

struct Options {
  std::string preset = "baby", data, cache = "build/bench-data", out, precision = "fp32";
  std::vector<std::string> models = {"BPR", "LightGCN", "FREEDOM", "CCDRec"};
  int epochs = 3;
};

struct Side {
  std::vector<double> loss, valid;
  std::vector<float> hu, hi;
  int64_t U = 0, I = 0, d = 0;
};

Settings settings(const Options& o, const std::string& model, const std::string& folder, const char* device) {
  Settings s;
  s.model = model, s.device = device, s.data_path = folder, s.graph_cache = o.cache + "/graphs";
  s.learning_rate = published(model).learning_rate, s.train_batch_size = published(model).train_batch_size;
  // a stage an epoch
  s.epochs = o.epochs, s.stopping_step = o.epochs, s.dtau = 1;
  // FREEDOM's modality terms
  if (const Outline system = outline_of(s); system.item_layers > 0 && !system.diffusion) s.reg_weight = 1e-3;
  return s;
}

// Products of the shapes of a step on the GPU, against double precision.
struct Product {
  int64_t k = 0;
  // largest error in parts of the mass: in the precision, in FP32; what it may be
  double error = 0, fp32 = 0, limit = 0;
  bool fine() const { return error <= limit && fp32 <= sum_error(k); }
};
double product_off(int64_t m, int64_t k, int64_t n, const std::string& precision) {
  std::string note;
  const auto dev = make_device("cuda", 0, note, precision);
  std::vector<float> a, b;
  for (auto [v, size, use] : {std::tuple(&a, m * k, 0u), std::tuple(&b, k * n, 1u)})
    for (int64_t e = 0; e < size; ++e)
      v->push_back(2 * uniform01(draw(Stream{1, Use::test, 2, use}, uint32_t(e)).v[0]) - 1);
  const Array<float> on_a(*dev, a), on_b(*dev, b);
  Matrix c(*dev, m, n);
  dev->ops.gemm(dev->ctx, c, {on_a.p(), m, k}, false, {on_b.p(), k, n}, false, false);
  const std::vector<float> got = c.array().host();
  double worst = 0;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0, mass = 1e-30;
      for (int64_t l = 0; l < k; ++l) {
        const double term = double(a[size_t(i * k + l)]) * b[size_t(l * n + j)];
        sum += term, mass += std::fabs(term);
      }
      keep_worst(worst, std::fabs(got[size_t(i * n + j)] - sum) / mass);
    }
  return worst;
}
std::vector<Product> products(const std::string& precision) {
  std::vector<Product> all;
  for (const int64_t k : {64, 384, 4096})
    all.push_back(
        {k, product_off(128, k, 64, precision), product_off(128, k, 64, "fp32"), product_error(precision, k)});
  return all;
}
// A library may keep to FP32 where it was allowed less; if it does so throughout, a run that says `tf32` says what is
// not so.
bool lowered(const std::vector<Product>& all) {
  return std::any_of(all.begin(), all.end(), [](const Product& p) { return p.error > 4 * p.fp32; });
}

std::pair<double, double> dot(const float* x, const float* y, int64_t d) {  // and its mass
  double sum = 0, mass = 1e-30;
  for (int64_t j = 0; j < d; ++j) sum += double(x[j]) * y[j], mass += std::fabs(double(x[j]) * y[j]);
  return {sum, mass};
}

// Choices of both devices from the same pool, users, positives and candidates.
struct Choices {
  int64_t made = 0;
  Flips flips;
};
Choices compare_choices(Device& trained_on, Recommender& model, const Dataset& data, uint32_t seed) {
  Choices c;
  std::string note;
  const auto gpu = make_device("cuda", 0, note), cpu = make_device("cpu", 0, note);
  std::vector<Kept> kept;
  model.model().kept(kept);
  const auto last = std::find_if(kept.begin(), kept.end(), [](const Kept& k) { return k.name == "pool.3"; });
  const int64_t I = last->shape[0], d = last->shape[1];
  const std::vector<float> pool = host_copy(trained_on, {static_cast<const float*>(last->device), I, d});
  const HostCsr train = pairs_by_user(data.train, data.n_users, data.n_items);
  const int64_t B = std::min<int64_t>(512, int64_t(data.train.size())), count = std::max<int64_t>(1, I / 10),
                k = std::max<int64_t>(1, count / 10);
  for (uint32_t batch = 0; batch < 4; ++batch) {
    std::vector<int32_t> user, pos;
    for (int64_t b = 0; b < B; ++b) {
      const Pair& e = data.train[size_t(draw(Stream{seed, Use::test, 1, batch}, uint32_t(b)).v[0] % data.train.size())];
      user.push_back(e.user), pos.push_back(e.item);
    }
    std::vector<int32_t> out[2];
    for (Device* dev : {cpu.get(), gpu.get()}) {
      const Array<float> p(*dev, pool);
      const OwnedCsr rows(*dev, train);
      const Array<int32_t> u(*dev, user), q(*dev, pos);
      Array<int32_t> cand(*dev, count), chosen(*dev, B), flag(*dev, 1);
      dev->ops.candidates(dev->ctx, cand.p(), count, I, Stream{seed, Use::candidates, 1, batch});
      dev->ops.similar_negative(dev->ctx, chosen.p(), flag.p(), {p.p(), I, d}, q.p(), u.p(), B, cand.p(), count,
                                rows.view(), k, false, q.p(), Stream{seed, Use::cns_rank, 1, batch});
      out[dev->gpu()] = chosen.host();
    }
    for (int64_t b = 0; b < B; ++b) {
      ++c.made;
      const int32_t x = out[0][size_t(b)], y = out[1][size_t(b)];
      if (x == y) continue;
      const float* const row = &pool[size_t(pos[size_t(b)] * d)];
      const auto [sx, mx] = dot(row, &pool[size_t(x * d)], d);
      const auto [sy, my] = dot(row, &pool[size_t(y * d)], d);
      c.flips.add(fmt::format("batch {}, row {}", batch, b), x, {sx, sx, mx}, y, {sy, sy, my}, d);
    }
  }
  return c;
}

Side trained(const Settings& s, const Dataset& data, Choices* choices) {
  Side side;
  std::string note;
  Trainer t(s, data);
  TrainHooks hooks;
  hooks.on_epoch = [&](const EpochReport& r) {
    side.loss.push_back(r.loss), side.valid.push_back(r.valid.at("recall@20"));
    std::cerr << fmt::format("{} on {}: epoch {}: loss {:.8f}, Recall@20 {:.6f}, {:.3f} s\n", s.model, s.device,
                             r.epoch, r.loss, r.valid.at("recall@20"), r.seconds.at("train"));
  };
  t.run(hooks);
  CMat hu, hi;
  t.model().represent(hu, hi);
  Device& dev = t.device();
  side.hu = host_copy(dev, hu), side.hi = host_copy(dev, hi);
  side.U = hu.rows, side.I = hi.rows, side.d = hu.cols;
  if (choices && outline_of(s).searches) *choices = compare_choices(dev, t.model(), data, s.seed);
  return side;
}

// Lists of both sides by the CPU's ranking, so that only the representations differ.
struct Lists {
  int64_t users = 0, differ = 0, apart = 0;  // `apart`: with a score beyond its limit
  double worst = 0;                          // between the devices' scores of an item, in parts of the mass
  Flips flips;
};
Lists compare_lists(const Side& a, const Side& b, const Dataset& data, double limit) {
  Lists l;
  l.users = a.U;
  const int64_t k = 20;
  const HostCsr train = pairs_by_user(data.train, data.n_users, data.n_items);
  std::vector<int32_t> users(size_t(a.U), 0), top[2];
  for (int64_t u = 0; u < a.U; ++u) users[size_t(u)] = int32_t(u);
  std::string note;
  const auto cpu = make_device("cpu", 0, note);
  const Csr mask = train.view();
  for (const Side* s : {&a, &b}) {
    std::vector<int32_t>& t = top[s == &b];
    std::vector<float> score(size_t(a.U * k), 0.0f);
    t.resize(size_t(a.U * k));
    cpu->ops.score_topk(cpu->ctx, t.data(), score.data(), {s->hu.data(), s->U, s->d}, users.data(), s->U,
                        {s->hi.data(), s->I, s->d}, &mask, k);
  }
  for (int64_t u = 0; u < a.U; ++u) {
    const std::vector<int32_t> on_cpu(top[0].begin() + u * k, top[0].begin() + (u + 1) * k),
        on_gpu(top[1].begin() + u * k, top[1].begin() + (u + 1) * k);
    double worst = 0;
    const auto scores = [&](int32_t i) {
      const auto [sa, ma] = dot(&a.hu[size_t(u * a.d)], &a.hi[size_t(i * a.d)], a.d);
      const auto [sb, mb] = dot(&b.hu[size_t(u * a.d)], &b.hi[size_t(i * a.d)], a.d);
      keep_worst(worst, std::fabs(sa - sb) / std::max(ma, mb));
      return ItemScores{sa, sb, std::max(ma, mb)};
    };
    for (const int32_t i : on_cpu)
      if (i >= 0) scores(i);
    l.differ += on_cpu != on_gpu;
    if (on_cpu != on_gpu) add_flips(l.flips, fmt::format("user {}", u), on_cpu, on_gpu, scores, a.d);
    keep_worst(l.worst, worst);
    l.apart += !(worst <= limit);
  }
  return l;
}

// Terms of the longest sum of a step: a modality's map over its features, a gradient over the batch's items.
int64_t longest_sum(const Settings& s, const Dataset& data) {
  int64_t k = s.train_batch_size * int64_t(1 + s.n_neg);
  for (const Feature& f : data.features) k = std::max(k, f.matrix.cols());
  return k;
}

// What was found, as a page and as JSON.
struct Report {
  std::string title, precision, epochs, after, failures;
  nlohmann::json json = nlohmann::json::array();
  std::vector<Product> products;
  double loss = 0, score = 0;  // the largest
  bool fine = true;

  std::string text() const;
  void add(const std::string& model, const std::string& lowest, const Side& cpu, const Side& gpu, const Lists&,
           const Choices&, double score_limit);
};

void Report::add(const std::string& model, const std::string& lowest, const Side& cpu, const Side& gpu, const Lists& l,
                 const Choices& c, double limit) {
  double apart = 0;
  for (size_t e = 0; e < cpu.loss.size(); ++e) {
    const double off = std::fabs(cpu.loss[e] - gpu.loss.at(e)) / std::fabs(cpu.loss[e]);
    keep_worst(apart, off);
    epochs += fmt::format("| {} | {} | {:.8f} | {:.8f} | {:.1e} | {:.4f} | {:.4f} |\n", model, e, cpu.loss[e],
                          gpu.loss[e], off, cpu.valid[e], gpu.valid[e]);
  }
  after += fmt::format("| {} | {} | {:.1e} | {:.1e} | {} | {} | {} | {} | {} |\n", model, l.users, l.worst, limit,
                       l.apart, l.differ, l.flips.count, c.made, c.flips.count);
  for (const auto& [what, flips] : {std::pair("lists", &l.flips), std::pair("choices", &c.flips)})
    if (flips->count) failures += fmt::format("\n{}, {}: {}\n", model, what, flips->text());
  // One user in a thousand may be farther apart: Adam turns the sign of a gradient that is nothing but rounding into a
  // step.
  const bool good = apart <= loss_limit(lowest) && double(l.apart) <= 1e-3 * double(l.users) + 1 &&
                    l.flips.all_ties() && c.flips.all_ties();
  fine = fine && good;
  keep_worst(loss, apart), keep_worst(score, l.worst);
  json.push_back({{"model", model},
                  {"precision", precision},
                  {"loss_cpu", cpu.loss},
                  {"loss_gpu", gpu.loss},
                  {"apart", apart},
                  {"apart_limit", loss_limit(lowest)},
                  {"users", l.users},
                  {"score_apart", l.worst},
                  {"score_limit", limit},
                  {"users_apart", l.apart},
                  {"lists_differ", l.differ},
                  {"flips", l.flips.count},
                  {"flips_no_ties", l.flips.no_ties},
                  {"choices", c.made},
                  {"choices_flips", c.flips.count},
                  {"choices_no_ties", c.flips.no_ties},
                  {"good", good}});
}

std::string Report::text() const {
  std::string s =
      fmt::format("## CPU and GPU from the same seed, the GPU's large products in {}: {}\n\n", precision, title);
  s += "| product, terms | largest error in parts of the mass | may be | in fp32 | may be "
       "|\n|---:|---:|---:|---:|---:|\n";
  for (const Product& p : products)
    s += fmt::format("| {} | {:.1e} | {:.1e} | {:.1e} | {:.1e} |{}\n", p.k, p.error, p.limit, p.fp32, sum_error(p.k),
                     p.fine() ? "" : " **beyond**");
  if (precision != "fp32" && !lowered(products))
    s += fmt::format("\n**The library computes in FP32 though {} was asked for.**\n", precision);
  s += "\n| model | epoch | loss CPU | loss GPU | apart | Recall@20 CPU | Recall@20 GPU "
       "|\n|---|---:|---:|---:|---:|---:|---:|\n" +
       epochs;
  s += "\n| model | users | scores apart, of the mass | may be | users beyond | lists of 20 that differ | flips | "
       "curricular choices | flips "
       "|\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n" +
       after + failures;
  s += fmt::format("\nLargest differences in {}: losses {:.1e} (may be {:.1e}), scores {:.1e} of the mass.\n",
                   precision, loss, loss_limit(precision), score);
  return s + (fine ? "\nAll within the limits, scores for all but one user in a thousand; every flip is a tie.\n"
                   : "\n**Outside the limits.**\n");
}

int run(int argc, char** argv) {
  Options o;
  Arguments app("The same run on the CPU and on the GPU");
  app.add("--preset", o.preset, "shape of the generated data set");
  app.add("--data", o.data, "a data folder instead");
  app.add("--epochs", o.epochs, "of each", positive());
  app.add("--precision", o.precision, "of the GPU's large products", one_of({"fp32", "tf32", "bf16"}));
  app.add_list("--models", o.models, "which models");
  app.add("--cache", o.cache, "where generated data sets and neighbour lists are kept");
  app.add("--out", o.out, "write OUT.md and OUT.json");
  if (const auto end = app.parse(argc, argv)) return *end;
  check_device("cuda");
  std::string folder = o.data;
  if (folder.empty()) {
    folder = (fs::path(o.cache) / o.preset).string();
    if (!fs::exists(folder)) {
      const std::string partial = folder + ".partial";
      fs::remove_all(partial);
      SynthParams p = synth_preset(o.preset);
      p.name = o.preset;
      write_synth(partial, p);
      fs::rename(partial, folder);
    }
  }
  Report r;
  r.title = fmt::format("{}, {} epochs", o.data.empty() ? o.preset + " (generated)" : folder, o.epochs),
  r.precision = o.precision;
  r.products = products(o.precision);
  r.fine = std::all_of(r.products.begin(), r.products.end(), [](const Product& p) { return p.fine(); }) &&
           (o.precision == "fp32" || lowered(r.products));
  const auto compare = [&](const std::string& model) {
    Settings s = settings(o, model, folder, "cpu");
    LoadOptions load;
    load.need_features = uses_features(s);
    const Dataset data = load_dataset(folder, load);
    Choices choices;
    const Side cpu = trained(s, data, nullptr);
    s.device = "cuda", s.precision = o.precision;
    const Side gpu = trained(s, data, &choices);
    // A model without features has no large products: whatever the precision, nothing of it may be lower than FP32.
    const std::string lowest = uses_features(s) ? o.precision : "fp32";
    const double limit = score_limit(lowest, longest_sum(s, data));
    r.add(model, lowest, cpu, gpu, compare_lists(cpu, gpu, data, limit), choices, limit);
  };
  for (const std::string& model : o.models) {
    try {
      compare(model);
    } catch (const std::exception& e) {  // the other models are compared all the same
      r.fine = false, r.failures += "\n**Failed:** " + model + ": " + e.what() + "\n";
      std::cerr << "bench_parity: " << model << ": " << e.what() << "\n";
    }
    if (!o.out.empty())
      std::ofstream(o.out + ".md") << r.text(), std::ofstream(o.out + ".json") << r.json.dump(1) << "\n";
  }
  std::cout << r.text();
  return r.fine ? 0 : 1;
}

}  // namespace
}  // namespace ccdrec::bench

int main(int argc, char** argv) { return ccdrec::bench::command("bench_parity", ccdrec::bench::run, argc, argv); }
