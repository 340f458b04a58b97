// bench_parity: the same run on the CPU and on the GPU, side by side. From one seed both draw the same numbers; what differs is rounding.
//
//   bench_parity --preset baby [--epochs 3] [--models CCDRec,..] [--out FILE]
//
// Per model and epoch: the mean loss of both and how far apart they are; at the end: users whose 20 recommendations differ, and how many of those
// differ by more than a near-tie of the scores; and, for CCDRec, curricular negatives chosen by both devices from the GPU's pool: every choice that
// differs must stand within rounding of the drawn one. Exit code 1 when something differs by more.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/arguments.h"
#include "bench/command.h"
#include "data/error.h"
#include "data/synth.h"
#include "host/config.h"
#include "host/device.h"
#include "host/models/recommender.h"
#include "host/trainer.h"

namespace ccdrec::bench {
namespace {
namespace fs = std::filesystem;

struct Options {
  std::string preset = "baby", data, cache = "build/bench-data", out;
  std::vector<std::string> models = {"BPR", "LightGCN", "FREEDOM", "CCDRec"};
  int epochs = 3;
};

struct Side {
  std::vector<double> loss, valid;
  std::vector<float> hu, hi;
  int64_t U = 0, I = 0, d = 0;
};

std::vector<float> downloaded(Device& dev, CMat m) {
  std::vector<float> v(static_cast<size_t>(m.size()));
  dev.ops.download(dev.ctx, v.data(), m.p, v.size() * sizeof(float));
  return v;
}

Settings settings(const Options& o, const std::string& model, const std::string& folder, const char* device) {
  Settings s;
  s.model = model, s.device = device, s.data_path = folder, s.graph_cache = o.cache + "/graphs";
  s.learning_rate = model == "CCDRec" ? 5e-4 : 1e-3, s.train_batch_size = model == "CCDRec" ? 512 : 2048;
  s.epochs = o.epochs, s.stopping_step = o.epochs, s.dtau = 1;  // a stage an epoch
  s.reg_weight = model == "FREEDOM" ? 1e-3 : s.reg_weight;
  return s;
}

// A NaN is worse than anything and stays.
void keep_worst(double& worst, double x) {
  if (!std::isnan(worst) && !(x <= worst)) worst = x;
}

// Choices of both devices from the same pool, users, positives and candidates.
struct Choices {
  int64_t made = 0, differ = 0;
  double worst = 0;  // similarity of the GPU's choice against the CPU's, over the mass of the dot product
};
Choices compare_choices(Recommender& model, const Dataset& data, uint32_t seed) {
  Choices c;
  std::string note;
  const auto gpu = make_device("cuda", 0, note), cpu = make_device("cpu", 0, note);
  const CMat on_gpu = model.ndi()->e0_hat();
  const int64_t I = on_gpu.rows, d = on_gpu.cols;
  std::vector<float> pool(static_cast<size_t>(I * d));
  model.ndi()->pool_matrix(3).array().download(pool.data(), I * d);
  const HostCsr train = pairs_by_user(data.train, data.n_users, data.n_items);
  const int64_t B = std::min<int64_t>(512, int64_t(data.train.size())), count = std::max<int64_t>(1, I / 10), k = std::max<int64_t>(1, count / 10);
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
      dev->ops.similar_negative(dev->ctx, chosen.p(), flag.p(), {p.p(), I, d}, q.p(), u.p(), B, cand.p(), count, rows.view(), k, false, q.p(),
                                Stream{seed, Use::cns_rank, 1, batch});
      out[dev->gpu()] = chosen.host();
    }
    for (int64_t b = 0; b < B; ++b) {
      ++c.made;
      const int32_t x = out[0][size_t(b)], y = out[1][size_t(b)];
      if (x == y) continue;
      ++c.differ;
      double sx = 0, sy = 0, mass = 0;
      for (int64_t j = 0; j < d; ++j) {
        const double a = pool[size_t(pos[size_t(b)] * d + j)], px = a * pool[size_t(x * d + j)], py = a * pool[size_t(y * d + j)];
        sx += px, sy += py, mass += std::fabs(px) + std::fabs(py);
      }
      keep_worst(c.worst, std::fabs(sx - sy) / (mass + 1e-30));
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
    std::cerr << fmt::format("{} on {}: epoch {}: loss {:.8f}, Recall@20 {:.6f}, {:.3f} s\n", s.model, s.device, r.epoch, r.loss,
                             r.valid.at("recall@20"), r.seconds.at("train"));
  };
  t.run(hooks);
  CMat hu, hi;
  t.model().represent(hu, hi);
  Device& dev = t.device();
  side.hu = downloaded(dev, hu), side.hi = downloaded(dev, hi);
  side.U = hu.rows, side.I = hi.rows, side.d = hu.cols;
  if (choices && t.model().shape().cns) *choices = compare_choices(t.model(), data, s.seed);
  return side;
}

// Lists of both sides by the CPU's ranking, so that only the representations differ.
struct Lists {
  int64_t users = 0, differ = 0, beyond_ties = 0;
  double worst = 0;
};
Lists compare_lists(const Side& a, const Side& b, const Dataset& data) {
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
    cpu->ops.score_topk(cpu->ctx, t.data(), score.data(), {s->hu.data(), s->U, s->d}, users.data(), s->U, {s->hi.data(), s->I, s->d}, &mask, k);
  }
  const auto score = [&](int64_t u, int32_t i) {
    double sum = 0, mass = 1e-30;
    for (int64_t j = 0; j < a.d; ++j) {
      const double x = double(a.hu[size_t(u * a.d + j)]) * a.hi[size_t(i * a.d + j)];
      sum += x, mass += std::fabs(x);
    }
    return std::pair(sum, mass);
  };
  for (int64_t u = 0; u < a.U; ++u) {
    const auto at = top[0].begin() + u * k, bt = top[1].begin() + u * k;
    if (std::equal(at, at + k, bt)) continue;
    ++l.differ;
    double worst = 0;  // a place's two items, scored by the CPU's representations
    for (int64_t j = 0; j < k; ++j) {
      if (at[j] < 0 || bt[j] < 0) continue;
      const auto [sa, ma] = score(u, at[j]);
      const auto [sb, mb] = score(u, bt[j]);
      keep_worst(worst, std::fabs(sa - sb) / (ma + mb));
    }
    keep_worst(l.worst, worst);
    l.beyond_ties += !(worst <= 1e-3);
  }
  return l;
}

