"""Runs models and forms one after the other, each in a process of its own (so that peak memory is its own), and prints one JSON line each.

    python race.py --data FOLDER | --preset demo [--models BPR LightGCN FREEDOM CCDRec] [--forms published tuned tuned-rows]
                   [--epochs 5] [--threads 2] [--device cpu|cuda] [--json OUT]

A line holds, besides sizes and versions: phases (name -> seconds, one number an epoch), epochs (list: seconds, seconds_train, losses of the
steps, validation and test Recall@20 and NDCG@20), peak_rss_mb, peak_cuda_mb, rss_before_data_mb (PyTorch alone), notes (what was compiled,
what was not). Epoch 0 of CCDRec has no curricular negatives; leave it out of medians.
"""
import argparse
import json
import os
import subprocess
import sys

import train

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "..", ".."))


def preset_folder(name, ccdrec):
    folder = os.path.join(ROOT, "build", "bench-data", name)
    if not os.path.isdir(folder):
        if not os.path.exists(ccdrec):
            raise SystemExit(f"{folder} does not exist and neither does {ccdrec}, which would make it: build first, or use --data")
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([ccdrec, "synth", name, "--out", folder], check=True, stdout=sys.stderr)
    return folder


def main():
    parser = argparse.ArgumentParser(description="The PyTorch side of the race.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", help="a data folder")
    where.add_argument("--preset", help="a preset of ccdrec synth, kept in build/bench-data")
    parser.add_argument("--models", nargs="+", choices=list(train.M.MODEL_DEFAULTS), default=list(train.M.MODEL_DEFAULTS))
    parser.add_argument("--forms", nargs="+", choices=list(train.FORMS), default=list(train.FORMS))
    parser.add_argument("--ccdrec", default=os.path.join(ROOT, "build", "ccdrec"), help="the program that makes a preset")
    parser.add_argument("--json", help="file the lines are written to as well")
    train.arguments(parser)
    a = parser.parse_args()
    folder = a.data or preset_folder(a.preset, a.ccdrec)
    out, failed = open(a.json, "w") if a.json else None, 0
    for model in a.models:
        for form in a.forms:
            if form == "tuned-rows" and model in ("BPR", "LightGCN"):
                continue               # no features: the same as tuned
            command = [sys.executable, os.path.join(HERE, "train.py"), "--data", folder, "--model", model, "--form", form, "--epochs", str(a.epochs),
                       "--threads", str(a.threads), "--device", a.device, "--seed", str(a.seed), "--compile", a.compile, "--graphs", a.graphs]
            command += [x for pair in a.set for x in ("--set", pair)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                failed += 1
                line = json.dumps(dict(model=model, form=form, data=folder, error=f"exit status {done.returncode}"))
            else:
                line = done.stdout.strip().splitlines()[-1]
            print(line, flush=True)
            if out:
                out.write(line + "\n")
                out.flush()
    if failed:
        raise SystemExit(f"{failed} runs failed")


if __name__ == "__main__":
    main()
