"""The race: this program and the PyTorch baselines, epoch by epoch in alternation, on the same data, threads, settings and precision.

    make race                                                        # presets demo and baby, all models; writes bench/results/race-*.md and .json;
                                                                     # about half an hour on two cores, nearly all of it baby's (each report says)
    PYTHON bench/race.py --presets demo --models CCDRec --rounds 5   # PYTHON has torch and numpy (bench/pytorch/README.md)
    PYTHON bench/race.py --data FOLDER --name sports --out race-sports
    PYTHON bench/race.py --render race-baby.json                     # the table again, from what was measured

Every participant is a process of its own: build/bench_race for this program, bench/pytorch/train.py for the forms of the baseline. A round is
one epoch (training, then evaluation of validation and test) of each in turn; who waits is stopped (SIGSTOP), so that no thread of theirs spins.
Ratios are formed within a round. The first round is dropped: it touches memory for the first time, and CCDRec has no curricular negatives in it; on a
GPU also the second, in which steps are recorded. Where the two cores lay apart when some of our epochs began (core_to_core_ns of a round, by
bench_race), the ratios of both kinds of rounds are shown; a race that met them apart only cannot tell. A race of some models or forms, or of fewer than five rounds, writes race-NAME-part, so that it
does not take the place of a whole one. Targets are judged where they are defined: `baby` as generated, CPU, two threads, five rounds.
"""
import argparse
import glob
import json
import math
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
LEAST_ROUNDS = 5        # of a race that is judged, and of one that counts as whole
APART = 2               # a round's cores lay apart when a line of cache took over so many times the least of the race between them,
ONE_CORE = 1000         # and over so many nanoseconds only between threads that take turns on one core: across sockets it is a few hundred


def stop(sentence):
    """A mistake of the user, or of a program that was started: one sentence, exit code 2."""
    print(f"race.py: {sentence}", file=sys.stderr)
    raise SystemExit(2)


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
            stop(f"{self.name} ended (status {self.process.wait()}): {' '.join(self.command)}")
        try:
            return json.loads(line)
        except ValueError:
            stop(f"{self.name} printed '{line.strip()[:80]}', expected a line of JSON: {' '.join(self.command)}")

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def epoch(self):
        self.process.send_signal(signal.SIGCONT)
        begin = time.perf_counter()
        try:
            self.process.stdin.write("epoch\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass                        # it has ended: read() says so
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
        stop("/proc/PID/status has no VmHWM and RssFile; expected those of Linux 4.5 or later")
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
    """The machine and its ceilings (bench/ceilings.h; of a GPU bench/gpu/ceilings.h) as a dict, some seconds."""
    say("measuring the machine")
    command = [os.path.join(a.build, "bench_race"), "--ceilings", "--threads", str(a.threads), "--device", a.device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        stop(f"the machine was not measured (status {done.returncode}): {' '.join(command)}")
    return dict(json.loads(done.stdout), times_measured=1)


def seconds_of(work, ceilings):
    """What work takes by the ceilings, each resource alone (bench/work.h). Of a GPU the arithmetic is that of large products; roots are not measured
    there and count as nothing."""
    roots = ceilings.get("root_and_division_g_s")
    return dict(fma=work["flop"] / (flop_rate(ceilings) * 1e9), memory=work["bytes"] / (ceilings["memory_gb_s"] * 1e9), roots=work["roots"] / (roots * 1e9) if roots else 0.0)


def flop_rate(ceilings):
    return ceilings.get("fma_gflop_s") or ceilings["gemm_gflop_s"]


def best_of(ceilings):
    n = ceilings.get("times_measured", 1)
    return f"the best of {n} times, before the race and after every model" if n > 1 else "before the race"


def kept_rounds(result):
    """The rounds of every participant, ours first, without the first (dropped)."""
    first = dropped(result["participants"][0]["ready"].get("device", "cpu"))
    return [p["rounds"][first:] for p in result["participants"]]


def summary(result, ceilings):
    """Rows of one model's table from its rounds."""
    ours, rounds = result["participants"][0], kept_rounds(result)
    our = rounds[0]
    work = ours["ready"]["work"]
    total = {k: sum(w[k] for phase, w in work.items() if phase != "evaluation") for k in ("flop", "bytes", "roots")}
    flop, moved = total["flop"], total["bytes"]
    if ours["ready"].get("device") == "cuda" and "gpu" not in ceilings:
        ceilings = dict(fma_gflop_s=math.nan, memory_gb_s=math.nan)      # a report of before has a GPU's epochs and the CPU's ceilings
    best = {p["name"]: max(r["valid_Recall@20"] for r in p["rounds"]) for p in result["participants"]}
    goal = min(best.values())
    rows = []
    for p, kept in zip(result["participants"], rounds):
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
            share_of_fma=flop / train["median"] / (flop_rate(ceilings) * 1e9),
            share_of_bandwidth=moved / train["median"] / (ceilings["memory_gb_s"] * 1e9)))
    for row in rows:
        judged = "anonymous_mb" if rows[0]["anonymous_mb"] and row["anonymous_mb"] else "peak_mb"     # reports before it was noted have the peak alone
        row["memory_share"] = rows[0][judged] / row[judged]
    parts = seconds_of(total, ceilings)
    phases = {phase: sum(seconds_of(w, ceilings).values()) for phase, w in work.items() if phase != "evaluation"}
    return dict(case=result["case"], goal=goal, work=total, parts=parts, in_turn=sum(parts.values()), largest=max(parts, key=parts.get), phases_in_turn=phases, rows=rows)


