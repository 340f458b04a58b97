// A step of a run as a case of `ccdrec step` (docs/step-format.md): parameters and moments before it, graphs, batch,
// noise. What `ccdrec case` does.
#pragma once
#include <string>

#include "host/training/trainer.h"

namespace ccdrec {

// UserError: the settings have no such step, or the step no such pass; all count from 0.
void check_step(Trainer&, const Settings&, int epoch, int64_t step, int pass = 0);

// Trains until step `step` of epoch `epoch` is the next one, as a run would: with evaluations, so that one that stops
// early ends here too. The summary's reason is `interrupted` when it got there, or when the hooks asked for it before
// (then the trainer is elsewhere). UserError: it ends before.
TrainSummary train_to(Trainer&, const Settings&, int epoch, int64_t step, TrainHooks);

// The case of a pass of the step that is next, after the passes before it. It is computed, for negatives that depend on
// it, and not taken.
void write_case(Trainer&, const Settings&, int pass, const std::string& path);

// The reverse process that ends the epoch, as a case of `ccdrec reverse`: the steps left in the epoch are taken. The
// model has a diffusion.
void write_reverse_case(Trainer&, const Settings&, const std::string& path);

}  // namespace ccdrec
