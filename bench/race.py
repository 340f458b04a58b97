"""The race: this program and the PyTorch baselines, epoch by epoch in alternation, on the same data, threads, settings and precision.

    make race                                                        # presets demo and baby, all models; writes bench/results/race-*.md and .json;
                                                                     # over an hour on two cores, most of it LATTICE as published on baby (each report says)
    PYTHON bench/race.py --presets demo --models CCDRec --rounds 5   # PYTHON has torch and numpy (bench/pytorch/README.md)
    PYTHON bench/race.py --data FOLDER --name sports --out race-sports
    PYTHON bench/race.py --render race-baby.json                     # the table again, from what was measured

Every participant is a process of its own: build/bench_race for this program, bench/pytorch/train.py for the forms of the baseline. A round is
one epoch (training, then evaluation of validation and test) of each in turn; who waits is stopped (SIGSTOP), so that no thread of theirs spins.
Ratios are formed within a round. The first round is dropped: it touches memory for the first time, and CCDRec has no curricular negatives in it; on a
GPU also the second, in which steps are recorded. Where the two cores lay apart when some of our epochs began (core_to_core_ns of a round, by
bench_race), the ratios of both kinds of rounds are shown; a race that met them apart only cannot tell. A race of some models or forms, or of fewer than
five rounds, writes race-NAME-part, so that it does not take the place of a whole one. What is made of the rounds: race_report.py. Targets are judged
where they are defined: `baby` as generated, CPU, two threads, five rounds.
"""
import argparse
import glob
import json
import math
import os
import signal
import subprocess
import sys
import time

from race_report import dropped, markdown

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
OURS, FORMS = "ccdrec", ("published", "tuned", "tuned-rows")

# What both sides are told: the published settings (specification, baselines 2-4 and ccdrec 6), every key by name, so that no default decides.
COMMON = dict(embedding_size=64, n_neg=1)
GRAPH = dict(n_ui_layers=2)
FEATURES = dict(GRAPH, n_mm_layers=1, knn_k=10, train_features=True)
ITEMS = dict(FEATURES, mm_image_weight=0.1, dropout=0.8)
CASES = {
    "BPR": dict(model="BPR", learning_rate=1e-3, train_batch_size=2048, reg_weight=0.1, **COMMON),
    "LightGCN": dict(model="LightGCN", learning_rate=1e-3, train_batch_size=2048, reg_weight=1e-4, **GRAPH, **COMMON),
    "FREEDOM": dict(model="FREEDOM", learning_rate=1e-3, train_batch_size=2048, reg_weight=0.0, **ITEMS, **COMMON),
    "FREEDOM reg": dict(model="FREEDOM", learning_rate=1e-3, train_batch_size=2048, reg_weight=1e-3, **ITEMS, **COMMON),
    "FREEDOM RealHNS": dict(model="FREEDOM", learning_rate=1e-3, train_batch_size=2048, reg_weight=0.0, sampler="realhns", omega=0.5, realhns_p_min=0.0, realhns_p_max=10.0,
                            realhns_candidates=1000, realhns_clusters=100, realhns_start=0, realhns_top=0.1, **ITEMS, **COMMON),      # from the first epoch on
    "LATTICE": dict(model="LATTICE", learning_rate=1e-3, learning_rate_scheduler=[0.96, 50], train_batch_size=2048, reg_weight=1e-5, lambda_coeff=0.9, **FEATURES, **COMMON),
    "CCDRec": dict(model="CCDRec", learning_rate=5e-4, train_batch_size=512, reg_weight=0.0, lambda_dm=1.0, omega=0.8, mu=0.5, timesteps=20, dtau=5,
                   tau_end=30, candidate_ratio=0.1, kappa=0.1, **ITEMS, **COMMON),
}
LEAST_ROUNDS = 5        # of a race that is judged, and of one that counts as whole


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
        if form != "tuned-rows" or "train_features" in settings:      # without features it is the same as tuned
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


def say(text):
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ what the numbers say


CEILINGS = ("memory_gb_s", "fma_gflop_s", "root_and_division_g_s", "gemm_gflop_s")


def measure_machine(a):
    """The machine and its ceilings (bench/ceilings.h; of a GPU bench/gpu/ceilings.h) as a dict, some seconds."""
    say("measuring the machine")
    command = [os.path.join(a.build, "bench_race"), "--ceilings", "--threads", str(a.threads), "--device", a.device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        stop(f"the machine was not measured (status {done.returncode}): {' '.join(command)}")
    return dict(json.loads(done.stdout), times_measured=1)


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
