#!/usr/bin/env bash
# The demo: generates the built-in data set, trains four models on it and prints the comparison. Run by `make demo`, which builds first.
#   CCDREC_DEMO=short   three epochs a model, as CI runs it
set -euo pipefail
cd "$(dirname "$0")/.."
ccdrec=build/ccdrec
out=demo
models=(BPR LightGCN FREEDOM CCDRec)
extra=(--set train_batch_size=512)  # the same for all: with 2048 an epoch of this small set has 10 steps, and early stopping ends some models early
if [ "${CCDREC_DEMO:-full}" = short ]; then extra+=(--set epochs=3); fi

rm -rf $out/data $out/runs
$ccdrec synth demo --out $out/data --name demo
for model in "${models[@]}"; do
  $ccdrec train --model "$model" --data $out/data --run $out/runs/"$model" "${extra[@]}"
done
echo
$ccdrec compare $out/runs/*
cat <<END

Ten items for the first user, by the run you like best:   $ccdrec recommend $out/runs/CCDRec --user 0
What the data are like:                                   $ccdrec check $out/data
END