def distances(report):
    """-> (core_to_core_ns of every round that has it, the least of the race): how far apart the cores lay when our epoch began (bench/ceilings.h). The
    least is also of those measured with the ceilings. A report of before has none of it, nor has one of a GPU or of one thread."""
    of_rounds = [r["core_to_core_ns"] for result in report["results"] for r in kept_rounds(result)[0] if "core_to_core_ns" in r]
    return of_rounds, min(of_rounds + [report["ceilings"].get("core_to_core_ns", math.inf)])


def cores(ns, least):
    """How the cores lay: together, apart, or one of them for both threads."""
    return "one" if ns > ONE_CORE else "apart" if ns > APART * least else "together"


def distance_text(report):
    """A sentence to follow the ceilings."""
    of_rounds, least = distances(report)
    lay = [cores(ns, least) for ns in of_rounds]
    two, apart, one = [ns for ns in of_rounds if ns <= ONE_CORE], lay.count("apart"), lay.count("one")
    said = []
    if two:
        said.append(f"{number(min(two))} to {number(max(two))} ns in {len(two)} rounds, in {apart or 'none'} of them over {APART} times the least of the race ({number(least)} ns)" +
                    (": there the cores lay `apart`, as those of a virtual machine do at times" if apart else ""))
    if one:
        said.append(f"over {ONE_CORE} ns in {one} rounds: there both threads had one core, as happens when others use the machine")
    return f" A line of cache from one thread to another, measured before each of our epochs: {'; '.join(said)}." if said else ""


def split(report):
    """(model, form, together, apart) of every baseline, if the cores lay apart in any round of the race. Of either kind of rounds: our seconds, and theirs over ours."""
    of_rounds, least = distances(report)
    out = []
    for result in report["results"] if any(cores(ns, least) == "apart" for ns in of_rounds) else []:
        our, *others = kept_rounds(result)
        for p, kept in zip(result["participants"][1:], others):
            kinds = dict(together=[], apart=[], one=[])
            for x, y in zip(kept, our):
                if "core_to_core_ns" in y:
                    kinds[cores(y["core_to_core_ns"], least)].append((x["seconds_train"], y["seconds_train"]))
            out.append((result["case"], p["name"], *(dict(ours=[y for _, y in kinds[k]], ratio=[x / y for x, y in kinds[k]]) for k in ("together", "apart"))))
    return out


