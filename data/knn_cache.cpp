// kNN lists are exact and cost I^2 F: minutes for large sets, and the same in every run over the same features. So they
// are kept on disk, under a name that holds a hash of all they depend on: changed features can never meet an old graph.
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>

#include "data/error.h"
#include "data/graph.h"
#include "data/hash.h"
#include "data/safe_file.h"
#include "data/text.h"

namespace ccdrec {

namespace {

struct Head {  // little-endian, 64 bytes; the lists follow as int32
  char magic[8] = {'C', 'C', 'D', 'K', 'N', 'N', '1', '\n'};
  uint64_t key = 0;  // over feature bytes, shape, k, centre, seed
  int64_t items = 0, k = 0, tied_rows = 0;
  uint64_t payload = 0;  // over the lists
  uint64_t reserved = 0;
  uint64_t self = 0;  // over the fields above
};
static_assert(sizeof(Head) == 64);

uint64_t head_hash(const Head& h) { return hash_bytes(&h, offsetof(Head, self)); }

// Anything unexpected means no cache: the lists are computed again and the file replaced.
bool read_cache(const std::string& path, uint64_t key, int64_t items, int64_t k, KnnResult& out) {
  std::error_code ec;
  if (!std::filesystem::is_regular_file(path, ec) ||
      std::filesystem::file_size(path, ec) != sizeof(Head) + size_t(items * k) * 4 || ec)
    return false;
  std::string bytes;
  try {
    bytes = read_text(path);
  } catch (const UserError&) { return false; }
  Head h, want;
  if (bytes.size() != sizeof h + size_t(items * k) * 4) return false;
  std::memcpy(&h, bytes.data(), sizeof h);
  if (std::memcmp(h.magic, want.magic, 8) != 0 || h.self != head_hash(h) || h.key != key || h.items != items ||
      h.k != k)
    return false;
  if (hash_bytes(bytes.data() + sizeof h, bytes.size() - sizeof h) != h.payload) return false;
  out.idx.resize(size_t(items * k));
  std::memcpy(out.idx.data(), bytes.data() + sizeof h, out.idx.size() * 4);
  for (int32_t i : out.idx)
    if (i < 0 || i >= items) return false;
  out.tied_rows = h.tied_rows;
  out.from_cache = true;
  return true;
}

void write_cache(const std::string& path, uint64_t key, int64_t items, int64_t k, const KnnResult& r) {
  Head h;
  h.key = key;
  h.items = items;
  h.k = k;
  h.tied_rows = r.tied_rows;
  h.payload = hash_bytes(r.idx.data(), r.idx.size() * 4);
  h.self = head_hash(h);
  SafeFile f(path);
  f.write(&h, sizeof h);
  f.write(r.idx.data(), r.idx.size() * 4);
  f.commit();
}

}  // namespace

KnnResult knn_lists(Ctx& ctx, const Ops& ops, const Feature& f, int64_t k, bool centre, uint32_t seed,
                    const std::string& cache_dir) {
  const NpyMatrix& m = f.matrix;
  const int64_t I = m.rows(), F = m.cols();
  if (k < 1 || k > I) throw UserError(fmt::format("knn_k is {}, expected 1 to {} (the number of items)", k, I));
  // Bytes as stored: the same matrix kept as float64 is another key, at worst one rebuild.
  const int64_t settings[5] = {I, F, k, centre, int64_t(seed)};
  const uint64_t key = hash_bytes(
      m.bytes(), m.byte_count(), hash_bytes(settings, sizeof settings, hash_bytes(m.dtype().data(), m.dtype().size())));
  const std::string path =
      (std::filesystem::path(cache_dir) / fmt::format("knn_{}_k{}_{}.bin", f.name, k, hex16(key))).string();

  KnnResult r;
  if (!cache_dir.empty() && read_cache(path, key, I, k, r)) return r;
  r.idx.assign(size_t(I * k), 0);
  {
    // The CPU reads plain matrices where they lie, in the mapped file; any other is copied, one modality at a time.
    const bool in_place = ctx.device == DeviceKind::cpu && m.floats();
    DeviceBlock x(ctx, ops, in_place ? 0 : size_t(I * F) * 4), idx(ctx, ops, size_t(I * k) * 4),
        tied(ctx, ops, sizeof(int64_t));
    // 16 MB of rows at a time: the host never holds a second copy
    const int64_t tile = std::max<int64_t>(1, (int64_t(4) << 20) / F);
    std::vector<float> rows(size_t(std::min(tile, I) * F), 0.0f);
    for (int64_t first = 0; first < I; first += tile) {  // in place too: read_rows refuses what is not finite
      const int64_t n = std::min(tile, I - first);
      m.read_rows(rows.data(), first, n);
      if (!in_place) ops.upload(ctx, static_cast<float*>(x.p) + first * F, rows.data(), size_t(n * F) * 4);
    }
    ops.knn_cosine(ctx, static_cast<int32_t*>(idx.p), static_cast<int64_t*>(tied.p),
                   {in_place ? m.floats() : static_cast<const float*>(x.p), I, F}, k, centre, seed);
    ops.download(ctx, r.idx.data(), idx.p, r.idx.size() * 4);
    ops.download(ctx, &r.tied_rows, tied.p, sizeof r.tied_rows);
  }
  if (cache_dir.empty()) return r;
  try {
    std::filesystem::create_directories(cache_dir);
    write_cache(path, key, I, k, r);
  } catch (const std::exception& e) {  // a read-only folder costs time, not the run
    r.note = fmt::format("kNN lists could not be kept: {}", e.what());
  }
  return r;
}

}  // namespace ccdrec
