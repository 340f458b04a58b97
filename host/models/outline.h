// What a system holds and reads, as its settings say, before anything is built: for checks, the memory plan and the
// sizes of files. No step asks for it.
#pragma once
#include <cstdint>

namespace ccdrec {

struct Outline {
  bool ranks = true;  // a ranked system (systems/ranked.h); otherwise what follows is for checks alone

  // the backbone
  int layers = 0;               // of the user-item propagation
  bool propagates = false;      // H is an array of its own
  double prune = 0;             // share of the edges left out each epoch
  bool may_denoise = false;     // DGD can weigh the edges before ..
  bool denoises = false;        // .. and does
  int item_layers = 0;          // of the item graph; 0: there is none
  bool learned_graph = false;   // the item graph is LATTICE's
  bool start_room = false;      // the items' start is not Q
  bool modality_terms = false;  // losses on mapped features

  bool frozen_tables = false;   // of nodes, and of users for each modality: drawn, and not trained
  bool reads_features = false;  // of the data: to build a graph, or to train with
  bool projects = false;        // maps them to width d: they and the maps are parameters
  int modalities = 0;           // exactly so many of them; 0: any number
  bool maps_items = false;      // those of each batch's items; otherwise of all items once an epoch
  bool views = false;           // BM3's: a predictor, and masks of what it is to predict

  // CCDRec's modules
  int64_t estimator = 0;       // parameters of f_theta
  bool diffusion = false;      // an estimator, and a reverse process at the end of an epoch
  bool fuses = false;          // its answer enters the propagation
  bool fuses_all = false;      // of every item at every step, mixed with Q
  bool unet = false;           // the estimator is MCDRec's U-Net
  int pools = 0;               // states of the reverse process that are kept, (I,d) each
  bool searches = false;       // curricular negatives by similarity
  bool constant_rows = false;  // rows of a pool stand for the curricular negatives
  bool curricular = false;     // NDI or CNS: hard negatives that grow harder

  // hard negatives
  bool hard = false;     // some steps have one
  bool chooses = false;  // among candidates that may be any item: H of all items is wanted
  bool mixes = false;    // of every layer, which then has a gradient of its own
  bool popular = false;  // drawn by popularity
  bool bands = false;    // from a table of candidates, by each user's ranking at the epoch's start
};

}  // namespace ccdrec
