// unet: f_theta of MCDRec (spec mcdrec 3), a U-Net over images of 8 x 8 pixels, in its simplified exact form (3.4):
// what only ever meets padding, the attention's queries and keys, and output channels that nothing reads do not exist.
// Same call shape as estimator.h.
//
//   An item's image, 3 channels of 64 values, row-major (component 8r + c is pixel (r,c)):
//     channel 0 = e_t[j], 1 = h[1][j] (text), 2 = h[0][j] (visual); with one modality channel 1 is zero.
//   e0_hat[j] = the one output channel.
//   The layers: kUnet below. Blocks (spec 3.2), GN = group norm in 8 groups, eps 1e-6, affine:
//     Res    a = conv1(silu(GN1(x))) + time_j;  b = conv2(mask / keep * silu(GN2(a)));  y = b + (x or shortcut(x))
//            time_j = W silu(temb[t_j]) + b, temb (T,32) = linear(silu(linear(tau))): a row a step, not an item
//     Down   one zero column right and one zero row below, 3x3, stride 2          Up     pixels doubled, then conv
//     Attn   on one pixel: x + W_p (W_v GN(x) + b_v) + b_p
//   A 3x3 convolution is a cross-correlation with zero padding, stride 1, weights (out, in*9), tap 3a + e; on one pixel
//   it is its centre tap (out, in); the Down from 2x2 to 1x1 has taps (0..1, 0..1): (out, in*4).
//   On one pixel with 16 channels a group is two values x1, x2. With D = (x1-x2)/2: xh = +-D / sqrt(D^2+eps), and
//   backward g_x1 = (q1-q2) eps / (2 (D^2+eps)^(3/2)) = -g_x2: the general formula would cancel (spec 10).
//
// unet_forward   writes e0_hat[j], j < n (n = rows.count), and Saved. d = 64.
// unet_backward  given d_e0_hat (cap,64) and Saved of the same arguments: every gradient += ; d_e_t[j] = ; d_h[m][j] =.
// unet_reverse   reverse_process of estimator.h with this f_theta: same normals, same pools, nothing dropped.
// mask           bits (cap, kUnetMaskWords) of what conv2 of each Res reads (mask.h): its channel c, pixel (r,q) is
//                element mask_at + (c side + r) side + q; kept values are divided by `keep`. Null: nothing is dropped.
// tau            (T,8), host: unet_time_embedding().
// Order    an item's layers in any order of sums that depends on its place in the list alone; parameters' gradients
//          sum items in chunks that the length of the list (on a GPU: its capacity) fixes, chunks ascending. Same bits
//          for any thread count.
// Cost     1.04 M multiply-adds an item forward without the taps that meet padding (1.42 M with them), twice that
//          backward; kUnetSaved floats an item between the two. Reverse: T times forward over all items.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "kernels/estimator.h"
#include "kernels/mask.h"

namespace ccdrec {

constexpr int64_t kUnetWidth = 64;
constexpr int kUnetSide = 8, kUnetGroups = 8, kUnetTimeIn = 8, kUnetTime = 32;
constexpr float kUnetEps = 1e-6f;

enum class UnetRole { weight, bias, gain };  // uniform in +-1/sqrt(fan_in); likewise; 1, and a norm's bias 0

struct UnetTensor {   // (rows, cols) row-major, (out, in*taps); vectors (1,n)
  const char* block;  // name in files: unet.BLOCK.PART
  const char* part;
  int rows, cols, fan_in;  // fan_in of the full form; 0: of a norm
  UnetRole role;
};

enum class UnetKind { stem, res, down, attention, up, head };

// One layer: channels and side of its input and output; places of its tensors, its dropout mask and its skip.
struct UnetLayer {
  UnetKind kind = UnetKind::res;
  int in = 0, out = 0;    // channels; of a Res in the way up `in` counts those of the skip
  int side = 0;           // of the input; Down halves it, Up doubles it
  int skip_in = 0;        // channels that it takes from the top of the skip stack, behind the current ones
  bool pushes = false;    // its output goes on the stack
  int first = 0;          // its first tensor. stem, Down, Up: weight, bias. Res: norm1 gain, bias, conv1 weight, bias,
                          // time weight, bias, norm2 gain, bias, conv2 weight, bias, [shortcut weight, bias].
                          // Attn: norm gain, bias, value weight, bias, out weight, bias. Head: norm gain, bias, conv
  bool shortcut = false;  // Res: in != out
  int mask_at = 0;        // Res: its first element in an item's mask
  constexpr int side_out() const { return kind == UnetKind::down ? side / 2 : kind == UnetKind::up ? side * 2 : side; }
  constexpr int taps() const {  // of a 3x3 convolution there
    return kind == UnetKind::down && side == 2 ? 4 : kind != UnetKind::down && side_out() == 1 ? 1 : 9;
  }
};

constexpr int kUnetLayers = 32;    // stem, 22 Res, 3 Down, attention, 3 Up, head, one to spare
constexpr int kUnetTensors = 292;  // at most

struct Unet {
  std::array<UnetLayer, kUnetLayers> layer{};
  std::array<UnetTensor, kUnetTensors> tensor{};
  int layers = 0, tensors = 0;
  int mask_elements = 0;  // of an item
  int64_t parameters = 0;

