// ccdrec export: embeddings as NumPy matrices with the raw id of every row, for search indexes, notebooks and other
// frameworks.
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "data/error.h"
#include "data/npy.h"
#include "data/path.h"
#include "data/text.h"
#include "host/base/machine.h"
#include "host/cli/cli.h"
#include "host/cli/trained_run.h"

namespace ccdrec::cli {
namespace {

struct ExportOptions {
  std::string run, out;
  bool all = false;
};

constexpr const char* kUserEmbeddings = "user_embeddings";
constexpr const char* kItemEmbeddings = "item_embeddings";

struct Matrix {
  std::string stem;  // of its file
  const TensorData* tensor;
};

// A checkpoint may come from anywhere, and a name in it must not lead out of the folder, nor to a file that another
// tensor becomes.
std::string stem_of(const std::string& tensor, const std::string& path) {
  if (tensor == "final.user") return kUserEmbeddings;
  if (tensor == "final.item") return kItemEmbeddings;
  if (!is_plain_file_name(tensor) || tensor == kUserEmbeddings || tensor == kItemEmbeddings)
    throw UserError(
        fmt::format("{}: tensor '{}' cannot name a file of its own; export without --all takes the embeddings alone",
                    path, shown(tensor)));
  return tensor;
}

int run_export(const ExportOptions& o, Io& io) {
  const RunFolder folder = RunFolder::open(o.run);
  check_run(folder, folder.config().settings, io);
  const std::string best = folder.path("best.safetensors");
  if (!path_exists(best))
    throw UserError(
        fmt::format("{}: has no best.safetensors yet (save_best was off, or no epoch was evaluated)", o.run));
  const std::vector<std::string> final_names = {"final.user", "final.item"};
  const TensorFile tensors = read_safetensors(best, o.all ? nullptr : &final_names);
  // Ids first: an export that cannot be matched to ids is refused before anything is written.
  for (const auto& [name, file] : {std::pair{"final.user", "users.tsv"}, std::pair{"final.item", "items.tsv"}}) {
    const auto it = tensors.tensors.find(name);
    const std::vector<std::string> ids = folder.ids(file);
    if (it == tensors.tensors.end() || it->second.shape.empty() || it->second.shape[0] != int64_t(ids.size()))
      throw UserError(fmt::format("{}: {} does not fit the {} ids of {}", best, name, ids.size(), file));
  }
  std::vector<Matrix> matrices;
  for (const auto& [name, t] : tensors.tensors)
    if (t.dtype == "F32" && !t.shape.empty() && t.shape.size() <= 2) matrices.push_back({stem_of(name, best), &t});
  std::error_code error;
  std::filesystem::create_directories(o.out, error);
  if (error) throw UserError(fmt::format("{}: the folder cannot be made ({})", o.out, error.message()));
  std::vector<std::vector<std::string>> rows(1, {"file", "rows", "columns"});
  for (const auto& [stem, t] : matrices) {
    const int64_t cols = t->shape.size() == 2 ? t->shape[1] : 1;
    write_npy((std::filesystem::path(o.out) / (stem + ".npy")).string(), t->f32(), t->shape[0], cols);
    rows.push_back({stem + ".npy", thousands(t->shape[0]), thousands(cols)});
  }
  for (const char* file : {"users.tsv", "items.tsv"}) {
    const std::string text = read_text(folder.path(file));
    write_text((std::filesystem::path(o.out) / file).string(), text);
    rows.push_back({file, thousands(std::count(text.begin(), text.end(), '\n')), "2"});
  }
  io.out << "wrote " << o.out << '\n' << format_table(rows);
  return kDone;
}

}  // namespace

void add_export(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<ExportOptions>();
  CLI::App* sub =
      app.add_subcommand("export", "embeddings of the best epoch as .npy files, with the raw ids of their rows");
  sub->add_option("RUN", o->run, "run folder")->required();
  sub->add_option("-o,--out", o->out, "folder to write")->required()->type_name("FOLDER");
  sub->add_flag("--all", o->all, "every parameter too, under its PyTorch name");
  sub->footer(
      "user_embeddings.npy (U,d) and item_embeddings.npy (I,d): the score of a pair is the inner product of two rows, "
      "so any maximum\n"
      "inner product index can serve them. Row i belongs to line i of users.tsv or items.tsv (index TAB raw id).\n"
      "best.safetensors itself opens with safetensors.torch.load_file.");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return run_export(*o, io); }; });
}

}  // namespace ccdrec::cli
