// The whole training step in double precision, written straight from the specification (ccdrec 2, 3, 6; baselines 3, 4,
// 9; negative_sampling 2, 6.1) with dense matrices and no tricks: the judge of the models. Gradients come from central
// differences of this loss.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <vector>

#include "host/systems/registry.h"
#include "kernels/diffusion.h"
#include "tests/host/looked_into.h"

namespace ccdrec::test {

struct Dense {
  int64_t rows = 0, cols = 0;
  std::vector<double> v;
  Dense() = default;
  Dense(int64_t r, int64_t c) : rows(r), cols(c), v(size_t(r * c)) {}
  double& operator()(int64_t r, int64_t c) { return v[size_t(r * cols + c)]; }
  double operator()(int64_t r, int64_t c) const { return v[size_t(r * cols + c)]; }
};
inline Dense times(const Dense& a, const Dense& b) {
  Dense c(a.rows, b.cols);
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t k = 0; k < a.cols; ++k)
      for (int64_t j = 0; j < b.cols; ++j) c(i, j) += a(i, k) * b(k, j);
  return c;
}

struct RefBatch {
  std::vector<int32_t> u, p, r, c;  // r: n_neg blocks of B; c: hard negatives, curricular or a sampler's, empty = none
  std::vector<int32_t> mixed;       // MixGCF: L+1 blocks of B, the items chosen at every layer; empty = no mixtures
  std::vector<double> alpha;        // likewise, the positive's weights in them
  std::vector<int32_t> t;           // zero-based step of each distinct item, ascending by item
  std::vector<double> eps;          // (distinct,d)
  Dense frozen;                     // (B,d): constants in the place of h_c, when not empty
};

// LATTICE's item graph (spec baselines 8.2) on lists of neighbours that are given: dense, of every item.
struct RefLatent {
  std::vector<Dense> kept, frozen;  // (I,I) each: 1 where a learned list has the entry; O_m
  Dense theta;                      // (1,M)
  Dense constant;                   // S of a later batch, when not empty

  Dense weights() const {
    Dense w = theta;
    double sum = 0;
    for (double& x : w.v) sum += x = std::exp(x);
    for (double& x : w.v) x /= sum;
    return w;
  }
  // projected: (I,d) each, the mapped features
  Dense graph(const std::vector<Dense>& projected, double lambda) const {
    if (constant.rows > 0) return constant;
    const Dense w = weights();
    const int64_t I = kept[0].rows;
    Dense C(I, I), S(I, I);
    for (size_t m = 0; m < kept.size(); ++m) {
      const Dense& y = projected[m];
      const auto dot = [&](int64_t i, int64_t j) {
        double sum = 0;
        for (int64_t k = 0; k < y.cols; ++k) sum += y(i, k) * y(j, k);
        return sum;
      };
      for (int64_t i = 0; i < I; ++i)
        for (int64_t j = 0; j < I; ++j) {
          if (kept[m](i, j) != 0) C(i, j) += w.v[m] * dot(i, j) / std::sqrt(dot(i, i) * dot(j, j));
          S(i, j) += lambda * w.v[m] * frozen[m](i, j);
        }
    }
    std::vector<double> s(static_cast<size_t>(I));
    for (int64_t i = 0; i < I; ++i) {
      double c = 0;
      for (int64_t j = 0; j < I; ++j) c += C(i, j);
      s[size_t(i)] = c > 0 ? 1 / std::sqrt(c) : 0;
    }
    for (int64_t i = 0; i < I; ++i)
      for (int64_t j = 0; j < I; ++j) S(i, j) += (1 - lambda) * s[size_t(i)] * C(i, j) * s[size_t(j)];
    return S;
  }
};

struct RefModel {
  int64_t U = 0, I = 0, d = 0;
  int n_neg = 1;
  Outline outline;
  Settings s;
  Dense A, S;  // (N,N), (I,I)
  Dense P, Q, Wq, Wk, Wv;
  std::vector<Dense> X, W, b;
  RefLatent latent;        // LATTICE's
  std::vector<Dense> enc;  // the encoder's tensors in order, 16 a layer; empty: attention
  HostSchedule schedule;

