#!/usr/bin/env bash
# Everything a GPU can tell about this program, in one command, without network, in under nine minutes: build for the GPU that is there, all
# operation tests on it, every operation's time, CPU and GPU from one seed, whole epochs, compute-sanitizer, the PyTorch baseline if PyTorch is there.
#
#   bench/gpu.sh [--out DIR] [--only PHASE] [--deps DIR]
#     --out DIR      where results go (default bench/results): gpu-NAME.md and .json, rewritten after each phase, and logs: at most eight files
#     --only PHASE   build, tests, kernels, parity, epochs, memcheck (and racecheck) or pytorch (build runs first unless build-gpu/ is there);
#                    pytorch alone races every model and form, in the whole run two models in two forms
#     --deps DIR     packages unpacked by bench/collect-deps.sh, for a machine without them
# A phase whose tool is missing or not permitted is skipped, with the reason. A phase that fails is reported and the others go on; then the exit code is 1.
set -uo pipefail
cd "$(dirname "$0")/.."
out=bench/results only="" deps=""
while [ $# -gt 0 ]; do
  case "$1" in
    --out) out=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --deps) deps=$2; shift 2 ;;
    -h | --help) sed -n '2,10p' "$0" | cut -c3-; exit 0 ;;
    *) echo "gpu.sh: unknown option '$1' (--help)" >&2; exit 2 ;;
  esac
done
case "$only" in '' | build | tests | kernels | parity | epochs | memcheck | pytorch) ;; *) echo "gpu.sh: --only is '$only', expected build, tests, kernels, parity, epochs, memcheck or pytorch" >&2; exit 2 ;; esac

export PATH="$PATH:/usr/local/cuda/bin"
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
  echo "gpu.sh: no NVIDIA GPU is visible (nvidia-smi does not list one); nothing was measured" >&2
  exit 2
fi
command -v nvcc >/dev/null || { echo "gpu.sh: nvcc is not on PATH nor in /usr/local/cuda/bin; install the CUDA toolkit" >&2; exit 2; }
command -v cmake >/dev/null || { echo "gpu.sh: cmake is missing" >&2; exit 2; }
if command -v ninja >/dev/null; then
  export CMAKE_GENERATOR=Ninja
elif ! command -v make >/dev/null; then
  echo "gpu.sh: neither ninja nor make is there to build with" >&2
  exit 2
fi

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
mkdir -p "$out"
report=$out/gpu-$gpu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
build=build-gpu
if [ -n "$deps" ]; then
  deps=$(cd "$deps" 2>/dev/null && pwd) || { echo "gpu.sh: --deps: there is no such folder" >&2; exit 2; }
  export CMAKE_PREFIX_PATH="$deps/usr" LD_LIBRARY_PATH="$deps/usr/lib/x86_64-linux-gnu:$deps/lib/x86_64-linux-gnu:${LD_LIBRARY_PATH:-}"
fi

# cuBLAS may lie apart from nvcc (in Python packages, say), or without the name that a build looks for: then CMake is told where.
nvcc=$(command -v nvcc)
cublas=("-DCMAKE_CUDA_COMPILER=$nvcc")
toolkit=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
# Beside the toolkit first, which is where packages of the same version lie. What find could not look into does not count.
in_toolkit() { [ -n "$(find -L "$toolkit" -name "$1" -print -quit 2>/dev/null)" ]; }
somewhere() {
  local found
  found=$(find -L "$(dirname "$toolkit")" -maxdepth 4 -name "$1" -print -quit 2>/dev/null)
  [ -n "$found" ] || found=$(find / -xdev -name "$1" -print -quit 2>/dev/null)
  echo "$found"
}
if ! in_toolkit libcublas.so || ! in_toolkit cublas_v2.h; then
  lib=$(somewhere 'libcublas.so.1[0-9]')
  header=$(somewhere cublas_v2.h)
  if [ -z "$lib" ] || [ -z "$header" ]; then echo "gpu.sh: cuBLAS (libcublas.so and cublas_v2.h) was not found on this machine" >&2; exit 2; fi
  cublas+=("-DCUDA_cublas_LIBRARY=$lib" "-DCUDA_cublasLt_LIBRARY=$(dirname "$lib")/libcublasLt.so.${lib##*.}")
  export CPLUS_INCLUDE_PATH="$(dirname "$header")${CPLUS_INCLUDE_PATH:+:$CPLUS_INCLUDE_PATH}" LD_LIBRARY_PATH="$(dirname "$lib"):${LD_LIBRARY_PATH:-}"
fi

