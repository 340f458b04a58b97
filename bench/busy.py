"""Beside other programs: what the threads of a training cost there, and what they cost alone.

    make busy                             # about ten minutes; writes bench/results/busy.md and busy.json
    make busy BUSY="--old PROGRAM"        # also alternates with an older program, alone (the target of at most 3 % slower is judged then)
    python3 bench/busy.py --quick         # one round of everything: does it run?
    python3 bench/busy.py --render        # the report again, from busy.json

Workloads are trainings of `ccdrec train`, a process each, on `synth demo` and on data of TikTok's size. A measurement is the sum of the epochs' training
seconds (metrics.jsonl) without the first, which touches memory for the first time. What is compared is alternated, round by round, and medians are
compared: others at work on the machine disturb all alike. OMP_* and GOMP_* of the environment are removed first.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(HERE, "results", "busy")
MODELS = ("BPR", "LightGCN", "FREEDOM", "CCDRec")
DATA = {"demo": ["demo"], "tiktok": ["baby", "--users", "9308", "--items", "6710", "--interactions", "68720"]}
# Beside others: the model of each data set with the most regions a second; epochs alone are longer, so that a run is some tenths of a second.
CROWDED = {"demo": ("CCDRec", 3), "tiktok": ("FREEDOM", 4)}
ALONE_EPOCHS = {"demo": dict(BPR=41, LightGCN=21, FREEDOM=21, CCDRec=4), "tiktok": dict(BPR=9, LightGCN=6, FREEDOM=6, CCDRec=2)}
POLICIES = {"default": {}, "passive": {"OMP_WAIT_POLICY": "passive"}, "2000": {"GOMP_SPINCOUNT": "2000"}}
BESIDE, SLOWER, TWICE = 1.3, 1.03, 1.05     # the targets
CPU_GROUPS = ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup")
PATIENCE = 120                              # seconds of one training; longer: cut off and counted as that


def stop(sentence):
    print(f"busy.py: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def say(text):
    print(text, file=sys.stderr, flush=True)


class Neighbours:
    """Programs that compute, one core's worth each."""

    def __init__(self, n):
        self.n, self.processes = n, []

    def __enter__(self):
        self.processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(self.n)]

    def __exit__(self, *_):
        for p in self.processes:
            p.kill()
            p.wait()


class Quota:
    """A control group of one CPU, where this process may make one; otherwise what starts in it is bound to one core, which `how` says."""

    def __init__(self):
        self.folder = None
        self.how = "bound to one core by taskset, as no control group could be made here: the program then sees one processor, not a quota"

    def __enter__(self):
        for root in CPU_GROUPS:
            folder = os.path.join(root, f"ccdrec-busy-{os.getpid()}")
            try:
                os.mkdir(folder)
            except OSError:
                continue
            try:
                if os.path.exists(f"{folder}/cpu.max"):
                    write(f"{folder}/cpu.max", "100000 100000")
                else:
                    write(f"{folder}/cpu.cfs_period_us", "100000")
                    write(f"{folder}/cpu.cfs_quota_us", "100000")
                self.folder, self.how = folder, f"a control group with a quota of one CPU ({folder})"
                break
            except OSError:
                os.rmdir(folder)
        return self

    def __exit__(self, *_):
        if self.folder:
            os.rmdir(self.folder)

    def wrap(self, command):
        if not self.folder:
            return ["taskset", "-c", str(min(os.sched_getaffinity(0)))] + command
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh"] + command


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


