// docs/tour.md says what the program does and prints: nothing in it may drift. `make tour` brings its blocks up to
// date.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "data/text.h"
#include "host/cli/cli.h"
#include "host/files/run_folder.h"
#include "tests/host/tour_check.h"
#include "tests/temp_folder.h"

namespace ccdrec::test {
namespace {
namespace fs = std::filesystem;

const std::string kRoot = CCDREC_SOURCE_DIR, kTour = kRoot + "/docs/tour.md";

// A folder that looks like the repository's root to the commands of the tour, but for what they write (build/): that
// goes with the test.
class Desk {
 public:
  Desk() : before_(fs::current_path()) {
    fs::create_directory(dir_ / "build");
    fs::create_directory_symlink(kRoot + "/docs", dir_ / "docs");
    fs::current_path(dir_.path());
  }
  ~Desk() { fs::current_path(before_); }
  Ran operator()(const std::vector<std::string>& words) const {
    if (words.size() == 2 && words[0] == "cat") return {0, read_text(words[1]), ""};
    if (words.empty() || words[0] != "build/ccdrec") return {2, "", "the tour runs build/ccdrec and cat FILE\n"};
    std::vector<const char*> argv;
    for (const std::string& w : words) argv.push_back(w.c_str());
    std::ostringstream out, err;
    const int code = cli::run_cli(int(argv.size()), argv.data(), out, err);
    return {code, out.str(), err.str()};
  }

