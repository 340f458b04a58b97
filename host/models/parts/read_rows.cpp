#include "host/models/parts/read_rows.h"

namespace ccdrec {

ReadRows::ReadRows(const Setup& z)
    : dev_(z.dev), U_(z.users()), users_(z.dev, U_), items_(z.dev, z.items()), merged_(z.dev, 2 * z.items()) {}

RowList ReadRows::touch(RowList nodes, const Tables& tables, ItemGraph& item_graph) {
  dev_.ops.split_rows(dev_.ctx, users_.list(), items_.list(), nodes, U_);
  if (tables.copies_q()) {  // Hhat is read for the batch's items, and Q by the fusion, all of it
    item_graph.touch(items_.list());
    return {nullptr, nullptr, tables.q().rows};
  }
  if (tables.has_room()) {  // Hhat is read wherever the propagation starts, and Q by Hhat alone
    item_graph.touch(tables.items());
    return item_graph.starts();
  }
  item_graph.touch(items_.list());  // Hhat is read for the batch's items, and Q by both
  dev_.ops.merge_rows(dev_.ctx, merged_.list(), item_graph.starts(), tables.items());
  return merged_.list();
}

}  // namespace ccdrec
