// A model looked into by the names that files give its arrays, and given numbers by them.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "data/error.h"
#include "host/training/recommender.h"

namespace ccdrec::test {

inline std::vector<std::string> devices_here() {
  std::vector<std::string> all = {"cpu"};
  if (gpu_info().usable) all.emplace_back("cuda");
  return all;
}

// What a case holds, without a file.
struct Arrays : Given {
  std::map<std::string, std::vector<float>> reals;
  std::map<std::string, std::vector<int32_t>> ids;
  bool has(const std::string& name) const override { return reals.count(name) || ids.count(name); }
  std::vector<float> floats(const std::string& name, const Extents&) const override { return reals.at(name); }
  std::vector<int32_t> indices(const std::string& name, const Extents&, int64_t) const override { return ids.at(name); }
  std::string origin() const override { return "test"; }
};

inline Windows windows_of(Recommender& model) {  // trained or not
  Windows all;
  model.model().parameters(all);
  model.model().constants(all);
  return all;
}
inline Window window_of(Recommender& model, const std::string& name) {
  for (const Window& w : windows_of(model))
    if (w.name == name) return w;
  throw UserError("no parameter " + name);
}
inline std::vector<float> values_of(const Window& w) {  // as they lie in memory
  std::vector<float> v(size_t(w.rows * w.cols));
  w.value->download(v.data(), w.rows * w.cols, w.offset);
  return v;
}
inline void put(const Window& w, const std::vector<float>& v) { w.value->upload(v.data(), w.rows * w.cols, w.offset); }

// An array of a state by its name there; empty where the model keeps none.
template <class T>
std::vector<T> kept_values(ccdrec::Device& dev, Recommender& model, const std::string& name) {
  std::vector<Kept> kept;
  model.model().kept(kept);
  for (const Kept& k : kept) {
    if (k.name != name) continue;
    std::vector<T> v(k.bytes / sizeof(T));
    dev.ops.download(dev.ctx, v.data(), k.device, k.bytes);
    return v;
  }
  return {};
}

// Pool k of NDI; empty where there is none.
inline std::vector<float> pool_of(ccdrec::Device& dev, Recommender& model, int k) {
  std::vector<Kept> kept;
  model.model().kept(kept);
  for (const Kept& x : kept)
    if (x.name == "pool." + std::to_string(k))
      return host_copy(dev, {static_cast<const float*>(x.device), x.shape[0], x.shape[1]});
  return {};
}
inline void put_pool(ccdrec::Device& dev, Recommender& model, int k, const std::vector<float>& rows) {
  std::vector<Kept> kept;
  model.model().kept(kept);
  for (const Kept& x : kept)
    if (x.name == "pool." + std::to_string(k))
      dev.ops.upload(dev.ctx, x.device, rows.data(), x.bytes), *x.filled = true;
}

// Of a step after forward_backward. Gradients of parameters as those lie in memory.
inline Watch shown_of(ccdrec::Device& dev, Recommender& model) {
  Watch w(dev);
  model.model().show(model.batch(), w);
  return w;
}
inline std::vector<float> gradient_of(const Watch& shown, const Window& w) {
  const Shown* const g = shown.find("grad." + w.name);
  if (!g) throw UserError("no gradient of " + w.name);
  return w.transposed ? transposed(g->floats, w.cols, w.rows) : g->floats;
}

}  // namespace ccdrec::test
