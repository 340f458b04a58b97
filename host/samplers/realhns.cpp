#include "host/samplers/realhns.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ccdrec {
namespace {

constexpr int64_t kListed = int64_t(1) << 22;  // entries of the lists that are made together

// ceil((e - e0) / 2) for e > e0: the curriculum's stage, two epochs each
int stage(int epoch, int start) { return (epoch + 1 - start + 1) / 2; }

// A share of the items in per cent, but for the rounding of the product.
int64_t rank_below(double percent, int64_t items) { return int64_t(std::floor(percent * double(items) / 100 + 1e-9)); }
int64_t rank_above(double percent, int64_t items) { return int64_t(std::ceil(percent * double(items) / 100 - 1e-9)); }

}  // namespace

Band::Band(const Settings& s, int64_t users, int64_t items)
    : first(rank_below(s.realhns_p_min, items)),
      end(rank_above(s.realhns_p_max, items)),
      candidates(std::min<int64_t>(s.realhns_candidates, end - first)),
      at_once(std::clamp<int64_t>(kListed / std::max<int64_t>(end, 1), 1, std::max<int64_t>(users, 1))) {}

float RealHns::active_share(int epoch, int start) {
  return epoch + 1 > start ? float(std::min(1.0, stage(epoch, start) / 8.0)) : 0.0f;
}
float RealHns::theta_share(int epoch, int start) {
  return epoch + 1 > start ? float(std::min(1.0, std::pow(1.15, stage(epoch, start)) / 5)) : 0.0f;
}

RealHns::RealHns(const Setup& z, const Outline&)
    : ChoosingSampler(z, Gives::item),
      U_(z.users()),
      band_(z.s, U_, z.items()),
      clusters_(z.s.realhns_clusters),
      start_(z.s.realhns_start),
      top_(std::max<int64_t>(1, int64_t(std::ceil(z.s.realhns_top * double(band_.candidates) - 1e-9)))) {
  if (!gives()) return;
  if (!(active_share(z.s.epochs - 1, start_) > 0))
    z.notes.push_back("RealHNS begins after epoch " + std::to_string(start_) + ", counted from 1, and there are " +
                      std::to_string(z.s.epochs) + ": every negative is uniform");
  table_ = Array<int32_t>(z.dev, U_ * band_.candidates);
  theta_ = Array<float>(z.dev, 1), q_ = Array<float>(z.dev, 1);
  counts_ = Array<int64_t>(z.dev, 2);
  lists_ = Array<int32_t>(z.dev, band_.at_once * band_.end), scores_ = Array<float>(z.dev, lists_.n());
  std::vector<int32_t> all(size_t(band_.at_once));
  std::iota(all.begin(), all.end(), 0);
  users_ = Array<int32_t>(z.dev, all);
  if (n_occurring_ < I_) {
    std::vector<int32_t> position(size_t(I_), 0);
    const std::vector<int32_t> occurring = z.train.occurring.host();
    for (size_t k = 0; k < occurring.size(); ++k) position[size_t(occurring[k])] = int32_t(k);
    HostCsr train = z.graphs.train;
    for (int32_t& item : train.col) item = position[size_t(item)];
    train.cols = n_occurring_;
    train_of_occurring_ = OwnedCsr(z.dev, train);
    occurring_rows_ = Matrix(z.dev, n_occurring_, z.width());
  }
  order_ = Array<int32_t>(z.dev, band_.width()), columns_ = Array<int32_t>(z.dev, band_.candidates);
}

// Epochs before the curriculum begins choose nothing: their steps need no representations of other items.
Plan RealHns::prepare(int epoch, int64_t step) {
  Plan plan = ChoosingSampler::prepare(epoch, step);
  if (!chooses(epoch))
    plan.early = true;
  else
    plan.kind = 1;
  return plan;
}

