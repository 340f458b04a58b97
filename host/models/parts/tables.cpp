#include "host/models/parts/tables.h"

#include <cmath>

namespace ccdrec {

Tables::Tables(const Setup& z, Start start, Init init)
    : dev_(z.dev),
      start_is_(start),
      U_(z.users()),
      I_(z.items()),
      first_item_(start == Start::q ? U_ : U_ + I_),
      rows_(z.dev, first_item_ + I_, z.width(), true),
      g_ego_(z.dev, U_ + I_, z.width()),
      users_(z.dev, U_),
      items_(z.dev, I_) {
  if (start != Start::q) g_q_ = Matrix(z.dev, I_, z.width());
  // Initialisers (spec baselines 1.2): r is the number of rows of the table.
  const auto fill = [&](Mat t, uint32_t which) {
    const Stream stream{z.s.seed, Use::init, 0, which};
    const double r_and_d = double(t.rows + t.cols);
    if (init == Init::xavier_normal)
      dev_.ops.init_normal(dev_.ctx, t, float(std::sqrt(2.0 / r_and_d)), stream);
    else
      dev_.ops.init_uniform(dev_.ctx, t, float(std::sqrt(6.0 / r_and_d)), stream);
  };
  fill(users_table().value, 0);
  fill(items_table().value, 1);
}

void Tables::touch(RowList nodes) { dev_.ops.split_rows(dev_.ctx, users(), items(), nodes, U_); }

Mat Tables::copy_to_start(CMat from, RowList items) const {
  if (!has_room()) return {};
  dev_.ops.copy_rows(dev_.ctx, start(), from, items);
  return start();
}

void Tables::catch_up(RowList q, const Step& step) {
  dev_.ops.adam_catch_up(dev_.ctx, users_table(), users(), step.adam, step.t);
  dev_.ops.adam_catch_up(dev_.ctx, items_table(), q, step.adam, step.t);
}

void Tables::update(RowList q, const Step& step) {
  dev_.ops.adam_rows(dev_.ctx, users_table(), users(), g_ego_.mat().slice(0, U_), true, step.adam, step.t + 1);
  dev_.ops.adam_rows(dev_.ctx, items_table(), q, g_q(), true, step.adam, step.t + 1);
}

void Tables::flush(const AdamSchedule& adam, int64_t t) {
  dev_.ops.adam_flush(dev_.ctx, users_table(), adam, t);
  dev_.ops.adam_flush(dev_.ctx, items_table(), adam, t);
}

void Tables::parameters(Windows& all) {
  all.push_back(window("user_embedding.weight", rows_, 0, U_));
  all.push_back(window("item_id_embedding.weight", rows_, first_item_, I_));
}

void Tables::show(Watch& w) const {
  const int64_t d = g_ego_.cols();
  w.floats("grad.user_embedding.weight", {U_, d}, g_ego_.mat().slice(0, U_));
  w.floats("grad.item_id_embedding.weight", {I_, d}, g_q());
}

}  // namespace ccdrec
