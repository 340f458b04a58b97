// tests/golden: cases that an independent program (bench/pytorch, float64 and automatic differentiation) wrote and
// answered. `ccdrec step` and `ccdrec reverse` must give its intermediates, losses, gradients and updated parameters,
// on every device.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "host/base/safetensors.h"
#include "host/files/step.h"
#include "tests/kernels/chi_square.h"
#include "tests/support.h"
#include "tests/temp_folder.h"

namespace ccdrec::test {
namespace {
namespace fs = std::filesystem;

const std::string kGolden = std::string(CCDREC_SOURCE_DIR) + "/tests/golden";

std::vector<std::string> golden_names(const std::string& prefix_or_all) {
  std::set<std::string> names;
  const std::string end = ".case.safetensors";
  for (const auto& file : fs::directory_iterator(kGolden)) {
    const std::string name = file.path().filename().string();
    const bool reverse = name.rfind("reverse", 0) == 0;
    if (name.ends_with(end) && reverse == (prefix_or_all == "reverse"))
      names.insert(name.substr(0, name.size() - end.size()));
  }
  return {names.begin(), names.end()};
}

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
nlohmann::json read_manifest() { return nlohmann::json::parse(bytes_of(kGolden + "/manifest.json")); }

// Without those that the manifest marks `not_yet`: cases of what the program cannot run so far.
std::vector<std::string> runnable(std::vector<std::string> names) {
  const nlohmann::json cases = read_manifest().at("cases");
  std::erase_if(names, [&](const std::string& name) { return cases.at(name).value("not_yet", false); });
  return names;
}

std::vector<double> values(const TensorData& t) {
  std::vector<double> v(t.bytes.size() / (t.dtype == "F64" ? 8 : 4));
  for (size_t k = 0; k < v.size(); ++k) {
    if (t.dtype == "F64")
      std::memcpy(&v[k], t.bytes.data() + 8 * k, 8);
    else
      v[k] = t.f32()[k];
  }
  return v;
}

// Relative to the mass of the sums, which the answer holds row by row. What Adam makes of a gradient: the step's
// relative error is the gradient's, and a gradient below 1e-6 of its mass is rounding, whose step is not compared.
void expect_equal(const std::string& name, const TensorFile& case_file, const TensorFile& want_file,
                  const TensorFile& got_file, double rate) {
  SCOPED_TRACE(name);
  // only what the model does not read at all may be left out, a parameter whose gradient is zero
  if (!got_file.tensors.count(name)) {
    const bool of_parameter = name.rfind("grad.", 0) == 0 || name.rfind("new.", 0) == 0;
    const std::string parameter = name.substr(name.find('.') + 1);
    ASSERT_TRUE(of_parameter && case_file.tensors.count("param." + parameter)) << "is missing";
    for (const double g : values(want_file.tensors.at("grad." + parameter))) ASSERT_EQ(g, 0) << "is missing";
    return;
  }
  const TensorData &want_t = want_file.tensors.at(name), &got_t = got_file.tensors.at(name);
  ASSERT_EQ(got_t.shape, want_t.shape);
  const std::vector<double> want = values(want_t), got = values(got_t);
  const bool is_new = name.rfind("new.", 0) == 0, is_grad = name.rfind("grad.", 0) == 0;
  const std::string parameter = is_new ? name.substr(4) : name;
  const std::string of = is_new ? "grad." + parameter : name;
  std::vector<double> mass, grad, before;
  if (is_new) before = values(case_file.tensors.at("param." + parameter));
  if (const auto it = want_file.tensors.find("mass." + of); it != want_file.tensors.end()) mass = values(it->second);
  if (is_new && want_file.tensors.count(of)) grad = values(want_file.tensors.at(of));
  int bad = 0;
  for (size_t k = 0; k < want.size(); ++k) {
    const double m = mass.empty() ? std::fabs(want[k]) : mass[k * mass.size() / want.size()];
    double limit = (is_grad ? 1e-5 : 1e-6) * m + 1e-9;
    if (is_new) {
      // The betas are the floats nearest to 0.9 and 0.999 (kernels/adam.h): 1 - b2^t is 1.3e-5 from what it is in
      // double.
      limit = 3e-7 * std::fabs(want[k]) + 1e-5 * std::fabs(want[k] - before[k]) + 1e-9;
      if (!grad.empty() && m > 0) {
        if (std::fabs(grad[k]) < 1e-6 * m) continue;
        limit += rate * std::min(2.0, 1e-5 * m / std::fabs(grad[k]));
      }
    }
    if (!(std::fabs(got[k] - want[k]) <= limit) && bad++ < 3)
      ADD_FAILURE() << "[" << k << "] is " << got[k] << ", want " << want[k] << ", within " << limit << " (mass " << m
                    << ")";
  }
  EXPECT_EQ(bad, 0) << "of " << want.size();
}

// Of the cases named so the answer holds every array there is.
void expect_all_equal(const std::string& name, const TensorFile& case_file, const TensorFile& want,
                      const TensorFile& got, double rate) {
  for (const auto& [array, t] : want.tensors)
    if (array.rfind("mass.", 0) != 0) expect_equal(array, case_file, want, got, rate);
  if (!name.ends_with("_everything")) return;
  for (const auto& [array, t] : got.tensors) EXPECT_TRUE(want.tensors.count(array)) << array << " is not in the answer";
}

std::vector<std::string> gpu_and_cpu() {
  std::vector<std::string> all = {"cpu"};
  if (gpu_info().usable) all.push_back("cuda");
  return all;
}

void expect_the_answer(const std::string& name, const std::string& device, const Folder& dir) {
  SCOPED_TRACE(name + " on " + device);
  const std::string out = dir / "result.safetensors";
  run_step_case(kGolden + "/" + name + ".case.safetensors", out, device, 2);
  const TensorFile given = read_safetensors(kGolden + "/" + name + ".case.safetensors");
  const TensorFile want = read_safetensors(kGolden + "/" + name + ".want.safetensors"), got = read_safetensors(out);
  const double rate = name.find("ccdrec") == 0 ? 5e-4 : 1e-3;
  expect_all_equal(name, given, want, got, rate);
}

// On a GPU those of every model, sampler and kind of step; the others differ from them in a setting or a count.
bool stands_for_others(const std::string& name) {
  const size_t end = name.find('_');
  if (end == std::string::npos) return true;
  for (const char* kind : {"everything", "mg_second", "moments", "dns", "mixgcf", "realhns", "popularity", "later",
                           "unet", "lattice", "mcdrec", "first_epoch", "dma_ndi_frozen", "last_batch"})
    if (name.substr(end + 1) == kind) return true;
  return false;
}

TEST(Golden, StepsAgreeWithTheIndependentProgram) {
  const std::vector<std::string> names = runnable(golden_names("step"));
  for (const std::string must : {"ccdrec_everything", "freedom_everything"})
    ASSERT_TRUE(std::count(names.begin(), names.end(), must)) << must;
  const Folder dir;
  for (const std::string& name : names) expect_the_answer(name, "cpu", dir);
  if (!gpu_info().usable) return;
  int64_t on_gpu = 0;
  for (const std::string& name : names)
    if (stands_for_others(name)) expect_the_answer(name, "cuda", dir), ++on_gpu;
  EXPECT_GT(on_gpu, 20);
}

TEST(ExhaustiveGolden, StepsAgreeWithTheIndependentProgram) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  const Folder dir;
  for (const std::string& name : runnable(golden_names("step")))
    if (!stands_for_others(name)) expect_the_answer(name, "cuda", dir);
}

TEST(Golden, ReverseProcessAgreesWithTheIndependentProgram) {
  const std::vector<std::string> names = golden_names("reverse");
  ASSERT_TRUE(std::count(names.begin(), names.end(), "reverse_everything"));
  const Folder dir;
  for (const std::string& device : gpu_and_cpu())
    for (const std::string& name : names) {
      SCOPED_TRACE(name + " on " + device);
      const std::string out = dir / "result.safetensors";
      run_reverse_case(kGolden + "/" + name + ".case.safetensors", out, device, 2);
      const TensorFile given = read_safetensors(kGolden + "/" + name + ".case.safetensors");
      const TensorFile want = read_safetensors(kGolden + "/" + name + ".want.safetensors"), got = read_safetensors(out);
      expect_all_equal(name, given, want, got, 0);
    }
}

// The operation that training runs, the whole chain in one call, against the same answers. It draws its normals itself
// and these are given, so it is asked for one step at a time: at all others it leaves e as it is (0 x0 + 1 e + 0 z),
// and sigma z is added here.
struct Chain {
  TensorFile given;
  nlohmann::json settings;
  int64_t I, d;
  int T;
  std::vector<float> tau, q, weight[3];
  std::vector<std::vector<float>> h;

