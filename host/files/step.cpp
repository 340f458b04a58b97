#include "host/files/step.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "host/files/loaded_case.h"
#include "host/training/tensors.h"

namespace ccdrec {
namespace {

// What is computed, and written if a file is named. UserError at the first number that is not finite: what follows from
// it says nothing.
class Result {
 public:
  explicit Result(const CaseFile& c) : case_(c) {}
  void floats(const std::string& name, const Extents& shape, const std::vector<float>& v) {
    add(name, "F32", shape, v);
  }
  void number(const std::string& name, double v) { add(name, "F64", {1}, std::vector<double>{v}); }
  TensorFile done(const std::string& path, const std::string& format) {
    kept_.metadata = {{"format", format}, {"version", "1"}};
    if (!path.empty()) write_result(path, kept_);
    return std::move(kept_);
  }

 private:
  template <class T>
  void add(const std::string& name, const char* dtype, const Extents& shape, const std::vector<T>& v) {
    for (size_t k = 0; k < v.size(); ++k)
      if (!std::isfinite(v[k]))
        case_.fail(
            fmt::format("its numbers are too large to compute with: '{}' of the result is {} at position {}; make the "
                        "arrays of the case, or the "
                        "weights and the learning_rate of its settings, smaller",
                        name, std::isnan(v[k]) ? "no number" : "infinite", k));
    TensorData& t = kept_.tensors[name];
    t.dtype = dtype, t.shape = shape;
    t.bytes.resize(v.size() * sizeof(T));
    if (!v.empty()) std::memcpy(t.bytes.data(), v.data(), t.bytes.size());
  }
  const CaseFile& case_;
  TensorFile kept_;
};

// The format's four terms are in every result, 0 where the model lacks one.
void add_losses(Result& r, Recommender& model) {
  std::map<std::string, double> terms = {{"bpr", 0}, {"bpr_curricular", 0}, {"align", 0}, {"reg", 0}};
  const Losses losses = model.losses();
  double total = 0;
  for (size_t k = 0; k < losses.size(); ++k) terms[model.model().losses()[k]] = losses[k], total += losses[k];
  for (const auto& [name, value] : terms) r.number("loss." + name, value);
  r.number("loss.total", total);
}

void add_shown(Result& r, const Watch& shown) {
  for (const Shown& a : shown.all) r.floats(a.name, a.shape, a.floats);
}

void add_updated(Result& r, LoadedCase& z) {
  z.model->update(z.c.gradient());
  z.model->flush();  // rows without a gradient move too, where their moments are not zero
  z.dev->check_faults();
  Watch now(*z.dev);
  Windows all = windows(*z.model);
  z.model->model().constants(all);
  for (const Window& w : all)
    now.parameter("new." + w.name, {w.value->p() + w.offset, w.rows, w.cols}, w.shape().size() == 1, w.transposed);
  add_shown(r, now);
}

}  // namespace

void write_result(const std::string& path, const TensorFile& result) {
  std::vector<TensorView> views;
  for (const auto& [name, t] : result.tensors) views.push_back({name, t.dtype, t.shape, t.bytes.data()});
  write_safetensors(path, views, result.metadata);
}

TensorFile run_step_case(const std::string& in, const std::string& out, const std::string& device, int threads) {
  const CaseFile c(in, "ccdrec-step");
  LoadedCase z(c, device, threads, Of::step);
  Recommender& model = *z.model;
  model.give(c);
  model.set_losses({});
  model.forward_backward(1, 0);

  Result r(c);
  add_losses(r, model);
  Watch shown(*z.dev);
  model.model().show(model.batch(), shown);
  add_shown(r, shown);
  add_updated(r, z);
  return r.done(out, "ccdrec-step-result");
}

TensorFile run_reverse_case(const std::string& in, const std::string& out, const std::string& device, int threads) {
  const CaseFile c(in, "ccdrec-reverse");
  LoadedCase z(c, device, threads, Of::reverse);
  Watch shown(*z.dev);
  z.model->model().show_reverse(c, shown);
  z.dev->check_faults();
  Result r(c);
  add_shown(r, shown);
  return r.done(out, "ccdrec-reverse-result");
}

}  // namespace ccdrec
