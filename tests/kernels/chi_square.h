// Goodness of fit of counts. Seeds are fixed, so a limit at a chance of about 1e-6 never fails by itself.
#pragma once
#include <numeric>
#include <vector>

#include "tests/support.h"

namespace ccdrec::test {

// Counts against expected shares (that sum to 1); cells with share 0 must be empty. The chi-square quantile is Wilson
// and Hilferty's.
inline ::testing::AssertionResult counts_fit(const std::vector<int64_t>& seen, const std::vector<double>& share) {
  const double n = double(std::accumulate(seen.begin(), seen.end(), int64_t(0)));
  double chi = 0;
  int cells = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    if (share[i] == 0) {
      if (seen[i])
        return ::testing::AssertionFailure() << "cell " << i << " may never occur, occurred " << seen[i] << " times";
      continue;
    }
    const double want = n * share[i];
    if (want < 5) return ::testing::AssertionFailure() << "cell " << i << " expects " << want << " only: draw more";
    chi += (double(seen[i]) - want) * (double(seen[i]) - want) / want;
    ++cells;
  }
  const double df = std::max(1, cells - 1), t = 2.0 / (9.0 * df), z = 4.75,
               limit = df * std::pow(1 - t + z * std::sqrt(t), 3);
  if (chi <= limit || cells <= 1) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "chi-square " << chi << " with " << df << " degrees of freedom, limit "
                                       << limit;
}
inline ::testing::AssertionResult uniform_counts(const std::vector<int64_t>& seen) {
  return counts_fit(seen, std::vector<double>(seen.size(), 1.0 / double(seen.size())));
}

}  // namespace ccdrec::test
