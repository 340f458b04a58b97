"""Checks of race.py that need neither PyTorch nor a build: python3 bench/race_check.py. Medians, ratios and memory: bench/pytorch/check.py race."""
import copy
import json
import os
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import race
import race_report

failures = 0


def check(what, ok):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}")


def participant(name, seconds, device="cpu"):
    work = dict(forward=dict(flop=6e9, bytes=20e9, roots=1e9), evaluation=dict(flop=1e15, bytes=1e15, roots=0))
    rounds = [dict(seconds_train=s, phases=dict(evaluation=1, forward=s), **{"valid_Recall@20": 0.1}) for s in seconds]
    return dict(name=name, ready=dict(device=device, seconds_load=1, seconds_setup=2.5, work=work, users=1, items=1, train=1, build=""), rounds=rounds, walls=seconds,
                peak_rss_mb=1, peak_anonymous_mb=1, peak_cuda_mb=None, notes=[])


def report(ceilings, device="cpu", **more):
    names = dict(ccdrec=8, tuned=12, **{"tuned-rows": 30})
    return dict(name="x", what="", command="", machine=dict(cpu="", cores=2, isa="", memory_bytes=0, os=""), ceilings=ceilings, threads=2, load=0, device=device, with_targets=True,
                results=[dict(case="CCDRec", participants=[participant(n, [s] * 7, device) for n, s in names.items()])], **more)


def check_words():
    cpu = dict(fma_gflop_s=10, memory_gb_s=4, root_and_division_g_s=2, gemm_gflop_s=1)
    t = race_report.summary(report(cpu)["results"][0], cpu)
    check("the work in turn and its largest part", abs(t["in_turn"] - 6.1) < 1e-12 and t["largest"] == "memory" and t["parts"]["memory"] == 5)
    missed, rows = race_report.bounds([t])
    check("a missed target", "tuned: 1.5 times ours (1.5 to 1.5), wanted 3." in missed and "takes 6.1 s here, the largest of them alone (memory) 5 s" in missed)
    check("against tuned-rows, as measured and with the bound", "tuned-rows: 3.75 times ours (3.75 to 3.75). " in rows and "would be 4.92 and 6 times as fast as tuned-rows" in rows)
    check("a ratio that misses its target does not look like it", [race_report.beside(x, 2) for x in (1.994, 1.94, 2.04, 1.9999)] == ["1.99x", "1.9x", "2.0x", "1.9999x"])
    check("also where nothing is judged", race_report.bounds([t], False) == [rows])
    text = race_report.markdown(report(cpu))
    check("setting up beside the time to a recall", "| 9 (1 epochs) | 3.5 |" in text and "`setup`" in text)
    check("no floor is claimed", "floor" not in text)
    check("minutes from the epochs and setups, or as the report says", "took 6 minutes" in text and "The race took 2 minutes" in race_report.markdown(report(cpu, seconds=120)))
    gpu = dict(gpu="a chip", fma_gflop_s=None, root_and_division_g_s=None, gemm_gflop_s=20, memory_gb_s=8)
    t = race_report.summary(report(gpu, "cuda")["results"][0], gpu)
    check("a GPU's own ceilings, without roots", abs(t["in_turn"] - (0.3 + 2.5)) < 1e-12 and abs(t["rows"][0]["share_of_fma"] - 6 / 8 / 20) < 1e-12)
    check("they are named", "ceilings of the a chip" in race_report.markdown(report(gpu, "cuda")) and "the first two" in race_report.markdown(report(gpu, "cuda")))
    old = race_report.markdown(report(cpu, "cuda"))
    check("a GPU's epochs are not held against a CPU's ceilings", "nan" not in old and "| 3.5 |  |  |" in old and "times ours" not in old)
    for name in ("race-baby.json", "race-demo.json"):
        with open(os.path.join(race.HERE, "results", name)) as f:
            check(f"{name} is shown", race_report.markdown(json.load(f)).startswith("# The race on"))