  // The objective (spec baselines 3, 4, 9.4; ccdrec 6): a model of its own without an item graph has the ranking loss
  // with 1e-10 and a norm regulariser, one with an item graph the modality terms; CCDRec's has neither 1e-10 nor norms.
  bool eps_form() const { return !outline.start_room && outline.item_layers == 0; }
  double norm_reg() const { return eps_form() ? s.reg_weight : 0; }
  // LATTICE has the squares of the batch's representations (8.3).
  double modality_reg() const { return outline.item_layers > 0 && !outline.learned_graph ? s.reg_weight : 0; }
  double square_reg() const { return outline.learned_graph ? s.reg_weight : 0; }

  std::vector<Dense> projections() const {  // (I,d) each
    std::vector<Dense> all;
    for (size_t m = 0; m < X.size() && outline.projects; ++m) {
      Dense h = times(X[m], W[m]);
      for (int64_t i = 0; i < I; ++i)
        for (int64_t j = 0; j < d; ++j) h(i, j) += b[m](0, j);
      all.push_back(h);
    }
    return all;
  }
  Dense item_start() const {  // Hhat = S^{L_ii} Q
    const Dense graph = outline.learned_graph ? latent.graph(projections(), s.lambda_coeff) : S;
    Dense hhat = Q;
    for (int l = 0; l < outline.item_layers; ++l) hhat = times(graph, hhat);
    return hhat;
  }
  // What the propagation starts from where nothing is fused: CCDRec Hhat; MCDRec (spec mcdrec 4.1) and the others Q.
  const Dense& mixed_with(const Dense& hhat) const { return outline.start_room && !outline.fuses_all ? hhat : Q; }
  Dense item_part(const Dense& hhat) const {  // what is added to the items: with LATTICE rows of length 1
    Dense part = hhat;
    for (int64_t i = 0; i < I && outline.learned_graph; ++i) {
      double norm = 0;
      for (int64_t j = 0; j < d; ++j) norm += part(i, j) * part(i, j);
      for (int64_t j = 0; j < d; ++j) part(i, j) /= std::max(std::sqrt(norm), 1e-12);
    }
    return part;
  }
  // H (U+I,d): the mean of v^(0) .. v^(L), the layers [P; start], A [P; start], .. with Hhat added to the items where
  // the backbone does so (spec negative_sampling 2.3).
  std::vector<Dense> layers(const Dense& graph, const Dense& start, const Dense& hhat) const {
    Dense ego(U + I, d);
    std::copy(P.v.begin(), P.v.end(), ego.v.begin());
    std::copy(start.v.begin(), start.v.end(), ego.v.begin() + U * d);
    std::vector<Dense> v = {ego};
    for (int l = 0; l < outline.layers; ++l) v.push_back(times(graph, v.back()));
    const Dense part = item_part(hhat);
    if (outline.item_layers > 0)
      for (Dense& layer : v)
        for (int64_t i = 0; i < I; ++i)
          for (int64_t j = 0; j < d; ++j) layer(U + i, j) += part(i, j);
    return v;
  }
  Dense mean(const std::vector<Dense>& v) const {
    Dense h(U + I, d);
    for (const Dense& layer : v)
      for (size_t k = 0; k < h.v.size(); ++k) h.v[k] += layer.v[k] / double(v.size());
    return h;
  }
  Dense propagated(const Dense& graph, const Dense& start, const Dense& hhat) const {
    return mean(layers(graph, start, hhat));
  }
  // What evaluation ranks with: the whole graph, and ehat_0 of every item fused in (spec ccdrec 3.4, 6). e0_hat null:
  // not fused.
  Dense evaluated(const Dense& whole_graph, const Dense* e0_hat) const {
    const Dense hhat = item_start();
    Dense start = mixed_with(hhat);
    if (e0_hat)
      for (double& x : start.v) x = (1 - s.mu) * x + s.mu * e0_hat->v[size_t(&x - start.v.data())];
    return propagated(whole_graph, start, hhat);
  }