  constexpr int add(const char* block, const char* part, int rows, int cols, int fan_in, UnetRole role) {
    tensor[size_t(tensors)] = {block, part, rows, cols, fan_in, role};
    parameters += int64_t(rows) * cols;
    return tensors++;
  }
  constexpr int linear(const char* block, const char* weight, const char* bias, int in, int out, int taps, int fan_in) {
    const int at = add(block, weight, out, in * taps, fan_in, UnetRole::weight);
    add(block, bias, 1, out, fan_in, UnetRole::bias);
    return at;
  }
  constexpr int norm(const char* block, const char* gain, const char* bias, int channels) {
    const int at = add(block, gain, 1, channels, 0, UnetRole::gain);
    add(block, bias, 1, channels, 0, UnetRole::bias);
    return at;
  }
  constexpr void conv(UnetKind kind, const char* block, int in, int out, int side, bool pushes) {
    UnetLayer l;
    l.kind = kind, l.in = in, l.out = out, l.side = side, l.pushes = pushes;
    l.first = linear(block, "weight", "bias", in, out, l.taps(), in * 9);
    layer[size_t(layers++)] = l;
  }
  constexpr void res(const char* block, int current, int skip, int out, int side, bool pushes) {
    UnetLayer l;
    l.in = current + skip, l.out = out, l.side = side, l.skip_in = skip, l.pushes = pushes;
    l.shortcut = l.in != out, l.mask_at = mask_elements;
    l.first = norm(block, "norm1.weight", "norm1.bias", l.in);
    linear(block, "conv1.weight", "conv1.bias", l.in, out, l.taps(), l.in * 9);
    linear(block, "time.weight", "time.bias", kUnetTime, out, 1, kUnetTime);
    norm(block, "norm2.weight", "norm2.bias", out);
    linear(block, "conv2.weight", "conv2.bias", out, out, l.taps(), out * 9);
    if (l.shortcut) linear(block, "shortcut.weight", "shortcut.bias", l.in, out, 1, l.in);
    mask_elements += out * side * side;
    layer[size_t(layers++)] = l;
  }
  constexpr void attention(const char* block, int c, int side) {
    UnetLayer l;
    l.kind = UnetKind::attention, l.in = l.out = c, l.side = side;
    l.first = norm(block, "norm.weight", "norm.bias", c);
    linear(block, "value.weight", "value.bias", c, c, 1, c);
    linear(block, "out.weight", "out.bias", c, c, 1, c);
    layer[size_t(layers++)] = l;
  }
  constexpr void head(const char* block, int in, int side) {
    UnetLayer l;
    l.kind = UnetKind::head, l.in = in, l.out = 1, l.side = side;
    l.first = norm(block, "norm.weight", "norm.bias", in);
    linear(block, "conv.weight", "conv.bias", in, 1, 9, in * 9);
    layer[size_t(layers++)] = l;
  }
};

// The table of spec mcdrec 3.3. Tensors 0..3: the time MLP, weight and bias of 8 -> 32 and of 32 -> 32.
constexpr Unet make_unet() {
  Unet n;
  n.linear("time", "0.weight", "0.bias", kUnetTimeIn, kUnetTime, 1, kUnetTimeIn);
  n.linear("time", "2.weight", "2.bias", kUnetTime, kUnetTime, 1, kUnetTime);
  n.conv(UnetKind::stem, "stem", 3, 8, 8, true);
  n.res("down.0.0", 8, 0, 8, 8, true), n.res("down.0.1", 8, 0, 8, 8, true);
  n.conv(UnetKind::down, "down.0.down", 8, 8, 8, true);
  n.res("down.1.0", 8, 0, 16, 4, true), n.res("down.1.1", 16, 0, 16, 4, true);
  n.conv(UnetKind::down, "down.1.down", 16, 16, 4, true);
  n.res("down.2.0", 16, 0, 16, 2, true), n.res("down.2.1", 16, 0, 16, 2, true);
  n.conv(UnetKind::down, "down.2.down", 16, 16, 2, true);
  n.res("down.3.0", 16, 0, 16, 1, true), n.res("down.3.1", 16, 0, 16, 1, true);
  n.res("middle.0", 16, 0, 16, 1, false);
  n.attention("middle.attention", 16, 1);
  n.res("middle.1", 16, 0, 16, 1, false);
  n.res("up.3.0", 16, 16, 16, 1, false), n.res("up.3.1", 16, 16, 16, 1, false), n.res("up.3.2", 16, 16, 16, 1, false);
  n.conv(UnetKind::up, "up.3.up", 16, 16, 1, false);
  n.res("up.2.0", 16, 16, 16, 2, false), n.res("up.2.1", 16, 16, 16, 2, false), n.res("up.2.2", 16, 16, 16, 2, false);
  n.conv(UnetKind::up, "up.2.up", 16, 16, 2, false);
  n.res("up.1.0", 16, 16, 16, 4, false), n.res("up.1.1", 16, 16, 16, 4, false), n.res("up.1.2", 16, 8, 16, 4, false);
  n.conv(UnetKind::up, "up.1.up", 16, 16, 4, false);
  n.res("up.0.0", 16, 8, 8, 8, false), n.res("up.0.1", 8, 8, 8, 8, false), n.res("up.0.2", 8, 8, 8, 8, false);
  n.head("head", 8, 8);
  return n;
}
inline constexpr Unet kUnet = make_unet();
static_assert(kUnet.parameters == 100'881);
constexpr int64_t kUnetMaskWords = mask_words(kUnet.mask_elements);

struct UnetParams {
  const float* p[kUnetTensors];  // in the order of kUnet.tensor
};
struct UnetGrads {
  float* p[kUnetTensors];
};
struct UnetMask {
  const uint16_t* bits = nullptr;  // (cap, kUnetMaskWords)
  float keep = 1.0f;
};
struct UnetSaved {  // all that forward leaves for backward, with room that backward uses; its layout is a device's own
  float* p = nullptr;
  int64_t capacity = 0;  // rows
};
// Floats of UnetSaved for so many rows: enough for either device.
constexpr int64_t kUnetSaved = 11'472;  // an item: what the CPU takes; a GPU takes 10,936
constexpr int64_t kUnetRowsTogether = 16;
constexpr int64_t unet_saved_floats(int64_t capacity) {
  return (capacity + kUnetRowsTogether - 1) / kUnetRowsTogether * kUnetRowsTogether * kUnetSaved;
}
// (T,8) row-major of the zero-based step: [sin(t f_k) | cos(t f_k)], f_k = exp(-k ln(10000)/3), in double
std::vector<float> unet_time_embedding(int steps);

}  // namespace ccdrec

namespace ccdrec::cpu {
void unet_forward(Ctx&, Mat e0_hat, const UnetSaved&, const EstimatorTokens&, const UnetParams&, const UnetMask&,
                  RowList rows);
void unet_backward(Ctx&, Mat d_e_t, const Mat* d_h, const UnetGrads&, CMat d_e0_hat, const EstimatorTokens&,
                   const UnetSaved&, const UnetParams&, const UnetMask&, RowList rows);
void unet_reverse(Ctx&, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau, const UnetParams&,
                  const Schedule&, uint32_t seed, uint32_t epoch);
void unet_scratch(ScratchPlan&, int64_t rows, int T);  // forward and backward
void unet_reverse_scratch(ScratchPlan&, int64_t items, int T);
}  // namespace ccdrec::cpu
