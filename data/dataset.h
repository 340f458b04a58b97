// A data set in memory: interactions by split, modality features by name, raw ids both ways (spec baselines 2.1, 2.2).
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/npy.h"

namespace ccdrec {

struct Pair {
  int32_t user, item;
};

// Raw id <-> index. Dense integer ids (the MMRec form) map to themselves and store nothing.
class IdMap {
 public:
  int64_t size() const { return n_; }
  bool dense() const { return raw_.empty(); }
  std::string raw(int64_t index) const { return dense() ? std::to_string(index) : raw_[size_t(index)]; }
  int64_t find(const std::string& raw) const;  // -1 when unknown
  static IdMap dense_of(int64_t n);
  static IdMap of(std::vector<std::string> raw);  // index -> raw, distinct
 private:
  int64_t n_ = 0;
  std::vector<std::string> raw_;
  std::unordered_map<std::string, int64_t> index_;
};

struct Feature {
  std::string name;  // stem of NAME_feat.npy: image, text, audio, ...
  NpyMatrix matrix;  // (I, F), memory-mapped
};

struct Dataset {
  std::string name, folder;
  int64_t n_users = 0, n_items = 0;  // over all rows of all splits, before filtering
  IdMap users, items;
  // file order; valid and test rows of users without a training row are dropped (counted in warnings)
  std::vector<Pair> train, valid, test;
  // ordered: image first, then the others by name (spec ccdrec 2: S = a S_image + (1-a) S_other)
  std::vector<Feature> features;
  std::vector<std::string> warnings;  // one sentence each, counted and named
  // 16 hex digits over every byte of the .inter file and the id mappings (not for security)
  std::string interactions;
  std::string checksum;  // the same with the features opened: what a run was computed from
};

struct LoadOptions {
  std::string name;  // "" = the folder's name, or the only .inter file there
  // MMRec's inter_file_name, read instead; a name that says another file is a contradiction, unless it is the folder's
  // alone
  std::string file;
  std::string user_field = "userID", item_field = "itemID",
              label_field = "x_label";  // MMRec's keys USER_ID_FIELD, ITEM_ID_FIELD, inter_splitting_label
  bool need_features = true;            // models without features do not open the npy files
  std::vector<std::string> modalities;  // empty = every *_feat.npy found
};

// A modality NAME makes tables NAME_embedding, NAME_trs and others in checkpoints, files and settings. Why it cannot be
// one; "": it can.
std::string unusable_modality(const std::string& name);

bool has_features(const std::string& folder);    // any *_feat.npy, user_feat.npy apart
bool holds_data_set(const std::string& folder);  // those, or an .inter file. Both: false where there is no such folder

// Throws UserError: missing column, non-integer or negative id or label, label outside 0..2, an item id beyond the
// features' rows, features with the wrong number of rows or the name of another table, empty training split, bad npy,
// no .inter file. RecBole's typed headers (`user_id:token`) are accepted, and raw string ids. Left out with a warning:
// user_feat.npy with a row for each user.
Dataset load_dataset(const std::string& folder, const LoadOptions& = {});

// Those features of its folder that can be read (`modalities` alone where it names any), for figures that can do
// without. Each file left out is a sentence in `notes`, never an error.
std::vector<Feature> readable_features(const Dataset&, const std::vector<std::string>& modalities,
                                       std::vector<std::string>& notes);

}  // namespace ccdrec
