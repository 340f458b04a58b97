// The catalogue: each operation once, one line each. A contract's "Order" is the CPU's unless it says more; on a GPU
// the order is fixed as well, by the comment above the kernel: the same bits on every run, within rounding of the
// CPU's. Models call operations through the table of the device chosen at run time and know nothing of it.
#pragma once
#include <cstddef>
#include <functional>
#include <string>

#include "kernels/activation.h"
#include "kernels/adam.h"
#include "kernels/batch.h"
#include "kernels/bpr.h"
#include "kernels/denoise.h"
#include "kernels/diffusion.h"
#include "kernels/encoder.h"
#include "kernels/estimator.h"
#include "kernels/filtered.h"
#include "kernels/gemm.h"
#include "kernels/hard.h"
#include "kernels/infonce.h"
#include "kernels/init.h"
#include "kernels/knn.h"
#include "kernels/latent.h"
#include "kernels/lists.h"
#include "kernels/mask.h"
#include "kernels/normalize.h"
#include "kernels/project.h"
#include "kernels/propagate.h"
#include "kernels/ranges.h"
#include "kernels/rows.h"
#include "kernels/sample.h"
#include "kernels/spmm.h"
#include "kernels/topk.h"
#include "kernels/unet.h"
#include "kernels/views.h"

