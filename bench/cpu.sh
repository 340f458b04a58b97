#!/usr/bin/env bash
# Every CPU number the project quotes, in one command: kernels, epochs on data of the Baby set's shape, steps on data of the Electronics set's shape.
# Rewrites bench/results/. CCDREC_BENCH=quick leaves the large data set out.
set -euo pipefail
if [ $# -gt 0 ]; then
  sed -n '2,3s/^# //p' "$0"
  case $1 in -h | --help) exit 0 ;; esac
  echo "cpu.sh: '$1': takes no arguments" >&2
  exit 2
fi
cd "$(dirname "$0")/.."
out=bench/results
mkdir -p $out

build/bench_epoch --preset baby --epochs 5 --out $out/cpu
if [ "${CCDREC_BENCH:-full}" != quick ]; then
  build/bench_epoch --preset elec --steps 200 --out $out/cpu_elec
fi
if [ -x build/bench_kernels ]; then
  build/bench_kernels --benchmark_out=$out/cpu_kernels.json --benchmark_out_format=json | tee $out/cpu_kernels.txt
fi
