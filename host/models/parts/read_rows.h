// The rows that a batch reads where an item graph stands beside the user-item graph: of H its users and items, and of Q
// what both graphs start from.
#pragma once
#include "host/models/parts/item_graph.h"
#include "host/models/parts/tables.h"

namespace ccdrec {

class ReadRows {
 public:
  explicit ReadRows(const Setup&);
  // After the tables have been touched by the user-item graph: touches the item graph, and gives the rows of Q.
  RowList touch(RowList nodes, const Tables&, ItemGraph&);
  RowList items() const { return items_.list(); }  // of the nodes whose H is wanted

 private:
  Device& dev_;
  int64_t U_;
  OwnedRows users_, items_;  // of the nodes
  OwnedRows merged_;         // rows of Q from both graphs
};

}  // namespace ccdrec