class Bench:
    def __init__(self, a, work):
        self.program, self.old, self.rounds, self.work = a.program, a.old, a.rounds, work
        self.plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
        self.n = 0
        for name, words in DATA.items():
            self.call([self.program, "synth", *words, "--out", self.data(name)])
            if name == "tiktok":    # its neighbour graph, once
                self.train(self.program, name, "FREEDOM", 1)

    def data(self, name):
        return os.path.join(self.work, name)

    def call(self, command):
        p = subprocess.run(command, env=self.plain, capture_output=True, text=True)
        if p.returncode:
            stop(f"{' '.join(command)} failed: {(p.stderr or p.stdout).strip()[-300:]}")
        return p.stdout

    def begin(self, program, data, model, epochs, environment={}, before=[], wrap=lambda c: c):
        self.n += 1
        run = os.path.join(self.work, f"run{self.n}")
        command = [program, "train", "-m", model, "-d", self.data(data), "--run-dir", run]
        for s in (f"epochs={epochs}", f"eval_step={epochs + 1}", "save_best=false", "save_last=false", f"graph_cache={self.work}/graphs"):
            command += ["--set", s]
        return run, subprocess.Popen(wrap(before + command), env={**self.plain, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def end(self, run, process):
        try:
            error = process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            shutil.rmtree(run, ignore_errors=True)
            return float(PATIENCE)
        if process.returncode:
            stop(f"a training failed: {error.strip()[-300:]}")
        with open(os.path.join(run, "metrics.jsonl")) as f:
            seconds = [json.loads(line)["seconds"]["train"] for line in f if '"train"' in line]
        shutil.rmtree(run)
        return sum(seconds[1:]) if len(seconds) > 1 else seconds[0]

    def train(self, *a, **k):
        return self.end(*self.begin(*a, **k))

    def alternate(self, rounds, what):
        """what: name -> a function that measures once. -> name -> seconds of each round."""
        seconds = {name: [] for name in what}
        for _ in range(rounds):
            for name, measure in what.items():
                seconds[name].append(measure())
        return seconds

    def regions(self):
        lines = {}
        for name in DATA:
            say(f"regions a step: {name}")
            out = self.call([os.path.join(os.path.dirname(self.program), "bench_busy"), "--data", self.data(name)])
            lines[name] = [json.loads(line) for line in out.splitlines()]
        return lines

    def beside(self):
        rows = []
        for data, (model, epochs) in CROWDED.items():
            for n in (0, 1, 2):
                for nice in (0, 10) if n else (0,):
                    say(f"{data} {model} beside {n}, nice {nice}")
                    before = ["nice", "-n", str(nice)] if nice else []
                    with Neighbours(n):
                        s = self.alternate(self.rounds, {p: lambda e=e: self.train(self.program, data, model, epochs, e, before) for p, e in POLICIES.items()})
                    rows.append(dict(data=data, model=model, neighbours=n, nice=nice, seconds=s))
        return rows

    def quota(self):
        rows = []
        with Quota() as q:
            for data, (model, epochs) in CROWDED.items():
                say(f"{data} {model} with a quota of one CPU")
                s = self.alternate(self.rounds, {p: lambda e=e: self.train(self.program, data, model, epochs, e, wrap=q.wrap) for p, e in POLICIES.items()})
                rows.append(dict(data=data, model=model, how=q.how, seconds=s))
        return rows

    def twice(self):
        def one_after_the_other(data, model, epochs):
            begin = time.perf_counter()
            for _ in range(2):
                self.train(self.program, data, model, epochs)
            return time.perf_counter() - begin

        def side_by_side(data, model, epochs):
            begin = time.perf_counter()
            for started in [self.begin(self.program, data, model, epochs) for _ in range(2)]:
                self.end(*started)
            return time.perf_counter() - begin

        rows = []
        for data, (model, epochs) in CROWDED.items():
            say(f"{data} {model} twice")
            s = self.alternate(self.rounds, {"after": lambda: one_after_the_other(data, model, 3 * epochs), "beside": lambda: side_by_side(data, model, 3 * epochs)})
            rows.append(dict(data=data, model=model, seconds=s))
        return rows

    def alone(self, rounds):
        rows = []
        programs = {"new": self.program, **({"old": self.old} if self.old else {})}
        for data, models in ALONE_EPOCHS.items():
            for model, epochs in models.items():
                say(f"{data} {model} alone")
                s = self.alternate(rounds, {name: lambda p=p: self.train(p, data, model, epochs) for name, p in programs.items()})
                rows.append(dict(data=data, model=model, epochs=epochs, seconds=s))
        return rows


def machine(program):
    info = dict(line.split(None, 1) for line in subprocess.run([program, "info"], capture_output=True, text=True).stdout.splitlines() if " " in line)
    return {k: info.get(k, "").strip() for k in ("version", "processor", "threads", "system")}


def median(row, name):
    return statistics.median(row["seconds"][name])


def verdict(ratio, target):
    return f"{ratio:.2f}" + ("" if ratio <= target else " **missed**")


def markdown(r):
    m = r["machine"]
    s = f"""# Beside other programs

    {r["command"]}

Machine: {m["processor"]}, {m["system"]}; ccdrec {m["version"]}; threads: {m["threads"]}. Load average when it began: {r["load"]:.1f} (what else ran then disturbed the measurements; what is
compared was alternated). Seconds are medians of {r["rounds"]} rounds ({r["rounds_alone"]} alone); of an epoch's training only, the first epoch left out. `2000`: `GOMP_SPINCOUNT=2000`; `passive`: `OMP_WAIT_POLICY=passive`.

## Beside neighbours

Target: the default at most {BESIDE} times the better of the two others where there are neighbours.

| data, model | neighbours | nice | default | passive | 2000 | default over the better |
|---|---|---|---|---|---|---|
"""
    for x in r["beside"]:
        d, p, t = (median(x, k) for k in POLICIES)
        ratio = d / min(p, t)
        s += f'| {x["data"]}, {x["model"]} | {x["neighbours"]} | {x["nice"]} | {d:.3f} | {p:.3f} | {t:.3f} | {verdict(ratio, BESIDE) if x["neighbours"] else f"{ratio:.2f}"} |\n'
    s += f"""
## A quota of one CPU

Run as {r["quota"][0]["how"]}. Target as above.

| data, model | default | passive | 2000 | default over the better |
|---|---|---|---|---|
"""
    for x in r["quota"]:
        d, p, t = (median(x, k) for k in POLICIES)
        s += f'| {x["data"]}, {x["model"]} | {d:.3f} | {p:.3f} | {t:.3f} | {verdict(d / min(p, t), BESIDE)} |\n'
    s += f"""
## Two trainings

Wall seconds of two whole trainings. Target: side by side at most {TWICE} times one after the other.

| data, model | one after the other | side by side | ratio |
|---|---|---|---|
"""
    for x in r["twice"]:
        a, b = median(x, "after"), median(x, "beside")
        s += f'| {x["data"]}, {x["model"]} | {a:.2f} | {b:.2f} | {verdict(b / a, TWICE)} |\n'
    s += "\n## Alone\n\n"
    old = "old" in r["alone"][0]["seconds"]
    s += f"Old: {r['old']}, in alternation. Target: at most {SLOWER} times.\n" if old else "No older program was given (`--old`), so the target is not judged.\n"
    s += "\n| data, model | epochs | new |" + (" old | new over old |" if old else "") + "\n|---|---|---|" + ("---|---|" if old else "") + "\n"
    for x in r["alone"]:
        n = median(x, "new")
        s += f'| {x["data"]}, {x["model"]} | {x["epochs"] - 1} | {n:.3f} |'
        s += f' {median(x, "old"):.3f} | {verdict(n / median(x, "old"), SLOWER)} |\n' if old else "\n"
    s += """
## Parallel regions a step

Of several threads, and those that the calling thread works through by itself as they are small (`kAloneNs`, `kernels/ctx.h`).

| data | model | of several threads | alone |
|---|---|---|---|
"""
    for data, lines in r["regions"].items():
        for x in lines[:-1]:
            s += f'| {data} | {x["model"]} | {x["shared"]:.1f} | {x["alone"]:.1f} |\n'
    cost = min(lines[-1]["empty_region_us"] for lines in r["regions"].values())
    return s + f"\nAn empty region of {lines[-1]['threads']} threads that are awake takes {cost:.1f} us.\n"


def main():
    p = argparse.ArgumentParser(description="The program beside other programs, under a quota, twice at once, and alone")
    p.add_argument("--program", default=os.path.join(os.path.dirname(HERE), "build", "ccdrec"), help="with bench_busy beside it")
    p.add_argument("--old", help="an older program, for the alternations alone")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--rounds-alone", type=int, default=15)
    p.add_argument("--quick", action="store_true", help="one round of each, printed only")
    p.add_argument("--render", action="store_true", help="the report again, from what was measured")
    a = p.parse_args()
    if a.render:
        with open(RESULTS + ".json") as f:
            write(RESULTS + ".md", markdown(json.load(f)))
        return
    if a.quick:
        a.rounds = a.rounds_alone = 1
    for program in filter(None, (a.program, a.old)):
        if not os.access(program, os.X_OK):
            stop(f"{program} is no program; build it, or name one with --program or --old")
    begin = time.perf_counter()
    words = ["--old OLD"] if a.old else []
    r = dict(command=" ".join(["python3 bench/busy.py"] + words), machine=machine(a.program), load=os.getloadavg()[0], rounds=a.rounds, rounds_alone=a.rounds_alone)
    if a.old:
        r["old"] = "ccdrec " + machine(a.old)["version"]
    work = tempfile.mkdtemp(prefix="ccdrec-busy-")
    try:
        b = Bench(a, work)
        r["regions"] = b.regions()
        r["alone"] = b.alone(a.rounds_alone)
        r["beside"], r["quota"], r["twice"] = b.beside(), b.quota(), b.twice()
    finally:
        shutil.rmtree(work)
    say(f"took {(time.perf_counter() - begin) / 60:.0f} minutes")
    if a.quick:
        print(markdown(r))
        return
    write(RESULTS + ".json", json.dumps(r, indent=1) + "\n")
    write(RESULTS + ".md", markdown(r))
    print(markdown(r))


if __name__ == "__main__":
    main()