  struct Forward {
    Dense h;                  // (U+I,d)
    std::vector<Dense> v;     // (U+I,d) each: v^(0) .. v^(L)
    std::vector<Dense> proj;  // (I,d) each
    double align = 0;         // L_dm, weighted
  };
  Forward forward(const RefBatch& batch) const {
    Forward f;
    std::vector<int32_t> D(batch.p);
    D.insert(D.end(), batch.r.begin(), batch.r.end());
    if (outline.fuses_all) D.resize(size_t(I)), std::iota(D.begin(), D.end(), 0);  // each once
    const double terms = double(D.size());
    std::map<int32_t, int> m_i;
    for (const int32_t i : D) ++m_i[i];
    D.clear();
    for (const auto& [i, n] : m_i) D.push_back(i);

    const Dense hhat = item_start(), base = mixed_with(hhat);
    Dense start = base;
    f.proj = projections();
    if (outline.diffusion) {
      double dm = 0;
      for (size_t n = 0; n < D.size(); ++n) {
        const int64_t i = D[n];
        const std::vector<double> e0 = estimate(batch, int64_t(n), i, f.proj);
        for (int64_t j = 0; j < d; ++j) {
          const double diff = Q(i, j) - e0[size_t(j)];
          dm += m_i[int32_t(i)] * diff * diff;
          if (outline.fuses) start(i, j) = (1 - s.mu) * base(i, j) + s.mu * e0[size_t(j)];
        }
      }
      f.align = s.lambda * dm / (terms * double(d));
    }
    f.v = layers(A, start, hhat);
    f.h = mean(f.v);
    return f;
  }

  // e_m^(l) = alpha_l v_p^(l) + (1 - alpha_l) v_m^(l) of row x of the batch (spec negative_sampling 6.1).
  std::vector<double> mixed_at(const Dense& v_l, int32_t p, int32_t m, double alpha) const {
    std::vector<double> e(static_cast<size_t>(d));
    for (int64_t j = 0; j < d; ++j) e[size_t(j)] = alpha * v_l(U + p, j) + (1 - alpha) * v_l(U + m, j);
    return e;
  }

  double loss(const RefBatch& batch) const {
    const auto B = int64_t(batch.u.size());
    const int M = int(X.size());
    const auto [h, v, proj, align] = forward(batch);
    double total = align;
    const auto f = [&](double x) {
      return eps_form() ? -std::log(1e-10 + 1 / (1 + std::exp(-x))) : std::log1p(std::exp(-x));
    };
    const auto dot = [&](const Dense& a, int64_t r, const Dense& c, int64_t q) {
      double sum = 0;
      for (int64_t j = 0; j < d; ++j) sum += a(r, j) * c(q, j);
      return sum;
    };
    const bool item = !batch.c.empty(), mixture = !batch.mixed.empty();
    const double w = (item || mixture ? 1 - s.omega : 1.0) / double(B * n_neg);
    for (int64_t x = 0; x < B; ++x) {
      const int64_t u = batch.u[size_t(x)], p = U + batch.p[size_t(x)];
      const double up = dot(h, u, h, p);
      for (int k = 0; k < n_neg; ++k) {
        const int64_t r = batch.r[size_t(k * B + x)];
        total += w * f(up - dot(h, u, h, U + r));
        if (modality_reg() > 0)
          for (int m = 0; m < M; ++m) {
            const double y = dot(h, u, proj[size_t(m)], p - U) - dot(h, u, proj[size_t(m)], r);
            total += modality_reg() / double(B * n_neg) * std::log1p(std::exp(-y));
          }
      }
      if (item) {
        const double uc = batch.frozen.rows ? dot(h, u, batch.frozen, x) : dot(h, u, h, U + batch.c[size_t(x)]);
        total += s.omega / double(B) * f(up - uc);
      }
      if (mixture) {  // the published loss, which knows no 1e-10
        Dense h_n(1, d);
        for (size_t l = 0; l < v.size(); ++l) {
          const size_t at = l * size_t(B) + size_t(x);
          const std::vector<double> e = mixed_at(v[l], batch.p[size_t(x)], batch.mixed[at], batch.alpha[at]);
          for (int64_t j = 0; j < d; ++j) h_n(0, j) += e[size_t(j)] / double(v.size());
        }
        total += s.omega / double(B) * std::log1p(std::exp(dot(h, u, h_n, 0) - up));
      }
    }
    const auto squares = [&](const std::vector<int32_t>& ids, int64_t first_row) {
      double sum = 0;
      for (const int32_t id : ids) sum += dot(h, first_row + id, h, first_row + id);
      return sum;
    };
    total += square_reg() / 2 / double(s.train_batch_size) *
             (squares(batch.u, 0) + squares(batch.p, U) + squares(batch.r, U) / double(n_neg));
    if (norm_reg() > 0) {
      const auto norm = [&](const Dense& t, const std::vector<int32_t>& ids, size_t first) {
        double sum = 0;
        for (size_t k = first; k < first + size_t(B); ++k)
          for (int64_t j = 0; j < d; ++j) sum += t(ids[k], j) * t(ids[k], j);
        return std::sqrt(sum);
      };
      total += norm_reg() / double(B) * (norm(P, batch.u, 0) + norm(Q, batch.p, 0));
      for (int k = 0; k < n_neg; ++k) total += norm_reg() / double(B * n_neg) * norm(Q, batch.r, size_t(k) * size_t(B));
    }
    return total;
  }

