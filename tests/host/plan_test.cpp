// The memory plan against what training takes on each device.
#include <gtest/gtest.h>

#include "host/device.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"

namespace ccdrec::test {
namespace {

std::vector<std::string> devices_here() {
  std::vector<std::string> all = {"cpu"};
  if (gpu_info().usable) all.push_back("cuda");
  return all;
}

Settings plan_settings(void (*set)(Settings&), const std::string& device) {
  Settings s;
  s.embedding_size = 16, s.train_batch_size = 160, s.epochs = 3, s.knn_k = 5, s.threads = 2, s.dtau = 1, s.tau_end = 1, s.timesteps = 3;
  s.dropout = 0.3, s.device = device;
  set(s);
  return s;
}

size_t bytes_of(const MemoryPlan& plan, const std::string& what) {
  for (const PlanLine& l : plan.lines)
    if (l.what == what) return l.bytes;
  return 0;
}

// Three epochs: at random, from the pools, from the model's own rows; the third step records on a GPU. Each with its evaluation, or one at the end.
void expect_planned(const Named& m, const Dataset& data, const std::string& device) {
  const Settings s = plan_settings(m.set, device);
  SCOPED_TRACE(std::string(m.name) + " on " + device + ", eval_step " + std::to_string(s.eval_step));
  const MemoryPlan plan = Trainer::plan(s, data);
  Trainer t(s, data);
  t.run({});
  const size_t scratch = t.device().ctx.scratch_bytes(), planned_scratch = bytes_of(plan, "scratch") + bytes_of(plan, "libraries");
  EXPECT_GT(scratch, 0u);
  EXPECT_GE(planned_scratch, scratch);
  EXPECT_LE(double(bytes_of(plan, "scratch")), 1.5 * double(scratch) + 100e3);
  EXPECT_GE(plan.total(), t.device_bytes());
  const size_t beside =
      bytes_of(plan, "libraries") + (device == "cpu" ? bytes_of(plan, "evaluation") : 0);  // the CPU's lists are not all the device's
  EXPECT_LE(double(plan.total() - beside), 1.3 * double(t.device_bytes()) + 100e3);
}

const Named planned_models[] = {
    {"BPR", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01; }},
    {"BPR, all items ranked", [](Settings& s) { s.model = "BPR", s.topk = {520}; }},
    {"LightGCN", [](Settings& s) { s.model = "LightGCN", s.reg_weight = 1e-3; }},
    {"LightGCN, three negatives", [](Settings& s) { s.model = "LightGCN", s.n_neg = 3, s.embedding_size = 20; }},
    {"FREEDOM", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2; }},
    {"FREEDOM, features frozen", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2, s.train_features = false, s.dropout = 0; }},
    {"FREEDOM without modality terms", [](Settings& s) { s.model = "FREEDOM", s.knn_center = true; }},
    {"CCDRec", [](Settings&) {}},
    {"CCDRec, late evaluation", [](Settings& s) { s.eval_step = 3, s.candidate_ratio = 1; }},
    {"CCDRec, transformer", [](Settings& s) { s.estimator = "transformer", s.estimator_layers = 2; }},
    {"CCDRec on LightGCN", [](Settings& s) { s.backbone = "LightGCN", s.n_neg = 2; }},
    {"DMA and NDI", [](Settings& s) { s.cns = false; }},
};

TEST(Plan, CoversArraysAndScratchOfTrainingAndEvaluation) {
  const Folder dir;
  const Dataset data = random_data(dir, 100, 530, 4, {40, 12});
  for (const std::string& device : devices_here())
    for (const Named& m : planned_models) expect_planned(m, data, device);
}

// More candidates than stay in shared memory: a GPU keeps what lies in each row's bracket.
TEST(Plan, CoversTheListsOfManyCandidates) {
  const Folder dir;
  const Dataset data = random_data(dir, 24, 4110, 4, {8});
  const Named many{"CCDRec, 4110 candidates",
                   [](Settings& s) { s.candidate_ratio = 1, s.train_batch_size = 64, s.epochs = 2, s.embedding_size = 8, s.dropout = 0; }};
  for (const std::string& device : devices_here()) expect_planned(many, data, device);
}

// Batches whose slots a GPU sorts by the library.
TEST(Plan, CoversTheSortOfLargeBatches) {
  const Folder dir;
  const Dataset data = random_data(dir, 500, 60, 12, {});
  const Named large{"BPR, two batches",
                    [](Settings& s) { s.model = "BPR", s.train_batch_size = 3200, s.n_neg = 2, s.epochs = 2, s.embedding_size = 4; }};
  for (const std::string& device : devices_here()) expect_planned(large, data, device);
}

}  // namespace
}  // namespace ccdrec::test
