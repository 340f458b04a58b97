// When a CPU and a GPU count as having done the same, with the GPU's large products in a given precision
// (kernels/precision.h). Nothing here needs a GPU.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/precision.h"

namespace ccdrec::bench {

// A NaN is worse than anything and stays.
inline void keep_worst(double& worst, double x) {
  if (!std::isnan(worst) && !(x <= worst)) worst = x;
}

// Of the epochs' mean losses, relative to the CPU's. FP32: what Adam makes of rounding, since it steps by the sign of a
// gradient that is nothing but rounding as by any other. In lower precisions, besides: the error of a product without
// that of its sum, since what is cut off the many terms behind a mean is random and their slope in a product is at most
// one.
inline double loss_limit(const std::string& precision) { return 1e-4 + product_error(precision, 0); }

// Of a score <h_u, h_i> after training, relative to its mass: both sides are made of sums whose longest has k terms, or
// of products.
inline double score_limit(const std::string& precision, int64_t k) { return 2 * product_error(precision, k); }

struct ItemScores {
  double cpu = 0, gpu = 0, mass = 0;  // of one item, added up in double from what each device has; the larger mass
};

// Two items that the CPU puts as x, y and the GPU as y, x, each ranking what it has by sums of d terms in FP32. A tie:
// the order on neither device is against its own scores by more than the error of both sums, CPU(x) - CPU(y) >= -e and
// GPU(x) - GPU(y) <= e. Then neither difference is larger than tie_limit: e, and what the devices are apart about this
// very pair. Where both have the same scores that is e alone.
double tie_error(const ItemScores& x, const ItemScores& y, int64_t d);  // e
double tie_limit(const ItemScores& x, const ItemScores& y, int64_t d);
bool is_tie(const ItemScores& x, const ItemScores& y, int64_t d);

// Pairs that two devices put in opposite order.
struct Flips {
  int64_t count = 0, no_ties = 0;
  // of the worst: how far its scores are apart on either device, and its tie_limit; parts of the mass
  double gap = 0, limit = 0;
  // it in words: of those that are no ties the widest, else the one that comes nearest to its limit
  std::string worst;

  void add(const std::string& where, int32_t x, const ItemScores& of_x, int32_t y, const ItemScores& of_y, int64_t d);
  bool all_ties() const { return no_ties == 0; }
  std::string text() const;

 private:
  double rank_ = -1;  // of the worst
};

// The flips between one user's lists, best first, -1 where there is none: every pair of items that stands in one order
// here and in the other there. An item that a list lacks stands behind all of it.
void add_flips(Flips&, const std::string& where, const std::vector<int32_t>& on_cpu, const std::vector<int32_t>& on_gpu,
               const std::function<ItemScores(int32_t)>& scores, int64_t d);

}  // namespace ccdrec::bench
