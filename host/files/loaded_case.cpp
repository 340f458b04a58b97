#include "host/files/loaded_case.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "data/error.h"
#include "host/training/tensors.h"

namespace ccdrec {
namespace {

// Modality features in files without a place, as the models read features from a data set.
std::vector<Feature> features_of(const CaseFile& c, const std::vector<std::string>& names, int64_t n_items) {
  std::vector<Feature> all;
  for (const std::string& name : names) {
    const std::string array = "param." + name + "_embedding.weight";
    const std::vector<float> x = c.floats(array, {n_items, kAny});
    const int fd = ::memfd_create("features", MFD_CLOEXEC);
    if (fd < 0) c.fail(fmt::format("there is no memory for array '{}' ({})", array, std::strerror(errno)));
    const std::string path = fmt::format("/proc/self/fd/{}", fd);
    write_npy(path, x.data(), n_items, int64_t(x.size()) / n_items);
    all.push_back({name, NpyMatrix(path)});
    ::close(fd);
  }
  return all;
}

Settings settings_of(const CaseFile& c, int64_t d, int64_t t, const std::string& device, int threads) {
  Settings s = c.settings(d);
  s.device = device, s.threads = threads, s.epochs = int(t);
  s.dropout = 0;                                                   // the graph is given, pruned or not
  s.negative_stats = 0;                                            // there is no epoch
  s.learning_rate_scheduler = Settings{}.learning_rate_scheduler;  // learning_rate is the step's
  try {
    check_device(s.device, s.spmm);
    check_modules(s);
  } catch (const UserError& e) { c.fail(std::string("settings: ") + e.what()); }
  return s;
}

// The graphs of a case; the reverse process has none.
class GraphsOfCase : public GraphSource {
 public:
  GraphsOfCase(const CaseFile& c, const Dataset& data, Of what)
      : GraphSource(data), c_(c), data_(data), reads_(what == Of::step) {}
  HostCsr user_item() override {
    const int64_t n = train.rows + train.cols;
    if (!reads_) return empty(n);
    HostCsr a = c_.sparse("graph.user_item", n);
    const HostCsr back = transpose(a);
    if (back.col != a.col || back.row_ptr != a.row_ptr || back.val != a.val)
      c_.fail("'graph.user_item' is not symmetric; give every edge in both directions with the same value");
    return a;
  }
  HostCsr user_item_mean(bool self_loops) override {
    const int64_t n = train.rows + train.cols;
    if (!reads_) return empty(n);
    HostCsr a = c_.sparse("graph.user_item", n);
    const HostCsr back = transpose(a);
    if (back.col != a.col || back.row_ptr != a.row_ptr)
      c_.fail("'graph.user_item' has an edge in one direction alone; give every edge in both, each with its value");
    for (int64_t r = 0; r < n && !self_loops; ++r)
      for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e)
        if (const int64_t to = a.col[size_t(e)]; (r < train.rows) == (to < train.rows))
          c_.fail(
              fmt::format("'graph.user_item' has an entry at ({},{}), between two {}; this model's edges run between "
                          "users and items alone",
                          r, to, r < train.rows ? "users" : "items"));
    return a;
  }
  // the map is there or not, and as wide as it is
  int64_t latent_width(size_t modality) override {
    const std::string map = "param." + data_.features[modality].name + ".mlp.weight";
    return c_.has(map) ? c_.shape(map, {kAny, kAny})[0] : 0;
  }
  NeighbourLists frozen(size_t modality) override {
    const int64_t I = train.cols;
    if (!reads_) return {std::vector<int32_t>(size_t(I)), std::vector<float>(size_t(I))};
    const std::string at = "graph.frozen." + data_.features[modality].name;
    if (modality == 0) k_ = c_.shape(at + ".index", {I, kAny})[1];
    return {c_.indices(at + ".index", {I, k_}, I), c_.floats(at + ".value", {I, k_})};
  }
  HostCsr items() override { return reads_ ? c_.sparse("graph.item_item", train.cols) : empty(train.cols); }

 private:
  static HostCsr empty(int64_t n) {
    HostCsr a;
    a.rows = a.cols = n;
    a.row_ptr.assign(size_t(n) + 1, 0);
    return a;
  }
  const CaseFile& c_;
  const Dataset& data_;
  int64_t k_ = 0;  // neighbours in the lists of the first modality
  const bool reads_;
};

// Into the window's place of one of its arrays, from the shape of files.
void put(Array<float>& to, const Window& w, std::vector<float> v) {
  if (w.transposed) v = transposed(v, w.cols, w.rows);
  to.upload(v.data(), int64_t(v.size()), w.offset);
}

// The arrays of the format; those that the model at hand does not read may be there all the same.
std::vector<std::string> known_arrays(const std::vector<std::string>& modalities, const Windows& of_model) {
  std::vector<std::string> known = {"graph.user_item.index",
                                    "graph.user_item.value",
                                    "graph.item_item.index",
                                    "graph.item_item.value",
                                    "batch.users",
                                    "batch.positives",
                                    "batch.negatives",
                                    "batch.curricular",
                                    "batch.frozen",
                                    "hard.items",
                                    "hard.alpha",
                                    "diffusion.items",
                                    "diffusion.t",
                                    "diffusion.noise",
                                    "noise.start",
                                    "noise.steps",
                                    "mask.unet",
                                    "mask.users",
                                    "mask.items"};
  for (const std::string& m : modalities)
    for (const char* end : {"learned.{}.index", "learned.{}.value", "frozen.{}.index", "frozen.{}.value"})
      known.push_back("graph." + fmt::format(fmt::runtime(end), m));
  for (const std::string& m : modalities) known.push_back("mask." + m);
  known.push_back("graph.modal_weight");
  std::vector<std::string> parameters = {"user_embedding.weight", "item_id_embedding.weight", "estimator.w_q.weight",
                                         "estimator.w_k.weight", "estimator.w_v.weight"};
  for (const std::string& m : modalities)
    for (const char* end : {"_embedding.weight", "_trs.weight", "_trs.bias"}) parameters.push_back(m + end);
  for (const Window& p : of_model) parameters.push_back(p.name);
  for (const std::string& p : parameters)
    for (const char* kind : {"param.", "adam.m.", "adam.v."}) known.push_back(kind + p);
  return known;
}

}  // namespace

