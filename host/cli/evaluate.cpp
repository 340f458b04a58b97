// ccdrec evaluate: ranking metrics of a run, or of the lists another program made.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/text.h"
#include "host/base/device.h"
#include "host/base/machine.h"
#include "host/cli/cli.h"
#include "host/cli/trained_run.h"
#include "host/files/recommendations.h"
#include "host/training/metrics.h"

namespace ccdrec::cli {
namespace {

struct EvaluateOptions {
  std::string run, data, recs, topk, device = "auto";
  int threads = 0;
  bool json = false, mask_valid = false, other_data = false;
};

void print_metrics(const Metrics& valid, const Metrics& test, const std::vector<int>& ks, const std::string& title,
                   const nlohmann::ordered_json& about, bool comparable, bool json, Io& io) {
  if (json) {
    nlohmann::ordered_json j = about;
    if (!comparable) j["comparable"] = false, j["note"] = kNotComparable;
    j["valid"] = metrics_json(valid), j["test"] = metrics_json(test);
    io.out << j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n';
    return;
  }
  std::vector<std::vector<std::string>> rows(1, {"metric"});
  for (const int k : ks) rows[0].push_back(fmt::format("@{}", k));
  for (const auto& [split, metrics] : {std::pair{"validation", &valid}, std::pair{"test", &test}})
    for (const auto& [shown, name] : {std::pair{"Recall", "recall"}, std::pair{"NDCG", "ndcg"},
                                      std::pair{"Precision", "precision"}, std::pair{"MAP", "map"}}) {
      rows.push_back({fmt::format("{} {}", split, shown)});
      for (const int k : ks) {
        const auto it = metrics->find(fmt::format("{}@{}", name, k));
        rows.back().push_back(it == metrics->end() ? "-" : fmt::format("{:.4f}", it->second));
      }
    }
  const std::string text = printable(title) + '\n' + format_table(rows);
  Lines lines(text);
  for (std::string_view line; lines.next(line);)
    io.out << line << (comparable ? "" : fmt::format("  {}", kNotComparable)) << '\n';
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
                comparable, o.json, io);
  return kDone;
}

int evaluate_run(const EvaluateOptions& o, Io& io) {
  const TrainedRun run = load_run(o.run, o.data, o.other_data, io);
  const std::vector<int> ks = parse_topk(o.topk, run.config.settings.topk);
  note_longer_than_items(ks, run.data, io);
  std::string note;
  const std::unique_ptr<Device> owner = make_device(o.device, o.threads, note);
  Device& device = *owner;
  const HeldOut valid = held_out(run.data.valid), test = held_out(run.data.test);
  const auto upload = [&](CMat host) {
    Matrix m(device, host.rows, host.cols);
    m.array().upload(host.p, host.size());
    return m;
  };
  const Matrix hu = upload(run.hu), hi = upload(run.hi);
  const auto ranked = [&](const std::vector<Pair>& masked, const HeldOut& v, const HeldOut& t) {
    const OwnedCsr mask(device, pairs_by_user(masked, run.data.n_users, run.data.n_items));
    const Range range(device, RangeId::evaluation);
    return evaluate(device.ctx, device.ops, hu, hi, mask.view(), v, t, ks);
  };
  EvalResult result = ranked(run.data.train, valid, test);
  if (o.mask_valid) {
    std::vector<Pair> both = run.data.train;
    both.insert(both.end(), run.data.valid.begin(), run.data.valid.end());
    result.test = ranked(both, HeldOut{}, test).test;
  }
  const std::string mask =
      o.mask_valid ? "training items masked, validation items too for test" : "training items masked";
  print_metrics(result.valid, result.test, ks,
                fmt::format("{} on {}: full ranking of {} items for {} validation and {} test users, {}",
                            run.config.settings.model, run.data.name, thousands(run.data.n_items),
                            thousands(int64_t(valid.users.size())), thousands(int64_t(test.users.size())), mask),
                {{"run", o.run},
                 {"model", run.config.settings.model},
                 {"data", run.data.name},
                 {"protocol", "full ranking, " + mask}},
                run.comparable, o.json, io);
  return kDone;
}

int run_evaluate(const EvaluateOptions& o, Io& io) {
  if (o.recs.empty() && o.run.empty())
    throw UserError("nothing to evaluate: name a run folder, or a file of recommendations with --recs FILE -d FOLDER");
  if (!o.recs.empty() && o.mask_valid)
    throw UserError("--mask-valid concerns a run; lists of --recs are taken as they are");
  if (o.other_data && o.run.empty())
    throw UserError("--other-data concerns a run; lists of --recs are held against the folder that -d names");
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
  sub->add_flag("--json", o->json, "full precision, for programs");
  add_device_options(*sub, o->device, o->threads);
  sub->footer(
      "Every item is ranked for every user with held-out rows. Per user, averaged with equal weight over users with c "
      "held-out items:\n"
      "  Recall@k = hits/c    Precision@k = hits/k    NDCG@k = DCG/ideal DCG of min(k,c)    MAP@k = sum of Precision "
      "at hits / min(k,c)\n"
      "Examples: ccdrec evaluate runs/first\n"
      "          ccdrec evaluate --recs lists.tsv -d data/baby --topk 10,20");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return run_evaluate(*o, io); }; });
}

}  // namespace ccdrec::cli
