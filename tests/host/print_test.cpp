// `ccdrec step --print`: arrays as text.
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "data/error.h"
#include "host/cli/cli.h"
#include "host/cli/print_arrays.h"
#include "host/files/step.h"
#include "tests/temp_folder.h"

namespace ccdrec::test {
namespace {

template <class T>
TensorData tensor(const char* dtype, const std::vector<int64_t>& shape, const std::vector<T>& v) {
  const auto* p = reinterpret_cast<const unsigned char*>(v.data());
  return {dtype, shape, {p, p + v.size() * sizeof(T)}};
}

std::string refused(const std::function<void()>& f) {
  try {
    f();
  } catch (const UserError& e) { return e.what(); }
  return "no complaint";
}

TEST(PrintArray, EveryShapeAndType) {
  TensorFile first, second;
  first.tensors["y"] = tensor<float>("F32", {2, 3}, {12.25f, 0, -0.5f, 0.001f, 1, -3});
  first.tensors["loss"] = tensor<double>("F64", {1}, {0.69314718});
  first.tensors["cube"] = tensor<float>("F32", {2, 1, 2}, {1, 2, 3, 4});
  second.tensors["y"] = tensor<float>("F32", {1}, {7});
  second.tensors["items"] = tensor<int64_t>("I64", {3}, {4, 10, 0});
  second.tensors["table"] = tensor<int32_t>("I32", {2, 2}, {-1, 0, 100, 2});
  second.tensors["small"] = tensor<float>("F32", {2}, {1e-5f, -2.5e-9f});
  second.tensors["large"] = tensor<float>("F32", {2}, {2e6f, 1});
  second.tensors["zeros"] = tensor<float>("F32", {2}, {0, -0.0f});
  second.tensors["none"] = tensor<float>("F32", {0, 4}, {});
  second.tensors["odd"] = tensor<float>("F32", {2}, {NAN, 1});
  second.tensors["a.index"] = tensor<int32_t>("I32", {2, 4}, {2, 0, 0, 2, 1, 10, 3, 0});  // any order of the cells
  second.tensors["a.value"] = tensor<float>("F32", {4}, {0.25f, 0.5f, 1, 0.75f});
  const auto print = [&](const std::string& name, const char* rows = "") {
    return cli::print_array(name, {&first, &second}, *rows ? std::optional(cli::parse_rows(rows)) : std::nullopt);
  };
  EXPECT_EQ(print("y"), "y (2,3)\n  0  12.250      0  -0.500\n  1   0.001  1.000  -3.000\n") << "the first file has it";
  EXPECT_EQ(print("loss"), "loss  0.69315\n");
  EXPECT_EQ(print("cube"), "cube (2,1,2)\n  0,0  1.0000  2.0000\n  1,0  3.0000  4.0000\n");
  EXPECT_EQ(print("items"), "items (3)\n  4  10  0\n");
  EXPECT_EQ(print("table"), "table (2,2)\n  0   -1  0\n  1  100  2\n");
  EXPECT_EQ(print("small"), "small (2)\n  1.0000e-05  -2.5000e-09\n");
  EXPECT_EQ(print("large"), "large (2)\n  2.0000e+06  1.0000e+00\n");
  EXPECT_EQ(print("zeros"), "zeros (2)\n  0  0\n");
  EXPECT_EQ(print("none"), "none (0,4)\n");
  EXPECT_EQ(print("odd"), "odd (2)\n  nan  1.0000\n");
  EXPECT_EQ(print("a"), "a, 4 entries, row: column value\n  0:  3 1.0000  10 0.5000\n  2:  0 0.7500   1 0.2500\n");
  EXPECT_EQ(print("a", "2"), "a, 4 entries, row: column value\n  2:  0 0.7500  1 0.2500\n");
  EXPECT_EQ(print("items", "1:"), "items (3)\n  10  0\n");
  EXPECT_EQ(print("y", "1:2"), "y (2,3)\n  1  0.001  1.000  -3.000\n")
      << "as many decimals as the whole array asks for";

  EXPECT_EQ(refused([&] { print("itms"); }),
            "--print itms: neither the case nor the result has such an array; did you mean 'items'? "
            "(docs/step-format.md lists them)");
  EXPECT_EQ(refused([&] { print("y", "1:4"); }), "--rows asks for row 3 of 'y', which has 2 (0 to 1)");
  EXPECT_EQ(refused([&] { print("y", "2:"); }), "--rows 2:2 holds no row");
  for (const char* rows : {"x", "1:x", ":2", "-1", "1:2:3", "1 "})
    EXPECT_NE(refused([&] { cli::parse_rows(rows); }).find("expected FIRST:END"), std::string::npos) << rows;
}

// The arrays that a result holds for readers agree with the ones that the golden cases hold fast.
TEST(StepResult, WhatIsShownInBetweenFitsTogether) {
  const TensorFile given =
      read_safetensors(std::string(CCDREC_SOURCE_DIR) + "/tests/golden/ccdrec_duplicates.case.safetensors");
  const TensorFile r =
      run_step_case(std::string(CCDREC_SOURCE_DIR) + "/tests/golden/ccdrec_duplicates.case.safetensors", "", "cpu", 2);
  const auto at = [&](const std::string& name) -> const TensorData& { return r.tensors.at(name); };
  const auto i64 = [](const TensorData& t, size_t k) {
    return t.dtype == "I32" ? int64_t(t.i32()[k]) : reinterpret_cast<const int64_t*>(t.bytes.data())[k];
  };
  const int64_t B = at("h.users").shape[0], d = at("e_t").shape[1], n = at("e_t").shape[0],
                K = at("estimator.a").shape[1], I = at("hhat").shape[0], U = at("ego.0").shape[0] - I;
  const float near = 2e-6f, mu = 0.5f;
  for (int64_t j = 0; j < n; ++j) {
    const int64_t i = i64(given.tensors.at("diffusion.items"), size_t(j)),
                  t = i64(given.tensors.at("diffusion.t"), size_t(j));
    for (int64_t c = 0; c < d; ++c) {
      const auto k = size_t(j * d + c), ik = size_t(i * d + c), node = size_t((U + i) * d + c);
      const float q = given.tensors.at("param.item_id_embedding.weight").f32()[ik], e0_hat = at("e0_hat").f32()[k];
      EXPECT_NEAR(at("e_t").f32()[k],
                  at("schedule.sqrt_abar").f32()[t] * q +
                      at("schedule.sqrt_1m_abar").f32()[t] * given.tensors.at("diffusion.noise").f32()[k],
                  near);
      EXPECT_NEAR(at("ego.0").f32()[node], (1 - mu) * at("hhat").f32()[ik] + mu * e0_hat, near);
      float e0 = 0, s = 0;  // s = mean over r of sum over c of a_rc x_c; e0_hat = s W_v
      for (int64_t in = 0; in < d; ++in)
        e0 += at("estimator.s").f32()[j * d + in] * given.tensors.at("param.estimator.w_v.weight").f32()[c * d + in];
      EXPECT_NEAR(e0_hat, e0, near);
      for (int64_t rc = 0; rc < K * K; ++rc)
        s += at("estimator.a").f32()[j * K * K + rc] * at("estimator.x").f32()[(j * K + rc % K) * d + c] / float(K);
      EXPECT_NEAR(at("estimator.s").f32()[k], s, near);
    }
  }
  // The propagation and its way back: h_u is the mean of the layers, G_P the users' half of G_Ego.
  for (int64_t b = 0; b < B; ++b) {
    const int64_t u = i64(given.tensors.at("batch.users"), size_t(b));
    float score = 0;
    for (int64_t c = 0; c < d; ++c) {
      const auto node = size_t(u * d + c), k = size_t(b * d + c);
      EXPECT_NEAR(at("h.users").f32()[k],
                  (at("ego.0").f32()[node] + at("ego.1").f32()[node] + at("ego.2").f32()[node]) / 3, near);
      EXPECT_EQ(at("grad.ego.0").f32()[node], at("grad.user_embedding.weight").f32()[node]);
      score += at("h.users").f32()[k] * at("h.positives").f32()[k];
    }
    EXPECT_NEAR(at("score.positives").f32()[b], score, near);
  }
  // What Hhat receives: G_{h_i} and, but for the fused share, G_Ego.
  std::vector<float> want(size_t(I * d));
  for (int64_t i = 0; i < I; ++i)
    for (int64_t c = 0; c < d; ++c) want[size_t(i * d + c)] = at("grad.ego.0").f32()[(U + i) * d + c];
  for (int64_t j = 0; j < n; ++j)
    for (int64_t c = 0; c < d; ++c) want[size_t(i64(given.tensors.at("diffusion.items"), size_t(j)) * d + c)] *= 1 - mu;
  const auto receive = [&](const std::string& slots, const std::string& items) {
    for (int64_t b = 0; b < B; ++b)
      for (int64_t c = 0; c < d; ++c)
        want[size_t(i64(given.tensors.at(items), size_t(b)) * d + c)] += at(slots).f32()[b * d + c];
  };
  receive("grad.h.positives", "batch.positives"), receive("grad.h.negatives", "batch.negatives"),
      receive("grad.h.curricular", "batch.curricular");
  for (size_t k = 0; k < want.size(); ++k) EXPECT_NEAR(at("grad.hhat").f32()[k], want[k], near) << k;
}

TEST(StepCommand, PrintsWritesOrBoth) {
  const Folder dir;
  const std::string in = std::string(CCDREC_SOURCE_DIR) + "/tests/golden/ccdrec.case.safetensors",
                    out_file = dir / "r.safetensors";
  const auto run = [&](std::vector<const char*> words, int code) {
    words.insert(words.begin(), {"ccdrec", "step", "--in", in.c_str()});
    std::ostringstream out, err;
    EXPECT_EQ(cli::run_cli(int(words.size()), words.data(), out, err), code) << err.str();
    return out.str() + err.str();
  };
  const std::string both = run({"--print", "loss.total", "--print", "batch.users", "--out", out_file.c_str()}, 0);
  EXPECT_EQ(both.rfind("loss.total  1.0826\nbatch.users (", 0), 0u) << both;
  EXPECT_NE(both.find("\nwrote " + out_file + "\n"), std::string::npos);
  EXPECT_TRUE(std::filesystem::remove(out_file));
  EXPECT_NE(run({}, 2).find("--out"), std::string::npos);
  EXPECT_NE(run({"--print", "loss.totl", "--out", out_file.c_str()}, 2).find("did you mean 'loss.total'?"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(out_file)) << "a mistake leaves nothing";
  EXPECT_NE(run({"--print", "e_t", "--rows", "0-3"}, 2).find("expected FIRST:END"), std::string::npos);
}

}  // namespace
}  // namespace ccdrec::test
