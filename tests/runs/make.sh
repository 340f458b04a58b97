#!/usr/bin/env bash
# How the run folders beside this script were made, and what commit 7c47670 made of them: tests/runs/make.sh PROGRAM FOLDER, with the program of that commit
# and an empty folder. It is kept to say what the files are; a later program must not write them anew, since they hold what the earlier one did.
#   bpr-finished      an ordinary run that ended
#   freedom-killed    killed right after the end of epoch 4: saved state of epoch 4 (its best epoch is 3), best.safetensors already of epoch 4
#   ccdrec-stopped    interrupted in epoch 5, after step 2, which ends in the middle of a curriculum stage
# expected/NAME.*     what that program printed and computed from them; NAME-resumed.*: after resuming to 10 epochs
set -euo pipefail
program=$(realpath "$1")
cd "$2"
export OMP_WAIT_POLICY=passive
common=(--threads 1 --no-progress --set embedding_size=16 --set train_batch_size=256 --set topk=[5,10,20])

"$program" synth tiny --out tiny
"$program" train -m BPR -d tiny --run-dir bpr-finished "${common[@]}" --set epochs=8
gdb -batch -ex 'break ccdrec::RunFolder::append_epoch' -ex 'ignore 1 4' -ex run -ex finish -ex kill \
  --args "$program" train -m FREEDOM -d tiny --run-dir freedom-killed "${common[@]}" --set epochs=8 --set save_every=2 --set reg_weight=0.001
gdb -batch -ex 'handle SIGINT nostop pass' -ex 'break ccdrec::Recommender::step' -ex 'ignore 1 37' -ex run -ex delete -ex 'signal SIGINT' \
  --args "$program" train -m CCDRec -d tiny --run-dir ccdrec-stopped "${common[@]}" --set epochs=8 --set dtau=2 --set tau_end=7 \
  --set learning_rate=0.005

mkdir -p expected
for run in bpr-finished freedom-killed ccdrec-stopped; do
  "$program" evaluate "$run" -d tiny --json >"expected/$run.evaluate.json" 2>/dev/null
  "$program" recommend "$run" -d tiny --top 3 >"expected/$run.recommend.tsv"
  "$program" export "$run" -o "export-$run" >/dev/null
  cp -r "$run" "resumed-$run"
  rm -f "$run/train.log"
  "$program" train --resume "resumed-$run" -d tiny --threads 1 --no-progress --set epochs=10
done
"$program" compare bpr-finished resumed-freedom-killed resumed-ccdrec-stopped --json >expected/compare.json
"$program" compare bpr-finished resumed-freedom-killed resumed-ccdrec-stopped --valid --json >expected/compare-valid.json
python3 - <<'PY'
import hashlib, json
for run in ("bpr-finished", "freedom-killed", "ccdrec-stopped"):
    lines = []
    for name in ("user", "item"):
        data = open(f"export-{run}/{name}_embeddings.npy", "rb").read()
        lines.append(f"export {name}_embeddings.npy {hashlib.sha256(data).hexdigest()}")
    for file in ("best", "last"):
        data = open(f"resumed-{run}/{file}.safetensors", "rb").read()
        n = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + n])
        header.pop("__metadata__")
        for tensor, t in sorted(header.items()):
            a, b = t["data_offsets"]
            lines.append(f"{file} {tensor} {hashlib.sha256(data[8 + n + a : 8 + n + b]).hexdigest()}")
    open(f"expected/{run}.sha256", "w").write("\n".join(lines) + "\n")
    with open(f"expected/{run}-resumed.metrics.jsonl", "w") as out:
        for line in open(f"resumed-{run}/metrics.jsonl"):
            epoch = json.loads(line)
            del epoch["seconds"]
            out.write(json.dumps(epoch) + "\n")
    summary = json.load(open(f"resumed-{run}/summary.json"))
    keep = ("model", "seed", "stopped", "epochs_run", "best_epoch", "best_score", "best_valid", "best_test")
    json.dump({k: summary[k] for k in keep}, open(f"expected/{run}-resumed.summary.json", "w"), indent=1)
PY
rm -rf export-* resumed-*
