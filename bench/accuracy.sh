#!/usr/bin/env bash
# One accuracy run to early stopping: bench/accuracy.sh DATA_FOLDER VARIANT SEED [OUT]
#
#   VARIANT  bpr | lightgcn | mmgcn | slmrec | bm3 | freedom | lattice | mcdrec | dma | dma-ndi | ccdrec | ccdrec-lattice | ccdrec-mcdrec   (dma and dma-ndi are the paper's
#            ablations, spec section 7; tables label the last CCDRec(MCDRec) and note: DGD graph, attention)
#   OUT      where run folders go (default: runs/accuracy); the run is OUT/<set>-<variant>-s<seed>
#
# Resumable: a finished run is skipped, an interrupted or killed one goes on where its last state was saved.
# Extra settings: CCDREC_SET="key=value key=value"; they win over those of the variant and are part of the run's name.
# `ccdrec compare --markdown OUT/*` prints the table of bench/results/accuracy.md.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,10p' "$0" | cut -c3-; exit 2; }
data=$1 variant=$2 seed=$3 out=${4:-runs/accuracy}
ccdrec=${CCDREC:-build/ccdrec}
threads=${THREADS:-0}
case $variant in
  bpr)      args=(-m BPR) ;;
  lightgcn) args=(-m LightGCN) ;;
  mmgcn)    args=(-m MMGCN) ;;
  slmrec)   args=(-m SLMRec) ;;
  bm3)      args=(-m BM3) ;;
  freedom)  args=(-m FREEDOM) ;;
  lattice)  args=(-m LATTICE) ;;
  mcdrec)   args=(-m MCDRec) ;;
  dma)      args=(-m CCDRec --set ndi=false --set cns=false --set n_neg=2) ;;
  dma-ndi)  args=(-m CCDRec --set cns=false) ;;
  ccdrec)   args=(-m CCDRec) ;;
  ccdrec-lattice) args=(-m CCDRec --set backbone=LATTICE) ;;
  ccdrec-mcdrec) args=(-m CCDRec --set backbone=MCDRec) ;;
  *) echo "accuracy.sh: variant is '$variant', expected bpr, lightgcn, mmgcn, slmrec, bm3, freedom, lattice, mcdrec, dma, dma-ndi, ccdrec, ccdrec-lattice or ccdrec-mcdrec" >&2; exit 2 ;;
esac
# BM3's best on Sports has another weight.
case "$(basename "$data")-$variant" in sports-bm3) args+=(--set reg_weight=0.01) ;; esac
# The released Sports settings: dtau 10, a first stage of 5 epochs (1-5: it ends before epoch 6), tau_end 75.
case "$(basename "$data")-$variant" in sports-ccdrec | sports-ccdrec-lattice | sports-ccdrec-mcdrec) args+=(--set dtau=10 --set first_stage=6 --set tau_end=75) ;; esac
suffix=
for s in ${CCDREC_SET:-}; do  # after the variant's own: the later setting wins
  args+=(--set "$s")
  suffix+="-$(printf %s "$s" | tr -c 'A-Za-z0-9.=_' '_')"
done
run="$out/$(basename "$data")-$variant$suffix-s$seed"
if [ -f "$run/done" ]; then echo "$run is finished"; exit 0; fi
mkdir -p "$out"
if [ -f "$run/config.yaml" ]; then
  "$ccdrec" train --resume "$run" --threads "$threads"
else
  "$ccdrec" train "${args[@]}" -d "$data" --seed "$seed" --threads "$threads" --run-dir "$run"
fi
touch "$run/done"
