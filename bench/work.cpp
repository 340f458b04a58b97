#include "bench/work.h"

#include <algorithm>
#include <vector>

#include "data/graph.h"
#include "host/samplers/realhns.h"
#include "host/systems/registry.h"
#include "kernels/rng.h"
#include "kernels/unet.h"

namespace ccdrec::bench {
namespace {

// Means over random batches: distinct users and items, and for the propagation the rows of each layer and the edges
// that lead into them.
struct BatchCounts {
  double users = 0, items = 0;
  std::vector<double> rows, edges;  // rows[0] is the widest layer; edges[l] are those of the rows of layer l, l >= 1
  double items_reached = 0;         // items among rows[0]
};

BatchCounts count_batches(const Settings& s, const Dataset& data, const HostCsr& graph, double kept, int layers) {
  const int64_t U = data.n_users, I = data.n_items, N = U + I;
  const int repeats = 8;
  Stream rng{1u, Use::test};
  uint32_t n = 0;
  BatchCounts out;
  out.rows.assign(size_t(layers) + 1, 0), out.edges.assign(size_t(layers) + 1, 0);
  for (int rep = 0; rep < repeats; ++rep) {
    std::vector<char> in(size_t(N), 0);
    const int64_t B = std::min<int64_t>(s.train_batch_size, int64_t(data.train.size()));
    for (int64_t b = 0; b < B; ++b) {
      const Pair& p = data.train[below(draw(rng, n++).v[0], uint32_t(data.train.size()))];
      in[size_t(p.user)] = in[size_t(U + p.item)] = 1;
      in[size_t(U) + below(draw(rng, n++).v[0], uint32_t(I))] = 1;
    }
    out.users += double(std::count(in.begin(), in.begin() + U, 1)) / repeats;
    out.items += double(std::count(in.begin() + U, in.end(), 1)) / repeats;
    for (int l = layers; l >= 0; --l) {
      out.rows[size_t(l)] += double(std::count(in.begin(), in.end(), 1)) / repeats;
      if (l == 0) break;
      std::vector<char> next = in;  // the layer below: these rows and their neighbours
      for (int64_t r = 0; r < N; ++r) {
        for (int64_t e = graph.row_ptr[size_t(r)]; in[size_t(r)] && e < graph.row_ptr[size_t(r) + 1]; ++e) {
          const int32_t c = graph.col[size_t(e)];
          // A pruned graph keeps a share of the edges; which ones is a coin per edge here, the same from both ends.
          const uint32_t lo = uint32_t(std::min<int64_t>(r, c)), hi = uint32_t(std::max<int64_t>(r, c));
          if (kept < 1 && uniform01(draw(Stream{2u, Use::test, lo}, hi).v[0]) >= kept) continue;
          out.edges[size_t(l)] += 1.0 / repeats;
          next[size_t(c)] = 1;
        }
      }
      in.swap(next);
    }
    out.items_reached += double(std::count(in.begin() + U, in.end(), 1)) / repeats;
  }
  return out;
}

constexpr double kUnetFlop = 2 * 1.04e6;  // of an item, taps that meet padding left out (kernels/unet.h)

// A step of a model of its own kind, all of whose rows move: its products, and its sparse products of whole graphs.
// What goes elementwise over tables is left out. distinct: items of a batch.
struct StepWork {
  Work forward, backward, optimiser;
};
StepWork own_step(const Outline& o, const Settings& s, const Dataset& data, double distinct) {
  const double U = double(data.n_users), I = double(data.n_items), N = U + I, E = double(data.train.size()),
               d = s.embedding_size, B = s.train_batch_size, M = double(data.features.size());
  StepWork w;
  double parameters = o.frozen_tables ? 0 : N * d;
  const auto product = [](double m, double k, double n) { return Work{2 * m * k * n, 4 * (m * k + k * n + m * n)}; };
  const auto dense = [&](double m, double k, double n, bool input_too) {  // Y = X W, dW, and where wanted dX
    parameters += k * n;
    w.forward += product(m, k, n), w.backward += product(m, k, n);
    if (input_too) w.backward += product(m, k, n);
  };
  const auto propagation = [&](double towers, double width) {
    const Work layer{2 * 2 * E * width, 8 * 2 * E + 2 * N * 4 * width};
    for (int l = 0; l < int(towers); ++l) w.forward += layer, w.backward += layer;
  };
  if (o.frozen_tables) {  // MMGCN: three layers a branch; C by the smaller side (models/parts/messages.h)
    for (const Feature& f : data.features) {
      const double F = double(f.matrix.cols()), c = F > 1024 ? s.mmgcn_latent : F;
      if (c != F) dense(I, F, c, false);
      for (int k = 0; k < 3; ++k) {
        const double in = k == 0 ? c : d;
        dense(std::min(U, I) * 2, in, in, true), dense(N, in, d, true), dense(N, in + d, d, true);
        propagation(1, in);
      }
    }
  } else if (o.views) {  // BM3: maps of the batch's items, with features that are trained; the predictor
    for (const Feature& f : data.features) dense(distinct, double(f.matrix.cols()), d, s.train_features);
    dense((2 + M) * B, d, d, true);
    propagation(o.layers, d);
  } else {  // SLMRec: maps of all items, three propagations, three contrasts
    for (const Feature& f : data.features) dense(I, double(f.matrix.cols()), d, false);
    dense(2 * B, (M + 1) * d, d, true);
    propagation((M + 1) * o.layers, d);
    for (const double k : {d, d, d / 2}) w.forward += {2 * B * B * k, 0}, w.backward += {6 * B * B * k, 0};
  }
  w.optimiser += {8 * parameters, 28 * parameters, parameters};
  if (o.views && s.train_features)  // what the batch does not touch moves later, a root an element all the same
    for (const Feature& f : data.features)
      w.optimiser += {8 * I * double(f.matrix.cols()), 0, I * double(f.matrix.cols())};
  return w;
}

}  // namespace

std::map<std::string, Work> epoch_work(const Settings& s, const Dataset& data) {
  const Outline o = outline_of(s);
  const double kept = 1 - o.prune;
  const int layers = o.layers;
  const HostCsr graph = user_item_graph(pairs_by_user(data.train, data.n_users, data.n_items));
  const BatchCounts n = count_batches(s, data, graph, kept, layers);

  const double U = double(data.n_users), I = double(data.n_items), N = U + I, E = double(data.train.size()),
               d = s.embedding_size, B = s.train_batch_size;
  const double steps = double((int64_t(data.train.size()) + s.train_batch_size - 1) / s.train_batch_size);
  const double M = double(data.features.size()), K = M + 2, row = 4 * d;  // bytes of one embedding row
  double F = 0;
  for (const Feature& f : data.features) F += double(f.matrix.cols());
  const bool projects = o.fuses || o.modality_terms;
  const double mapped = o.fuses_all ? I : n.items;  // items whose features a step maps
  const double C = std::max(1.0, s.candidate_ratio * I);

  Work forward, backward, optimiser, sample, prune, reverse, evaluation;
  if (!o.ranks) {
    const StepWork w = own_step(o, s, data, n.items);
    forward = w.forward, backward = w.backward, optimiser = w.optimiser;
  }
  double candidates = 0;  // of a user, of RealHNS: the score and the cosine of each
  if (o.ranks) {
    // Ranking loss: two (with curricular negatives three) dot products a row, rows read; gradients twice that, rows
    // written.
    const double pairs = o.hard ? 3 : 2;
    forward += {2 * pairs * B * d, (n.users + n.items) * row};
    backward += {4 * pairs * B * d, (n.users + n.items) * row};
    // Propagation: per layer 2 flop an edge and column; edges (8 bytes), the rows below read, the rows of the layer
    // written. Backward the same.
    for (int l = 1; l <= layers; ++l) {
      const Work w{2 * n.edges[size_t(l)] * d,
                   8 * n.edges[size_t(l)] + (n.rows[size_t(l) - 1] + n.rows[size_t(l)]) * row};
      forward += w, backward += w;
    }
    // Item-item graph: at least knn_k edges a row, with LATTICE two lists for each modality. CCDRec starts the
    // propagation from it, so all items reached need it; the backbones alone only those of the batch.
    if (o.item_layers > 0) {
      const double rows = o.start_room ? n.items_reached : n.items,
                   edges = o.item_layers * s.knn_k * rows * (o.learned_graph ? 2 * M : 1);
      forward += {2 * edges * d, 8 * edges + 2 * rows * row}, backward += {2 * edges * d, 8 * edges + 2 * rows * row};
    }
    // Modality maps of the batch's distinct items: Y = X W; dW = X^T dY, and dX = dY W^T where features are trained.
    // Then X is read for dW, takes its step with the moments (24 bytes an element), and dX need not be stored. The
    // steps that its rows have missed are taken as they are read.
    if (projects) {
      const double product = 2 * mapped * F * d, trained = s.train_features ? 1 : 0;
      forward += {product + 8 * trained * (I - mapped) * F, 4 * (mapped * F + F * d), trained * (I - mapped) * F};
      backward += {product * (1 + trained) + 8 * trained * mapped * F,
                   4 * (mapped * F + F * d) + 20 * trained * mapped * F, trained * mapped * F};
    }
    // Estimator: q and k of every token, v of one combined token an item; backward twice the products. Three saved
    // (items K, d) arrays, written then read.
    if (o.fuses) {
      const double product = mapped * (o.unet ? kUnetFlop : 4 * K * d * d + 2 * d * d),
                   saved = mapped * (o.unet ? 2 * 4 * double(kUnetSaved) : 3 * K * row);
      forward += {product, saved}, backward += {2 * product, saved};
    }
    // Adam: every element moves at every step (8 flop and a root), read and written (28 bytes) only where a gradient
    // arrives. The features' steps were counted above.
    const double touched = o.propagates ? n.rows[0] : n.users + n.items;
    optimiser += {8 * N * d, 28 * touched * d, N * d};
    if (projects) optimiser += {8 * F * d, 28 * F * d, F * d};
    // Curricular negatives: similarity of each positive with each candidate.
    if (o.searches) sample += {2 * B * C * d, (n.items + C) * row};
    // Hard negatives: the score of every candidate in every table, a row gathered for each.
    if (o.bands && o.hard) {
      candidates = double(Band(s, data.n_users, data.n_items).candidates);
      sample += {4 * B * candidates * d, B * candidates * row};
    } else if (o.chooses && o.hard) {
      const double scores = B * s.n_candidates * (o.mixes ? layers + 1 : 1);
      sample += {2 * scores * d, scores * row};
    }
  }
  for (Work* w : {&forward, &backward, &optimiser, &sample}) w->flop *= steps, w->bytes *= steps, w->roots *= steps;

  // A learned graph, once an epoch: maps of all items, their similarities, the lists' dot products, S and S^T; and
  // where the first batch reaches through it, the maps' gradients and the features' step. What the others leave of the
  // features moves at the epoch's end, a root an element and step.
  if (o.learned_graph) {
    const double product = 2 * I * F * d, lists = I * s.knn_k * M, trained = s.train_features ? 1 : 0;
    prune += {product + 2 * M * I * I * d + 2 * lists * d, 4 * (I * F + F * d) + lists * (row + 60)};
    backward += {product * (1 + trained) + 8 * lists * d, 4 * I * F * (1 + 5 * trained) + 4 * lists * row};
    if (!o.fuses)
      optimiser += {8 * steps * (I * F * trained + F * d), 24 * I * F * trained, steps * (I * F * trained + F * d)};
  }
  // Once an epoch. Pruning: a key for each edge, read and written, then the kept ones twice into a CSR.
  if (kept < 1) prune += {0, 16 * E + 2 * kept * E * 8};
  // DGD: a dot product an edge, a row of either table each, and the degrees of all edges and of the kept ones.
  if (o.denoises) prune += {2 * E * d + 2 * N * d, E * (12 + row) + N * row + 12 * E * (1 + kept)};
  // RealHNS: scores of all users and items, a list a user; the clusters are not counted, whose rounds nobody knows
  if (candidates > 0) prune += {2 * U * I * d, (U + I) * row + 12 * U * candidates};
  // modality maps of all items, then T steps of 3 products (1,d)(d,d) an item; noise about 20 flop a value; four
  // snapshots
  if (o.fuses) {
    reverse += {2 * I * F * d + I * s.timesteps * ((o.unet ? kUnetFlop : 6 * d * d) + 20 * d), 4 * I * F + 4 * I * row};
  }
  std::vector<char> evaluated(size_t(data.n_users), 0);
  for (const auto* split : {&data.valid, &data.test}) {
    for (const Pair& p : *split) evaluated[size_t(p.user)] = 1;
  }
  const double users = double(std::count(evaluated.begin(), evaluated.end(), 1));
  evaluation += {2 * users * I * d + layers * 2 * (2 * E) * d, (users + I) * row + layers * (16 * E + 2 * N * row)};
  return {{"prune", prune},         {"sample", sample},   {"forward", forward},      {"backward", backward},
          {"optimiser", optimiser}, {"reverse", reverse}, {"evaluation", evaluation}};
}

double WorkSeconds::largest() const { return std::max({flop, bytes, roots}); }

WorkSeconds seconds_of(const Work& w, const Ceilings& c) {
  return {w.flop / (c.fma_gflops * 1e9), w.bytes / (c.memory_gbs * 1e9), w.roots / (c.root_grate * 1e9)};
}

}  // namespace ccdrec::bench
