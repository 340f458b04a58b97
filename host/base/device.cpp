#include "host/base/device.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <stdexcept>

#include "data/error.h"
#include "host/base/machine.h"

namespace ccdrec {

namespace {

// cuBLAS obeys this variable before what a program asks of it, and does not tell.
std::string overridden() {
  const char* const value = std::getenv("NVIDIA_TF32_OVERRIDE");
  return value && *value ? std::string(" (unless NVIDIA_TF32_OVERRIDE=") + value +
                               ", set in the environment, has cuBLAS do otherwise)"
                         : "";
}

bool takes_gpu(const std::string& device, const GpuInfo& gpu) {
  return device == "cuda" || (device == "auto" && gpu.usable && !gpu.emulated);
}

}  // namespace

SpmmBy spmm_choice(const std::string& spmm, const GpuInfo& gpu) {
  if (spmm == "auto") return SpmmBy::automatic;
  if (spmm == "own") return SpmmBy::own;
  if (spmm != "cusparse") throw UserError("spmm is '" + spmm + "', expected auto, own or cusparse");
  if (!gpu.cusparse)
    throw UserError(
        "spmm is cusparse, but this program was built without it (libcusparse with its header was not found); use spmm "
        "auto or own");
  return SpmmBy::cusparse;
}

void check_device(const std::string& device, const std::string& spmm) {
  if (device != "auto" && device != "cpu" && device != "cuda")
    throw UserError("device is '" + device + "', expected auto, cpu or cuda");
  const GpuInfo gpu = device == "cpu" ? GpuInfo{} : gpu_info();
  if (device == "cuda" && !gpu.usable) throw UserError("device is cuda, but " + gpu.why + "; use device auto or cpu");
  if (takes_gpu(device, gpu)) spmm_choice(spmm, gpu);
}

std::unique_ptr<Device> make_device(const std::string& device, int threads, std::string& note,
                                    const std::string& precision, const std::string& spmm) {
  check_device(device, spmm);
  if (precision != "fp32" && precision != "tf32" && precision != "bf16")
    throw UserError("precision is '" + precision + "', expected fp32, tf32 or bf16");
  const GpuInfo gpu = device == "cpu" ? GpuInfo{} : gpu_info();
  if (takes_gpu(device, gpu)) {
    auto dev = std::make_unique<Device>(*gpu_ops(), 1);
    try {
      open_gpu(dev->ctx, precision.c_str());
    } catch (const std::exception& e) {
      throw UserError(std::string("device is ") + device + ", but the GPU cannot be opened: " + e.what());
    }
    dev->ctx.spmm = spmm_choice(spmm, gpu);
    note = "device cuda: " + gpu.name + ", large products in " + precision + overridden() + ", sparse products " +
           (spmm == "auto"  ? "auto (" + std::string(kSpmmRule) + ")"
            : spmm == "own" ? "by own kernels"
                            : "of whole graphs by cuSPARSE");
    return dev;
  }
  const int n = threads_of(threads);
  note = "device cpu with " + std::to_string(n) + (n == 1 ? " thread (" : " threads (") +
         (threads > 0 ? "as set" : default_threads().why) + "), " + describe_waiting() + ", dense kernels " +
         cpu::gemm_isa() + (device == "auto" && !gpu.emulated ? " (" + gpu.why + ")" : "") +
         (device == "auto" && spmm == "cusparse" ? "; spmm = cusparse has no influence on it" : "") +
         (device == "auto" && precision != "fp32" ? "; precision = " + precision + " has no influence on it" : "");
  return std::make_unique<Device>(cpu_ops(), n);
}

bool takes_gpu(const std::string& device) { return device != "cpu" && gpu_ops() && takes_gpu(device, gpu_info()); }
const Ops* ops_for_ranges(const std::string& device) { return takes_gpu(device) ? gpu_ops() : nullptr; }
int threads_of(int setting) { return setting > 0 ? setting : default_threads().n; }

size_t gpu_memory_available(const std::string& device) {
  if (device == "cpu") return 0;
  const GpuInfo gpu = gpu_info();
  return gpu.usable && !gpu.emulated ? gpu.available : 0;
}

void Device::check_faults() {
  if (!ops.take_fault) return;
  const int32_t f = ops.take_fault(ctx);
  if (f)
    throw std::logic_error("an operation on the GPU noted fault " + std::to_string(f) +
                           " (kernels/cuda/device.h, Fault)");
}

Phase::Phase(Device& dev, std::map<std::string, double>& into, RangeId id, bool timed, int64_t payload)
    : dev_(dev),
      range_(dev, id, payload),
      into_(into),
      name_(text_of(id).name),
      timed_(timed || !dev.gpu()),
      start_(std::chrono::steady_clock::now()) {}

Phase::~Phase() {
  if (timed_ && dev_.gpu() && !std::uncaught_exceptions()) {
    try {
      dev_.wait();
    } catch (...) {  // the next wait outside a destructor reports it
    }
  }
  if (timed_) into_[name_] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

}  // namespace ccdrec
