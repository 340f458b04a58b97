#include "host/systems/label.h"

#include "host/systems/registry.h"

namespace ccdrec {

std::string label_of(const Settings& s) {
  const System& system = *find_system(s.model);
  const std::string& base = system.wraps ? s.backbone : s.model;
  std::string label = base;
  if (s.use_mg) {
    const char* const own = find_system(base)->with_mg;
    label = own ? own : "MG(" + base + ")";
  }
  const bool all = s.dma && s.ndi && s.cns, none = !s.dma && !s.ndi && !s.cns;
  if (system.wraps && (all || none)) label = s.model + "(" + label + ")";
  if (system.wraps && !all) label += std::string(s.dma ? "+DMA" : "") + (s.ndi ? "+NDI" : "") + (s.cns ? "+CNS" : "");
  if (has_sampler(s)) label += std::string("+") + sampler_title(s.sampler);
  return label + (system.wraps && none ? " without modules" : "");
}

std::string label_note(const Settings& s) {
  const Outline o = outline_of(s);
  if (!find_system(s.model)->wraps || !o.may_denoise) return "";
  const std::string graph = o.denoises ? "DGD graph" : "graph without DGD";
  return o.diffusion ? graph + ", " + s.estimator : graph;
}

}  // namespace ccdrec