// operation                what it is                                              contract
#define CCDREC_OPS(X)                                                                                  \
  X(gemm)                      /* dense product                                        gemm.h */       \
  X(project)                   /* modality map of listed items                         project.h */    \
  X(catch_up_project)          /* the same of rows first brought to a step             project.h */    \
  X(project_backward)          /* its gradients                                        project.h */    \
  X(project_backward_step)     /* and the listed rows' gradient to their moments       project.h */    \
  X(adam)                      /* optimiser, dense                                     adam.h */       \
  X(adam_rows)                 /* optimiser, rows on demand: a gradient                adam.h */       \
  X(adam_catch_up)             /* listed rows' values to a step                        adam.h */       \
  X(adam_flush)                /* every row to a step                                  adam.h */       \
  X(spmm)                      /* sparse product                                       spmm.h */       \
  X(spmm_rows)                 /* sparse product, listed rows                          spmm.h */       \
  X(transpose)                 /* rows and columns of a sparse matrix exchanged        spmm.h */       \
  X(frontier)                  /* rows a propagation touches                           propagate.h */  \
  X(propagate)                 /* layer-averaged propagation                           propagate.h */  \
  X(propagate_backward)        /* its gradient                                         propagate.h */  \
  X(propagate_backward_layers) /* the same where layers have gradients too             propagate.h */  \
  X(group)                     /* slots of a batch by row                              rows.h */       \
  X(gather_rows)               /* rows of a table, by slot                             rows.h */       \
  X(copy_rows)                 /* listed rows of a table                               rows.h */       \
  X(segment_sum)               /* ordered scatter-add                                  rows.h */       \
  X(take)                      /* pairs in shuffled order                              batch.h */      \
  X(offset_ids)                /* items as graph nodes                                 batch.h */      \
  X(expand_rows)               /* group rows to slots                                  batch.h */      \
  X(add_rows)                  /* listed rows added                                    batch.h */      \
  X(split_rows)                /* nodes into users and items                           rows.h */       \
  X(merge_rows)                /* union of two lists                                   rows.h */       \
  X(fill_zero)                 /* a matrix of zeros                                    rows.h */       \
  X(zero_rows)                 /* listed rows to zero                                  rows.h */       \
  X(normalize_rows)            /* rows of length 1                                     normalize.h */  \
  X(normalize_rows_backward)   /* its gradient                                         normalize.h */  \
  X(leaky_relu)                /* activation                                           activation.h */ \
  X(leaky_relu_backward)       /* its gradient                                         activation.h */ \
  X(bpr)                       /* ranking loss with gradient                           bpr.h */        \
  X(norm_reg)                  /* norm regulariser with gradient                       bpr.h */        \
  X(square_reg)                /* squared regulariser with gradient                    bpr.h */        \
  X(cosine_loss)               /* likeness to masked constants, with gradient          views.h */      \
  X(frobenius_reg)             /* norm of a table, with gradient                       views.h */      \
  X(infonce)                   /* in-batch contrast with gradient                      infonce.h */    \
  X(draw_timesteps)            /* diffusion steps of a batch                           diffusion.h */  \
  X(draw_normals)              /* addressed noise                                      diffusion.h */  \
  X(draw_masks)                /* dropout masks                                        mask.h */       \
  X(diffuse)                   /* forward process                                      diffusion.h */  \
  X(diffuse_backward)          /* its gradient                                         diffusion.h */  \
  X(fuse)                      /* fused item rows                                      diffusion.h */  \
  X(align)                     /* L_dm, backward of fusion                             diffusion.h */  \
  X(estimator_forward)         /* f_theta                                              estimator.h */  \
  X(estimator_backward)        /* its gradients                                        estimator.h */  \
  X(reverse_process)           /* all items from noise to e_0, four pools              estimator.h */  \
  X(encoder_forward)           /* f_theta as a Transformer encoder                     encoder.h */    \
  X(encoder_backward)          /* its gradients                                        encoder.h */    \
  X(encoder_reverse)           /* the reverse process with it                          encoder.h */    \
  X(unet_forward)              /* f_theta as a U-Net                                   unet.h */       \
  X(unet_backward)             /* its gradients                                        unet.h */       \
  X(unet_reverse)              /* the reverse process with it                          unet.h */       \
  X(shuffle)                   /* order of an epoch                                    sample.h */     \
  X(negatives)                 /* uniform negatives                                    sample.h */     \
  X(unseen_items)              /* uniform items the user lacks                         sample.h */     \
  X(prune)                     /* degree-sensitive edge pruning                        sample.h */     \
  X(edge_cosines)              /* edges weighed by their ends' likeness                denoise.h */    \
  X(prune_weighted)            /* pruning by weighted degrees                          denoise.h */    \
  X(candidates)                /* candidate set of a batch                             sample.h */     \
  X(similar_negative)          /* curricular negatives                                 sample.h */     \
  X(hardest_negative)          /* best-scored of drawn items: DNS, MixGCF              hard.h */       \
  X(draw_mixing)               /* MixGCF's coefficients                                hard.h */       \
  X(mixed_bpr)                 /* MixGCF's ranking loss with gradient                  hard.h */       \
  X(popular_negatives)         /* negatives by popularity                              hard.h */       \
  X(negative_ranks)            /* how hard a negative was                              hard.h */       \
  X(pick_columns)              /* RealHNS: a table of candidates                       filtered.h */   \
  X(cohesion)                  /* how close the items of a cluster are                 filtered.h */   \
  X(filtered_negative)         /* RealHNS's choice                                     filtered.h */   \
  X(score_topk)                /* full ranking                                         topk.h */       \
  X(knn_cosine)                /* item-item neighbours                                 knn.h */        \
  X(list_dots)                 /* dot products with listed rows                        lists.h */      \
  X(list_spread)               /* their gradient                                       lists.h */      \
  X(softmax_weights)           /* modalities' weights                                  latent.h */     \
  X(softmax_weights_backward)  /* their gradient                                       latent.h */     \
  X(latent_graph)              /* LATTICE's item graph                                 latent.h */     \
  X(latent_graph_backward)     /* its gradient                                         latent.h */     \
  X(init_uniform)              /* initialiser                                          init.h */       \
  X(init_normal)               /* initialiser                                          init.h */

// Scratch memory of the operations that take more of it than a few KB: NAME_scratch(plan, sizes) notes what NAME will
// ask for, an upper bound where the sizes leave it open. The rest fit into what `group` takes.
#define CCDREC_SCRATCH(X)          \
  X(project_scratch)               \
  X(project_backward_scratch)      \
  X(project_backward_all_scratch)  \
  X(spmm_scratch)                  \
  X(transpose_scratch)             \
  X(group_scratch)                 \
  X(merge_rows_scratch)            \
  X(estimator_scratch)             \
  X(reverse_process_scratch)       \
  X(encoder_scratch)               \
  X(encoder_reverse_scratch)       \
  X(unet_scratch)                  \
  X(unet_reverse_scratch)          \
  X(frobenius_reg_scratch)         \
  X(infonce_scratch)               \
  X(shuffle_scratch)               \
  X(prune_scratch)                 \
  X(edge_cosines_scratch)          \
  X(prune_weighted_scratch)        \
  X(candidates_scratch)            \
  X(similar_negative_scratch)      \
  X(negative_ranks_scratch)        \
  X(cohesion_scratch)              \
  X(filtered_negative_scratch)     \
  X(score_topk_scratch)            \
  X(latent_graph_backward_scratch) \
  X(knn_cosine_scratch)

