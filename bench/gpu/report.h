// What bench_gpu found, as data, as JSON and as tables; nothing here needs a GPU.
#pragma once
#include <string>
#include <vector>

namespace ccdrec::bench {

struct GpuCeilings {         // measured by measure_gpu, ceilings.h
  double copy_gbs = 0;       // device to device, bytes read + written
  double gemm_tflops = 0;    // library::gemm, 4096 x 4096 x 4096
  double skinny_tflops = 0;  // the product the sampler replaces: 2048 x 64 x 100,000, written out
};

// Something that a line is held against. The target, where the project has one, bounds what was got: a share from
// below, seconds and multiples of the floor from above. A stretch is a harder target.
struct Goal {
  enum Kind { share, seconds, times };
  Kind kind = share;
  std::string against;
  double got = 0, target = 0, stretch = 0;  // 0: none
};

struct Line {
  std::string op, shape;
  double warm = 0, least = 0, spread = 0, cold = 0;  // seconds: median warm, minimum, (p90 - p10) / median, median cold
  double bytes = 0, flop = 0;                        // of the contract: each array once, products
  double more = 0;                                   // operations besides, in the floor alone: normals
  std::vector<Goal> goals;
  Line& at_least(const std::string& against, double got, double target = 0, double stretch = 0);
  Line& within_seconds(double target, double stretch = 0);                         // warm, by the clock
  Line& within_floors(const GpuCeilings&, double target = 0, double stretch = 0);  // warm, in multiples of the floor
};

// About 60 integer and float operations a normal: ten rounds of Philox for four, a logarithm, a square root, a sine and
// a cosine for two. Each counts as one flop, though a fused multiply-add does two in its place: a floor with normals is
// too low rather than too high.
constexpr double kOperationsOfNormal = 60;
// the larger of bytes / copy rate and (flop + more) / matrix rate
double floor_seconds(const Line&, const GpuCeilings&);

const char* verdict(const Goal&);  // "" without a target

struct GpuReport {
  std::string gpu;
  double scale = 1;  // below 1: a test of the bench
  GpuCeilings ceilings;
  std::vector<Line> lines;
  std::vector<std::string> failures;
};
std::string gpu_report_json(const GpuReport&);
std::string gpu_report_markdown(const GpuReport&);

}  // namespace ccdrec::bench
