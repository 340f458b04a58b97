#include "host/training/hardness.h"

#include <algorithm>
#include <cstring>

namespace ccdrec {
namespace {

// Of Moment: no pass of a step has it. What CNS and NDI draw for a whole batch is the same for each block of rows.
constexpr uint32_t kPass = 255;

uint64_t pair_key(int32_t user, int32_t item) { return uint64_t(uint32_t(user)) << 32 | uint32_t(item); }

}  // namespace

int64_t Hardness::rows(const Settings& s, int64_t train_rows) {
  return std::min<int64_t>(s.negative_stats, train_rows);
}

Hardness::Hardness(Device& dev, const Settings& s, const Dataset& data, const Interactions& train, int lists)
    : dev_(dev),
      seed_(s.seed),
      n_neg_(s.n_neg),
      rows_(lists > 0 ? rows(s, train.rows()) : 0),
      at_once_(std::min<int64_t>(rows_, s.train_batch_size)),
      train_(train),
      lists_(lists),
      picked_(dev, rows_),
      items_(dev, at_once_ * (2 + s.n_neg)),
      found_(dev, rows_ * (1 + lists + 3)),
      loss_(dev, 1) {
  if (rows_ == 0) return;
  for (const auto* split : {&data.valid, &data.test})
    for (const Pair& p : *split) held_out_.insert(pair_key(p.user, p.item));
}

void Hardness::measure(Model& model, int epoch, Clock& clock) {
  if (rows_ == 0) return;
  const Phase phase = clock.phase(RangeId::hardness);
  dev_.ops.candidates(dev_.ctx, picked_.p(), rows_, train_.rows(), Stream{seed_, Use::stats_rows, uint32_t(epoch), 0});
  int32_t *const users = found_.p(), *const chosen = users + rows_;
  float* const ranks = reinterpret_cast<float*>(chosen + lists_ * rows_);
  dev_.ops.take(dev_.ctx, users, train_.user.p(), picked_.p(), 0, rows_);
  CMat h_u, h_i;
  model.represent(h_u, h_i);
  for (int64_t first = 0; first < rows_; first += at_once_) {
    const Batch b{std::min(at_once_, rows_ - first), n_neg_, users + first, items_.p()};
    const Step step{{uint32_t(epoch), 0, first, kPass}, {}, 0, loss_.p(), false, clock, true};
    dev_.ops.take(dev_.ctx, items_.p(), train_.item.p(), picked_.p(), first, b.rows);
    dev_.ops.negatives(dev_.ctx, items_.p() + b.rows, b.users, b.rows, n_neg_, first, train_.by_user.view(),
                       train_.occurring.p(), train_.occurring.n(), step.now.draws(seed_, Use::neg_uniform));
    const Chosen c = model.choose(epoch, b, step);
    dev_.ops.negative_ranks(dev_.ctx, {ranks + 3 * first, b.rows, 3}, h_u, b.users, b.positives(), c.rows, h_i,
                            train_.by_user.view());
    dev_.ops.offset_ids(dev_.ctx, chosen + lists_ * first, c.items, lists_ * b.rows, 0);
  }
}

std::map<std::string, double> Hardness::means() const {
  if (rows_ == 0) return {};
  const std::vector<int32_t> found = found_.host();
  const int32_t *const users = found.data(), *const chosen = users + rows_;
  std::vector<float> ranks(size_t(3 * rows_));
  std::memcpy(ranks.data(), chosen + lists_ * rows_, ranks.size() * sizeof(float));
  double sum[3] = {};
  for (size_t k = 0; k < ranks.size(); ++k) sum[k % 3] += double(ranks[k]);
  int64_t held_out = 0;
  for (int64_t first = 0; first < rows_; first += at_once_) {
    const int64_t n = std::min(at_once_, rows_ - first);
    for (int64_t k = 0; k < lists_ * n; ++k)
      held_out += int64_t(held_out_.count(pair_key(users[first + k % n], chosen[lists_ * first + k])));
  }
  const double n = double(rows_);
  return {{"rows", n},
          {"rank", sum[0] / n},
          {"similarity", sum[1] / n},
          {"score", sum[2] / n},
          {"held_out", double(held_out) / (n * lists_)}};
}

}  // namespace ccdrec
