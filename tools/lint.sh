#!/usr/bin/env bash
# tools/lint.sh format    clang-format over the tracked C++ files, changing nothing; fails on the first difference; and what no formatter sees:
#                         names of models are compared in host/systems alone; no line but one of a raw string is longer than 120 columns
# tools/lint.sh fix       the same, in place
# tools/lint.sh tidy      clang-tidy with .clang-tidy
set -euo pipefail
cd "$(dirname "$0")/.."
pick() { command -v "$1-14" || command -v "$1" || { echo "lint: $1 is not installed (tools/install-deps.sh lint)" >&2; exit 1; }; }

mapfile -t files < <(git -c safe.directory="$PWD" ls-files '*.cpp' '*.h' '*.cu' '*.cuh')
short_lines() {
  local long
  long=$(printf '%s\n' "${files[@]}" | xargs awk 'length($0) > 120 && !/R"/ && !/^> / { print FILENAME ":" FNR }')
  [ -z "$long" ] && return
  printf '%s\n' "$long" >&2
  echo "lint: these lines are longer than 120 columns; .clang-format lays out code, comments are wrapped by hand" >&2
  return 1
}
# A system is a line of host/systems/registry.cpp; what differs between systems is asked of it, not of their names.
compare_no_models() {
  local names='"(BPR|LightGCN|MMGCN|SLMRec|BM3|LATTICE|FREEDOM|MCDRec|CCDRec)[^"]*"' found
  found=$(printf '%s\n' "${files[@]}" | grep -E '^(host|bench|tests)/' | grep -v '^host/systems/' | xargs grep -nE "[=!]= *(std::string\()?$names|$names\)? *[=!]=" || true)
  [ -z "$found" ] && return
  printf '%s\n' "$found" >&2
  echo "lint: the name of a model is compared outside host/systems; ask its System or Outline (host/systems/registry.h)" >&2
  return 1
}
mapfile -t sources < <(printf '%s\n' "${files[@]}" | grep -E '\.cpp$')
case "${1:-format}" in
  format)
    "$(pick clang-format)" --dry-run -Werror "${files[@]}"
    echo "format: ${#files[@]} files as .clang-format wants them"
    compare_no_models
    short_lines
    ;;
  fix) "$(pick clang-format)" -i "${files[@]}" ;;
  tidy)
    # Without GCC's precompiled headers, which clang cannot read, and file by file: one that does not include what it uses is found here.
    cmake --preset default -B build/tidy -DCCDREC_PCH=OFF -DCCDREC_JOIN=OFF >/dev/null
    # -fopenmp is GCC's here; clang only has to parse the pragmas.
    printf '%s\0' "${sources[@]}" |
      xargs -0 -n 4 -P "$(nproc)" "$(pick clang-tidy)" -p build/tidy --quiet --extra-arg=-Wno-unknown-pragmas --extra-arg=-Wno-unused-command-line-argument
    ;;
  *) echo "lint: format, fix or tidy" >&2; exit 2 ;;
esac
