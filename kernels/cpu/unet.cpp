#include "kernels/unet.h"

#include <cmath>
#include <stdexcept>

namespace ccdrec {
std::vector<float> unet_time_embedding(int steps) {
  std::vector<float> tau;
  for (int t = 0; t < steps; ++t) {
    for (int half = 0; half < 2; ++half) {
      for (int k = 0; k < kUnetTimeIn / 2; ++k) {
        const double x = t * std::exp(-k * std::log(10000.0) / (kUnetTimeIn / 2 - 1));
        tau.push_back(float(half ? std::cos(x) : std::sin(x)));
      }
    }
  }
  return tau;
}
}  // namespace ccdrec
namespace ccdrec::cpu {
void unet_forward(Ctx&, Mat, const UnetSaved&, const EstimatorTokens&, const UnetParams&, const UnetMask&, RowList) {
  throw std::logic_error("not yet");
}
void unet_backward(Ctx&, Mat, const Mat*, const UnetGrads&, CMat, const EstimatorTokens&, const UnetSaved&,
                   const UnetParams&, const UnetMask&, RowList) {
  throw std::logic_error("not yet");
}
void unet_reverse(Ctx&, const Mat*, CMat, const CMat*, int, CMat, const UnetParams&, const Schedule&, uint32_t,
                  uint32_t) {
  throw std::logic_error("not yet");
}
void unet_scratch(ScratchPlan&, int64_t, int) {}
void unet_reverse_scratch(ScratchPlan&, int64_t, int) {}
}  // namespace ccdrec::cpu
