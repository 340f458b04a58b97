// ccdrec evaluate: ranking metrics of a run, or of the lists another program made.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/error.h"
#include "data/text.h"
#include "host/base/device.h"
#include "host/base/machine.h"
#include "host/cli/cli.h"
#include "host/cli/trained_run.h"
#include "host/files/kept_figures.h"
#include "host/files/recommendations.h"
#include "host/training/checkpoint.h"
#include "host/training/lists.h"
#include "host/training/metrics.h"

namespace ccdrec::cli {
namespace {

struct EvaluateOptions {
  std::string run, data, recs, topk, device = "auto";
  int threads = 0;
  bool json = false, mask_valid = false, other_data = false, keep = false;
};

using Rows = std::vector<std::vector<std::string>>;

std::vector<std::string> header(const char* first, const std::vector<int>& ks) {
  std::vector<std::string> row = {first};
  for (const int k : ks) row.push_back(fmt::format("@{}", k));
  return row;
}

void add_values(std::vector<std::string>& row, const Metrics& m, const std::string& name, const std::vector<int>& ks) {
  for (const int k : ks) {
    const auto it = m.find(fmt::format("{}@{}", name, k));
    row.push_back(it == m.end() ? "-" : fmt::format("{:.4f}", it->second));
  }
}

void print_rows(const std::string& text, bool comparable, Io& io) {
  Lines lines(text);
  for (std::string_view line; lines.next(line);)
    io.out << line << (comparable ? "" : fmt::format("  {}", kNotComparable)) << '\n';
}

// Of test lists: what they are like, and for whom the hits come.
std::string list_tables(const ListFigures& f, const std::vector<int>& ks) {
  if (f.lists.empty()) return "";
  Rows rows(1, header("test lists", ks));
  std::vector<std::string> names = {"coverage", "gini", "arp", "tail", "novelty"};
  for (const auto& [key, value] : f.lists)
    if (const std::string name = key.substr(0, key.find('@')); name.starts_with("ild_") && name != names.back())
      names.push_back(name);  // keys are in order
  for (const std::string& name : names) rows.push_back({name}), add_values(rows.back(), f.lists, name, ks);
  std::string text = format_table(rows);
  rows = {header("test Recall of groups", ks)};
  rows[0].insert(rows[0].begin() + 1, {"of", "users", "training rows"});
  for (const auto& [whose, groups] : {std::pair{"items", &f.popularity}, std::pair{"users", &f.activity}})
    for (size_t g = 0; g < groups->size(); ++g) {
      const ListGroup& group = (*groups)[g];
      if (group.users == 0) continue;
      rows.push_back({fmt::format("{} {}", whose == std::string("items") ? "popularity" : "activity", g + 1),
                      group.items ? fmt::format("{} {}", thousands(group.items), whose) : whose, thousands(group.users),
                      fmt::format("{} to {}", group.fewest, group.most)});
      add_values(rows.back(), group.metrics, "recall", ks);
    }
  return text + format_table(rows);
}

void print_metrics(const Metrics& valid, const Metrics& test, const std::vector<int>& ks, const std::string& title,
                   const nlohmann::ordered_json& about, const ListFigures* lists, bool comparable, bool json, Io& io) {
  if (json) {
    nlohmann::ordered_json j = about;
    if (!comparable) j["comparable"] = false, j["note"] = kNotComparable;
    j["valid"] = metrics_json(valid), j["test"] = metrics_json(test);
    if (lists) j["lists"] = lists_json(*lists), j["groups"] = groups_json(*lists);
    io.out << j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n';
    return;
  }
  Rows rows(1, header("metric", ks));
  for (const auto& [split, metrics] : {std::pair{"validation", &valid}, std::pair{"test", &test}})
    for (const MetricName& m : kMetrics) {
      rows.push_back({fmt::format("{} {}", split, m.shown)});
      add_values(rows.back(), *metrics, m.key, ks);
    }
  std::string text = printable(title) + '\n' + format_table(rows);
  if (lists) text += list_tables(*lists, ks);
  print_rows(text, comparable, io);
}

void note_longer_than_items(const std::vector<int>& ks, const Dataset& data, Io& io) {
  if (const std::string note = longer_than_items(ks, data.n_items); !note.empty()) io.err << "note: " << note << '\n';
}

int evaluate_lists(const EvaluateOptions& o, Io& io) {
  Settings s;
  std::unique_ptr<RunFolder> run;
  if (!o.run.empty()) {
    run = std::make_unique<RunFolder>(RunFolder::open(o.run));
    s = run->config().settings;
    check_run(*run, s, io);
    s.data_path = run_data_folder(s, o.data);
  } else {
    s.data_path = find_data_folder(o.data);
  }
  const Dataset data = load_data(s, false, io);
  const bool comparable = !run || check_interactions(*run, s, data, o.other_data, io);
  const std::vector<int> ks = parse_topk(o.topk, {5, 10, 20, 50});
  const ForeignLists lists = read_recommendations(o.recs, data, s.user_id_field, s.item_id_field);
  note_longer_than_items(ks, data, io);
  for (const std::string& warning : lists.warnings) io.err << "note: " << warning << '\n';
  int64_t no_valid = 0, no_test = 0;
  const HeldOut held_valid = held_out(data.valid), held_test = held_out(data.test);
  const Metrics valid = foreign_metrics(lists, held_valid, ks, &no_valid),
                test = foreign_metrics(lists, held_test, ks, &no_test);
  if (no_valid || no_test)
    io.err << fmt::format("note: no list for {} of {} validation users and {} of {} test users; they count with zero\n",
                          thousands(no_valid), thousands(int64_t(held_valid.users.size())), thousands(no_test),
                          thousands(int64_t(held_test.users.size())));
  print_metrics(valid, test, ks,
                fmt::format("{} on {}: {} rows, {} users, ranked by {}", o.recs, data.name, thousands(lists.rows),
                            thousands(lists.users), lists.ranked_by),
                {{"recommendations", o.recs},
                 {"data", data.name},
                 {"users_without_list_valid", no_valid},
                 {"users_without_list_test", no_test}},
                nullptr, comparable, o.json, io);
  return kDone;
}

// UserError: the run is not such that summary.json can say what the lists of best.safetensors are like.
void check_keepable(const RunFolder& folder) {
  if (!folder.has("summary.json"))
    throw UserError(
        fmt::format("{}: has no summary.json for --keep to write to; the run is not over, --resume it", folder.dir()));
  const int of_summary = folder.summary().value("best_epoch", -1), of_model = best_epoch_of(folder.path(kBest));
  if (of_summary < 0 || of_summary != of_model)
    throw UserError(
        fmt::format("{}: best.safetensors is of epoch {} and the best epoch in summary.json is {}, so --keep has no "
                    "model to look at",
                    folder.dir(), of_model, of_summary));
}

int evaluate_run(const EvaluateOptions& o, Io& io) {
  std::optional<RunLock> lock;
  if (o.keep) lock.emplace(RunFolder::open(o.run));
  const TrainedRun run = load_run(o.run, o.data, o.other_data, io);
  if (o.keep) check_keepable(run.folder);
  const std::vector<int> ks = parse_topk(o.topk, run.config.settings.topk);
  note_longer_than_items(ks, run.data, io);
  std::string note;
  const std::unique_ptr<Device> owner = make_device(o.device, o.threads, note);
  Device& device = *owner;
  std::vector<std::string> notes;
  const std::vector<Feature> features = readable_features(run.data, run.config.settings.modalities, notes);
  for (const std::string& left_out : notes)
    io.err << fmt::format("note: lists are not measured in a modality: {}\n", left_out);
  const ListFigures f = list_figures(device, run.hu, run.hi, run.data, features, ks, o.mask_valid);
  const std::string mask =
      o.mask_valid ? "training items masked, validation items too for test" : "training items masked";
  print_metrics(f.result.valid, f.result.test, ks,
                fmt::format("{} on {}: full ranking of {} items for {} validation and {} test users, {}",
                            run.config.settings.model, run.data.name, thousands(run.data.n_items), thousands(f.valid),
                            thousands(f.test), mask),
                {{"run", o.run},
                 {"model", run.config.settings.model},
                 {"data", run.data.name},
                 {"protocol", "full ranking, " + mask}},
                &f, run.comparable, o.json, io);
  if (o.keep) {
    keep_figures(run.folder, f, run.folder.summary().at("best_epoch").get<int>());
    io.err << fmt::format("kept in {}: {}, and users, lists and groups of summary.json\n", run.folder.dir(), kUserFile);
  }
  return kDone;
}

int run_evaluate(const EvaluateOptions& o, Io& io) {
  if (o.recs.empty() && o.run.empty())
    throw UserError("nothing to evaluate: name a run folder, or a file of recommendations with --recs FILE -d FOLDER");
  if (!o.recs.empty() && o.mask_valid)
    throw UserError("--mask-valid concerns a run; lists of --recs are taken as they are");
  if (o.other_data && o.run.empty())
    throw UserError("--other-data concerns a run; lists of --recs are held against the folder that -d names");
  if (o.keep && (o.other_data || !o.topk.empty() || o.mask_valid || !o.recs.empty()))
    throw UserError(
        "--keep writes into the run what its training would have, so it goes with none of --other-data, --topk, "
        "--mask-valid and --recs");
  return o.recs.empty() ? evaluate_run(o, io) : evaluate_lists(o, io);
}

}  // namespace

void add_evaluate(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<EvaluateOptions>();
  CLI::App* sub = app.add_subcommand("evaluate", "ranking metrics of a run, or of another program's recommendations");
  sub->add_option("RUN", o->run, "run folder");
  sub->add_option("-d,--data", o->data, "data folder (default: the one the run was trained with)")->type_name("FOLDER");
  sub->add_flag("--other-data", o->other_data,
                "go on where its interactions are not those of the run; every line then says so");
  sub->add_option("--recs", o->recs,
                  "evaluate these lists instead, raw ids: columns user, item and score or rank, a user and its list a "
                  "line, or JSON lines")
      ->type_name("FILE");
  sub->add_option("--topk", o->topk, "list lengths, e.g. 5,10,20 (default: those of the run)")->type_name("K,K,...");
  sub->add_flag("--mask-valid", o->mask_valid,
                "when ranking for test, leave validation items out as well (published figures do not)");
  sub->add_flag("--keep", o->keep,
                "write the figures into the run too (users.f32, and users, lists and groups of summary.json), where an "
                "earlier program did not");
  sub->add_flag("--json", o->json, "full precision, for programs");
  add_device_options(*sub, o->device, o->threads);
  sub->footer(
      "Every item is ranked for every user with held-out rows. Per user, averaged with equal weight over users with c "
      "held-out items:\n"
      "  Recall@k = hits/c    Precision@k = hits/k    NDCG@k = DCG/ideal DCG of min(k,c)    MAP@k = sum of Precision "
      "at hits / min(k,c)\n"
      "  MRR@k = 1/rank of the first hit, or 0    Hit@k = 1 with a hit, or 0\n"
      "Of a run's test lists also (item i has n_i of the R training rows):\n"
      "  coverage  items in some list / all items      gini     of how often items are listed: 0 even, near 1 few "
      "items\n"
      "  arp       mean n_i of a list, over users      tail     places with items outside the most popular that hold "
      "80 % of R\n"
      "  novelty   mean -log2(n_i/R), n_i at least 1   ild_M    mean 1 - cosine of two items of a list in modality M\n"
      "and Recall of rows by their item's popularity (fifths of the items by n_i) and by the user's activity (fourths "
      "of the users\n"
      "by training rows, equal ones together). Formulas, bounds and what other programs call them: docs/metrics.md\n"
      "Examples: ccdrec evaluate runs/first\n"
      "          ccdrec evaluate --recs lists.tsv -d data/baby --topk 10,20");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return run_evaluate(*o, io); }; });
}

}  // namespace ccdrec::cli