def beside(measured, wanted):
    """A measured ratio in one decimal, or in as many as show on which side of the target it lies."""
    digits = 1
    while measured < wanted <= float(f"{measured:.{digits}f}") and digits < 6:
        digits += 1
    return f"{measured:.{digits}f}x"


def targets(tables):
    """(what, target, measured, met) of every target the run can answer."""
    out = []
    for t in tables:
        for row in t["rows"][1:]:
            goal = TARGETS.get((t["case"], row["name"]))
            if goal:
                out.append((f"{t['case']}: epoch, {row['name']} over ccdrec", f"{goal}x", beside(row["ratio"]["median"], goal), row["ratio"]["median"] >= goal))
            if row["name"] == "published":
                out.append((f"{t['case']}: evaluation, published over ccdrec", f"{EVALUATION_TARGET}x", beside(row["ratio_evaluation"]["median"], EVALUATION_TARGET),
                            row["ratio_evaluation"]["median"] >= EVALUATION_TARGET))
                out.append((f"{t['case']}: memory of ccdrec over published", "at most 1/3", f"{row['memory_share']:.2f}", row["memory_share"] <= MEMORY_TARGET))
    return out


def bounds(tables, judged=True):
    """A sentence for every missed ratio of epochs, and for every one against tuned-rows, which has no target: what the machine's ceilings say of the work,
    and where the seconds above that are."""
    out = []
    for t in tables:
        ours = t["rows"][0]
        for row in t["rows"][1:]:
            goal, ratio = TARGETS.get((t["case"], row["name"])), row["ratio"]
            missed = judged and goal and ratio["median"] < goal
            if not missed and row["name"] != "tuned-rows" or math.isnan(t["in_turn"]):
                continue
            phases = t["phases_in_turn"]
            over = sorted(phases, key=lambda p: phases[p] - ours["phases"].get(p, 0))
            rest = ", ".join(f"{p} {number(ours['phases'].get(p, 0))} s ({number(phases[p]) or 0} in turn)" for p in over[:3])
            largest = t["parts"][t["largest"]]
            out.append(f"{t['case']}, {row['name']}: {number(ratio['median'])} times ours ({number(ratio['min'])} to {number(ratio['max'])})" + (f", wanted {goal}" if missed else "") +
                       f". One resource after another the work of an epoch takes {number(t['in_turn'])} s here, the largest of them alone ({t['largest']}) {number(largest)} s: a ccdrec that took no longer "
                       f"would be {number(row['train']['median'] / t['in_turn'])} and {number(row['train']['median'] / largest)} times as fast as {row['name']}. It takes {ours['train']['median'] / t['in_turn']:.1f} "
                       f"times the former" + (f", most of the rest in {rest}." if ours["train"]["median"] > t["in_turn"] else "."))
    return out


def share(x):
    return "" if math.isnan(x) else f"{100 * x:.1f} %"


def minutes(report):
    """How long the race took, and a word for what is counted where the report does not say it."""
    if "seconds" in report:
        return f"The race took {report['seconds'] / 60:.0f} minutes"
    people = [p for r in report["results"] for p in r["participants"]]
    return f"Its epochs and their setting up took {sum(sum(p['walls']) + p['ready']['seconds_load'] + p['ready']['seconds_setup'] for p in people) / 60:.0f} minutes"


