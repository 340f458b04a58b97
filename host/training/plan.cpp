// What a run will take of its device, by formula: arrays as the constructors take them, scratch as the operations ask
// for it. The tests compare it with what is really taken, on both devices.
#include <algorithm>

#include "host/ccdrec/cns.h"
#include "host/ccdrec/denoiser.h"
#include "host/models/planner.h"
#include "host/samplers/realhns.h"
#include "host/systems/registry.h"
#include "host/training/hardness.h"
#include "host/training/lists.h"
#include "host/training/metrics.h"
#include "host/training/stepping.h"
#include "host/training/trainer.h"

namespace ccdrec {
namespace {

// Users that an evaluation ranks: those of either split.
int64_t evaluated_users(const Dataset& data) {
  std::vector<bool> seen(static_cast<size_t>(data.n_users));
  for (const auto* split : {&data.valid, &data.test})
    for (const Pair& p : *split) seen[size_t(p.user)] = true;
  return std::count(seen.begin(), seen.end(), true);
}

int64_t occurring_items(const Dataset& data) {
  std::vector<bool> seen(static_cast<size_t>(data.n_items));
  for (const Pair& p : data.train) seen[size_t(p.item)] = true;
  return std::count(seen.begin(), seen.end(), true);
}

// Letters as in types.h, and what the two parts of the plan share.
struct Sizes {
  Sizes(const Settings& s, const Dataset& data)
      : o(outline_of(s)),
        on_gpu(takes_gpu(s.device)),
        U(data.n_users),
        I(data.n_items),
        N(U + I),
        d(s.embedding_size),
        E(int64_t(data.train.size())),
        B(std::min<int64_t>(s.train_batch_size, E)),
        M(int64_t(data.features.size())),
        item_slots(B * (1 + s.n_neg)),
        kept_edges(int64_t(double(E) * (1 - o.prune))),
        measured(Hardness::rows(s, E)),
        k(list_width(cutoffs(s.topk, s.valid_metric), I)),
        evaluated(evaluated_users(data)),
        ranked(std::min(users_at_once(on_gpu ? DeviceKind::cuda : DeviceKind::cpu, k), evaluated)) {}
  Outline o;
  bool on_gpu;
  int64_t U, I, N, d, E, B, M, item_slots, kept_edges;
  int64_t measured;              // rows an epoch whose negatives are measured
  int64_t k, evaluated, ranked;  // items of a list; users of an evaluation, of one batch of it
};

// Of a model that plans for itself.
Planner planned(const System& system, ScratchPlan& scratch, const Ops& ops, const Sizes& z, const Settings& s,
                const Dataset& data) {
  Planner p{s, data, ops, scratch, z.on_gpu, z.U, z.I, z.N, z.d, z.E, z.B};
  system.plan(p);
  return p;
}

// The most that any operation asks for, slot by slot.
ScratchPlan scratch_plan(const Ops& ops, const Sizes& z, const Settings& s, const Dataset& data) {
  ScratchPlan p;
  p.threads = threads_of(s.threads);
  if (const System& system = *find_system(s.model); system.plan) planned(system, p, ops, z, s, data);
  const Outline& o = z.o;
  const bool encoder = s.estimator == "transformer";
  const int M = int(z.M);
  const int64_t inner = 4 * z.d, C = Cns::candidates_of(s, z.I),
                rows = z.on_gpu ? z.item_slots : std::min(z.item_slots, z.I), estimated = o.fuses_all ? z.I : rows;
  const auto whole_graph = [&](int64_t n, int64_t nnz) {
    const SpmmBy by = s.spmm == "auto" ? spmm_rule(nnz, n, z.d) : s.spmm == "cusparse" ? SpmmBy::cusparse : SpmmBy::own;
    ops.spmm_scratch(p, n, nnz, by == SpmmBy::cusparse);
  };

  if (o.item_layers)
    for (const Feature& f : data.features)
      ops.knn_cosine_scratch(p, z.I, f.matrix.cols(), s.knn_k, s.knn_center && !o.learned_graph);
  if (o.learned_graph) {
    const int64_t entries = z.I * s.knn_k;
    ops.knn_cosine_scratch(p, z.I, z.d, s.knn_k, false);
    ops.group_scratch(p, entries);
    ops.transpose_scratch(p, 2 * entries * M);
    ops.latent_graph_backward_scratch(p, z.I, s.knn_k, M);
    for (const Feature& f : data.features) {
      ops.project_scratch(p, z.I, f.matrix.cols(), z.d, false);
      ops.project_backward_scratch(p, z.I, f.matrix.cols(), z.d, s.train_features);
    }
  }
  ops.shuffle_scratch(p, z.E);
  if (o.prune > 0 && !o.denoises) ops.prune_scratch(p, z.E, z.kept_edges, z.N);
  if (o.denoises) ops.edge_cosines_scratch(p, z.N), ops.prune_weighted_scratch(p, z.E, z.kept_edges, z.N);
  if (o.item_layers && !o.start_room) ops.merge_rows_scratch(p, 2 * z.I);
  if (o.ranks) ops.group_scratch(p, z.B * (2 + s.n_neg + (o.hard ? 1 : 0)));
  if (o.maps_items)
    for (const Feature& f : data.features) {
      ops.project_scratch(p, rows, f.matrix.cols(), z.d, true);
      ops.project_backward_scratch(p, rows, f.matrix.cols(), z.d, s.train_features);
      if (o.diffusion) ops.project_scratch(p, z.I, f.matrix.cols(), z.d, false);
    }
  if (o.fuses_all)
    for (const Feature& f : data.features) {
      ops.project_scratch(p, z.I, f.matrix.cols(), z.d, false);
      ops.project_backward_scratch(p, z.I, f.matrix.cols(), z.d, s.train_features);
    }
  if (o.diffusion && o.unet) ops.unet_scratch(p, estimated, s.timesteps), ops.unet_reverse_scratch(p, z.I, s.timesteps);
  if (o.diffusion && !o.unet && !encoder)
    ops.estimator_scratch(p, estimated, M, z.d), ops.reverse_process_scratch(p, z.I, M, z.d, s.timesteps);
  if (o.diffusion && encoder) {
    ops.encoder_scratch(p, estimated, M, z.d, inner);
    ops.encoder_reverse_scratch(p, z.I, M, z.d, inner, s.estimator_heads, s.estimator_layers);
  }
  if (o.searches && o.hard)
    ops.candidates_scratch(p, C), ops.similar_negative_scratch(p, z.B, C, Cns::drawn_from(s, C), z.I, z.d);
  if (o.searches && o.hard) ops.group_scratch(p, z.B * (2 + s.n_neg) + C);  // the candidates of the model's own pool
  if (o.chooses && o.hard) ops.group_scratch(p, z.B * (2 + s.n_neg) + z.I);
  if (o.bands && o.hard) {
    const Band band(s, z.U, z.I);
    ops.shuffle_scratch(p, band.width());
    for (const int64_t items : {z.I, occurring_items(data)})  // those alone are ranked
      for (const int64_t n : {band.at_once, z.U % band.at_once}) ops.score_topk_scratch(p, n, items, z.d, band.end);
    ops.cohesion_scratch(p, z.I, z.d, s.realhns_clusters);
    ops.filtered_negative_scratch(p, std::max(z.B, z.measured), z.I, band.candidates);
  }
  if (z.measured) ops.candidates_scratch(p, z.measured), ops.negative_ranks_scratch(p, z.I, z.d);
  if (o.layers > 0) whole_graph(z.N, 2 * z.E);
  if (o.item_layers && !o.learned_graph) whole_graph(z.I, z.I * s.knn_k * z.M);
  for (const int64_t n : {z.ranked, z.evaluated % std::max<int64_t>(z.ranked, 1)})
    ops.score_topk_scratch(p, n, z.I, z.d, z.k);
  return p;
}

// Arrays of a ranked system, by its outline.
void outline_lines(const Sizes& z, const Settings& s, const Dataset& data,
                   const std::function<void(const char*, int64_t)>& line) {
  const Outline& o = z.o;
  const int64_t U = z.U, I = z.I, N = z.N, d = z.d, E = z.E, B = z.B, M = z.M, item_slots = z.item_slots, L = o.layers;
  int64_t features = 0, dense = o.estimator;
  if (o.projects)
    for (const Feature& f : data.features) features += I * f.matrix.cols(), dense += f.matrix.cols() * d + d;
  const int64_t starts = o.start_room ? I : 0;  // rows between P and Q
  // h, its gradient where no layer's memory is it; layers
  int64_t propagated = (!o.propagates ? 0 : L > 0 ? 1 : 2) + L;
  const auto csr = Planner::csr;
  int64_t graphs = csr(U, E);
  if (L > 0) graphs += o.learned_graph ? 2 * csr(N, 2 * E + N) : csr(N, 2 * E);
  if (o.prune > 0) graphs += csr(N, 2 * z.kept_edges) + 12 * E;
  if (o.item_layers && !o.learned_graph) graphs += 2 * csr(I, I * s.knn_k * M);
  // S and S^T, 2Mk entries a row; for each modality its lists with values, their gradients and groups, the mapped
  // features with their norms, and the gradient of all of them; scales, weights, a layer's Gamma
  const int64_t entries = I * s.knn_k;
  if (o.learned_graph)
    graphs += 2 * csr(I, 2 * M * entries) + 4 * M * (10 * entries + 2 * I * d + 3 * I + 1) + 4 * (entries + I * d + I);
  // rows a step touches: users and items of Ego_0,
  int64_t lists = 4 * N;
  if (o.propagates) lists += (L + 1) * 5 * N;  // a list and a mask for each layer,
  // of the item graph too; users and items of H; rows of Q from both graphs
  if (o.item_layers) lists += 4 * N + 8 * I + (o.item_layers + 1) * 5 * I;
  int64_t step = (2 * B * (3 + s.n_neg)) * d;
  if (o.projects) step += 2 * M * item_slots * d;
  if (o.diffusion) {
    const int64_t estimated = o.fuses_all ? I : item_slots, encoding = o.unet ? kUnetTimeIn : d;
    step += estimated * (d * 5 + 1) + Denoiser::saved_floats(s, d, estimated, int(M)) + s.timesteps * (encoding + 5);
    if (o.fuses_all) step += I + 1 + item_slots + 1 + M * I * d;  // places, and the gradient of all mapped features
  }
  if (o.constant_rows) step += B * d;
  if (o.modality_terms) step += (1 + M) * item_slots * d;
  const int64_t C = o.searches            ? Cns::candidates_of(s, I)
                    : o.chooses && o.hard ? I
                                          : 0,
                node_ids = B * (2 + s.n_neg) + std::max(B, C);
  // ids, and slots in groups
  step += 4 * node_ids + 3 * B * (3 + s.n_neg) + (o.projects ? 3 : 0) * item_slots + item_slots + 2 * B + C;
  // of a mixture: chosen items and coefficients; d, h and groups of its places
  const int64_t tables = o.mixes && o.hard ? L + 1 : 0;
  if (tables) step += 2 * tables * B + (2 * tables + 1) * B * d + 4 * 2 * B;
  if (o.popular) step += 4 * occurring_items(data);  // the alias table
  int64_t items = o.item_layers;
  if (o.projects) items += M;
  if (o.diffusion) items += o.pools + (o.fuses ? 0 : 1);
  if (o.learned_graph) items += o.start_room ? 1 : 2;  // Z at length 1, and the gradient of Z where Ego_0 has no room
  // gradients of the layers, and H's beside them
  if (tables) propagated += o.propagates ? (L > 0 ? 1 : 0) + tables : 1;
  if (tables && o.item_layers) items += 1;
  line("user and item tables with gradient and optimiser state", 4 * N * d + 2 * N + starts * (4 * d + 2));
  line("propagated tables", propagated * N * d);
  if (dense) line("dense parameters with gradient and optimiser state", 4 * dense);
  if (features)
    line(s.train_features ? "features with optimiser state" : "features",
         features * (s.train_features ? 3 : 1) + (s.train_features ? 2 * M * I : 0));
  line("item tables (projections, pools, item graph output)", items * I * d);
  line("graphs", (graphs + lists + 3) / 4);
  line("one step", step);
  if (o.bands && o.hard) {  // the table; lists with scores and users, ranks of the band
    const Band band(s, U, I);
    int64_t floats = U * band.candidates + band.at_once * (2 * band.end + 1) + band.width() + band.candidates;
    const int64_t occurring = occurring_items(data);
    if (occurring < I) floats += occurring * d + 2 * (U + 1) + E;  // those alone are ranked
    line("candidates of every user, and rankings to take them from", floats);
  }
}

// Arrays of a model that plans for itself.
void own_lines(const System& system, const Ops& ops, const Sizes& z, const Settings& s, const Dataset& data,
               const std::function<void(const char*, int64_t)>& line) {
  ScratchPlan counted_elsewhere;
  const Planner p = planned(system, counted_elsewhere, ops, z, s, data);
  line("propagated tables", p.propagated);
  if (p.dense) line("dense parameters with gradient and optimiser state", 4 * p.dense);
  if (p.features) line("features", p.features);
  if (p.items) line("item tables", p.items);
  line("graphs", (p.graphs + Planner::csr(z.U, z.E) + 3) / 4);
  line("one step", p.step);
}

}  // namespace

size_t MemoryPlan::total() const {
  size_t sum = 0;
  for (const PlanLine& l : lines) sum += l.bytes;
  return sum;
}

int64_t Trainer::own_parameters(const Settings& s, const Dataset& data) {
  const System& system = *find_system(s.model);
  if (!system.plan) return 0;
  const Sizes z(s, data);
  ScratchPlan counted_elsewhere;
  return planned(system, counted_elsewhere, z.on_gpu ? *gpu_ops() : cpu_ops(), z, s, data).dense;
}

ScratchPlan Trainer::scratch(const Settings& s, const Dataset& data) {
  const Sizes z(s, data);
  return scratch_plan(z.on_gpu ? *gpu_ops() : cpu_ops(), z, s, data);
}

MemoryPlan Trainer::plan(const Settings& s, const Dataset& data) {
  check_settings(s, data);
  const Sizes z(s, data);
  const Outline& o = z.o;
  const int64_t U = z.U, I = z.I, E = z.E, B = z.B;
  const Ops& ops = z.on_gpu ? *gpu_ops() : cpu_ops();
  MemoryPlan p;
  const auto line = [&](const char* what, int64_t floats) {
    p.lines.push_back({what, size_t(std::max<int64_t>(0, floats)) * 4});
  };
  if (const System& system = *find_system(s.model); system.plan)
    own_lines(system, ops, z, s, data, line);
  else
    outline_lines(z, s, data, line);
  const int64_t updates = Stepping(s).updates((E + B - 1) / B);
  p.lines.push_back(
      {"order, samples, optimiser coefficients", size_t(E * 12 + I * 4) + size_t(s.epochs) * size_t(updates) * 8});
  if (z.measured)
    line("measured negatives", z.measured * (2 + std::max<int64_t>(1, o.mixes && o.hard ? o.layers + 1 : 0) + 3) +
                                   std::min(z.measured, B) * (2 + s.n_neg));
  // Users; lists and scores of a batch of them; on the CPU also the lists that the metrics are computed from, and a
  // test user's metrics.
  size_t ranking = size_t(z.evaluated) * 4 + size_t(z.ranked * z.k) * 8;
  if (!z.on_gpu)
    ranking +=
        size_t(z.ranked * z.k) * 4 + size_t(z.evaluated) * kMetricStems * 8 * cutoffs(s.topk, s.valid_metric).size();
  p.lines.push_back({"evaluation", ranking});
  // The item graph is built before the other parts are taken, one modality at a time, from a copy of its features where
  // they cannot be read in place.
  size_t building = 0;
  if (o.item_layers)
    for (const Feature& f : data.features)
      building = std::max(
          building, size_t(I * s.knn_k) * 4 * (o.learned_graph ? 2 : 1) +
                        (!f.matrix.floats() || z.on_gpu || o.learned_graph ? size_t(I * f.matrix.cols()) * 4 : 0));
  if (building) building += size_t(Planner::csr(U, E) + 8 * E + 4 * I);  // the training rows are there already
  if (building > p.total()) p.lines.push_back({"more while the item graph is built", building - p.total()});
  // The lists of the best model are looked at when all else is given back: representations as read and on the device,
  // masked items likewise.
  if (!z.on_gpu) {
    const auto ending = size_t(8 * z.N * z.d + 2 * Planner::csr(U, E) +
                               list_figure_bytes(I, z.evaluated, z.ranked, z.M, int64_t(s.topk.size()))) +
                        ranking;
    if (ending > p.total()) p.lines.push_back({"more for the figures of the lists, at the end", ending - p.total()});
  }
  p.lines.push_back({"scratch", scratch_plan(ops, z, s, data).bytes()});
  if (ops.library_bytes) p.lines.push_back({"libraries", ops.library_bytes});
  return p;
}

}  // namespace ccdrec