namespace ccdrec {

struct Piece {  // of device memory, and where on the host it is wanted
  void* host;
  const void* device;
  size_t bytes;
};
constexpr size_t kMostRead = 256;

// One device: its operations, its memory and, where it has them, recorded steps. `alloc` zeroes and throws
// std::bad_alloc; copies are complete when they return.
struct Ops {
#define CCDREC_DECLARE(name) decltype(&cpu::name) name = nullptr;
  CCDREC_OPS(CCDREC_DECLARE)
  CCDREC_SCRATCH(CCDREC_DECLARE)
#undef CCDREC_DECLARE
  size_t library_bytes = 0;  // that libraries take beside arrays and scratch
  void* (*alloc)(Ctx&, size_t bytes) = nullptr;
  void (*free)(Ctx&, void*) = nullptr;
  void (*upload)(Ctx&, void* device, const void* host, size_t bytes) = nullptr;
  void (*download)(Ctx&, void* host, const void* device, size_t bytes) = nullptr;
  // several downloads, at most kMostRead bytes together, for one wait
  void (*read)(Ctx&, const Piece*, int n) = nullptr;

  // A device whose operations return before they are done (null on the CPU).
  void (*wait)(Ctx&) = nullptr;  // until all is done; throws what went wrong since
  // a range for profilers, closed by `leave`; payload: the epoch or step, -1 none
  void (*enter)(RangeId, int64_t payload) = nullptr;
  void (*leave)() = nullptr;
  int32_t (*take_fault)(Ctx&) = nullptr;  // Ctx::fault, set back to 0; waits
  // the operations that `step` calls, not run; late.h. Nothing may be allocated
  void* (*record)(Ctx&, const std::function<void()>& step) = nullptr;
  void (*replay)(Ctx&, void* recording) = nullptr;  // runs them
  void (*forget)(Ctx&, void* recording) = nullptr;  //
  // before the first replay of an epoch; an operation, as the next: it waits for nothing
  void (*set_late)(Ctx&, const Late&) = nullptr;
  // An operation of its own, last in a recorded step: step + 1, first + batch, t + updates (Adam's steps in one of
  // training).
  void (*advance_late)(Ctx&, int64_t batch, int64_t updates) = nullptr;
};

const Ops& cpu_ops();

// Memory of a device, counted by its context and given back when the scope ends.
struct DeviceBlock {
  Ctx& ctx;
  const Ops& ops;
  const size_t bytes;
  void* const p;
  DeviceBlock(Ctx& c, const Ops& o, size_t n) : ctx(c), ops(o), bytes(n), p(o.alloc(c, n)) {
    ctx.count_array(int64_t(n));
  }
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;
  ~DeviceBlock() {
    ops.free(ctx, p);
    ctx.count_array(-int64_t(bytes));
  }
};

// The GPU of this program: one of kernels/cuda (built with CUDA), tests/simt (the emulator) or kernels/no_gpu.cpp is
// linked in.
struct GpuInfo {
  bool built = false, usable = false;
  bool emulated = false;  // tests/simt: `auto` never takes it
  bool cusparse = false;  // built with it
  std::string why;        // one sentence when it cannot be used
  std::string name, built_for, driver, toolkit;
  int major = 0, minor = 0;  // compute capability
  size_t memory = 0, available = 0;
};
GpuInfo gpu_info();    // never throws
const Ops* gpu_ops();  // null where not built
// fp32 | tf32 | bf16 for the large products; throws std::runtime_error with GpuInfo::why
void open_gpu(Ctx&, const char* precision);

}  // namespace ccdrec
