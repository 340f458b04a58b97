#!/usr/bin/env bash
# The demo: generates the built-in data set, trains eight systems on it and prints their table. Run by `make demo`, which builds first.
#   CCDREC_DEMO=short   all systems and samplers, three epochs each, as CI runs it
set -euo pipefail
cd "$(dirname "$0")/.."
ccdrec=build/ccdrec
out=demo
# The same batches for all: with 2048 an epoch of this small set has 10 steps, and early stopping ends some systems early.
args=(-d $out/data -o $out/runs --set train_batch_size=512)
if [ "${CCDREC_DEMO:-full}" = short ]; then
  args+=(--set epochs=3)
else
  args+=(--only "BPR,LightGCN,BM3,LATTICE,FREEDOM,FREEDOM+DNS,CCDRec(FREEDOM),MG")
fi

rm -rf $out/data $out/runs
$ccdrec synth demo --out $out/data --name demo
$ccdrec reproduce systems "${args[@]}"
run=$(grep -l '^backbone: FREEDOM' $out/runs/CCDRec-*/config.yaml | xargs grep -l '^cns: true' | xargs grep -L '^use_mg: true')
cat <<END

Ten items for the first user, by CCDRec:   $ccdrec recommend ${run%/config.yaml} --user 0
Their lists, and groups of users:          $ccdrec compare $out/runs/* --lists --groups
What the data are like:                    $ccdrec check $out/data
END
