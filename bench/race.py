"""The race: this program and the PyTorch baselines, epoch by epoch in alternation, on the same data, threads, settings and precision.

    make race                                                        # presets demo and baby, all models; writes bench/results/race-*.md and .json
    PYTHON bench/race.py --presets demo --models CCDRec --rounds 5   # PYTHON has torch and numpy (bench/pytorch/README.md)
    PYTHON bench/race.py --data FOLDER --name sports --out race-sports
    PYTHON bench/race.py --render race-baby.json                     # the table again, from what was measured

Every participant is a process of its own: build/bench_race for this program, bench/pytorch/train.py for the forms of the baseline. A round is
one epoch (training, then evaluation of validation and test) of each in turn; who waits is stopped (SIGSTOP), so that no thread of theirs spins.
Ratios are formed within a round. The first round is dropped: it touches memory for the first time, and CCDRec has no curricular negatives in it; on a
GPU also the second, in which steps are recorded.
"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PHASES = ("prune", "sample", "forward", "backward", "optimiser", "reverse")
OURS, FORMS = "ccdrec", ("published", "tuned", "tuned-rows")

# What both sides are told: the published settings (specification, baselines 2-4 and ccdrec 6), every key by name, so that no default decides.
COMMON = dict(embedding_size=64, n_neg=1)
GRAPH = dict(n_ui_layers=2)
ITEMS = dict(GRAPH, n_mm_layers=1, knn_k=10, mm_image_weight=0.1, dropout=0.8, train_features=True)
CASES = {
    "BPR": dict(model="BPR", learning_rate=1e-3, train_batch_size=2048, reg_weight=0.1, **COMMON),
    "LightGCN": dict(model="LightGCN", learning_rate=1e-3, train_batch_size=2048, reg_weight=1e-4, **GRAPH, **COMMON),
    "FREEDOM": dict(model="FREEDOM", learning_rate=1e-3, train_batch_size=2048, reg_weight=0.0, **ITEMS, **COMMON),
    "FREEDOM reg": dict(model="FREEDOM", learning_rate=1e-3, train_batch_size=2048, reg_weight=1e-3, **ITEMS, **COMMON),
    "CCDRec": dict(model="CCDRec", learning_rate=5e-4, train_batch_size=512, reg_weight=0.0, lambda_dm=1.0, omega=0.8, mu=0.5, timesteps=20, dtau=5,
                   tau_end=30, candidate_ratio=0.1, kappa=0.1, **ITEMS, **COMMON),
}
# Targets for `baby` on two CPU cores: ratio of the epoch's seconds (training), of the evaluation's, share of the memory.
TARGETS = {("CCDRec", "published"): 8, ("FREEDOM", "published"): 4, ("FREEDOM reg", "published"): 4, ("LightGCN", "published"): 4,
           ("CCDRec", "tuned"): 3, ("FREEDOM", "tuned"): 2, ("FREEDOM reg", "tuned"): 2, ("LightGCN", "tuned"): 2, ("BPR", "tuned"): 2}
EVALUATION_TARGET, MEMORY_TARGET = 5, 1 / 3


class Participant:
    """A process that runs an epoch when told to, and is stopped in between."""

    def __init__(self, name, command, environment):
        self.name, self.command, self.rounds, self.walls = name, command, [], []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.ready = self.read()
        self.stop()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended (status {self.process.wait()}): {' '.join(self.command)}")
        return json.loads(line)

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def epoch(self):
        self.process.send_signal(signal.SIGCONT)
        begin = time.perf_counter()
        self.process.stdin.write("epoch\n")
        self.process.stdin.flush()
        line = self.read()
        line.pop("losses", None)        # of every step: for parity, not for a race
        self.rounds.append(line)
        self.walls.append(time.perf_counter() - begin)
        self.stop()

    def memory_mb(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return memory_of(f.read())

    def end(self):
        memory = self.memory_mb()
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        last = self.read()
        self.process.wait()
        return dict(name=self.name, ready=self.ready, rounds=self.rounds, walls=self.walls, **memory, peak_cuda_mb=last.get("peak_cuda_mb"),
                    notes=last.get("notes") or self.ready.get("notes", []))

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()


def memory_of(status):
    """Of /proc/PID/status, in 10^6 bytes, the same for every program: the highest resident set so far, and what is left of it without the pages of
    files. Those are programs and libraries, which the kernel shares and can drop, and of which PyTorch's wheel maps over 100 MB for a GPU even where
    none is used. Their number is that of now: a program touches more of them as it goes on, so a baseline is never given too much."""
    kb = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in status.splitlines()) if key in ("VmHWM", "RssFile")}
    if len(kb) < 2:
        raise SystemExit("race.py: /proc/PID/status has no VmHWM and RssFile; expected those of Linux 4.5 or later")
    return dict(peak_rss_mb=kb["VmHWM"] * 1024 / 1e6, peak_anonymous_mb=max(0, kb["VmHWM"] - kb["RssFile"]) * 1024 / 1e6)


def run_case(case, folder, a):
    """-> dict: all participants' rounds of one model."""
    settings = {k: v for k, v in CASES[case].items() if k != "model"}
    sets = [x for k, v in settings.items() for x in ("--set", f"{k}={json.dumps(v)}")]
    model, threads = CASES[case]["model"], str(a.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    common = ["--data", folder, "--model", model, "--device", a.device, "--threads", threads] + sets
    commands = {OURS: [os.path.join(a.build, "bench_race")] + common}
    for form in a.forms:
        if form != "tuned-rows" or model in ("FREEDOM", "CCDRec"):    # without features it is the same as tuned
            commands[form] = [sys.executable, os.path.join(HERE, "pytorch", "train.py"), "--on-command", "--form", form, "--compile", a.compile] + common
    racers = []
    try:
        for name, command in commands.items():
            say(f"{case}: {name} is set up")
            racers.append(Participant(name, command, environment))
        begin = time.perf_counter()
        done = 0
        while done < a.rounds + dropped(a.device) or (time.perf_counter() - begin < a.seconds and done < a.most):
            for r in racers:
                r.epoch()
            done += 1
            say(f"{case}: round {done}: " + ", ".join(f"{r.name} {r.rounds[-1]['seconds_train']:.3g} s" for r in racers))
        return dict(case=case, settings=CASES[case], participants=[r.end() for r in racers])
    finally:
        for r in racers:
            r.kill()


def dropped(device):
    return 2 if device == "cuda" else 1


def say(text):
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ what the numbers say

def spread(values):
    return dict(median=statistics.median(values), min=min(values), max=max(values))


CEILINGS = ("memory_gb_s", "fma_gflop_s", "root_and_division_g_s", "gemm_gflop_s")


def measure_machine(a):
    """The machine and its ceilings (bench/ceilings.h) as a dict, some seconds."""
    say("measuring the machine")
    out = subprocess.run([os.path.join(a.build, "bench_race"), "--ceilings", "--threads", str(a.threads)], check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(out), times_measured=1)


def best_of(ceilings):
    n = ceilings.get("times_measured", 1)
    return f"the best of {n} times, before the race and after every model" if n > 1 else "before the race"


def summary(result, ceilings):
    """Rows of one model's table from its rounds, without the first (dropped)."""
    ours = result["participants"][0]
    first = dropped(ours["ready"].get("device", "cpu"))
    work = ours["ready"]["work"]
    flop, moved = (sum(w[k] for phase, w in work.items() if phase != "evaluation") for k in ("flop", "bytes"))
    roots = sum(w["roots"] for phase, w in work.items() if phase != "evaluation")
    best = {p["name"]: max(r["valid_Recall@20"] for r in p["rounds"]) for p in result["participants"]}
    goal = min(best.values())
    rows = []
    for p in result["participants"]:
        kept, our = p["rounds"][first:], ours["rounds"][first:]
        train = spread([r["seconds_train"] for r in kept])
        evaluation = lambda r: r["phases"].get("evaluation", 0.0)   # noqa: E731
        elapsed, reached = 0.0, None
        for n, r in enumerate(p["rounds"]):
            elapsed += r["seconds_train"] + evaluation(r)
            if reached is None and r["valid_Recall@20"] >= goal:
                reached = dict(epochs=n + 1, seconds=elapsed)
        rows.append(dict(
            name=p["name"], epochs=len(kept), train=train, evaluation=spread([evaluation(r) for r in kept]),
            phases={k: statistics.median(r["phases"].get(k, 0.0) for r in kept) for k in PHASES},
            whole_step=statistics.median(r["phases"].get("step", 0.0) for r in kept),
            ratio=spread([x["seconds_train"] / y["seconds_train"] for x, y in zip(kept, our)]),
            ratio_evaluation=spread([evaluation(x) / evaluation(y) for x, y in zip(kept, our)]),
            peak_mb=p["peak_cuda_mb"] or p["peak_rss_mb"], anonymous_mb=None if p["peak_cuda_mb"] else p.get("peak_anonymous_mb"), setup=p["ready"]["seconds_load"] + p["ready"]["seconds_setup"], reached=reached,
            share_of_fma=flop / train["median"] / (ceilings["fma_gflop_s"] * 1e9),
            share_of_bandwidth=moved / train["median"] / (ceilings["memory_gb_s"] * 1e9)))
    for row in rows:
        judged = "anonymous_mb" if rows[0]["anonymous_mb"] and row["anonymous_mb"] else "peak_mb"     # reports before it was noted have the peak alone
        row["memory_share"] = rows[0][judged] / row[judged]
    least = lambda w: w["flop"] / (ceilings["fma_gflop_s"] * 1e9) + w["bytes"] / (ceilings["memory_gb_s"] * 1e9) + w["roots"] / (ceilings["root_and_division_g_s"] * 1e9)   # noqa: E731
    floors = {phase: least(w) for phase, w in work.items() if phase != "evaluation"}
    return dict(case=result["case"], goal=goal, flop=flop, bytes=moved, roots=roots, floor=sum(floors.values()), floors=floors, rows=rows)


def targets(tables):
    """(what, target, measured, met) of every target the run can answer."""
    out = []
    for t in tables:
        for row in t["rows"][1:]:
            goal = TARGETS.get((t["case"], row["name"]))
            if goal:
                out.append((f"{t['case']}: epoch, {row['name']} over ccdrec", f"{goal}x", f"{row['ratio']['median']:.1f}x", row["ratio"]["median"] >= goal))
            if row["name"] == "published":
                out.append((f"{t['case']}: evaluation, published over ccdrec", f"{EVALUATION_TARGET}x", f"{row['ratio_evaluation']['median']:.1f}x",
                            row["ratio_evaluation"]["median"] >= EVALUATION_TARGET))
                out.append((f"{t['case']}: memory of ccdrec over published", "at most 1/3", f"{row['memory_share']:.2f}", row["memory_share"] <= MEMORY_TARGET))
    return out


def bounds(tables):
    """A sentence for every missed ratio of epochs: what the machine would allow, and where the seconds above that are."""
    out = []
    for t in tables:
        ours = t["rows"][0]
        for row in t["rows"][1:]:
            goal = TARGETS.get((t["case"], row["name"]))
            if not goal or row["ratio"]["median"] >= goal:
                continue
            over = sorted(t["floors"], key=lambda p: t["floors"][p] - ours["phases"].get(p, 0))
            parts = ", ".join(f"{p} {number(ours['phases'].get(p, 0))} s (floor {number(t['floors'][p]) or 0})" for p in over[:3])
            out.append(f"{t['case']}, {row['name']}: the least work of an epoch takes {number(t['floor'])} s here, {number(row['train']['median'] / t['floor'])} times less than {row['name']} takes; "
                       f"ccdrec takes {ours['train']['median'] / t['floor']:.1f} times its floor, most of the rest in {parts}.")
    return out


def number(x):
    return "" if not x else f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def markdown(report):
    m, c = report["machine"], report["ceilings"]
    tables = [summary(r, c) for r in report["results"]]
    versions = next((p["ready"] for r in report["results"] for p in r["participants"][1:]), {})
    ours = report["results"][0]["participants"][0]["ready"]
    lines = [f"# The race on `{report['name']}`", "",
             f"{ours['users']:,} users, {ours['items']:,} items, {ours['train']:,} training rows; {report['what']}.", "",
             f"    {report['command']}", "",
             f"Machine: {m['cpu']}, {m['cores']} cores, {report['threads']} threads on both sides, {m['isa']}, {m['memory_bytes'] / 1e9:.1f} GB, {m['os']}; load average "
             f"{report['load']:.1f} at the start. Device: {report['device']}. float32.", "",
             f"ccdrec {ours['build']}. PyTorch {versions.get('torch', '-')}, {'with' if versions.get('mkl') else 'without'} MKL. Measured ceilings, {best_of(c)}: {c['fma_gflop_s']:.0f} GFLOP/s fma, "
             f"{c['memory_gb_s']:.1f} GB/s, {c['root_and_division_g_s']:.2f} G/s of a square root and a division.", "",
             "One epoch of each in turn, the others stopped; medians of the epochs after the first; `x` is theirs over ours in the same round, median (least to most). Seconds by phase. "
             "`memory` is the highest resident set, programs and libraries included; `anonymous` is it without the pages of files, which is what the target is judged by: "
             "PyTorch's wheel maps over 100 MB of libraries for a GPU where none is used. `to R@20` is the time, training and evaluation, to the validation Recall@20 that all reach in the rounds run (named with the model). "
             "`fma` and `bandwidth`: the work that the mathematics cannot do without (`bench/floors.cpp`, the same for every program) over the epoch's seconds, as a share of the measured ceilings.", "",
             "| model | program | epoch s | x | " + " | ".join(PHASES) + " | evaluation s | x | memory MB | anonymous MB | to R@20 s | fma | bandwidth |",
             "| --- | --- |" + "---:|" * (len(PHASES) + 9)]
    for t in tables:
        for k, row in enumerate(t["rows"]):
            x = lambda s: "" if k == 0 else f"{number(s['median'])} ({number(s['min'])} to {number(s['max'])})"   # noqa: E731
            phases = [number(row["phases"][p]) for p in PHASES]
            if row["whole_step"]:
                phases[2] = f"{number(row['whole_step'])} (step)"
            reached = row["reached"]
            lines.append(f"| {t['case'] if k == 0 else ''} | {row['name']} | {number(row['train']['median'])} | {x(row['ratio'])} | " + " | ".join(phases) +
                         f" | {number(row['evaluation']['median'])} | {x(row['ratio_evaluation'])} | {row['peak_mb']:.0f} | {'' if row['anonymous_mb'] is None else format(row['anonymous_mb'], '.0f')} | "
                         f"{number(reached['seconds'])} ({reached['epochs']} epochs) | {100 * row['share_of_fma']:.1f} % | {100 * row['share_of_bandwidth']:.1f} % |")
    lines += ["", "| model | rounds kept | R@20 all reach | least work of an epoch: GFLOP | GB | G roots | floor s | ccdrec over its floor |", "| --- |" + "---:|" * 7]
    for t in tables:
        ours_row = t["rows"][0]
        lines.append(f"| {t['case']} | {ours_row['epochs']} | {t['goal']:.4f} | {t['flop'] / 1e9:.3g} | {t['bytes'] / 1e9:.3g} | {t['roots'] / 1e9:.3g} | {t['floor']:.3g} | "
                     f"{ours_row['train']['median'] / t['floor']:.1f} |")
    if report["with_targets"]:
        lines += ["", "| target | wanted | measured | |", "| --- | ---: | ---: | --- |"]
        lines += [f"| {what} | {want} | {got} | {'met' if met else '**missed**'} |" for what, want, got, met in targets(tables)]
        missed = bounds(tables)
        if missed:
            lines += ["", "What bounds what was missed ([what was tried](race-notes.md)):", ""] + [f"* {x}" for x in missed]
    notes = [f"{r['case']}, {p['name']}: {n}" for r in report["results"] for p in r["participants"][1:] for n in p["notes"]]
    setup = "; ".join(f"{t['case']}: " + ", ".join(f"{row['name']} {row['setup']:.1f}" for row in t["rows"]) for t in tables)
    lines += ["", f"Seconds to load and set up (graphs, compilation; not in any epoch): {setup}."]
    if notes:
        lines += ["", "Notes of the baseline:", ""] + [f"* {n}" for n in notes]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------ the command

def preset_folder(preset, build):
    folder = os.path.join(ROOT, "build", "bench-data", preset)
    if not os.path.isdir(folder):
        say(f"making {folder}")
        subprocess.run([os.path.join(build, "ccdrec"), "synth", preset, "--out", folder + ".partial", "--name", preset], check=True, stdout=sys.stderr)
        os.rename(folder + ".partial", folder)
    return folder


def choose_device(a):
    if a.device != "auto":
        return a.device
    import torch                     # both sides must have it
    info = subprocess.run([os.path.join(a.build, "bench_race"), "--ceilings", "--threads", "1", "--device", "cuda"], capture_output=True, text=True)
    return "cuda" if torch.cuda.is_available() and info.returncode == 0 else "cpu"


def write(path, text):
    with open(path + ".tmp", "w") as f:
        f.write(text)
    os.replace(path + ".tmp", path)


def main():
    parser = argparse.ArgumentParser(description="This program and the PyTorch baselines, epoch by epoch in alternation.")
    parser.add_argument("--presets", nargs="+", default=["demo", "baby"], help="presets of ccdrec synth, kept in build/bench-data")
    parser.add_argument("--data", help="a data folder instead")
    parser.add_argument("--name", help="its name in the report; default: the folder's")
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds at least, after one that is dropped")
    parser.add_argument("--seconds", type=float, default=40, help="go on with more rounds while a model has taken less")
    parser.add_argument("--most", type=int, default=40, help="rounds at most")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU when both sides see one")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto", help="torch.compile in the tuned forms")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), help="folder of ccdrec and bench_race")
    parser.add_argument("--out", help="OUT.md and OUT.json; default: bench/results/race-NAME")
    parser.add_argument("--render", metavar="JSON", help="print the table of an earlier run")
    a = parser.parse_args()
    if a.render:
        with open(a.render) as f:
            print(markdown(json.load(f)))
        return
    try:
        import torch  # noqa: F401
    except ImportError:
        raise SystemExit(f"race.py: {sys.executable} has no torch: bench/pytorch/README.md says how to install it") from None
    if not os.access(os.path.join(a.build, "bench_race"), os.X_OK):
        raise SystemExit(f"race.py: {a.build} has no bench_race: type make, or name the folder with --build")
    a.device = choose_device(a)
    load = os.getloadavg()[0]
    ceilings = measure_machine(a)
    places = [(a.name or os.path.basename(os.path.normpath(a.data)), a.data)] if a.data else [(p, preset_folder(p, a.build)) for p in a.presets]
    for name, folder in places:
        out = a.out or os.path.join(HERE, "results", f"race-{name}" + ("-cuda" if a.device == "cuda" else ""))
        report = dict(name=name, what=f"data folder {name}" if a.data else f"generated by `ccdrec synth {name}`", device=a.device, threads=a.threads, load=load,
                      command=f"bench/race.py {' '.join(sys.argv[1:])}".rstrip(), with_targets=name == "baby" and a.device == "cpu", machine=ceilings,
                      ceilings=ceilings, results=[])
        for case in a.models:
            report["results"].append(run_case(case, folder, a))
            again = measure_machine(a)   # others use the machine too: what it allows is the best that was seen while the race ran
            ceilings.update({k: max(ceilings[k], again[k]) for k in CEILINGS}, times_measured=ceilings["times_measured"] + 1)
            write(out + ".json", json.dumps(report, indent=1) + "\n")    # after every model: what is measured stays
            write(out + ".md", markdown(report))
        print(markdown(report), flush=True)


if __name__ == "__main__":
    main()
