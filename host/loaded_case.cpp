#include "host/loaded_case.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "data/error.h"
#include "host/tensors.h"

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
  s.dropout = 0;  // the graph is given, pruned or not
  try {
    check_device(s.device, s.spmm);
    if (model_shape(s).diffusion) check_estimator(s);
  } catch (const UserError& e) { c.fail(std::string("settings: ") + e.what()); }
  return s;
}

HostCsr empty_graph(int64_t n) {
  HostCsr a;
  a.rows = a.cols = n;
  a.row_ptr.assign(size_t(n) + 1, 0);
  return a;
}

HostCsr symmetric_graph(const CaseFile& c, const std::string& name, int64_t n) {
  HostCsr a = c.sparse(name, n);
  const HostCsr back = transpose(a);
  if (back.col != a.col || back.row_ptr != a.row_ptr || back.val != a.val)
    c.fail(fmt::format("'{}' is not symmetric; give every edge in both directions with the same value", name));
  return a;
}

// The arrays of the format; those that the model at hand does not read may be there all the same.
std::vector<std::string> known_arrays(const std::vector<std::string>& modalities, const std::vector<ParamInfo>& dense) {
  std::vector<std::string> known = {"graph.user_item.index", "graph.user_item.value",
                                    "graph.item_item.index", "graph.item_item.value",
                                    "batch.users",           "batch.positives",
                                    "batch.negatives",       "batch.curricular",
                                    "batch.frozen",          "diffusion.items",
                                    "diffusion.t",           "diffusion.noise",
                                    "noise.start",           "noise.steps"};
  std::vector<std::string> parameters = {"user_embedding.weight", "item_id_embedding.weight", "estimator.w_q.weight", "estimator.w_k.weight",
                                         "estimator.w_v.weight"};
  for (const std::string& m : modalities)
    for (const char* end : {"_embedding.weight", "_trs.weight", "_trs.bias"}) parameters.push_back(m + end);
  for (const ParamInfo& p : dense) parameters.push_back(p.name);
  for (const std::string& p : parameters)
    for (const char* kind : {"param.", "adam.m.", "adam.v."}) known.push_back(kind + p);
  return known;
}

}  // namespace

LoadedCase::LoadedCase(const CaseFile& file, const std::string& device, int threads, Of what) : c(file), named(file.modalities()), t(file.t()) {
  const Extents q = c.shape("param.item_id_embedding.weight", {kAny, kAny});
  I = q[0], d = q[1];
  if (what == Of::step) U = c.shape("param.user_embedding.weight", {kAny, d})[0];
  s = settings_of(c, d, t, device, threads);
  const Shape shape = model_shape(s);
  if (what == Of::reverse && !shape.diffusion) c.fail("the model of the settings has no diffusion; choose CCDRec with dma or ndi");
  load_data(shape, what);
  const Graphs graphs = load_graphs(shape.backbone, what);
  std::string note;
  dev = make_device(s.device, s.threads, note, s.precision, s.spmm);
  model = std::make_unique<Recommender>(*dev, s, data, graphs);
  const std::vector<std::string> known = known_arrays(named, model->arena().params());
  if (what == Of::step)
    c.check_names({"param.", "adam.", "graph.", "batch.", "diffusion."}, known);
  else
    c.check_names({"param.", "noise."}, known);
  load_tables(what);
  for (const ParamInfo& p : model->arena().params()) load_dense(p);
  model->set_t(t - 1);
}

Extents LoadedCase::outside(const ParamInfo& p) {
  return p.transposed ? Extents{p.cols, p.rows} : p.rows == 1 ? Extents{p.cols} : Extents{p.rows, p.cols};
}

void LoadedCase::load_data(const Shape& shape, Of what) {
  data.name = "case", data.n_users = U, data.n_items = I;
  data.users = IdMap::dense_of(U), data.items = IdMap::dense_of(I);
  if (shape.modalities) {
    if (named.empty()) c.fail("the model reads modalities, but the metadata 'modalities' names none; write them as [\"image\", \"text\"]");
    modalities = named;
    data.features = features_of(c, modalities, I);
  }
  if (what == Of::step) {
    const int64_t B = c.shape("batch.users", {kAny})[0];
    const std::vector<int32_t> users = c.indices("batch.users", {B}, U), positives = c.indices("batch.positives", {B}, I);
    for (int64_t b = 0; b < B; ++b) data.train.push_back({users[size_t(b)], positives[size_t(b)]});
  } else {
    for (int64_t i = 0; i < I; ++i) data.train.push_back({0, int32_t(i)});  // a batch of all items: the estimator has room for them
  }
  s.train_batch_size = int(data.train.size());
}

Graphs LoadedCase::load_graphs(const BackboneSpec& backbone, Of what) const {
  Graphs graphs;
  graphs.train = pairs_by_user(data.train, U, I);
  const bool reads = what == Of::step;
  graphs.user_item = reads && backbone.layers > 0 ? symmetric_graph(c, "graph.user_item", U + I) : empty_graph(U + I);
  if (!backbone.item_graph) return graphs;
  graphs.items = reads ? c.sparse("graph.item_item", I) : empty_graph(I);
  graphs.items_t = transpose(graphs.items);
  return graphs;
}

void LoadedCase::load_tables(Of what) {
  RowTable& nodes = model->backbone().nodes();
  if (what == Of::step) load_rows("user_embedding.weight", nodes, 0, U);
  load_rows("item_id_embedding.weight", nodes, model->backbone().first_item(), I);
  nodes.set_reached(t - 1);
  for (size_t m = 0; m < modalities.size(); ++m) {
    RowTable& x = model->modalities()->features(int(m));
    if (!x.trainable()) continue;
    load_rows(modalities[m] + "_embedding.weight", x, 0, I);
    x.set_reached(t - 1);
  }
}

void LoadedCase::load_rows(const std::string& name, RowTable& table, int64_t first, int64_t n) {
  const int64_t cols = table.value().cols;
  const Extents shape = {n, cols};
  const auto put = [&](Array<float>& to, const std::vector<float>& v) { to.upload(v.data(), int64_t(v.size()), first * cols); };
  put(table.values().array(), c.floats("param." + name, shape));
  if (!c.has("adam.m." + name)) return;
  put(table.moments().array(), c.floats("adam.m." + name, shape));
  put(table.squares().array(), c.squares("adam.v." + name, shape));
}

void LoadedCase::load_dense(const ParamInfo& p) {
  const auto put = [&](Array<float>& to, std::vector<float> v) {
    if (p.transposed) v = transposed(v, p.cols, p.rows);
    to.upload(v.data(), int64_t(v.size()), p.offset);
  };
  ParamArena& arena = model->arena();
  put(arena.values(), c.floats("param." + p.name, outside(p)));
  if (!c.has("adam.m." + p.name)) return;
  put(arena.moments(), c.floats("adam.m." + p.name, outside(p)));
  put(arena.squares(), c.squares("adam.v." + p.name, outside(p)));
}

}  // namespace ccdrec
