// What a profiler shows of a run: every range once, with its category. docs/profiling.md says what runs in each,
// tests/host/ranges_test.cpp holds a run and that page against this list. A phase of the log has a range of its name.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

//  range         category
#define CCDREC_RANGES(X)           \
  X(epoch, "train")                \
  X(step, "train")                 \
  X(prune, "graph/prune")          \
  X(sample, "sample")              \
  X(uniform, "sample/uniform")     \
  X(cns, "sample/cns")             \
  X(hardest, "sample/hardest")     \
  X(forward, "train/forward")      \
  X(backward, "train/backward")    \
  X(optimiser, "train/optimizer")  \
  X(reverse, "diffusion/reverse")  \
  X(hardness, "eval/hardness")     \
  X(evaluation, "eval/score_topk") \
  X(knn, "graph/knn")              \
  X(read, "io")                    \
  X(write, "io")

namespace ccdrec {

enum class RangeId {
#define CCDREC_RANGE(name, category) name,
  CCDREC_RANGES(CCDREC_RANGE)
#undef CCDREC_RANGE
};
struct RangeText {
  const char *name, *category;
};
inline constexpr RangeText kRangeTexts[] = {
#define CCDREC_RANGE(name, category) {#name, category},
    CCDREC_RANGES(CCDREC_RANGE)
#undef CCDREC_RANGE
};
constexpr const RangeText& text_of(RangeId id) { return kRangeTexts[size_t(id)]; }

// The number a profiler knows a category by, from 1 on: the place of the first range that has it.
constexpr uint32_t category_number(RangeId id) {
  uint32_t k = 0;
  while (std::string_view(kRangeTexts[k].category) != text_of(id).category) ++k;
  return k + 1;
}

}  // namespace ccdrec
