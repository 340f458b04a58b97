"""Checks of what a user gives: data folders and options."""
import contextlib
import io
import itertools
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch

import data as D
import parity
import train
from checking import report
from mistakes import UserError

HERE = os.path.dirname(os.path.abspath(__file__))


def folder_of(at, lines, **files):
    """A data folder with these lines and text files (a dot is __) in it; features are one number an item, rows as many as `features` says."""
    os.makedirs(at)
    features = files.pop("features", 0)
    for name, text in {os.path.basename(at) + ".inter": lines, **files}.items():
        with open(os.path.join(at, name.replace("__", ".")), "w") as f:
            f.write("\n".join(text) + "\n")
    if features:
        np.save(os.path.join(at, "text_feat.npy"), np.arange(features, dtype=np.float32)[:, None])
    return at


def refused(f, *words):
    """0 where f() is refused by one sentence with these words in it."""
    try:
        f()
    except UserError as e:
        text = str(e)
        if "\n" not in text and all(w in text for w in words):
            return 0
        print(f"  said: {text}")
    return 1


def check_data():
    """Ids as the main README says, and what is no data folder or no option."""
    plain, typed = "userID\titemID\tx_label", "user_id:token\titem_id:token\tx_label:float"
    rows = ["b\tx\t0", "a\ty\t0", "b\tz\t1"]
    users, items = ["raw\tuserID", "a\t0", "b\t1"], ["itemID\tasin", "3\tx", "0\tz", "1\tnobody", "2\ty"]
    with tempfile.TemporaryDirectory() as top:
        n = itertools.count()
        make = lambda lines, **files: folder_of(os.path.join(top, f"f{next(n)}"), lines, **files)   # noqa: E731
        load = lambda *a, **files: D.load(make(*a, **files))   # noqa: E731
        maps = dict(u_id_mapping__csv=users, i_id_mapping__csv=items)

        def wrong(d, U, I, u, i):   # noqa: E741
            return (d.U, d.I) != (U, I) or d.train_u.tolist() != u or d.train_i.tolist() != i

        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as said:
            bad = [wrong(load([plain, *rows]), 2, 3, [0, 1], [0, 1]), said.getvalue().count("first appearance") != 2]
            bad += [wrong(load([plain, *rows], **maps, features=4), 2, 4, [1, 0], [3, 2]),              # an item that has no interaction
                    wrong(load([plain, "1\t2\t0", "0\t0\t0"], **maps), 2, 4, [1, 0], [2, 0]),          # integers are rows; the mapping says how many
                    wrong(load([plain, "1\t2\t0", "0\t0\t0"]), 2, 3, [1, 0], [2, 0]),
                    wrong(load([plain, "01\t2\t0", "00\t0\t0"]), 2, 3, [0, 1], [2, 0]),                # digits with leading zeros are names
                    wrong(load([typed, "7\t9\t0", "x\t9\t0", "7\t1\t0"]), 2, 10, [0, 1, 0], [9, 9, 1]),
                    wrong(load([typed, "7\t900000\t0", "7\t1\t0"]), 8, 2, [7, 7], [0, 1])]
            bad += [refused(lambda: load([plain, *rows, "c\tx\t0"], **maps), "'c' is not in", "u_id_mapping.csv"),
                    refused(lambda: load([plain, "1\t9\t0"], **maps), "reaches 9", "lists only 4 ids"),
                    refused(lambda: load([plain, *rows], u_id_mapping__csv=["raw\tuserID", "a\t0", "b\t2"]), "every index"),
                    refused(lambda: load([plain, *rows], u_id_mapping__csv=["raw\tuserID", "a\t0", "a\t1"]), "line 3", "'a'"),
                    refused(lambda: load([plain, *rows], u_id_mapping__csv=["raw\tuserID", "a\tfirst"]), "line 2"),
                    refused(lambda: load([plain, *rows], u_id_mapping__csv=["a b"]), "line 1", "two separated by a tab"),
                    refused(lambda: load([plain, *rows], u_id_mapping__csv=["raw\tuserID"]), "lists no ids"),
                    refused(lambda: load([plain, "1\t2\t0", "x\t2\t0"]), "interaction 2", "userID is 'x'", "userID:token"),
                    refused(lambda: load([plain, "1\t900000\t0"]), "reaches 900000"),
                    refused(lambda: load([plain, "1\t\t0"]), "itemID is empty"),
                    refused(lambda: load([plain, "1\t2\t7"]), "x_label is '7'"),
                    refused(lambda: load([plain, "1\t2\t1"]), "no training rows"),
                    refused(lambda: load([plain, "1\t2"]), "separated by tabs"),
                    refused(lambda: load([plain]), "no interactions"),
                    refused(lambda: load(["userID\titemID"]), "lacks the column x_label"),
                    refused(lambda: load([plain, "1\t2\t0"], features=2), "has 2 rows"),
                    refused(lambda: D.load(os.path.join(top, "nothing")), "no such folder"),
                    refused(lambda: load([plain, "1\t2\t0"], x_feat__npy=["no matrix"]), "numpy.save")]
        report(f"data: ids and folders, cases of {len(bad)} that are wrong", sum(map(int, bad)), 0)
        report("data: letters on the standard output", len(out.getvalue()), 0)
        check_mistakes(make([plain, "1\t2\t0"]), make([plain, "1\t2\t0"], bad__safetensors=["no record"]), os.path.join(top, "nothing"))


