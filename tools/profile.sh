#!/usr/bin/env bash
# tools/profile.sh: Nsight Systems over three epochs of CCDRec on data of the Baby set's shape, then Nsight Compute over the kernels of a few direct
# steps. Writes profile/ccdrec.nsys-rep, profile/ccdrec.ncu-rep and their summaries. docs/profiling.md says how to read them.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${DATA:-build/bench-data/baby}
program=${BUILD:-build}/ccdrec
out=${OUT:-profile}
export PATH="$PATH:/usr/local/cuda/bin"
"$program" info | grep -E '^(GPU|CUDA)'
case "$("$program" info)" in *$'\nGPU           none'*) echo "profile: there is no GPU to profile" >&2; exit 2 ;; esac
mkdir -p "$out"
[ -d "$data" ] || { "$program" synth baby --out "$data.partial" && mv "$data.partial" "$data"; }
train=("$program" train -m CCDRec -d "$data" --device cuda --set save_best=false --set save_last=false --set dtau=1 --no-progress)

if command -v nsys >/dev/null; then
  rm -rf "$out/run-nsys"
  # Graph launches are taken apart node by node; without that a replayed step is one bar.
  nsys profile --trace=cuda,nvtx,cublas --cuda-graph-trace=node --sample=none --force-overwrite=true -o "$out/ccdrec" \
    "${train[@]}" --set epochs=3 --run-dir "$out/run-nsys"
  nsys stats --force-export=true -r nvtx_sum,cuda_gpu_kern_sum,cuda_api_sum "$out/ccdrec.nsys-rep" | tee "$out/nsys.txt"
else
  echo "profile: nsys (Nsight Systems) is not installed; its part is left out" >&2
fi
if command -v ncu >/dev/null; then
  rm -rf "$out/run-ncu"
  # The first epoch runs its steps directly, with a range for each phase: launches 200 to 400 are steps 3 to 6 or so.
  ncu --set full --clock-control none --nvtx --nvtx-include "ccdrec@epoch/" --launch-skip 200 --launch-count 200 --force-overwrite -o "$out/ccdrec" \
    "${train[@]}" --set epochs=1 --run-dir "$out/run-ncu" || echo "profile: ncu did not finish (it often lacks permission: docs/profiling.md)" >&2
else
  echo "profile: ncu (Nsight Compute) is not installed; its part is left out" >&2
fi
ls -l "$out"