def ceilings_text(c):
    if "gpu" in c:
        return f"Measured ceilings of the {c['gpu']}, {best_of(c)}: {c['gemm_gflop_s']:.0f} GFLOP/s in large float32 products, {c['memory_gb_s']:.0f} GB/s copied (read and written); roots are not measured there and left out of `in turn`."
    return f"Measured ceilings, {best_of(c)}: {c['fma_gflop_s']:.0f} GFLOP/s fma, {c['memory_gb_s']:.1f} GB/s, {c['root_and_division_g_s']:.2f} G/s of a square root and a division."


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
             f"ccdrec {ours['build']}. PyTorch {versions.get('torch', '-')}, {'with' if versions.get('mkl') else 'without'} MKL. {ceilings_text(c)}{distance_text(report)} {minutes(report)}.", "",
             f"One epoch of each in turn, the others stopped; medians of the epochs after the first{' two' if dropped(report['device']) == 2 else ''}; `x` is theirs over ours in the same round, median (least to most). Seconds by phase. "
             "`memory` is the highest resident set, programs and libraries included; `anonymous` is it without the pages of files, which is what the target is judged by: "
             "PyTorch's wheel maps over 100 MB of libraries for a GPU where none is used. `to R@20` is the time, training and evaluation, until a program first has the validation Recall@20 that all of them reach within the rounds run, the lowest of "
             "their bests (given with the model): a point of these first epochs, not the end of a training. `setup` (loading, graphs, compilation) comes before it and is in no other column. "
             "`fma` and `bandwidth`: the counted work (`bench/work.cpp`, the same for every program) over the epoch's seconds, as a share of the measured ceilings.", "",
             "| model | program | epoch s | x | " + " | ".join(PHASES) + " | evaluation s | x | memory MB | anonymous MB | to R@20 s | setup s | fma | bandwidth |",
             "| --- | --- |" + "---:|" * (len(PHASES) + 10)]
    for t in tables:
        for k, row in enumerate(t["rows"]):
            x = lambda s: "" if k == 0 else f"{number(s['median'])} ({number(s['min'])} to {number(s['max'])})"   # noqa: E731
            phases = [number(row["phases"][p]) for p in PHASES]
            if row["whole_step"]:
                phases[2] = f"{number(row['whole_step'])} (step)"
            reached = row["reached"]
            lines.append(f"| {t['case'] if k == 0 else ''} | {row['name']} | {number(row['train']['median'])} | {x(row['ratio'])} | " + " | ".join(phases) +
                         f" | {number(row['evaluation']['median'])} | {x(row['ratio_evaluation'])} | {row['peak_mb']:.0f} | {'' if row['anonymous_mb'] is None else format(row['anonymous_mb'], '.0f')} | "
                         f"{number(reached['seconds'])} ({reached['epochs']} epochs) | {row['setup']:.1f} | {share(row['share_of_fma'])} | {share(row['share_of_bandwidth'])} |")
    by_distance = split(report)
    if by_distance:
        lines += ["", f"The same rounds, by where the cores lay when ours began. `apart`: a line of cache took over {APART} times the least of the race from one to the other; short steps of many operations suffer first. "
                  "A round in which both threads had one core is neither. Medians, `x` as above. Theirs follow ours within a round and may have met the other state.", "",
                  "| model | program | rounds together | x together | rounds apart | x apart | ours together s | ours apart s |", "| --- | --- |" + "---:|" * 6]
        x = lambda v: f"{number(statistics.median(v))} ({number(min(v))} to {number(max(v))})" if v else ""   # noqa: E731
        s = lambda v: number(statistics.median(v)) if v else ""                                             # noqa: E731
        for case, name, near, far in by_distance:
            lines.append(f"| {case} | {name} | {len(near['ratio'])} | {x(near['ratio'])} | {len(far['ratio'])} | {x(far['ratio'])} | {s(near['ours'])} | {s(far['ours'])} |")
    lines += ["", "`in turn` is what the counted work takes by the measured ceilings, one resource after another: a model, not a bound, since a core computes while it waits for memory. `largest` is the longest of the three "
              "alone, as if the others overlapped with it; what stays in a cache from step to step can take less than that too.", "",
              "| model | rounds kept | R@20 all reach | work of an epoch: GFLOP | GB | G roots | in turn s | largest s | ccdrec over in turn |", "| --- |" + "---:|" * 8]
    for t in tables:
        ours_row = t["rows"][0]
        lines.append(f"| {t['case']} | {ours_row['epochs']} | {t['goal']:.4f} | {t['work']['flop'] / 1e9:.3g} | {t['work']['bytes'] / 1e9:.3g} | {t['work']['roots'] / 1e9:.3g} | " +
                     (" | |" if math.isnan(t["in_turn"]) else f"{t['in_turn']:.3g} | {t['parts'][t['largest']]:.3g} ({t['largest']}) | {ours_row['train']['median'] / t['in_turn']:.1f} |"))
    if report["with_targets"]:
        lines += ["", "| target | wanted | measured | |", "| --- | ---: | ---: | --- |"]
        lines += [f"| {what} | {want} | {got} | {'met' if met else '**missed**'} |" for what, want, got, met in targets(tables)]
    bound = bounds(tables, report["with_targets"])
    if bound:
        lines += ["", ("Of what was missed, and" if report["with_targets"] else "Of the epochs") + " against tuned-rows, which has no target ([what was tried](race-notes.md)):", ""] + [f"* {x}" for x in bound]
    notes = [f"{r['case']}, {p['name']}: {n}" for r in report["results"] for p in r["participants"][1:] for n in p["notes"]]
    if notes:
        lines += ["", "Notes of the baseline:", ""] + [f"* {n}" for n in notes]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------ the command