def check_mistakes(folder, other, nothing):
    def of(module, *words):
        def call():
            sys.argv = [module.__name__ + ".py", *map(str, words)]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                module.main()
        return call

    def bpr(*words):
        return of(train, "--data", folder, "--model", "BPR", *words)

    kept, record = sys.argv, os.path.join(other, "bad.safetensors")
    bad = [refused(of(train, "--data", nothing), nothing), refused(of(train, "--data", folder), "NAME_feat.npy"), refused(of(train), "--data"),
           refused(bpr("--threads", -1), "--threads is -1"), refused(bpr("--epochs", 0), "--epochs is 0"), refused(bpr("--seed", -1), "--seed is -1"),
           refused(bpr("--form", "x"), "--form"), refused(bpr("--set", "nothing"), "--set nothing", "KEY=VALUE"), refused(bpr("--set", "a=1"), "unknown setting a"),
           refused(bpr("--set", "embedding_size=x"), 'embedding_size is "x"', "integer"), refused(bpr("--set", "dropout=1"), "dropout is 1, expected", "less than 1"),
           refused(bpr("--set", "kappa=0"), "kappa is 0", "above 0"), refused(bpr("--set", "learning_rate=NaN"), "learning_rate"),
           refused(bpr("--set", "cns=1"), "cns is 1, expected true or false"), refused(bpr("--set", "noise_schedule=x"), "none of linear"),
           refused(bpr("--set", "sampler=hardest"), "sampler hardest", "popularity"), refused(bpr("--set", "beta=0"), "beta is 0", "at least 1"),
           refused(bpr("--set", "sampler=dns", "--set", "n_candidates=4", "--set", "top_m=5"), "top_m is 5", "at most n_candidates, 4"),
           refused(bpr("--set", "sampler=popularity", "--set", "popularity_power=-1"), "popularity_power is -1", "at least 0"),
           refused(bpr("--set", "use_mg=1"), "use_mg is 1, expected true or false"), refused(bpr("--set", "alpha2=-0.2"), "alpha2 is -0.2", "at least 0"),
           refused(of(train, "--data", folder, "--set", "sampler=dns"), "sampler dns", "ndi and cns to be false"),
           refused(of(train, "--data", folder, "--set", "embedding_size=7"), "even"),
           refused(bpr("--form", "published", "--compile", "on"), "--compile on"),
           refused(of(parity, nothing, "--data", nothing), nothing), refused(of(parity, record, "--data", folder), record), refused(of(parity, record), "--data"),
           refused(of(parity, record, "--data", folder, "--report", os.path.join(nothing, "x")), "--report"), refused(of(parity, "--threads", "x"), "--threads"),
           refused(of(parity, "--plant", nothing, folder), nothing)]
    if not torch.cuda.is_available():
        bad.append(refused(bpr("--device", "cuda"), "no CUDA device"))
    sys.argv = kept
    report(f"mistakes: cases of {len(bad)} that are not refused by one sentence", sum(bad), 0)
    p = subprocess.run([sys.executable, os.path.join(HERE, "train.py"), "--data", nothing], capture_output=True, text=True)
    report("mistakes: exit code, lines on the standard error", abs(p.returncode - 2) + abs(p.stderr.count("\n") - 1) + len(p.stdout), 0)
