// ccdrec recommend: the best items of one user, some, or all, by raw id.
#include <fmt/format.h>

#include <memory>

#include "data/error.h"
#include "data/safe_file.h"
#include "data/text.h"
#include "host/base/device.h"
#include "host/base/machine.h"
#include "host/cli/cli.h"
#include "host/cli/trained_run.h"
#include "host/files/recommendations.h"

namespace ccdrec::cli {
namespace {

struct RecommendOptions {
  std::string run, data, users_file, out, format = "tsv", device = "auto";
  std::vector<std::string> users;
  int64_t top = 10;
  int threads = 0;
  bool keep_seen = false, mask_valid = false, mask_test = false, other_data = false;
};

std::vector<int32_t> chosen_users(const RecommendOptions& o, const Dataset& data) {
  std::vector<int32_t> users;
  const auto add = [&](const std::string& raw, const std::string& where) {
    const int64_t u = data.users.find(raw);
    if (u < 0)
      throw UserError(fmt::format("{}: user '{}' does not occur in {}; users.tsv of the run lists the ids", where, raw,
                                  data.folder));
    users.push_back(int32_t(u));
  };
  for (const std::string& raw : o.users) add(raw, "--user");
  if (!o.users_file.empty()) {
    const std::string whole = read_text(o.users_file);
    Lines lines(whole);
    for (std::string_view raw; lines.next(raw);)
      if (!raw.empty()) add(std::string(raw), fmt::format("{}:{}", o.users_file, lines.number()));
  }
  if (o.users.empty() && o.users_file.empty())
    for (int64_t u = 0; u < data.n_users; ++u) users.push_back(int32_t(u));
  return users;
}

// Every line says that it is not comparable and stays readable: a fourth column, or two fields more.
std::string marked(const std::string& list, bool tsv) {
  std::string out;
  Lines lines(list);
  for (std::string_view line; lines.next(line);) {
    if (tsv)
      out += fmt::format("{}\t{}\n", line, kNotComparable);
    else
      out +=
          fmt::format("{},\"comparable\":false,\"note\":\"{}\"}}\n", line.substr(0, line.size() - 1), kNotComparable);
  }
  return out;
}

int run_recommend(const RecommendOptions& o, Io& io) {
  if (o.format != "tsv" && o.format != "jsonl")
    throw UserError(fmt::format("--format {}: expected tsv or jsonl", o.format));
  const TrainedRun run = load_run(o.run, o.data, o.other_data, io);
  const Dataset& data = run.data;
  const std::vector<int32_t> users = chosen_users(o, data);
  std::vector<Pair> masked;
  const auto mask = [&](bool on, const std::vector<Pair>& pairs) {
    if (on) masked.insert(masked.end(), pairs.begin(), pairs.end());
  };
  mask(!o.keep_seen, data.train), mask(o.mask_valid, data.valid), mask(o.mask_test, data.test);
  const HostCsr seen = pairs_by_user(masked, data.n_users, data.n_items);
  const HostCsr train = pairs_by_user(data.train, data.n_users, data.n_items);
  int64_t cold = 0;
  for (const int32_t u : users) cold += train.row_ptr[size_t(u) + 1] == train.row_ptr[size_t(u)];
  if (cold)
    io.err << fmt::format(
        "note: {} of {} users have no training row; their lists reflect the initialisation, not a taste\n",
        thousands(cold), thousands(int64_t(users.size())));

  std::string note;
  const std::unique_ptr<Device> owner = make_device(o.device, o.threads, note);
  Device& device = *owner;
  std::unique_ptr<SafeFile> file = o.out.empty() ? nullptr : std::make_unique<SafeFile>(o.out);
  const auto write = [&](const std::string& text) {
    if (file)
      file->write(text);
    else
      io.out << text;
  };
  const bool tsv = o.format == "tsv";
  if (tsv)
    write(fmt::format("{}\t{}\tscore{}\n", run.config.settings.user_id_field, run.config.settings.item_id_field,
                      run.comparable ? "" : "\tnote"));
  int64_t rows = 0;
  recommend(device.ctx, device.ops, run.hu, run.hi, seen, users, std::min(o.top, std::max<int64_t>(1, data.n_items)),
            [&](int32_t user, const int32_t* items, const float* scores, int64_t n) {
              const std::string raw = data.users.raw(user);
              const std::string list =
                  tsv ? tsv_rows(raw, data.items, items, scores, n) : json_row(raw, data.items, items, scores, n);
              write(run.comparable ? list : marked(list, tsv));
              rows += n;
            });
  if (file) {
    file->commit();
    io.err << fmt::format("wrote {}: {} items for {} users{}\n", o.out, thousands(rows),
                          thousands(int64_t(users.size())), run.comparable ? "" : fmt::format(", {}", kNotComparable));
  }
  return kDone;
}

}  // namespace

void add_recommend(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<RecommendOptions>();
  CLI::App* sub = app.add_subcommand("recommend", "the best items for one user by raw id, for several, or for all");
  sub->add_option("RUN", o->run, "run folder")->required();
  sub->add_option("-u,--user", o->users, "raw user id; repeatable")->type_name("ID")->allow_extra_args(false);
  sub->add_option("--users-file", o->users_file, "raw user ids, one a line (default without --user: all users)")
      ->type_name("FILE");
  sub->add_option("-k,--top", o->top, "items per user")
      ->capture_default_str()
      ->check(whole_number(1, INT32_MAX), "")
      ->type_name("K");
  sub->add_option("-o,--out", o->out, "write here instead of standard output")->type_name("FILE");
  sub->add_option("--format", o->format, "tsv (userID itemID score) or jsonl (one user a line)")
      ->capture_default_str()
      ->type_name("FORMAT");
  sub->add_flag("--keep-seen", o->keep_seen, "do not leave out the user's training items");
  sub->add_flag("--mask-valid", o->mask_valid, "leave out validation items too");
  sub->add_flag("--mask-test", o->mask_test, "leave out test items too (for use, not for evaluation)");
  sub->add_option("-d,--data", o->data, "data folder (default: the one the run was trained with)")->type_name("FOLDER");
  sub->add_flag("--other-data", o->other_data,
                "go on where its interactions are not those of the run; every line then says so");
  add_device_options(*sub, o->device, o->threads);
  sub->footer(
      "Ids are those of the .inter file. `ccdrec evaluate --recs FILE` reads both formats back.\n"
      "Examples: ccdrec recommend runs/first --user A2XQ5LZHTD4AFT --user 17 -k 20\n"
      "          ccdrec recommend runs/first --mask-valid --mask-test --format jsonl -o lists.jsonl");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return run_recommend(*o, io); }; });
}

}  // namespace ccdrec::cli
