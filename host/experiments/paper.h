// The CCDRec paper's tables and figures: which systems stand in them, what is searched for each, and what was
// published.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "host/experiments/grid.h"

namespace ccdrec {

struct PaperLine {  // a system in a table
  std::string label, model;
  std::vector<std::string> sets;       // settings that differ from the model's own, key=value
  std::vector<GridAxis> small, paper;  // what --search tries: at most four points; the published grid
  std::string over;                    // the label of the line it is compared with; empty: none
  std::vector<std::string> released;   // for the set, where that is not the model's own; `--set` and `sets` win over it
};

struct PaperTable {
  std::string name, title;
  std::vector<PaperLine> lines;
  std::vector<std::string> metrics;
  bool searches = true;    // --search has a meaning
  bool gain_rows = false;  // gains over the backbone as rows of their own, as the paper prints them; else as columns
};

const std::vector<std::string>& paper_tables();  // table2 table3 systems figure3 sensitivity cost
// For a data set of that name among published ones ("", baby, sports, clothing): their released settings are the
// lines'.
PaperTable paper_table(const std::string& name, const std::string& set);

// Which of the paper's sets has these counts; "": none.
std::string published_set(const Dataset&);
// A metric of Table 2 or 3 as the paper prints it; NAN: it does not.
double published(const std::string& set, const std::string& label, const std::string& metric);

}  // namespace ccdrec
