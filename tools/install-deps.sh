#!/usr/bin/env bash
# Installs what is missing, from the distribution's packages; touches nothing when all is there.
#   tools/install-deps.sh [build] [bench] [instructions] [lint] [race]      (default: build)
# Without the right to install (neither root nor passwordless sudo) it prints the one line to type and fails.
set -euo pipefail

packages=()
need_tool() { command -v "$1" >/dev/null || packages+=("$2"); }
need_package() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed' || packages+=("$1"); }

if ! command -v dpkg-query >/dev/null; then
  echo "install-deps: this is neither Debian nor Ubuntu; CMake will say which library it does not find." >&2
  exit 0
fi
for group in "${@:-build}"; do
  case "$group" in
    build)
      need_tool c++ g++
      need_tool make make
      need_tool ninja ninja-build
      need_tool git git
      need_tool cmake cmake
      for p in libfmt-dev zlib1g-dev libcli11-dev libyaml-cpp-dev nlohmann-json3-dev librandom123-dev libgtest-dev libbenchmark-dev libboost-context-dev; do need_package $p; done
      ;;
    bench) need_package libopenblas-openmp-dev ;;  # the yardstick of the benches
    instructions) need_tool valgrind valgrind ;;
    race) need_tool python3 python3 ;;             # PyTorch itself: bench/race.sh
    lint)                                          # version 14 on every system: later ones lay out some lines differently
      need_tool clang-format-14 clang-format-14
      need_tool clang-tidy-14 clang-tidy-14
      ;;
    *) echo "install-deps: unknown group '$group' (build, bench, instructions, lint, race)" >&2; exit 2 ;;
  esac
done

if ((${#packages[@]})); then
  sudo=""
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      sudo="sudo -n"
    else
      printf 'Packages are missing. Type this, then try again:\n\n  sudo apt-get install -y %s\n\n' "${packages[*]}" >&2
      exit 1
    fi
  fi
  echo "installing ${packages[*]}"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# Ubuntu 22.04 ships CMake 3.22; the presets need 3.25.
have=$(cmake --version | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')
if [ "$(printf '%s\n' 3.25 "$have" | sort -V | head -1)" != 3.25 ]; then
  echo "CMake 3.25 or later is needed, found $have. On Ubuntu 22.04:  sudo snap install cmake --classic   (or: pip install cmake)" >&2
  exit 1
fi
