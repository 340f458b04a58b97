#include "bench/arguments.h"

#include <gtest/gtest.h>

namespace ccdrec::bench {
namespace {

struct Values {
  std::string preset = "baby", device = "cpu";
  std::vector<std::string> models = {"BPR"}, sets;
  int epochs = 5, threads = 2;
  int64_t steps = 0;
  double scale = 1;
  bool fresh = false;
};

std::optional<int> parse(Values& v, std::vector<std::string> words) {
  Arguments a("a bench");
  a.add("--preset", v.preset, "shape");
  a.add("--device", v.device, "cpu or cuda", one_of({"cpu", "cuda"}));
  a.add_list("--models", v.models, "which", one_of({"BPR", "LightGCN"}));
  a.add("--set", v.sets);
  a.add("--epochs", v.epochs, "how many", positive());
  a.add("--steps", v.steps);
  a.add("--threads", v.threads, "how many", zero_or_more());
  a.add("--scale", v.scale, "of sizes", between(1e-4, 1));
  a.add("--fresh", v.fresh, "again");
  words.insert(words.begin(), "bench");
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  const std::optional<int> end = a.parse(int(argv.size()), argv.data());
  const std::string out = ::testing::internal::GetCapturedStdout(), err = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(end.has_value(), !(out + err).empty()) << "an end says why";
  return end;
}

TEST(Arguments, FillTheValuesAndLeaveTheRest) {
  Values v;
  EXPECT_EQ(parse(v, {"--models", "LightGCN,BPR", "--set", "a=[1,2]", "--set", "b=3", "--steps", "5000000000",
                      "--scale", "0.5", "--fresh"}),
            std::nullopt);
  EXPECT_EQ(v.models, (std::vector<std::string>{"LightGCN", "BPR"}));
  EXPECT_EQ(v.sets, (std::vector<std::string>{"a=[1,2]", "b=3"}));
  EXPECT_EQ(v.steps, 5000000000);
  EXPECT_EQ(v.scale, 0.5);
  EXPECT_TRUE(v.fresh);
  EXPECT_EQ(v.preset, "baby");
  EXPECT_EQ(v.epochs, 5);
}

TEST(Arguments, EndWithTwoOnWhatIsNotAllowedAndWithZeroAfterHelp) {
  Values v;
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"--device", "tpu"},
                                                {"--models", "BPR,VBPR"},
                                                {"--epochs", "0"},
                                                {"--scale", "2"},
                                                {"--epochs", "few"},
                                                {"--what"},
                                                {"--epochs", "3000000000"},
                                                {"--steps", "99999999999999999999"},
                                                {"--steps", "-99999999999999999999"},
                                                {"--steps", "1e3"},
                                                {"--threads", "-1"}})
    EXPECT_EQ(parse(v, wrong), 2) << wrong[0] << ' ' << wrong.back();
  EXPECT_EQ(parse(v, {"--help"}), 0);
}

}  // namespace
}  // namespace ccdrec::bench