def preset_folder(preset, build):
    folder = os.path.join(ROOT, "build", "bench-data", preset)
    if not os.path.isfile(os.path.join(folder, preset + ".inter")):
        say(f"making {folder}")
        try:
            if subprocess.run([os.path.join(build, "ccdrec"), "synth", preset, "--out", folder + ".partial", "--name", preset], stdout=sys.stderr).returncode:
                stop(f"no data for --presets {preset}: ccdrec synth says why")
            os.rename(folder + ".partial", folder)
        except OSError as e:
            stop(f"no data for --presets {preset}: {e}")
    return folder


def at_least(least, kind=int):
    """For argparse: a number from `least` on."""
    def number_of(text):
        x = kind(text)                  # argparse has a sentence for its ValueError
        if not least <= x < math.inf:
            raise argparse.ArgumentTypeError(f"{text} given, expected a number from {least} on")
        return x
    number_of.__name__ = kind.__name__
    return number_of


def render(path):
    try:
        with open(path) as f:
            report = json.load(f)
    except OSError as e:
        stop(f"--render {path}: {e.strerror}")
    except ValueError as e:
        stop(f"--render {path}: is no JSON ({e}), expected what a race wrote")
    try:
        return markdown(report)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, ZeroDivisionError) as e:
        stop(f"--render {path}: is no report of a race ({type(e).__name__}: {e})")


def whole(a):
    """Whether all is raced that there is; what is in part does not take the place of the whole."""
    return set(a.models) == set(CASES) and set(a.forms) == set(FORMS) and a.rounds >= LEAST_ROUNDS


def judged(a, name):
    """Whether the targets are defined for this race."""
    return name == "baby" and not a.data and a.device == "cpu" and a.threads == 2 and a.rounds >= LEAST_ROUNDS


def out_of(a, name):
    """The default of --out, without its folder."""
    return "race-" + ("data-" if a.data else "") + name + ("-cuda" if a.device == "cuda" else "") + ("" if whole(a) else "-part")


def check_place(out):
    """Refuses, before anything is measured, what could not be written after it."""
    for path in (out + ".json", out + ".md"):
        try:
            if os.path.isdir(path):
                stop(f"{path} cannot be written (a folder has that name); choose another --out")
            open(path + ".tmp", "w").close()
            os.remove(path + ".tmp")
        except OSError as e:
            stop(f"{path} cannot be written ({e.strerror}); choose another --out, in a folder that exists")


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