 private:
  Folder dir_;
  fs::path before_;
};

std::string all(const std::vector<std::string>& complaints) {
  std::string text;
  for (const std::string& c : complaints) text += "docs/tour.md, " + c + "\n";
  return text;
}

TEST(Tour, PrintsWhatTheProgramPrints) {
  const std::string tour = read_text(kTour);
  ASSERT_GT(tour.size(), 1000u);
  const Desk desk;
  std::string now = rewritten(tour, std::cref(desk));
  if (std::getenv("CCDREC_UPDATE_TOUR")) {
    now = updated(tour, now);
    write_text(kTour, now);
    EXPECT_EQ(all(wrong_numbers(now)), "") << "written; these lines want a hand";
    return;
  }
  EXPECT_EQ(all(differences(tour, now)), "") << "if that is as it should be: make tour";
}

TEST(Tour, ArithmeticHolds) { EXPECT_EQ(all(wrong_numbers(read_text(kTour))), ""); }

TEST(Tour, NamesExist) { EXPECT_EQ(all(wrong_names(read_text(kTour), kRoot)), ""); }

// ---- the checker itself, on a small tour with one thing wrong at a time

const std::string kSmall = R"(# A tour
See `kernels/spmm.h`, [the format](step-format.md) and 0.25000.

## 1. Product
> - operation `spmm`: `kernels/spmm.h`, `kernels/cpu/spmm.cpp`; called by `ItemGraph::forward` in `host/models/parts/item_graph.cpp`
> - test `Spmm.ForwardAndBackwardMatchDoubleReference` in `tests/kernels/spmm_test.cpp`

```console
$ build/ccdrec print \
    y
y (2)
  0.25000  -1.5000e-04  7
```
```worked
y[0] = 2 * 0.25000 - 0.5 / 2 = 0.25000
```
)";
Ran small_program(const std::vector<std::string>& words) {
  if (words == std::vector<std::string>{"build/ccdrec", "print", "y"})
    return {0, "y (2)\n  0.25000  -1.5000e-04  7\n", ""};
  return {2, "", "unknown command\n"};
}
std::string instead(const std::string& what, const std::string& by) {
  std::string tour = kSmall;
  EXPECT_NE(tour.find(what), std::string::npos) << what;
  return tour.replace(tour.find(what), what.size(), by);
}

TEST(TourCheck, FindsEveryPlantedFault) {
  const auto blocks = [](const std::string& tour) { return all(differences(tour, rewritten(tour, small_program))); };
  const auto numbers = [](const std::string& tour) { return all(wrong_numbers(tour)); };
  const auto names = [](const std::string& tour) { return all(wrong_names(tour, kRoot)); };
  EXPECT_EQ(blocks(kSmall) + numbers(kSmall) + names(kSmall), "");
  EXPECT_EQ(rewritten(kSmall, small_program), kSmall);

  // blocks: one unit in the last place is rounding, two are not; an integer or a word must be the same
  const std::string row = "  0.25000  -1.5000e-04  7";
  for (const char* rounding : {"  0.25001  -1.5000e-04  7", "  0.25000  -1.4999e-04  7"})
    EXPECT_EQ(blocks(instead(row, rounding)), "");
  for (const char* wrong : {"  0.25002  -1.5000e-04  7", "  0.25000  1.5000e-04  7", "  0.25000  -1.5002e-04  7",
                            "  0.25000  -1.5000e-05  7", "  0.25000  -1.5000e-04  8", "  0.2500  -1.5000e-04  7",
                            "  0.25000  -1.5000e-04", "  nan  -1.5000e-04  7"})
    EXPECT_NE(blocks(instead(row, wrong)).find("line 12: "), std::string::npos) << wrong;
  EXPECT_NE(blocks(instead("y (2)", "y (3)")), "");
  EXPECT_NE(blocks(instead("y (2)\n", "")), "");
  EXPECT_NE(blocks(instead(row, row + "\n" + row)), "");
  EXPECT_NE(blocks(instead("ccdrec print", "ccdrec show")).find("unknown command"), std::string::npos);

  // arithmetic, and numbers in prose
  EXPECT_NE(numbers(instead("0.5 / 2", "0.5 / 3")).find("line 15: '2 * 0.25000 - 0.5 / 3' is 0.3333333, not 0.25000"),
            std::string::npos);
  EXPECT_NE(numbers(instead("0.5 / 2 =", "0.5 / z =")).find("is no arithmetic"), std::string::npos);
  EXPECT_NE(numbers(instead("y[0] = 2 * 0.25000 - 0.5 / 2", "y[0]")).find("NAME = EXPRESSION = NUMBER"),
            std::string::npos);
  EXPECT_NE(numbers(instead("and 0.25000", "and 0.25001")).find("line 2: 0.25001 stands in no console block"),
            std::string::npos);
  EXPECT_EQ(
      numbers(instead("2 * 0.25000 - 0.5 / 2", "sqrt(exp(log(0.25000))) * (3 - 1)^2 / 8 - -(0.25000) / 2 - 0.125")),
      "");

  // names
  EXPECT_NE(names(instead("`spmm`", "`spmv`")).find("the catalogue has no operation spmv"), std::string::npos);
  EXPECT_NE(names(instead("ItemGraph::forward", "ItemGraph::objects")).find("ItemGraph::objects is not in"),
            std::string::npos);
  EXPECT_NE(names(instead("Spmm.Forward", "Spmm.Fast")).find("no test Spmm.Fast"), std::string::npos);
  EXPECT_NE(names(instead("tests/kernels/spmm_test.cpp", "tests/kernels/gemm_test.cpp")).find("no test Spmm"),
            std::string::npos);
  EXPECT_NE(names(instead("See `kernels/spmm.h`", "See `kernels/spmv.h`")).find("line 2: there is no file"),
            std::string::npos);
  EXPECT_NE(names(instead("(step-format.md)", "(step.md)")).find("leads nowhere"), std::string::npos);
  EXPECT_NE(names(instead("> - test `Spmm.ForwardAndBackwardMatchDoubleReference`", "> - test"))
                .find("'1. Product' lacks a test"),
            std::string::npos);
  EXPECT_NE(names(instead("```console", "```text")).find("lacks numbers"), std::string::npos);
}

TEST(TourCheck, UpdateCarriesNumbersIntoTheProse) {
  const Runner other = [](const std::vector<std::string>&) { return Ran{0, "y (2)\n  0.75000  -2.5000e-04  7\n", ""}; };
  const std::string now = updated(kSmall, rewritten(kSmall, other));
  EXPECT_NE(now.find("  0.75000  -2.5000e-04  7\n"), std::string::npos);
  EXPECT_NE(now.find("and 0.75000.\n"), std::string::npos);
  EXPECT_NE(now.find("y[0] = 2 * 0.75000 - 0.5 / 2 = 0.75000\n"), std::string::npos);
  EXPECT_NE(all(wrong_numbers(now)), "") << "2 * 0.75 - 0.25 is no 0.75: it wants a hand";
}

}  // namespace
}  // namespace ccdrec::test
