#include "kernels/mask.h"

#include "tests/support.h"

namespace ccdrec::test::mask_test {
namespace {

const Stream kStream{5, Use::unet_mask, 3, 9};

std::vector<uint16_t> drawn(const Device& dev, std::vector<int32_t> idx, int64_t count, int64_t words, float rate) {
  std::vector<uint16_t> bits(idx.size() * size_t(words) + 1, 0xabcd);
  Cell<int64_t> n(count);
  DeviceCtx ctx(dev);
  dev.ops->draw_masks(ctx, bits.data(), {idx.data(), &n, int64_t(idx.size())}, words, rate, kStream);
  return bits;
}

TEST(Masks, EveryBitIsThatOfItsAddress) {
  const std::vector<int32_t> idx = {7, 3, 7, 100000, 0, 12, 5};  // any order, one twice; the last beyond the count
  for (const float rate : {0.0f, 0.1f, 0.5f, 1.0f}) {
    for (const int64_t words : {1, 3, 40}) {
      const uint32_t threshold = uint32_t(std::lround(65536.0 * double(rate)));
      std::vector<uint16_t> want(idx.size() * size_t(words) + 1, 0xabcd);
      for (size_t j = 0; j + 1 < idx.size(); ++j) {
        for (size_t e = 0; e < size_t(words) * 16; ++e) {
          const uint32_t word = draw(kStream, uint32_t(idx[j]), uint32_t(e / 8)).v[e % 8 / 2];
          const bool kept = (e % 2 ? word >> 16 : word & 0xffff) >= threshold;
          uint16_t& to = want[j * size_t(words) + e / 16];
          to = uint16_t((to & ~(1u << e % 16)) | unsigned(kept) << e % 16);
        }
      }
      for (const Device& dev : devices()) {
        SCOPED_TRACE(dev.name + ", rate " + std::to_string(rate) + ", words " + std::to_string(words));
        EXPECT_EQ(drawn(dev, idx, int64_t(idx.size()) - 1, words, rate), want);
      }
    }
  }
}

TEST(Masks, TheIdentityListsRowsFromZero) {
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    std::vector<uint16_t> bits(4 * 2, 0);
    DeviceCtx ctx(dev);
    dev.ops->draw_masks(ctx, bits.data(), {nullptr, nullptr, 4}, 2, 0.1f, kStream);
    const std::vector<uint16_t> listed = drawn(dev, {0, 1, 2, 3}, 4, 2, 0.1f);
    EXPECT_TRUE(std::equal(bits.begin(), bits.end(), listed.begin()));
    EXPECT_EQ(kept_by(bits.data() + 2, 17), (bits[3] >> 1 & 1) != 0);
  }
}

// Of 160,000 bits: three standard deviations.
TEST(Masks, TheShareThatIsKept) {
  const Device cpu = cpu_devices().front();
  std::vector<int32_t> idx(1000);
  for (size_t j = 0; j < idx.size(); ++j) idx[j] = int32_t(j);
  for (const float rate : {0.1f, 0.3f, 0.5f}) {
    const std::vector<uint16_t> bits = drawn(cpu, idx, 1000, 10, rate);
    int64_t kept = 0;
    for (size_t i = 0; i + 1 < bits.size(); ++i) kept += __builtin_popcount(bits[i]);
    EXPECT_NEAR(double(kept) / 160e3, 1 - rate, 3 * std::sqrt(rate * (1 - rate) / 160e3)) << rate;
  }
}

}  // namespace
}  // namespace ccdrec::test::mask_test