def check_distances():
    cpu = dict(fma_gflop_s=10, memory_gb_s=4, root_and_division_g_s=2, gemm_gflop_s=1)

    def race_of(distances, **ceilings):
        r = report(dict(cpu, **ceilings))
        for round_, ns, seconds in zip(r["results"][0]["participants"][0]["rounds"], distances, (8, 8, 8, 8, 8, 16, 12)):
            round_["seconds_train"] = seconds
            if ns:
                round_["core_to_core_ns"] = ns
        return r

    both = race_of((500, 30, 60, 31, 33, 61, 165))
    (case, form, near, far), rows = race_report.split(both)
    check("rounds by where the cores lay, twice the least still together, the first dropped", (case, form) == ("CCDRec", "tuned") and near == dict(ours=[8] * 4, ratio=[1.5] * 4) and
          far == dict(ours=[16, 12], ratio=[0.75, 1]))
    check("of every form", rows[1] == "tuned-rows" and rows[2]["ratio"] == [3.75] * 4 and rows[3]["ratio"] == [1.875, 2.5])
    text = race_report.markdown(both)
    check("they are shown", "| CCDRec | tuned | 4 | 1.5 (1.5 to 1.5) | 2 | 0.875 (0.75 to 1) | 8 | 14 |" in text)
    check("and said beside the ceilings", "division. A line of cache from one thread to another, measured before each of our epochs: 30 to 165 ns in 6 rounds, in 2 of them over 2 times the least of the race (30 ns): there" in text)
    alike = race_report.markdown(race_of((500, 30, 60, 31, 33, 34, 35)))
    check("all together", "epochs: 30 to 60 ns in 6 rounds, in none of them over 2 times the least of the race (30 ns). " in alike and "rounds apart" not in alike)
    far = race_of((500, 160, 170, 165, 160, 160, 160), core_to_core_ns=32)
    check("all apart, by what the ceilings' measurement met", "160 to 170 ns in 6 rounds, in 6 of them over 2 times the least of the race (32 ns): there" in race_report.markdown(far) and
          "| CCDRec | tuned | 0 |  | 6 | 1.5 (0.75 to 1.5) |  | 8 |" in race_report.markdown(far))
    some = race_of((500, 30, None, 31, 165, None, 31))
    check("rounds without it belong to neither", "30 to 165 ns in 4 rounds, in 1 of them" in race_report.markdown(some) and [len(k["ratio"]) for k in race_report.split(some)[0][2:]] == [3, 1])
    one = race_of((500, 30, 2800, 31, 165, 1001, 1000))
    check("rounds with one core for both threads belong to neither", "30 to 1000 ns in 4 rounds, in 2 of them" in race_report.markdown(one) and
          "at times; over 1000 ns in 2 rounds: there both threads had one core" in race_report.markdown(one) and [len(k["ratio"]) for k in race_report.split(one)[0][2:]] == [2, 2])
    only = race_of((500,) + (2800,) * 6)
    check("no others", "epochs: over 1000 ns in 6 rounds: there" in race_report.markdown(only) and not race_report.split(only))
    for what, r in (("a report of before", race_of(())), ("not of a round, though with the ceilings", race_of((), core_to_core_ns=32))):
        check(f"{what}: nothing is said of it", not race_report.split(r) and "line of cache" not in race_report.markdown(r) and "division. Its epochs" in race_report.markdown(r))


def check_places():
    a = SimpleNamespace(models=list(race.CASES), forms=list(race.FORMS), rounds=5, data=None, device="cpu", threads=2)
    check("a whole race", race.out_of(a, "baby") == "race-baby" and race.judged(a, "baby") and not race.judged(a, "demo"))
    for what, change, out, judged in (("some models", dict(models=["CCDRec"]), "race-baby-part", True), ("some forms", dict(forms=["tuned"]), "race-baby-part", True),
                                      ("few rounds", dict(rounds=4), "race-baby-part", False), ("other threads", dict(threads=16), "race-baby", False),
                                      ("a folder called baby", dict(data="baby"), "race-data-baby", False), ("a GPU", dict(device="cuda"), "race-baby-cuda", False)):
        b = copy.copy(a)
        vars(b).update(change)
        check(f"{what}: {out}, {'judged' if judged else 'not judged'}", race.out_of(b, "baby") == out and race.judged(b, "baby") == judged)


def check_mistakes():
    with tempfile.TemporaryDirectory() as room:
        bad = {"text": "no json", "other": "[]", "empty": "{}"}
        for name, text in bad.items():
            with open(os.path.join(room, name), "w") as f:
                f.write(text)
        os.mkdir(os.path.join(room, "x.json"))
        with open(os.path.join(room, "bench_race"), "w") as f:
            f.write("#!/bin/sh\necho measured >&2\nexit 1\n")
        os.chmod(f.name, 0o755)
        for words in (["--render", "/no/such"], *(["--render", os.path.join(room, n)] for n in bad), ["--rounds", "0"], ["--rounds", "x"], ["--most", "0"], ["--threads", "0"], ["--seconds", "nan"],
                      ["--models", "VBPR"], ["--data", "/no/such"], ["--data", room], ["--data", room, "--presets", "demo"], ["--name", "x"], ["--out", room + "/a"], ["--build", "/no/such"],
                      ["--build", room, "--presets", "demo", "--out", "/no/such/a"], ["--build", room, "--presets", "demo", "--out", room + "/x"]):
            done = subprocess.run([sys.executable, os.path.join(race.HERE, "race.py"), *words], capture_output=True, text=True)
            lines = [x for x in done.stderr.splitlines() if x.startswith("race.py: ")]
            check(f"one sentence and exit code 2: {' '.join(words)}", done.returncode == 2 and len(lines) == 1 and "Traceback" not in done.stderr and "measured" not in done.stderr)


check_words()
check_distances()
check_places()
check_mistakes()
print(f"{failures} failed" if failures else "all is well")
sys.exit(1 if failures else 0)