  explicit Chain(const std::string& path)
      : given(read_safetensors(path)), settings(nlohmann::json::parse(given.metadata.at("settings"))) {
    const TensorData& table = given.tensors.at("param.item_id_embedding.weight");
    I = table.shape[0], d = table.shape[1], T = settings.value("timesteps", 20), tau = time_embedding(T, d);
    q.assign(table.f32(), table.f32() + I * d);
    for (int w = 0; w < 3; ++w) {
      // (out,in), as PyTorch has it
      const float* stored = given.tensors.at(std::string("param.estimator.w_") + "qkv"[w] + ".weight").f32();
      for (int64_t k = 0; k < d * d; ++k) weight[w].push_back(stored[k % d * d + k / d]);
    }
    for (const std::string m : nlohmann::json::parse(given.metadata.at("modalities"))) {
      const TensorData& x = given.tensors.at("param." + m + "_embedding.weight");
      const float *w = given.tensors.at("param." + m + "_trs.weight").f32(),
                  *b = given.tensors.at("param." + m + "_trs.bias").f32();
      h.emplace_back();
      for (int64_t k = 0; k < I * d; ++k) {
        double sum = b[k % d];
        for (int64_t f = 0; f < x.shape[1]; ++f)
          sum += double(x.f32()[k / d * x.shape[1] + f]) * w[k % d * x.shape[1] + f];
        h.back().push_back(float(sum));
      }
    }
  }
  std::vector<float> step(const Device& dev, const std::vector<float>& e, int t, float a, float b) const {
    std::vector<float> one(size_t(T), 1.0f), zero(size_t(T), 0.0f), as = zero, bs = one, next(e.size(), NAN);
    as[size_t(t - 1)] = a, bs[size_t(t - 1)] = b;
    CMat hs[kMaxModalities];
    for (size_t m = 0; m < h.size(); ++m) hs[m] = cmat(h[m], I, d);
    const Mat pools[4] = {{}, {}, {}, mat(next, I, d)};
    DeviceCtx ctx(dev);
    dev.ops->reverse_process(ctx, pools, cmat(e, I, d), hs, int(h.size()), cmat(tau, T, d),
                             {cmat(weight[0], d, d), cmat(weight[1], d, d), cmat(weight[2], d, d)},
                             {T, one.data(), zero.data(), as.data(), bs.data(), zero.data()}, 1, 1);
    return next;
  }
  std::vector<std::vector<float>> pools(const Device& dev) const {
    const HostSchedule s =
        make_schedule(settings.value("noise_schedule", "linear"), T, settings.value("noise_prediction_form", false));
    const float *start = given.tensors.at("noise.start").f32(), *noise = given.tensors.at("noise.steps").f32();
    std::vector<float> e(q.size());
    for (size_t k = 0; k < e.size(); ++k) e[k] = std::fma(s.sqrt_abar.back(), q[k], s.sqrt_1m_abar.back() * start[k]);
    std::vector<std::vector<float>> out(4);
    for (int done = 0; done <= T; ++done) {
      const int t = T - done + 1;
      if (done > 0) {
        e = step(dev, e, t, s.a[size_t(t - 1)], s.b[size_t(t - 1)]);
        for (size_t k = 0; k < e.size() && t > 1; ++k)
          e[k] = std::fma(s.sigma[size_t(t - 1)], noise[size_t(t - 1) * e.size() + k], e[k]);
      }
      const int at[] = {T / 4, T / 2, 3 * T / 4, T};
      for (size_t p = 0; p < 4; ++p)
        if (done == at[p]) out[p] = e;
    }
    return out;
  }
};

TEST(Golden, TheChainOfTrainingAgreesWithTheIndependentProgram) {
  std::set<int> steps;
  for (const std::string& name : golden_names("reverse")) {
    if (name.ends_with("_unet")) continue;  // the chain is the attention's
    const Chain chain(kGolden + "/" + name + ".case.safetensors");
    const TensorFile want = read_safetensors(kGolden + "/" + name + ".want.safetensors");
    steps.insert(chain.T);
    for (const Device& dev : one_of_each_family()) {
      SCOPED_TRACE(name + " on " + dev.name);
      const std::vector<std::vector<float>> got = chain.pools(dev);
      for (size_t p = 0; p < 4; ++p) {
        const std::string pool = "pool." + std::to_string(p);
        const std::vector<double> value = values(want.tensors.at(pool)), mass = values(want.tensors.at("mass." + pool));
        std::vector<Ref> refs;
        for (size_t k = 0; k < value.size(); ++k) refs.push_back({value[k], mass[k / size_t(chain.d)]});
        EXPECT_TRUE(close(got[p], refs, 1e-6)) << pool;
      }
    }
  }
  EXPECT_EQ(steps, (std::set<int>{1, 4, 5, 20}));
}

struct Selection {  // similar_negative.safetensors (bench/pytorch/golden_cases.py)
  TensorFile file = read_safetensors(kGolden + "/similar_negative.safetensors");
  std::vector<int64_t> row_ptr;
  std::vector<int32_t> col;
  Selection() {
    const TensorData& pairs = file.tensors.at("train.index");  // (2,nnz), by user
    const int64_t nnz = pairs.shape[1];
    col.assign(pairs.i32() + nnz, pairs.i32() + 2 * nnz);
    for (int64_t e = 0; e < nnz; ++e)
      while (int64_t(row_ptr.size()) <= pairs.i32()[e]) row_ptr.push_back(e);
    row_ptr.push_back(nnz);
  }
  const int32_t* ints(const std::string& name) const { return file.tensors.at(name).i32(); }
  int64_t k() const { return std::stoll(file.metadata.at("k")); }
  std::vector<int32_t> run(const Device& dev, const std::string& of, int64_t B, int64_t C, Stream s) const {
    DeviceCtx ctx(dev);
    const TensorData& pool = file.tensors.at(of + "pool");
    const Csr train{int64_t(row_ptr.size()) - 1, pool.shape[0], row_ptr.data(), col.data(), nullptr,
                    int64_t(col.size())};
    std::vector<int32_t> out(size_t(B), -1);
    Cell<int32_t> nan_flag = 0;
    dev.ops->similar_negative(ctx, out.data(), &nan_flag, {pool.f32(), pool.shape[0], pool.shape[1]},
                              ints("batch.positives"), ints("batch.users"), B, ints("candidates"), C, train, k(),
                              !of.empty(), ints("batch.negatives"), s);
    EXPECT_EQ(nan_flag, 0);
    return out;
  }
};

// Masks, duplicates, ties, few admissible and none: the rankings are the independent program's, the drawn ranks ours.
TEST(Golden, CurricularSelectionAgreesWithTheIndependentProgram) {
  const Selection x;
  for (const std::string of : {"", "cosine."}) {
    const TensorData& order = x.file.tensors.at(of + "order");  // (B,C): admissible candidates, best first, then -1
    const int64_t B = order.shape[0], C = order.shape[1];
    int64_t most = 0, none = 0;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(of + " on " + dev.name);
      std::vector<std::set<int64_t>> ranks(static_cast<size_t>(B));
      for (uint32_t step = 0; step < 60; ++step) {
        const Stream s{7, Use::cns_rank, 3, step};
        const std::vector<int32_t> got = x.run(dev, of, B, C, s);
        for (int64_t b = 0; b < B; ++b) {
          const int32_t *const row = order.i32() + b * C, admissible = int32_t(std::find(row, row + C, -1) - row);
          const uint32_t among = uint32_t(std::min<int64_t>(x.k(), admissible));
          const uint32_t rank = among ? below(draw(s, uint32_t(b)).v[0], among) : 0;
          ASSERT_EQ(got[size_t(b)], among ? row[rank] : x.ints("batch.negatives")[b])
              << "row " << b << ", rank " << rank << " of " << among;
          ranks[size_t(b)].insert(rank);
          most = std::max<int64_t>(most, among), none += among == 0;
          if (step == 59) {
            EXPECT_EQ(ranks[size_t(b)].size(), std::max(among, 1u)) << "row " << b << ": a rank never drawn";
          }
        }
      }
    }
    EXPECT_EQ(most, x.k());
    EXPECT_GT(none, 0);
  }
}

