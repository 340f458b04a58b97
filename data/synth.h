// The synthetic generator: data that behaves like the real sets (statistics it imitates are quoted in synth.cpp), from
// a few documented parameters.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ccdrec {

struct SynthModality {
  std::string name;    // image, text, ...
  int64_t width = 64;  // F
  // share of the feature's variance that carries the item's taste vector; the rest is noise of its own
  float signal = 0.5f;
  bool nonnegative = false;  // deep visual features: non-negative with a large common mean
};
struct SynthParams {
  std::string name = "demo";
  int64_t users = 2000, items = 1200, interactions = 24000;
  // at least 3, so that each user trains, validates and tests; items get 5 as well where there are enough rows
  int64_t min_per_user = 5;
  int taste_dims = 16;  // latent taste dimensions
  // P(item) ~ popularity * exp(strength * cos(interest, taste)): 0 is popularity alone; a larger catalogue needs more,
  // as more items compete
  float taste_strength = 11.0f;
  // deviation of log(degree - 4): degrees are 4 + lognormal, as the real ones are
  double user_log_sd = 1.08, item_log_sd = 1.35;
  std::vector<SynthModality> modalities;
  uint32_t seed = 2024;
};
std::vector<std::string> synth_presets();           // tiny, demo, baby, sports, clothing, elec
SynthParams synth_preset(const std::string& name);  // UserError names the presets, and one that is near
// NAME.inter (userID itemID x_label), *_feat.npy; files of the same names are replaced. UserError when the disk
// refuses. `stop` is asked now and then: true ends it with SynthStopped. Ended early, whichever way, it leaves nothing
// behind, not the folders it made either.
struct SynthStopped {};
void write_synth(const std::string& folder, const SynthParams&, const std::function<bool()>& stop = nullptr);

}  // namespace ccdrec