  std::vector<double> encode(Dense z) const;
  // e0_hat of item i, the n-th distinct one of the batch.
  std::vector<double> estimate(const RefBatch& batch, int64_t n, int64_t i, const std::vector<Dense>& proj) const {
    const int K = int(proj.size()) + 2;
    const int64_t t = batch.t[size_t(n)], half = d / 2;
    Dense token(K, d);
    for (int64_t j = 0; j < d; ++j) {
      const double abar = schedule.abar[size_t(t)];
      token(0, j) = std::sqrt(abar) * Q(i, j) + std::sqrt(1 - abar) * batch.eps[size_t(n * d + j)];
      for (size_t m = 0; m < proj.size(); ++m) token(int64_t(m) + 1, j) = proj[m](i, j);
      const int64_t k = j % half;
      const double w = std::exp(-double(k) * std::log(10000.0) / double(half - 1)) * double(t);
      token(K - 1, j) = j < half ? std::sin(w) : std::cos(w);
    }
    if (!enc.empty()) return encode(token);
    for (int r = 0; r < K; ++r) {
      double mean = 0, var = 0;
      for (int64_t j = 0; j < d; ++j) mean += token(r, j) / double(d);
      for (int64_t j = 0; j < d; ++j) var += (token(r, j) - mean) * (token(r, j) - mean) / double(d);
      for (int64_t j = 0; j < d; ++j) token(r, j) = (token(r, j) - mean) / std::sqrt(var + 1e-5);
    }
    const Dense q = times(token, Wq), k = times(token, Wk), v = times(token, Wv);
    std::vector<double> out(static_cast<size_t>(d));
    for (int r = 0; r < K; ++r) {
      std::vector<double> a(static_cast<size_t>(K));
      double sum = 0;
      for (int c = 0; c < K; ++c) {
        double x = 0;
        for (int64_t j = 0; j < d; ++j) x += q(r, j) * k(c, j);
        sum += a[size_t(c)] = std::exp(x / std::sqrt(double(d)));
      }
      for (int c = 0; c < K; ++c)
        for (int64_t j = 0; j < d; ++j) out[size_t(j)] += a[size_t(c)] / sum * v(c, j) / double(K);
    }
    return out;
  }
};

// The full pre-norm encoder (spec 3.3, the option), its mean over tokens.
inline std::vector<double> RefModel::encode(Dense z) const {
  const int64_t K = z.rows, H = s.estimator_heads, e = d / H;
  const auto norm = [&](const Dense& x, const Dense& scale, const Dense& shift) {
    Dense y = x;
    for (int64_t r = 0; r < K; ++r) {
      double mean = 0, var = 0;
      for (int64_t j = 0; j < d; ++j) mean += x(r, j) / double(d);
      for (int64_t j = 0; j < d; ++j) var += (x(r, j) - mean) * (x(r, j) - mean) / double(d);
      for (int64_t j = 0; j < d; ++j) y(r, j) = (x(r, j) - mean) / std::sqrt(var + 1e-5) * scale(0, j) + shift(0, j);
    }
    return y;
  };
  const auto linear = [](const Dense& x, const Dense& w, const Dense& bias) {
    Dense y = times(x, w);
    for (int64_t r = 0; r < y.rows; ++r)
      for (int64_t j = 0; j < y.cols; ++j) y(r, j) += bias(0, j);
    return y;
  };
  for (size_t at = 0; at < enc.size(); at += 16) {
    const Dense* p = &enc[at];
    const Dense n1 = norm(z, p[0], p[1]), q = linear(n1, p[2], p[3]), k = linear(n1, p[4], p[5]),
                v = linear(n1, p[6], p[7]);
    Dense o(K, d);
    for (int64_t h = 0; h < H; ++h)
      for (int64_t r = 0; r < K; ++r) {
        std::vector<double> a(static_cast<size_t>(K));
        double sum = 0;
        for (int64_t c = 0; c < K; ++c) {
          double x = 0;
          for (int64_t j = h * e; j < (h + 1) * e; ++j) x += q(r, j) * k(c, j);
          sum += a[size_t(c)] = std::exp(x / std::sqrt(double(e)));
        }
        for (int64_t c = 0; c < K; ++c)
          for (int64_t j = h * e; j < (h + 1) * e; ++j) o(r, j) += a[size_t(c)] / sum * v(c, j);
      }
    const Dense attended = linear(o, p[8], p[9]);
    for (size_t x = 0; x < z.v.size(); ++x) z.v[x] += attended.v[x];
    Dense u = linear(norm(z, p[10], p[11]), p[12], p[13]);
    for (double& x : u.v) x = 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    const Dense fed = linear(u, p[14], p[15]);
    for (size_t x = 0; x < z.v.size(); ++x) z.v[x] += fed.v[x];
  }
  std::vector<double> out(static_cast<size_t>(d));
  for (int64_t r = 0; r < K; ++r)
    for (int64_t j = 0; j < d; ++j) out[size_t(j)] += z(r, j) / double(K);
  return out;
}