// dgd.safetensors: DGD's edge weights, what edges are kept by, and the values of those kept. Where one edge alone
// is kept, each is it as often as its weight says.
TEST(Golden, DenoisingAgreesWithTheIndependentProgram) {
  const TensorFile file = read_safetensors(kGolden + "/dgd.safetensors");
  const auto numbers = [&](const std::string& name) { return values(file.tensors.at(name)); };
  const TensorData &users = file.tensors.at("param.user_embedding.weight"), &guide = file.tensors.at("x");
  const std::vector<double> want_weight = numbers("weight");
  const int64_t U = users.shape[0], d = users.shape[1], I = guide.shape[0], E = int64_t(want_weight.size());
  const int32_t *const pairs = file.tensors.at("edges").i32(), *const kept = file.tensors.at("kept").i32();
  const std::vector<int32_t> user(pairs, pairs + E), item(pairs + E, pairs + 2 * E);
  const int64_t n = file.tensors.at("kept").shape[0];
  std::vector<int32_t> kept_user, kept_item;
  for (int64_t j = 0; j < n; ++j)
    kept_user.push_back(user[size_t(kept[j])]), kept_item.push_back(item[size_t(kept[j])]);
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    const EdgeList all{user.data(), item.data(), nullptr, E, U, I},
        some{kept_user.data(), kept_item.data(), nullptr, n, U, I};
    std::vector<float> a(static_cast<size_t>(E)), a_kept;
    dev.ops->edge_cosines(ctx, a.data(), all, CMat(users.f32(), U, d), CMat(guide.f32(), I, d),
                          std::stof(file.metadata.at("tau")));
    for (int64_t e = 0; e < E; ++e) EXPECT_NEAR(a[size_t(e)], want_weight[size_t(e)], 2e-7) << "edge " << e;
    for (int64_t j = 0; j < n; ++j) a_kept.push_back(a[size_t(kept[j])]);
    for (const bool direct : {false, true}) {
      const std::string form = direct ? "direct." : "";
      std::vector<int64_t> row_ptr(size_t(U + I + 1));
      std::vector<int32_t> col(size_t(2 * E));
      std::vector<float> val(size_t(2 * E));
      const MutableCsr out{U + I, U + I, row_ptr.data(), col.data(), val.data(), 2 * E};
      dev.ops->prune_weighted(ctx, out, some, a_kept.data(), direct, 0, Stream{1, Use::prune});
      const std::vector<double> want = numbers(form + "value");
      ASSERT_EQ(row_ptr[size_t(U)], n);
      for (int64_t j = 0; j < n; ++j) {
        EXPECT_EQ(col[size_t(j)], U + kept_item[size_t(j)]);
        EXPECT_NEAR(val[size_t(j)], want[size_t(j)], 5e-7 * want[size_t(j)]) << "kept edge " << j << form;
      }
      if (dev.family != "cpu" || dev.threads > 1) continue;  // the same bits elsewhere (tests/kernels/prune_test.cpp)
      const std::vector<double> share = numbers(form + "probability");
      std::vector<int64_t> seen(share.size());
      for (uint32_t epoch = 0; epoch < 20000; ++epoch) {
        dev.ops->prune_weighted(ctx, out, all, a.data(), direct, 1 - 1.5 / double(E), Stream{1, Use::prune, epoch});
        for (size_t e = 0; e < seen.size(); ++e)
          seen[e] += row_ptr[size_t(user[e]) + 1] > row_ptr[size_t(user[e])] && col[0] == U + item[e];
      }
      EXPECT_TRUE(counts_fit(seen, share)) << form;
    }
  }
}

// The files are those that golden.py wrote, with their checksums: an edited, lost or added one is seen.
TEST(Golden, FilesAreThoseOfTheManifest) {
  const nlohmann::json manifest = read_manifest();
  std::map<std::string, std::string> want = manifest.at("crc32"), got;
  for (const auto& file : fs::directory_iterator(kGolden)) {
    const std::string name = file.path().filename().string(), bytes = bytes_of(file.path());
    if (name == "manifest.json") continue;
    got[name] = fmt::format("{:08x}", crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), uInt(bytes.size())));
  }
  EXPECT_EQ(got, want);
  std::set<std::string> cases, listed;
  for (const char* kind : {"step", "reverse"})
    for (const std::string& name : golden_names(kind)) cases.insert(name);
  for (const auto& [name, about] : manifest.at("cases").items()) listed.insert(name);
  EXPECT_EQ(cases, listed);
}

}  // namespace
}  // namespace ccdrec::test
