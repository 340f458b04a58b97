#!/usr/bin/env bash
# Does a program still compute what an earlier one did, bit for bit? For a change that moves code and is to change no number.
#   tools/same-bits.sh OLD NEW [PATTERN]    OLD, NEW: build folders with ccdrec and ccdrec_emu (cmake --build build --target ccdrec ccdrec_emu)
# Trains three epochs of every line of same-bits.settings (PATTERN: of those that match the regular expression) with both programs, on the CPU and on the
# emulated GPU, and compares every tensor of last.safetensors and every line of metrics.jsonl but for seconds. Ends with 1 where one differs. Lines with a setting
# that OLD refuses are named and left out.
set -euo pipefail
settings=$(realpath "$(dirname "$0")/same-bits.settings")
old=$(realpath "$1") new=$(realpath "$2") pattern=${3:-.}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

"$old/ccdrec" synth tiny --out tiny >/dev/null
"$old/ccdrec" synth demo --out demo >/dev/null
cp -r tiny three && mv three/tiny.inter three/three.inter && cp three/image_feat.npy three/audio_feat.npy

cat >compare.py <<'PY'
import json, sys

def tensors(path):
    data = open(path, "rb").read()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    header.pop("__metadata__", None)
    return {name: data[8 + n + t["data_offsets"][0] : 8 + n + t["data_offsets"][1]] for name, t in header.items()}

def epochs(path):
    lines = [json.loads(line) for line in open(path)]
    for line in lines:
        line.pop("seconds")
        line.pop("hardness", None)  # an analysis that programs before it do not have
        for split in ("valid", "test"):  # metrics that programs before do not have
            if line.get(split):
                line[split] = {name: x for name, x in line[split].items() if not name.startswith(("mrr@", "hit@"))}
        line["losses"] = {name: x for name, x in line["losses"].items() if x != 0}  # these had terms of 0 that no model has
    return lines

def without_zeros(all_tensors):  # of the sums of an epoch's losses: programs before had terms that the model lacks
    sums = all_tensors["state.losses"]
    all_tensors["state.losses"] = [sums[k : k + 8] for k in range(0, len(sums), 8) if any(sums[k : k + 8])]
    return all_tensors

old, new = sys.argv[1:]
a, b = (without_zeros(tensors(run + "/last.safetensors")) for run in (old, new))
wrong = sorted(set(a) ^ set(b)) + [name for name in a if name in b and a[name] != b[name]]
x, y = epochs(old + "/metrics.jsonl"), epochs(new + "/metrics.jsonl")
if len(a) < 2 or len(x) != 3:
    wrong.append("(nothing was trained)")
wrong += ["metrics.jsonl line %d" % (k + 1) for k in range(max(len(x), len(y))) if x[k : k + 1] != y[k : k + 1]]
if wrong:
    print("  differs: " + ", ".join(wrong))
    sys.exit(1)
PY

same=0 different=0 absent=0
train() {  # train PROGRAM DATA DEVICE MODEL RUN_DIR SETTING...
  local program=$1 data=$2 device=$3 model=$4 run=$5 words=()
  shift 5
  for setting in "$@"; do words+=(--set "$setting"); done
  [ "$data" = demo ] || words=(--set embedding_size=16 --set train_batch_size=256 "${words[@]}")
  "$program" train -m "$model" -d "$data" --device "$device" --run-dir "$run" --set epochs=3 "${words[@]}" >log 2>&1
}
while read -r data devices model rest; do
  case "$data" in '' | '#'*) continue ;; esac
  grep -Eq "$pattern" <<<"$data $devices $model $rest" || continue
  read -ra words <<<"$rest"
  for device in cpu cuda; do
    [ $device = cpu ] || [ "$devices" = both ] || continue
    program=ccdrec
    [ $device = cpu ] || program=ccdrec_emu
    rm -rf old new
    code=0
    train "$old/$program" "$data" $device "$model" old "${words[@]}" || code=$?
    if [ $code = 2 ]; then absent=$((absent + 1)) && echo "  $data $device $model $rest: $(tail -1 log)" && continue; fi
    [ $code = 0 ] && train "$new/$program" "$data" $device "$model" new "${words[@]}" || { cat log; exit 1; }
    if python3 compare.py old new; then same=$((same + 1)); else different=$((different + 1)) && echo "  $data $device $model $rest"; fi
  done
done <"$settings"
echo "$same equal, $different different$([ $absent = 0 ] || echo ", $absent that OLD has not")"
[ $different = 0 ] && [ $same -gt 0 ]