void RealHns::early(const Batch& b, const Step& step) {
  if (!gives()) return;
  const Range range = step.clock.range(RangeId::uniform);
  dev_.ops.negatives(dev_.ctx, b.hard(), b.users, b.rows, 1, step.now.first, train_, occurring_, n_occurring_,
                     step.now.draws(seed_, Use::filter_uniform));
}

void RealHns::late(const Batch& b, const Step& step, const Representations& r) {
  const Range range = step.clock.range(RangeId::hardest);
  FilterProblem p;
  p.h_u = r.h_u, p.h_i = r.h_i;
  p.users = b.users, p.positives = b.positives(), p.batch = b.rows, p.first_row = step.now.first;
  p.table = table_.p(), p.n_candidates = band_.candidates, p.top = top_;
  p.theta = theta_.p(), p.q = q_.p();
  p.active = step.now.draws(seed_, Use::filter_active), p.rank = step.now.draws(seed_, Use::filter_rank);
  dev_.ops.filtered_negative(dev_.ctx, b.hard(), step.measures ? nullptr : counts_.p(), p);
}

void RealHns::begin_epoch(int epoch) {
  if (!gives()) return;
  const float share = active_share(epoch, start_);
  if (share == active_) return;  // an upload waits for a GPU, and the share changes in eight epochs of a run
  q_.upload(&share, 1);
  active_ = share;
}

void RealHns::rebuild(int epoch, CMat h_u, CMat h_i) {
  const Stream columns{seed_, Use::band_columns, uint32_t(epoch), 0}, centres{seed_, Use::centres, uint32_t(epoch), 0};
  dev_.ops.shuffle(dev_.ctx, order_.p(), order_.n(), columns);
  dev_.ops.offset_ids(dev_.ctx, columns_.p(), order_.p(), columns_.n(), int32_t(band_.first));
  const bool some = bool(occurring_rows_);
  if (some) dev_.ops.gather_rows(dev_.ctx, occurring_rows_, h_i, occurring_, n_occurring_);
  const CMat ranked = some ? CMat(occurring_rows_) : h_i;
  const Csr train = some ? train_of_occurring_.view() : train_;
  for (int64_t first = 0; first < U_; first += band_.at_once) {
    const int64_t n = std::min(band_.at_once, U_ - first);
    const Csr seen{n, ranked.rows, train.row_ptr + first, train.col, nullptr};
    dev_.ops.score_topk(dev_.ctx, lists_.p(), scores_.p(), h_u.slice(first, n), users_.p(), n, ranked, &seen,
                        band_.end);
    dev_.ops.pick_columns(dev_.ctx, table_.p() + first * band_.candidates, lists_.p(), n, band_.end, columns_.p(),
                          band_.candidates, some ? occurring_ : nullptr);
  }
  dev_.ops.cohesion(dev_.ctx, theta_.p(), h_i, clusters_, theta_share(epoch, start_), centres);
  dev_.ops.fill_zero(dev_.ctx, {reinterpret_cast<float*>(counts_.p()), 1, 2 * counts_.n()});
  filled_ = true;
}

void RealHns::kept(std::vector<Kept>& all) {
  if (!gives()) return;
  const auto add = [&](const char* name, const char* dtype, const Extents& shape, const auto& array) {
    all.push_back({std::string("realhns.") + name, dtype, shape, array.p(), size_t(array.n()) * sizeof *array.p(),
                   &filled_, start_});
  };
  add("table", "I32", {U_, band_.candidates}, table_);
  all.back().lowest = -1, all.back().limit = int32_t(I_);
  add("theta", "F32", {1}, theta_);
  add("counts", "I64", {2}, counts_);
}

void RealHns::counts(std::vector<Piece>& all) {
  if (gives()) all.push_back({counted_, counts_.p(), sizeof counted_});
}

void RealHns::figures(std::map<std::string, double>& all) const {
  if (active_ > 0 && counted_[0] > 0) all["fell_back"] = double(counted_[1]) / double(counted_[0]);
}

}  // namespace ccdrec