# cuSPARSE likewise; without it the build has one sparse product instead of two, and the report says so.
if ! in_toolkit libcusparse.so || ! in_toolkit cusparse.h; then
  lib=$(somewhere 'libcusparse.so.1[0-9]')
  header=$(somewhere cusparse.h)
  jit=$(somewhere 'libnvJitLink.so.1[0-9]')  # what libcusparse runs with
  if [ -n "$lib" ] && [ -n "$header" ] && [ -n "$jit" ]; then
    cublas+=("-DCUDA_cusparse_LIBRARY=$lib" "-DCCDREC_CUSPARSE_INCLUDE=$(dirname "$header")")
    export CPLUS_INCLUDE_PATH="$(dirname "$header")${CPLUS_INCLUDE_PATH:+:$CPLUS_INCLUDE_PATH}" LD_LIBRARY_PATH="$(dirname "$lib"):$(dirname "$jit"):${LD_LIBRARY_PATH:-}"
  else
    echo "gpu.sh: cuSPARSE (libcusparse.so, cusparse.h and libnvJitLink.so) was not found: our sparse product is measured alone"
  fi
fi

limit=${CCDREC_GPU_SECONDS:-520} failed=0
phases=()
assemble() {  # the report, from what the phases have left so far
  {
    echo "# On a GPU: $(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | head -1)"
    echo
    echo "    bench/gpu.sh${only:+ --only $only}"
    echo
    echo "$(nvcc --version | sed -n 's/.*release \([^,]*\),.*/CUDA toolkit \1/p'), $(nproc) CPU cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)), $(uname -sr)." \
      "Clocks as they were: $(nvidia-smi --query-gpu=clocks.sm,clocks.mem,clocks.max.sm --format=csv,noheader | head -1) (SM, memory, largest SM)." \
      "Commit $(git -c safe.directory="$PWD" describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)."
    echo
    echo '| phase | result | seconds |'
    echo '|---|---|---:|'
    printf '%s\n' "${phases[@]}"
    for part in tests kernels parity parity-tf32 parity-bf16 epochs-baby epochs-clothing epochs-elec memcheck pytorch; do
      if [ -s "$work/$part.md" ]; then echo; cat "$work/$part.md"; fi
    done
  } >"$report.md"
  {
    printf '{"gpu": "%s", "phases": [' "$gpu"
    local comma="" row part
    for row in "${phases[@]}"; do printf '%s"%s"' "$comma" "$(echo "$row" | tr -d '\000-\037' | sed 's/["\\]/ /g')"; comma=", "; done
    printf ']'
    for part in kernels parity parity-tf32 parity-bf16 epochs-baby epochs-clothing epochs-elec pytorch; do
      if [ -s "$work/$part.json" ]; then printf ',\n"%s": ' "$part"; cat "$work/$part.json"; fi
    done
    printf '}\n'
  } >"$report.json"
}
# phase NAME BUDGET COMMAND...: with what is left of the time; its output goes to $work/NAME.log and, in short, to the terminal
phase() {
  local name=$1 budget=$2 start=$SECONDS rc left=$((limit - SECONDS))
  shift 2
  if [ "$left" -lt 15 ]; then phases+=("| $name | not run: the $limit s are used up | |"); failed=1; assemble; return 1; fi
  [ "$budget" -le "$left" ] || budget=$left
  printf '=== %s (at most %d s)\n' "$name" "$budget"
  timeout --kill-after=5 "$budget" "$@" >"$work/$name.log" 2>&1
  rc=$?
  case $rc in
    0) phases+=("| $name | passed | $((SECONDS - start)) |") ;;
    124 | 137) phases+=("| $name | **stopped after $budget s** | $((SECONDS - start)) |"); failed=1 ;;
    *) phases+=("| $name | **failed** ($(tail -c 300 "$work/$name.log" | tail -1 | tr '|' '/')) | $((SECONDS - start)) |"); failed=1 ;;
  esac
  tail -5 "$work/$name.log"
  printf '=== %s: %d s, exit code %d\n' "$name" $((SECONDS - start)) $rc
  assemble
  return $rc
}
skip() { phases+=("| $1 | skipped: $2 | |"); echo "=== $1 skipped: $2"; assemble; }
want() { [ -z "$only" ] || [ "$only" = "$1" ]; }
keep() { cp "$work/$1.log" "$out/gpu-$gpu-$1.log" 2>/dev/null || true; }

# The architecture by its number: what a compiler does when its own look at the GPU fails is another one, compiled anew at each start.
arch=${CCDREC_GPU_ARCH:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d '. ')}
case "$arch" in '' | *[!0-9]*) arch=native ;; esac

# Phases are run by `timeout`, which starts programs: the longer ones are words for a shell. Boost is left out, so that test_host drives the GPU.
if want build || [ ! -x $build/test_cuda ]; then
  phase build 240 bash -c "cmake -S . -B $build -DCMAKE_BUILD_TYPE=Release -DCCDREC_MARCH=native -DCCDREC_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=$arch \
    -DCMAKE_DISABLE_FIND_PACKAGE_Boost=ON ${cublas[*]:-} && cmake --build $build -j $(nproc) --target ccdrec test_cuda test_host bench_gpu bench_parity bench_epoch bench_race"
  keep build
  [ -x $build/test_cuda ] || { echo "gpu.sh: the build failed: $out/gpu-$gpu-build.log" >&2; exit 1; }
