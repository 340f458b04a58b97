#!/usr/bin/env bash
# The runs and tables of bench/results/accuracy.md: bench/accuracy.sh SETS [TABLE...]
#
#   SETS    the folder with the data sets tiktok and sports
#   TABLE   tiktok-table2 tiktok-table3 sports sports-samplers sports-mu (default: all, in this order)
#
# Finished runs enter bench/results/accuracy.json at once and are not trained again, so that it can be stopped at any
# time; run folders go to runs/accuracy-SET. Each table is printed as Markdown and written to runs/accuracy-NAME.md.
# JOBS runs at a time (default 2, a thread each on two cores); TRAIN=--report trains nothing.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,9p' "$0" | cut -c3-; exit 2; }
sets=$1
shift
ccdrec=${CCDREC:-build/ccdrec}
tables=("$@")
[ ${#tables[@]} -gt 0 ] || tables=(tiktok-table2 tiktok-table3 sports sports-samplers sports-mu)
mkdir -p runs
reproduce() {  # NAME SET TABLE OPTIONS...
  local name=$1 set=$2 table=$3
  shift 3
  "$ccdrec" reproduce "$table" -d "$sets/$set" -o "runs/accuracy-$set" --results bench/results/accuracy.json --jobs "${JOBS:-2}" \
    --format markdown ${TRAIN:-} "$@" | tee "runs/accuracy-$name.md"
}
for table in "${tables[@]}"; do
  case $table in
    tiktok-table2)   reproduce "$table" tiktok table2 --seeds 1,2,3 --search small ;;
    tiktok-table3)   reproduce "$table" tiktok table3 --seeds 1,2,3 --search small ;;
    sports)          reproduce "$table" sports table2 --seeds 1,2,3 --only "BPR,LightGCN,FREEDOM,MG,BM3,LATTICE,CCDRec(FREEDOM),CCDRec(MG),SLMRec" ;;
    sports-samplers) reproduce "$table" sports table3 --seeds 1,2,3 --only "FREEDOM,FREEDOM+DNS,FREEDOM+MixGCF,FREEDOM+RealHNS,CCDRec(FREEDOM)" ;;
    sports-mu)       reproduce "$table" sports table2 --seeds 1 --search small --only "CCDRec(FREEDOM)" ;;
    *) echo "accuracy.sh: '$table' is no table, expected tiktok-table2, tiktok-table3, sports, sports-samplers or sports-mu" >&2; exit 2 ;;
  esac
done