int run(int argc, char** argv) {
  Options o;
  Arguments app("The same run on the CPU and on the GPU");
  app.add("--preset", o.preset, "shape of the generated data set");
  app.add("--data", o.data, "a data folder instead");
  app.add("--epochs", o.epochs, "of each", positive());
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
  std::string md = fmt::format(
      "## CPU and GPU from the same seed: {}, {} epochs\n\n| model | epoch | loss CPU | loss GPU | apart | Recall@20 CPU | Recall@20 GPU "
      "|\n|---|---:|---:|---:|---:|---:|---:|\n",
      o.data.empty() ? o.preset + " (generated)" : folder, o.epochs);
  std::string after =
      "\n| model | users | lists of 20 that differ | beyond near-ties | worst gap of score / mass | curricular choices | that differ | worst gap "
      "|\n|---|---:|---:|---:|---:|---:|---:|---:|\n";
  nlohmann::json json = nlohmann::json::array();
  bool fine = true;
  std::string failures;
  const auto report = [&] {
    return md + after + failures +
           (fine ? "\nAll within the limits: losses 1e-4, choices 1e-6 of the mass, lists beyond near-ties (1e-3 of the mass) for at most one user "
                   "in a "
                   "thousand.\n"
                 : "\n**Outside the limits.**\n");
  };
  const auto compare = [&](const std::string& model) {
    Settings s = settings(o, model, folder, "cpu");
    LoadOptions load;
    load.need_features = uses_features(s);
    const Dataset data = load_dataset(folder, load);
    Choices choices;
    const Side cpu = trained(s, data, nullptr);
    s.device = "cuda";
    const Side gpu = trained(s, data, &choices);
    double apart = 0;
    for (size_t e = 0; e < cpu.loss.size(); ++e) {
      const double off = std::fabs(cpu.loss[e] - gpu.loss.at(e)) / std::fabs(cpu.loss[e]);
      apart = !(off <= apart) ? off : apart;
      md += fmt::format("| {} | {} | {:.8f} | {:.8f} | {:.1e} | {:.4f} | {:.4f} |\n", model, e, cpu.loss[e], gpu.loss[e], off, cpu.valid[e],
                        gpu.valid[e]);
    }
    const Lists lists = compare_lists(cpu, gpu, data);
    after += fmt::format("| {} | {} | {} | {} | {:.1e} | {} | {} | {:.1e} |\n", model, lists.users, lists.differ, lists.beyond_ties, lists.worst,
                         choices.made, choices.differ, choices.worst);
    // Losses within 1e-4, near-ties for all but one user in a thousand, choices within rounding.
    const bool good = apart <= 1e-4 && double(lists.beyond_ties) <= 1e-3 * double(lists.users) + 1 && choices.worst <= 1e-6;
    fine = fine && good;
    json.push_back({{"model", model},
                    {"loss_cpu", cpu.loss},
                    {"loss_gpu", gpu.loss},
                    {"apart", apart},
                    {"users", lists.users},
                    {"lists_differ", lists.differ},
                    {"beyond_ties", lists.beyond_ties},
                    {"choices", choices.made},
                    {"choices_differ", choices.differ},
                    {"choices_worst", choices.worst},
                    {"good", good}});
  };
  for (const std::string& model : o.models) {
    try {
      compare(model);
    } catch (const std::exception& e) {  // the other models are compared all the same
      fine = false, failures += "\n**Failed:** " + model + ": " + e.what() + "\n";
      std::cerr << "bench_parity: " << model << ": " << e.what() << "\n";
    }
    if (!o.out.empty()) std::ofstream(o.out + ".md") << report(), std::ofstream(o.out + ".json") << json.dump(1) << "\n";
  }
  std::cout << report();
  return fine ? 0 : 1;
}

}  // namespace
}  // namespace ccdrec::bench

int main(int argc, char** argv) { return ccdrec::bench::command("bench_parity", ccdrec::bench::run, argc, argv); }