LoadedCase::LoadedCase(const CaseFile& file, const std::string& device, int threads, Of what)
    : c(file), named(file.modalities()), t(file.t()) {
  if (c.has("param.id_embedding")) {  // MMGCN: nodes together, and a table of users for each modality
    const Extents nodes = c.shape("param.id_embedding", {kAny, kAny});
    d = nodes[1];
    if (named.empty()) c.fail("the metadata 'modalities' names none; write them as [\"image\", \"text\"]");
    U = c.shape("param." + named[0] + ".preference", {kAny, kAny})[0];
    I = nodes[0] - U;
    if (I < 1) c.fail("'param.id_embedding' has no rows behind those of the users; give users and items");
  } else {
    const Extents q = c.shape("param.item_id_embedding.weight", {kAny, kAny});
    I = q[0], d = q[1];
    if (what == Of::step) U = c.shape("param.user_embedding.weight", {kAny, d})[0];
  }
  s = settings_of(c, d, t, device, threads);
  const Outline outline = outline_of(s);
  if (what == Of::reverse && !outline.diffusion)
    c.fail("the model of the settings has no diffusion; choose MCDRec with mrd, or CCDRec with dma or ndi");
  load_data(outline, what);
  GraphsOfCase graphs(c, data, what);
  std::vector<std::string> notes(1);
  dev = make_device(s.device, s.threads, notes[0], s.precision, s.spmm);
  model = std::make_unique<Recommender>(*dev, s, data, graphs, notes);
  const Windows all = windows(*model);
  std::vector<std::string> known = known_arrays(named, all);
  Windows constant;
  model->model().constants(constant);
  for (const Window& w : constant) known.push_back("param." + w.name);
  if (what == Of::step)
    c.check_names({"param.", "adam.", "graph.", "batch.", "hard.", "diffusion.", "mask."}, known);
  else
    c.check_names({"param.", "noise."}, known);
  for (const Window& w : all)
    if (what == Of::step || w.name != "user_embedding.weight") load(w);
  for (const Window& w : constant) put(*w.value, w, c.floats("param." + w.name, w.shape()));
  model->model().restored();
  model->set_t(t - 1);
}

void LoadedCase::load_data(const Outline& outline, Of what) {
  data.name = "case", data.n_users = U, data.n_items = I;
  data.users = IdMap::dense_of(U), data.items = IdMap::dense_of(I);
  if (outline.projects) {
    if (named.empty())
      c.fail(
          "the model reads modalities, but the metadata 'modalities' names none; write them as [\"image\", \"text\"]");
    try {
      check_modalities(s, named);
    } catch (const UserError& e) { c.fail(e.what()); }
    modalities = named;
    data.features = features_of(c, modalities, I);
  }
  if (what == Of::step) {
    const int64_t B = c.shape("batch.users", {kAny})[0];
    const std::vector<int32_t> users = c.indices("batch.users", {B}, U),
                               positives = c.indices("batch.positives", {B}, I);
    for (int64_t b = 0; b < B; ++b) data.train.push_back({users[size_t(b)], positives[size_t(b)]});
  } else {
    // a batch of all items: the estimator has room for them
    for (int64_t i = 0; i < I; ++i) data.train.push_back({0, int32_t(i)});
  }
  const int rows = int(data.train.size());
  const bool divides = outline.learned_graph && what == Of::step && c.has_setting("train_batch_size");
  if (!divides) {
    s.train_batch_size = rows;
  } else if (s.train_batch_size < rows) {
    c.fail(fmt::format("settings: train_batch_size is {}, but the batch has {} rows; it is the most that a batch has",
                       s.train_batch_size, rows));
  }
  if (!outline.learned_graph) return;
  s.knn_k = what == Of::step ? int(c.shape("graph.frozen." + modalities[0] + ".index", {I, kAny})[1]) : 1;
}

void LoadedCase::load(const Window& w) {
  put(*w.value, w, c.floats("param." + w.name, w.shape()));
  w.set_reached(t - 1);
  if (!c.has("adam.m." + w.name)) return;
  put(*w.m, w, c.floats("adam.m." + w.name, w.shape()));
  put(*w.v, w, c.squares("adam.v." + w.name, w.shape()));
}

}  // namespace ccdrec
