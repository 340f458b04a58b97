#!/usr/bin/env bash
# make race: this program beside its PyTorch baselines (bench/race.py, whose options may follow). PYTHON names an interpreter that has torch and numpy;
# otherwise .venv is used, and made when it is missing: PyTorch is the one thing fetched here, and only for this comparison.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
if ! "$python" -c 'import torch, numpy' 2>/dev/null; then
  if [ -n "${PYTHON:-}" ]; then
    echo "race.sh: $PYTHON cannot import torch and numpy; expected an interpreter that has both (bench/pytorch/README.md), or no PYTHON" >&2
    exit 2
  fi
  echo "PyTorch is not there yet: installing torch and numpy into .venv (some minutes, once)"
  python3 -m venv .venv || { echo "race.sh: python3 cannot make a virtual environment; type: apt-get install python3-venv" >&2; exit 2; }
  .venv/bin/pip install --quiet torch numpy || { echo "race.sh: pip could not install torch and numpy into .venv; bench/pytorch/README.md says what is needed" >&2; exit 2; }
fi
case " $* " in
  *" --compile off "* | *" --compile=off "* | *" --render"* | *" --help "* | *" -h "*) ;;
  *)  # without these torch.compile fails, and the tuned baseline would lose what a competent user gives it
    missing=
    command -v "${CXX:-g++}" > /dev/null || missing="g++"
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
      missing="${missing:+$missing }python3-dev"
    [ -z "$missing" ] || echo "race.sh: WARNING: torch.compile cannot work here, so the tuned baselines run uncompiled, which is slower; type: apt-get install $missing" >&2 ;;
esac
exec "$python" bench/race.py "$@"