def arguments():
    parser = argparse.ArgumentParser(description="This program and the PyTorch baselines, epoch by epoch in alternation.")
    parser.add_argument("--presets", nargs="+", help="presets of ccdrec synth, kept in build/bench-data; default: demo baby")
    parser.add_argument("--data", help="a data folder instead")
    parser.add_argument("--name", help="its name in the report; default: the folder's")
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--rounds", type=at_least(1), default=5, help="measured rounds at least, after one that is dropped")
    parser.add_argument("--seconds", type=at_least(0, float), default=40, help="go on with more rounds while a model has taken less")
    parser.add_argument("--most", type=at_least(1), default=40, help="rounds at most")
    parser.add_argument("--threads", type=at_least(1), default=len(os.sched_getaffinity(0)), help="of both sides; default: all cores")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU when both sides see one")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto", help="torch.compile in the tuned forms")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), help="folder of ccdrec and bench_race")
    parser.add_argument("--out", help="OUT.md and OUT.json; default: bench/results/race-NAME (-cuda on a GPU, -part where not all is raced)")
    parser.add_argument("--render", metavar="JSON", help="print the table of an earlier run")
    a = parser.parse_args()
    a.models, a.forms = list(dict.fromkeys(a.models)), list(dict.fromkeys(a.forms))
    if a.render:
        return a
    if a.data and a.presets:
        stop("--data and --presets: expected one of them")
    if a.name and not a.data:
        stop("--name is of a folder given with --data; a preset has its own")
    if a.data and not glob.glob(os.path.join(glob.escape(a.data), "*.inter*")):
        stop(f"--data {a.data}: no such data folder (expected one with a NAME.inter)")
    a.presets = list(dict.fromkeys(a.presets or ["demo", "baby"]))
    if a.out and not a.data and len(a.presets) > 1:
        stop(f"--out is one place for the races of {' and '.join(a.presets)}: name one of --presets, or leave --out away")
    return a


def main():
    a = arguments()
    if a.render:
        print(render(a.render))
        return
    if not os.access(os.path.join(a.build, "bench_race"), os.X_OK):
        stop(f"{a.build} has no bench_race: type make, or name the folder with --build")
    names = [a.name or os.path.basename(os.path.normpath(a.data))] if a.data else a.presets
    check_place(a.out or os.path.join(HERE, "results", out_of(a, names[0])))    # all defaults lie in one folder
    try:
        import torch  # noqa: F401
    except ImportError:
        stop(f"{sys.executable} has no torch: bench/pytorch/README.md says how to install it")
    a.device = choose_device(a)
    places = [(names[0], a.data)] if a.data else [(p, preset_folder(p, a.build)) for p in names]
    load = os.getloadavg()[0]
    ceilings = measure_machine(a)
    for name, folder in places:
        begin = time.perf_counter()
        out = a.out or os.path.join(HERE, "results", out_of(a, name))
        report = dict(name=name, what=f"data folder {name}" if a.data else f"generated by `ccdrec synth {name}`", device=a.device, threads=a.threads, load=load,
                      command=f"bench/race.py {' '.join(sys.argv[1:])}".rstrip(), with_targets=judged(a, name), machine=ceilings,
                      ceilings=ceilings, results=[])
        for case in a.models:
            report["results"].append(run_case(case, folder, a))
            again = measure_machine(a)   # others use the machine too: what it allows is the best that was seen while the race ran
            ceilings.update({k: max(ceilings[k], again[k]) for k in CEILINGS if ceilings[k]}, times_measured=ceilings["times_measured"] + 1)
            if "core_to_core_ns" in again:
                ceilings["core_to_core_ns"] = min(again["core_to_core_ns"], ceilings.get("core_to_core_ns", math.inf))
            report["seconds"] = time.perf_counter() - begin
            write(out + ".json", json.dumps(report, indent=1) + "\n")    # after every model: what is measured stays
            write(out + ".md", markdown(report))
        print(markdown(report), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