fi
if want tests; then
  # Whole models, direct and replayed steps; then the operations, a process a suite: an illegal access ends one suite and not all.
  # Both would pass over a GPU that the program cannot use: it is asked first.
  phase models 60 bash -c "$build/ccdrec info && $build/ccdrec info | grep -q '^GPU  *NVIDIA' && $build/test_host --gtest_brief=1 --gtest_filter='*Gpu.*:Golden.*-Exhaustive*'"
  phase tests 90 bash -c "set -o pipefail; suites=\$($build/test_cuda --gtest_list_tests | grep '^[A-Z].*\.\$') && CCDREC_TEST_DEVICES=cuda xargs -P 4 -I{} $build/test_cuda --gtest_brief=1 '--gtest_filter={}*' <<<\"\$suites\""
  cat "$work/models.log" >>"$work/tests.log" 2>/dev/null
  keep tests
  { echo "## Tests on the GPU"; echo
    grep -hE '^\[  (PASSED|FAILED)' "$work/tests.log" | sort | uniq -c | sed 's/^/    /'; } >"$work/tests.md"
fi
if want kernels; then phase kernels 110 $build/bench_gpu --out "$work/kernels"; keep kernels; fi
if want parity; then
  phase parity 110 $build/bench_parity --preset baby --out "$work/parity"
  for precision in tf32 bf16; do  # in short: the models that have large products, one epoch
    phase "parity-$precision" 45 $build/bench_parity --preset baby --epochs 1 --models FREEDOM,CCDRec --precision $precision --out "$work/parity-$precision"
    cat "$work/parity-$precision.log" >>"$work/parity.log" 2>/dev/null
  done
  keep parity
fi
epochs() {  # PRESET [bench_epoch's words]
  local preset=$1
  shift
  phase "epochs-$preset" 120 $build/bench_epoch --preset "$preset" --device cuda --epochs 5 "$@" --out "$work/epochs-$preset"
}
if want epochs; then epochs baby; fi
if want memcheck; then
  if ! command -v compute-sanitizer >/dev/null; then
    skip memcheck "compute-sanitizer is not installed"
  else
    # sanitize TOOL BUDGET TESTS: accesses outside an array, then races in shared memory, which nothing else finds
    sanitize() {
      local before=$failed
      CCDREC_TEST_POOL=0 CCDREC_TEST_DEVICES=cuda phase "$1" "$2" compute-sanitizer --tool "$1" --print-limit 50 --error-exitcode 9 $build/test_cuda --gtest_brief=1 "--gtest_filter=$3"
      if ! grep -qs 'ERROR SUMMARY\|RACECHECK SUMMARY' "$work/$1.log" && grep -qisE 'not supported|Unable to find|permission' "$work/$1.log"; then
        failed=$before
        phases[-1]="| $1 | skipped: $(grep -iE -m1 'not supported|Unable to find|permission' "$work/$1.log" | tr '|' '/') | |"
        assemble
      fi
    }
    sanitize memcheck 90 '-Slow*'
    sanitize racecheck 40 'ScoreTopk*:Similar*:Reverse*:Estimator*'
    cat "$work/racecheck.log" >>"$work/memcheck.log" 2>/dev/null
    keep memcheck
    { echo "## compute-sanitizer"; echo; grep -sE '(ERROR|RACECHECK) SUMMARY' "$work/memcheck.log" | sed 's/^/    /'; } >"$work/memcheck.md"
  fi
fi
if want epochs; then
  epochs clothing
  epochs elec
  cat "$work"/epochs-*.log >"$work/epochs.log" 2>/dev/null
  keep epochs
fi
if want pytorch; then
  if ! python3 -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2>/dev/null; then
    skip pytorch "PyTorch with CUDA is not importable"
  else
    # Every participant starts PyTorch and sets up before its first epoch: all models in all forms, thirteen times, are more than what the other phases
    # leave. Beside them CCDRec and LightGCN run in the forms that have targets, five rounds each; alone
    # (--only pytorch) it has all the time and runs everything, the longest first: what is measured when the time is up stays in the report.
    if [ "$only" = pytorch ]; then
      race=(500 --models CCDRec 'FREEDOM reg' FREEDOM LightGCN BPR --forms published tuned tuned-rows)
    else
      race=(100 --models CCDRec LightGCN --forms published tuned)
    fi
    phase pytorch "${race[0]}" python3 bench/race.py --presets baby --device cuda --rounds 5 --seconds 0 --build $build --out "$work/pytorch" "${race[@]:1}"
    if [ -s "$work/pytorch.md" ]; then sed -i '1s/.*/## Beside PyTorch/' "$work/pytorch.md"; fi
  fi
fi
assemble
echo "results: $report.md, $report.json"
exit $failed
