#!/usr/bin/env bash
# Whole runs against the PyTorch baseline: records three epochs of each model on the demo data and repeats them with bench/pytorch/parity.py.
#   PYTHON=.venv/bin/python bench/parity.sh        writes bench/results/parity.md and .json; fails where the programs disagree
# CCDREC: the program, build/ccdrec unless it is set. OUT: folder of the records. REPORT: where the report goes, without its ending. DEVICE, DTYPE: of the
# program, of the baseline.
set -euo pipefail
cd "$(dirname "$0")/.."
ccdrec=${CCDREC:-build/ccdrec}
python=${PYTHON:-.venv/bin/python}
if [ ! -x "$ccdrec" ]; then
  echo "parity.sh: there is no program $ccdrec: type make, or name it with CCDREC" >&2
  exit 2
fi
if ! "$python" -c 'import torch, numpy' 2> /dev/null; then
  echo "parity.sh: $python cannot import torch and numpy; name an interpreter that has both with PYTHON (bench/pytorch/README.md)" >&2
  exit 2
fi
out=${OUT:-build/parity}
mkdir -p "$out"

record() {  # NAME DATA MODEL [settings]
  local name=$1 data=$2 model=$3
  shift 3
  rm -rf "$out/$name"
  "$ccdrec" train -m "$model" -d "$data" --run-dir "$out/$name" --record "$out/$name.safetensors" --device "${DEVICE:-cpu}" --no-progress \
    --set epochs=3 --set save_best=false --set save_last=false "$@" > "$out/$name.log"
}

[ -d "$out/demo" ] || "$ccdrec" synth demo --out "$out/demo" --name demo > /dev/null
[ -d "$out/tiny" ] || "$ccdrec" synth tiny --out "$out/tiny" --name tiny > /dev/null
batch=(--set train_batch_size=512)
soon=(--set dtau=1 --set tau_end=1)  # random negatives, a pool, the model's own: one epoch each
record bpr "$out/demo" BPR "${batch[@]}"
record lightgcn "$out/demo" LightGCN "${batch[@]}"
record freedom "$out/demo" FREEDOM "${batch[@]}"
record freedom-reg "$out/demo" FREEDOM "${batch[@]}" --set reg_weight=0.001
record ccdrec "$out/demo" CCDRec "${batch[@]}"
record ccdrec-soon "$out/demo" CCDRec "${batch[@]}" "${soon[@]}"
record ccdrec-dma "$out/demo" CCDRec "${batch[@]}" --set ndi=false --set cns=false --set n_neg=2
record ccdrec-dma-ndi "$out/demo" CCDRec "${batch[@]}" --set cns=false
record bpr-popularity "$out/demo" BPR "${batch[@]}" --set sampler=popularity
record lightgcn-dns "$out/demo" LightGCN "${batch[@]}" --set sampler=dns
record lightgcn-dns-top3 "$out/demo" LightGCN "${batch[@]}" --set sampler=dns --set top_m=3
record freedom-mixgcf-mg "$out/demo" FREEDOM "${batch[@]}" --set sampler=mixgcf --set use_mg=true
record ccdrec-dma-dns "$out/demo" CCDRec "${batch[@]}" --set ndi=false --set cns=false --set sampler=dns
record ccdrec-mg "$out/demo" CCDRec "${batch[@]}" "${soon[@]}" --set use_mg=true
record ccdrec-mcdrec "$out/demo" CCDRec "${batch[@]}" "${soon[@]}" --set backbone=MCDRec
record lattice "$out/demo" LATTICE "${batch[@]}"
record lattice-mg-dns "$out/demo" LATTICE "${batch[@]}" --set n_mm_layers=2 --set use_mg=true --set sampler=dns
record ccdrec-lattice "$out/demo" CCDRec "${batch[@]}" "${soon[@]}" --set backbone=LATTICE
record freedom-realhns "$out/demo" FREEDOM "${batch[@]}" --set sampler=realhns --set realhns_start=1
record lattice-realhns "$out/demo" LATTICE "${batch[@]}" --set sampler=realhns --set realhns_start=0
record bm3 "$out/demo" BM3 "${batch[@]}"
record bm3-mg "$out/demo" BM3 "${batch[@]}" --set n_ui_layers=2 --set dropout=0.3 --set use_mg=true
record slmrec "$out/demo" SLMRec "${batch[@]}"
record slmrec-mg "$out/demo" SLMRec "${batch[@]}" --set ssl_alpha=0.1 --set ssl_temp=0.2 --set use_mg=true
# Nodes whose leaky ReLUs stand within rounding of their kink make two right programs part after some twenty steps at the usual rate: few and small ones.
few=(--set train_batch_size=8192 --set learning_rate=1e-4)
record mmgcn "$out/demo" MMGCN "${few[@]}" --set reg_weight=0.1
record mmgcn-mg "$out/demo" MMGCN "${few[@]}" --set n_neg=2 --set use_mg=true
# The U-Net multiplies what differs by a hundred and more a step at the published rate (bench/pytorch/replay.py): few users and items, small steps.
unet=(--set train_batch_size=512 --set timesteps=5 --set learning_rate=1e-5 --set epochs=2)
record mcdrec-attention "$out/demo" MCDRec "${batch[@]}" --set estimator=attention --set reg_weight=0.001
record mcdrec-no-diffusion "$out/demo" MCDRec "${batch[@]}" --set mrd=false
record mcdrec "$out/tiny" MCDRec "${unet[@]}"
record mcdrec-mg "$out/tiny" MCDRec "${unet[@]}" --set use_mg=true --set beta=1 --set n_neg=2 --set reg_weight=0.001
record ccdrec-mcdrec-unet "$out/tiny" CCDRec "${unet[@]}" --set backbone=MCDRec --set estimator=unet --set candidate_ratio=0.5 --set dtau=1
record planted "$out/tiny" CCDRec --set train_batch_size=256 --set candidate_ratio=0.5 "${soon[@]}" --set backbone=MCDRec
runs=()
for name in bpr lightgcn freedom freedom-reg ccdrec ccdrec-soon ccdrec-dma ccdrec-dma-ndi \
  bpr-popularity lightgcn-dns lightgcn-dns-top3 freedom-mixgcf-mg ccdrec-dma-dns ccdrec-mg ccdrec-mcdrec \
  lattice lattice-mg-dns ccdrec-lattice freedom-realhns lattice-realhns \
  bm3 bm3-mg slmrec slmrec-mg mmgcn mmgcn-mg mcdrec-attention mcdrec-no-diffusion; do runs+=("$out/$name.safetensors"); done
also=()
for name in mcdrec mcdrec-mg ccdrec-mcdrec-unet; do also+=(--also "$out/$name.safetensors" "$out/tiny"); done
exec "$python" -W ignore bench/pytorch/parity.py "${runs[@]}" --data "$out/demo" "${also[@]}" --plant "$out/planted.safetensors" "$out/tiny" \
  --report "${REPORT:-bench/results/parity}" --dtype "${DTYPE:-float64}"
