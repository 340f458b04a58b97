#include "host/ccdrec/cns.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ccdrec {

const char* pool_name(Pool p) {
  static const char* const names[] = {"random", "3T/4", "T/2", "T/4", "0", "model"};
  return names[int(p)];
}

Pool pool_of_epoch(const Settings& s, int epoch) {
  if (epoch == 0) return Pool::random;
  if (!s.ndi || epoch > s.tau_end) return Pool::model;
  const int first = s.first_stage > 0 ? s.first_stage : s.dtau;
  const int stage = epoch < first ? 0 : std::min(3, 1 + (epoch - first) / s.dtau);
  return Pool(int(Pool::stage0) + stage);
}

int64_t Cns::candidates_of(const Settings& s, int64_t n_items) {
  return std::max<int64_t>(1, int64_t(std::floor(s.candidate_ratio * double(n_items))));
}
int64_t Cns::drawn_from(const Settings& s, int64_t count) {
  return std::max<int64_t>(1, int64_t(std::floor(s.kappa * double(count))));
}

Cns::Cns(const Setup& z, const Ndi* ndi)
    : dev_(z.dev),
      s_(z.s),
      ndi_(ndi),
      train_(z.train.by_user.view()),
      I_(z.items()),
      d_(z.width()),
      count_(candidates_of(z.s, I_)),
      k_(drawn_from(z.s, count_)),
      candidates_(z.dev, count_),
      nan_flag_(z.dev, 1) {}

Pool Cns::pool(int epoch) const { return s_.omega == 0 ? Pool::random : pool_of_epoch(s_, epoch); }

Plan Cns::prepare(int epoch, int64_t step) {
  if (given_) return {given_any_ ? Gives::item : Gives::nothing, true, 0};
  pool_ = pool(epoch), epoch_ = epoch, step_ = step;
  return {pool_ == Pool::random ? Gives::nothing : Gives::item, pool_ != Pool::model, int(pool_)};
}

// One set of candidates for the whole batch. The pools are there: the choice can be made at once.
void Cns::early(const Batch& batch, const Step& step) {
  pass_ = step.now.pass;
  if (pool_ == Pool::random) return;
  const Range range = step.clock.range(RangeId::cns);
  dev_.ops.candidates(dev_.ctx, candidates_.p(), count_, I_, step.now.draws(s_.seed, Use::candidates));
  if (pool_ != Pool::model) choose(ndi_->pool(int(pool_) - int(Pool::stage0)), batch, step);
}

// From this step's own h_i.
void Cns::late(const Batch& batch, const Step& step, const Representations& r) {
  const Range range = step.clock.range(RangeId::cns);
  choose(r.h_i, batch, step);
}

void Cns::choose(CMat pool, const Batch& b, const Step& step) {
  dev_.ops.similar_negative(dev_.ctx, b.hard(), nan_flag_.p(), pool, b.positives(), b.users, b.rows, candidates_.p(),
                            count_, train_, k_, s_.cns_cosine, b.negatives(), step.now.draws(s_.seed, Use::cns_rank));
}

void Cns::give(const Given& given, const Batch& b) {
  given_ = true, given_any_ = given.has("batch.curricular");
  if (given.has("batch.frozen"))
    given.fail("'batch.frozen' is given, but only NDI without CNS with ndi_negative = pool reads it; leave it away");
  if (!given_any_) return;
  const std::vector<int32_t> items = given.indices("batch.curricular", {b.rows}, I_);
  dev_.ops.upload(dev_.ctx, b.hard(), items.data(), items.size() * sizeof items[0]);
}

const HostCsr& Cns::pattern() {
  if (pattern_.rows == 0) pattern_ = downloaded(dev_, train_, false);
  return pattern_;
}

void Cns::draws(const Batch& b, Watch& w) {
  if (given_ ? !given_any_ : pool_ == Pool::random) return;
  w.indices("batch.curricular", {b.rows}, b.hard());
  if (!given_) show_ranks(b, w);
}

// Ranks as kernels/sample.h draws them; -1 where no candidate is admissible and the random negative stands.
void Cns::show_ranks(const Batch& b, Watch& w) {
  const std::vector<int32_t> users = host_copy(dev_, b.users, b.rows),
                             candidates = host_copy(dev_, candidates_.p(), count_);
  const HostCsr& train = pattern();
  std::vector<int32_t> rank;
  for (size_t row = 0; row < users.size(); ++row) {
    const auto first = train.col.begin() + train.row_ptr[size_t(users[row])],
               last = train.col.begin() + train.row_ptr[size_t(users[row]) + 1];
    const auto admissible = std::count_if(candidates.begin(), candidates.end(),
                                          [&](int32_t c) { return !std::binary_search(first, last, c); });
    const Draw4 x =
        draw(Moment{uint32_t(epoch_), uint32_t(step_), 0, pass_}.draws(s_.seed, Use::cns_rank), uint32_t(row));
    rank.push_back(admissible ? int32_t(below(x.v[0], uint32_t(std::min<int64_t>(k_, admissible)))) : -1);
  }
  w.indices("cns.candidates", {count_}, candidates);
  w.indices("cns.rank", {b.rows}, std::move(rank));
}

// How the negatives were found in a pool of NDI.
void Cns::explain(const Batch& b, Watch& w) {
  if (given_ || pool_ == Pool::random || pool_ == Pool::model) return;
  show_ranks(b, w);
  const std::vector<int32_t> users = host_copy(dev_, b.users, b.rows),
                             positives = host_copy(dev_, b.positives(), b.rows);
  const std::vector<int32_t> candidates = w.ids("cns.candidates");
  const std::vector<float> pool = host_copy(dev_, ndi_->pool(int(pool_) - int(Pool::stage0)));
  const HostCsr& train = pattern();
  std::vector<int32_t> excluded(size_t(b.rows * count_));
  std::vector<float> similarity(excluded.size());
  const auto dot = [&](int64_t i, int64_t j) {
    return std::inner_product(&pool[size_t(i * d_)], &pool[size_t(i * d_)] + d_, &pool[size_t(j * d_)], 0.0);
  };
  for (int64_t r = 0; r < b.rows; ++r) {
    const int64_t p = positives[size_t(r)], u = users[size_t(r)];
    const auto first = train.col.begin() + train.row_ptr[size_t(u)],
               last = train.col.begin() + train.row_ptr[size_t(u) + 1];
    for (int64_t k = 0; k < count_; ++k) {
      const int32_t c = candidates[size_t(k)];
      const double norms = s_.cns_cosine ? std::sqrt(dot(p, p) * dot(c, c)) : 1.0;
      similarity[size_t(r * count_ + k)] = norms > 0 ? float(dot(p, c) / norms) : 0.0f;
      excluded[size_t(r * count_ + k)] = std::binary_search(first, last, c);
    }
  }
  w.floats("cns.pool", {I_, d_}, pool);
  w.floats("cns.similarity", {b.rows, count_}, std::move(similarity));
  w.indices("cns.excluded", {b.rows, count_}, std::move(excluded));
}

}  // namespace ccdrec
