"""What a race (bench/race.py) measured, as ratios, targets, sentences and Markdown. It measures nothing itself."""
import math
import statistics

PHASES = ("prune", "sample", "forward", "backward", "optimiser", "reverse")
# Targets for `baby` on two CPU cores: ratio of the epoch's seconds (training), of the evaluation's, share of the memory.
TARGETS = {("CCDRec", "published"): 8, ("FREEDOM", "published"): 4, ("FREEDOM reg", "published"): 4, ("LightGCN", "published"): 4,
           ("CCDRec", "tuned"): 3, ("FREEDOM", "tuned"): 2, ("FREEDOM reg", "tuned"): 2, ("LightGCN", "tuned"): 2, ("BPR", "tuned"): 2}
EVALUATION_TARGET, MEMORY_TARGET = 5, 1 / 3
APART = 2               # a round's cores lay apart when a line of cache took over so many times the least of the race between them,
ONE_CORE = 1000         # and over so many nanoseconds only between threads that take turns on one core: across sockets it is a few hundred


def dropped(device):
    return 2 if device == "cuda" else 1


def spread(values):
    return dict(median=statistics.median(values), min=min(values), max=max(values))


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
        lines += ["", ("Of what was missed, and" if report["with_targets"] else "Of the epochs") + " against tuned-rows, which has no target ([what was tried](../../docs/tried.md)):", ""] + [f"* {x}" for x in bound]
    notes = [f"{r['case']}, {p['name']}: {n}" for r in report["results"] for p in r["participants"][1:] for n in p["notes"]]
    if notes:
        lines += ["", "Notes of the baseline:", ""] + [f"* {n}" for n in notes]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------ the command