inline Dense dense_of(const std::vector<float>& host, int64_t rows, int64_t cols) {
  Dense m(rows, cols);
  EXPECT_EQ(host.size(), m.v.size());
  std::copy(host.begin(), host.end(), m.v.begin());
  return m;
}
inline Dense dense_of(const Csr& a) {  // CPU device
  Dense m(a.rows, a.cols);
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t e = a.row_ptr[r]; e < a.row_ptr[r + 1]; ++e) m(r, a.col[e]) = a.val[e];
  return m;
}

// A reference with the model's own parameters and graphs.
inline RefModel reference_of(ccdrec::Device& dev, Recommender& model, const Settings& s) {
  RefModel ref;
  ref.U = model.users(), ref.I = model.items(), ref.d = s.embedding_size, ref.n_neg = s.n_neg, ref.s = s,
  ref.outline = outline_of(s);
  Watch shown(dev);
  model.model().graphs(shown);
  for (const ShownGraph& g : shown.graphs) (g.name == "graph.user_item" ? ref.A : ref.S) = dense_of(g.graph.view());
  if (ref.outline.learned_graph)
    for (const std::string& m : model.model().modalities()) {
      const auto lists = [&](const std::string& of, bool values) {
        const std::vector<int32_t>& idx = shown.ids("graph." + of + "." + m + ".index");
        Dense all(ref.I, ref.I);
        for (size_t e = 0; e < idx.size(); ++e)
          all(int64_t(e) / s.knn_k, idx[e]) =
              values ? double(shown.find("graph." + of + "." + m + ".value")->floats[e]) : 1;
        return all;
      };
      ref.latent.kept.push_back(lists("learned", false)), ref.latent.frozen.push_back(lists("frozen", true));
    }
  const auto param = [&](const std::string& name) {
    const Window w = window_of(model, name);
    return dense_of(values_of(w), w.rows, w.cols);
  };
  ref.P = param("user_embedding.weight");
  ref.Q = param("item_id_embedding.weight");
  if (ref.outline.learned_graph) ref.latent.theta = param("modal_weight");
  for (const std::string& m : model.model().modalities()) {
    ref.X.push_back(param(m + "_embedding.weight"));
    ref.W.push_back(param(m + "_trs.weight"));
    ref.b.push_back(param(m + "_trs.bias"));
  }
  if (ref.outline.diffusion) {
    ref.schedule = make_schedule(s.noise_schedule, s.timesteps, s.noise_prediction_form);
    if (s.estimator == "transformer") {
      for (const Window& w : windows_of(model))
        if (w.name.starts_with("estimator.")) ref.enc.push_back(dense_of(values_of(w), w.rows, w.cols));
    } else {
      ref.Wq = param("estimator.w_q.weight"), ref.Wk = param("estimator.w_k.weight"),
      ref.Wv = param("estimator.w_v.weight");
    }
  }
  return ref;
}

// d loss / d every element of `at` by central differences.
inline Dense gradient(RefModel& ref, Dense& at, const RefBatch& batch, double step = 1e-5) {
  Dense g(at.rows, at.cols);
  for (size_t k = 0; k < at.v.size(); ++k) {
    const double x = at.v[k];
    at.v[k] = x + step;
    const double up = ref.loss(batch);
    at.v[k] = x - step;
    const double down = ref.loss(batch);
    at.v[k] = x;
    g.v[k] = (up - down) / (2 * step);
  }
  return g;
}

}  // namespace ccdrec::test
