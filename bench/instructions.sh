#!/usr/bin/env bash
# Counts the instructions of an epoch and compares them with bench/results/instructions.json; --update writes that file. CI runs it.
# A build without -march, and no choice left to the processor: the counts are of the sources, the compiler and the C library alone.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=$(nproc)  # asked before OMP_NUM_THREADS, which it would obey

if command -v ninja >/dev/null; then export CMAKE_GENERATOR="${CMAKE_GENERATOR:-Ninja}"; fi  # as the Makefile does
cmake --preset portable -DCCDREC_CUDA=OFF -DCCDREC_TESTS=OFF -DCCDREC_WERROR="${WERROR:-OFF}" >/dev/null
cmake --build --preset portable -j "$jobs" --target bench_instructions >build-portable/instructions.log ||
  { cat build-portable/instructions.log >&2; exit 2; }

export CCDREC_ISA=portable OMP_NUM_THREADS=1
# The C library also picks fma, exp and memcpy by processor: its oldest ones are on every x86-64.
export GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX,-FMA,-FMA4,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM,-SSE4_1,-SSE4_2,-SSSE3
exec build-portable/bench_instructions --room build-portable/instructions --jobs "$jobs" "$@"
