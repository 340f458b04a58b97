#include "host/models/parts/features.h"

#include <algorithm>

namespace ccdrec {

// The file is mapped: its pages come now, and go again block by block.
void upload_features(const Setup& z, const Feature& f, Array<float>& to) {
  const Range range(z.dev, RangeId::read);
  const int64_t I = z.items(), F = f.matrix.cols();
  const int64_t rows_at_once = std::max<int64_t>(1, (int64_t(1) << 20) / F);  // 4 MB of host memory
  std::vector<float> block(size_t(std::min(rows_at_once, I) * F));
  for (int64_t r = 0; r < I; r += rows_at_once) {
    const int64_t n = std::min(rows_at_once, I - r);
    f.matrix.read_rows(block.data(), r, n);
    to.upload(block.data(), n * F, r * F);
    f.matrix.forget_pages();
  }
}

Matrix upload_features(const Setup& z, const Feature& f) {
  Matrix x(z.dev, z.items(), f.matrix.cols());
  upload_features(z, f, x.array());
  return x;
}

}  // namespace ccdrec
