"""Repeats a recorded run of ccdrec (docs/run-format.md) with the baseline's own mathematics and compares what came of it.

    ccdrec train -m CCDRec -d FOLDER --set epochs=3 --record RUN.safetensors
    python parity.py RUN.safetensors... --data FOLDER [--dtype float64|float32] [--also RUN FOLDER]... [--report STEM] [--plant RUN FOLDER]

Taken from the record: initial parameters and what chance decided (order of the rows, random negatives, pruned edges, diffusion steps, noise,
candidates and drawn ranks, hard negatives and mixing coefficients). Computed here: graphs, losses, gradients, Adam, the reverse process, similarities, scores.
Taken from the record after a check: the curricular negatives. Inputs that differ by rounding flip one now and then, so each must be as similar
to its positive as the item at the drawn rank, to within rounding; the run then goes on with the one that was chosen. The candidates of hard
negatives are not recorded: those must be allowed, and stand in their users' rankings where the best of so many draws do, by the mean of an epoch.

Compared: every part of the loss at every step, curricular negatives, parameters at the end, and every user's Recall@20 after every evaluated
epoch. A user may differ only by items whose scores are within rounding of one another; those users are listed. Exits 1 on disagreement.
--plant spoils a record in several ways, one at a time, and demands that each is reported.
"""
import copy
import json
import os
import sys

import numpy as np
import torch

import data as D
import hard as H
import models as M
from mistakes import Parser, UserError, run as run_main
from replay import ASTRAY, FLIPPED, K, LOSS, ROUNDING, STRAYED, STRAYED_AT_KINKS, Replay, Run


# ----------------------------------------------------------------------------------------------------------- planted faults

def plants(run, data):
    """name -> a record with that fault. What the model does not have is left out."""
    def spoiled(change):
        other = copy.copy(run)
        other.arrays, other.settings = dict(run.arrays), dict(run.settings)
        change(other)
        return other

    def altered(name, at, value):
        def change(r):
            r.arrays[name] = r.arrays[name].copy()
            r.arrays[name][at] = value(r.arrays[name][at]) if callable(value) else value
        return spoiled(change)

    last = len(run.epochs) - 1
    has = lambda name: f"epoch.{last}.{name}" in run.arrays   # noqa: E731
    name = lambda n, e=last: f"epoch.{e}.{n}"   # noqa: E731
    out = {"a learning rate 1 % larger": spoiled(lambda r: r.settings.update(learning_rate=r.settings["learning_rate"] * 1.01)),
           "a loss off by 3e-4": altered(name("losses"), (0, 0), lambda x: x * (1 + 3e-4)),
           "a positive of another row": altered(name("positives"), 0, (run.of(last, "positives")[0] + 1) % data.I),
           "an item in a list that is not there": altered(name("list.items"), (0, K - 1), lambda x: next(
               i for i in range(10 ** 6) if i not in set(run.of(last, "list.items")[0].tolist())))}
    if has("negatives"):
        out["a random negative that is the positive"] = altered(name("negatives"), (0, 3), run.of(last, "positives")[3])
    if has("ranks"):
        B = min(run.settings["train_batch_size"], len(run.of(last, "users")))
        candidates, chosen = run.of(last, "candidates")[0], run.of(last, "curricular")[:B]
        other = next(c for c in candidates[::-1] if c != chosen[0])
        out["a flipped curricular negative"] = altered(name("curricular"), 0, other)
        out["another drawn rank"] = altered(name("ranks"), 0, lambda x: x + 1 if x == 0 else x - 1)
    s = run.baseline_settings()
    if H.used(s):
        hard, own = run.of(last, "hard"), run.of(last, "positives")
        out["a hard negative that the user has"] = altered(name("hard"), (0, 2), own[2])
        out["random negatives for hard ones"] = altered(name("hard"), slice(None), np.broadcast_to(run.of(last, "negatives")[0], hard.shape))
        if has("table"):
            out["candidates of other users"] = altered(name("table"), slice(None), lambda x: np.roll(x, 1, 0))
            out["a candidate the user has"] = altered(name("table"), (0, 0), data.items_of(0)[0])
            out["a cohesion 1.5 times as large"] = altered(name("cohesion"), 0, lambda x: 1.5 * x)
        out["omega + 0.02"] = spoiled(lambda r: r.settings.update(omega=s.omega + 0.02 if s.omega < 0.9 else s.omega - 0.02))
    if has("alpha"):
        out["1 - alpha for alpha"] = altered(name("alpha"), slice(None), lambda x: np.minimum(1 - x, np.float32(1 - 2 ** -24)))
    if s.use_mg:
        if len(run.of(last, "losses")) > s.beta:
            out["a batch more between mirror batches"] = spoiled(lambda r: r.settings.update(beta=s.beta + 1))
        out["alpha2 + 0.02"] = spoiled(lambda r: r.settings.update(alpha2=s.alpha2 + 0.02))
        out["alpha1 + 0.02"] = spoiled(lambda r: r.settings.update(alpha1=s.alpha1 + 0.02))
        out["no mirror batches"] = spoiled(lambda r: r.settings.update(use_mg=False))
        for x in ("hard", "noise", "mask.users"):
            if has("pass1." + x):
                out[f"second passes without {x}"] = spoiled(lambda r, x=x: r.arrays.pop(name("pass1." + x)))
        if has("pass1.hard"):
            out["a second pass's hard negative that the user has"] = altered(name("pass1.hard"), (0, 1), run.of(last, "positives")[1])
        if has("pass1.noise"):
            out["noise of a second pass negated"] = altered(name("pass1.noise"), slice(0, 40), lambda x: -x)
    if M.own(s):
        out.update(plants_of_own(run, data, s, spoiled, altered, name, has))
    if has("edges"):
        edges = run.of(last, "edges")
        if has("edge_weights"):
            if M.diffuses(s) and s.estimator == "unet":
                out["weights of edges off by 0.02"] = altered(name("edge_weights"), slice(None, None, 7), lambda x: x + 0.02)
            else:
                out["the weight of an edge off by 1e-4"] = altered(name("edge_weights"), 1, lambda x: x + 1e-4)
            out["dgd_tau + 0.02"] = spoiled(lambda r: r.settings.update(dgd_tau=s.dgd_tau + 0.02))
            out["FREEDOM's graph of the edges"] = spoiled(lambda r: r.settings.update(dgd="off"))
        out["an edge kept twice"] = altered(name("edges"), (slice(None), 1), edges[:, 0])
        out["an edge of nobody's"] = altered(name("edges"), (1, 0), np.setdiff1d(np.arange(data.I), data.items_of(edges[0][0]))[0])
    if "graph.item_item.index" in run.arrays:
        row, column = run.arrays["graph.item_item.index"]
        out["another neighbour in the item graph"] = altered("graph.item_item.index", (1, 0), np.setdiff1d(np.arange(data.I), column[row == row[0]])[0])
    if M.backbone(s) == "LATTICE":
        m = run.modalities[0]
        for which, array in (("learned", name(f"learned.{m}.index")), ("frozen", f"graph.frozen.{m}.index")):
            of_row = run.arrays[array][3]
            out[f"another {which} neighbour"] = altered(array, (3, int(np.argmax(of_row != 3))), np.setdiff1d(np.arange(data.I), of_row)[0])
            out[f"a {which} neighbour twice"] = altered(array, (3, slice(2)), of_row[0])
        out["a value of the frozen graph off by 1e-4 of it"] = altered(f"graph.frozen.{m}.value", (2, 1), lambda x: x * (1 + 1e-4))
        out["no lists of the last evaluation"] = spoiled(lambda r: r.arrays.pop(name(f"learned.{m}.index", last + 1)))
        out["lambda_coeff + 0.02"] = spoiled(lambda r: r.settings.update(lambda_coeff=s.lambda_coeff + 0.02 if s.lambda_coeff < 0.9 else s.lambda_coeff - 0.02))
        gamma, T = s.learning_rate_scheduler
        out["a learning rate that is 3 % larger at the end"] = spoiled(lambda r: r.settings.update(learning_rate_scheduler=[gamma * 1.03 ** (T / last), T]))
        if s.reg_weight >= 1e-3:                       # else the term is rounding beside the others
            out["the regulariser over a batch one smaller"] = spoiled(lambda r: r.settings.update(reg_weight=s.reg_weight * s.train_batch_size / (s.train_batch_size - 1)))
    if has("noise"):
        out["noise of one item negated"] = altered(name("noise", 0), 0, lambda x: -x)
        out["no noise in the reverse process"] = altered(name("reverse.steps", 0), slice(None), 0)
    if has("mask.unet"):
        out["a dropped value of the first item kept"] = altered(name("mask.unet", 0), (0, slice(None)), 0xffff)
        out["masks of other items"] = altered(name("mask.unet", 0), slice(None), lambda x: np.roll(x, 1, 0))
        out["dropout that does not divide by what it keeps"] = spoiled(lambda r: r.settings.update(unet_dropout=1e-9))
        out["no masks in the last epoch"] = spoiled(lambda r: r.arrays.pop(name("mask.unet")))
    if s.model == "MCDRec" and s.mrd:
        out["lambda_dm + 0.02"] = spoiled(lambda r: r.settings.update(lambda_dm=s.lambda_dm + 0.02))
        out["no diffusion"] = spoiled(lambda r: r.settings.update(mrd=False))
    if run.settings.get("mu") and (run.settings.get("dma", False) and run.settings["model"] == "CCDRec" or M.of_all_items(s)):
        out["fusion with mu + 0.02"] = spoiled(lambda r: r.settings.update(mu=r.settings["mu"] + 0.02))
    return out


def plants_of_own(run, data, s, spoiled, altered, name, has):
    """The faults of BM3, SLMRec and MMGCN."""
    def setting(key, x):
        return spoiled(lambda r: r.settings.update({key: x}))

    out = {}
    if s.model == "BM3":
        m, words = run.modalities[-1], run.arrays[name("mask.users")]
        for of in ("users", "items", m):
            out[f"a bit of mask.{of} flipped"] = altered(name("mask." + of), (5, 0), lambda x: x ^ 1)
            out[f"no mask.{of}"] = spoiled(lambda r, of=of: r.arrays.pop(name("mask." + of)))
        out[f"the items' masks for those of {m}"] = spoiled(lambda r: r.arrays.update({name("mask." + m): run.arrays[name("mask.items")]}))
        out["masks inverted"] = altered(name("mask.users"), slice(None), lambda x: x ^ 0xffff)
        out["masks of another row"] = altered(name("mask.users"), slice(None), np.roll(words, 1, 0))
        out["dropout + 0.1"] = setting("dropout", s.dropout + 0.1)
        out["cl_weight + 0.02"] = setting("cl_weight", s.cl_weight + 0.02)
        out["a regulariser 0.1 % larger"] = setting("reg_weight", s.reg_weight * 1.001)
        out["another layer"] = setting("n_ui_layers", s.n_ui_layers + 1)
        if has("pass1.mask.users"):
            B, beta = s.train_batch_size, s.beta
            again = np.concatenate([words[k * B:(k + 1) * B] for k in range(0, -(-len(words) // B), beta)])
            out["second passes with the users' masks of the first"] = spoiled(lambda r: r.arrays.update({name("pass1.mask.users"): again}))
    if s.model == "SLMRec":
        for key, x in (("temp", s.temp + 0.005), ("ssl_temp", s.ssl_temp + 0.002), ("ssl_alpha", s.ssl_alpha * 1.001), ("n_ui_layers", s.n_ui_layers + 1),
                       ("weight_decay", 0.0 if s.weight_decay else 1e-4)):
            out[f"{key} {x:.6g}"] = setting(key, x)
        out["the modalities in the other order"] = spoiled(lambda r: setattr(r, "modalities", r.modalities[::-1]))
    if s.model == "MMGCN":
        m = run.modalities[0]
        out["some users' constant preferences negated"] = altered(f"initial.{m}.preference", slice(40), lambda x: -x)
        out["a node's constants 1 % other"] = altered("initial.id_embedding", 0, lambda x: 1.01 * x)
        if s.reg_weight:
            out["a regulariser 0.1 % larger"] = setting("reg_weight", s.reg_weight * 1.001)
    return out


# --------------------------------------------------------------------------------------------------------------------- main

def summary(replay):
    r = replay.seen
    last = {x["split"]: x for x in r.recall}
    return dict(model=replay.s.model, data=replay.data.name, epochs=len(replay.run.epochs), pools=[x.get("negatives", "none") for x in replay.run.epochs], steps=r.steps,
                other_item_rows=r.other_rows, lists=r.lists, list_gap=r.list_gap, edges=r.edges, edge_gap=r.edge_gap, twins=r.twins,
                loss=r.loss, loss_at=r.loss_at, part=r.part, part_at=r.part_at, negatives=r.negatives, flips=r.flips, similarity_gap=r.gap,
                masks=r.masks, mask_astray=r.mask_astray, mask_astray_at=r.mask_astray_at,
                hard=r.hard, astray=r.astray, astray_at=r.astray_at, mirrored=r.mirrored, users=r.users, near_ties=r.near, score_gap=r.tie, recall=r.recall, parameters=r.parameters, strayed=r.strayed, farthest=r.farthest,
                last={k: v["recorded"] for k, v in last.items()}, wrong=replay.wrong)


def table(x):
    differ = sum(len(y["differ"]) for y in x["recall"])
    rows = [("rows of the item graph with another near-tie", str(len(x["other_item_rows"]))),
            ("LATTICE's lists", f"{x['lists']}" + (f"; a neighbour {x['list_gap']:.2g} less similar than the last one at most" if x["lists"] else "")),
            ("MCDRec's weights of edges", f"{x['edges']}" + (f", off by {x['edge_gap']:.2g} at most" if x["edges"] else "")),
            ("epochs, negatives from", f"{x['epochs']}: {', '.join(x['pools'])}"),
            ("steps, loss: largest relative difference", f"{x['steps']}, {x['loss']:.2g} ({x['loss_at']}; limit {LOSS:g})"),
            ("of which the U-Net's own divergence explains, at most", f"{x['twins']:.2g}"),
            ("its parts", f"{x['part']:.2g} ({x['part_at']})"),
            ("curricular negatives, flipped", f"{x['negatives']}, {len(x['flips'])}; similarity off by {x['similarity_gap']:.2g} of its mass at most "
                                              f"(limit {ROUNDING:g})"),
            ("hard negatives, their mean place", f"{x['hard']}" + (f", {x['astray']:.2g} standard errors from where the draws lead to expect it "
                                                                     f"({x['astray_at']}; limit {ASTRAY:g})" if x["hard"] else "")),
            ("BM3's masks: elements", f"{x['masks']}" + (f", {x['mask_astray']:.2g} standard errors from what chance leads to expect ({x['mask_astray_at']}; limit {ASTRAY:g})"
                                                         if x["masks"] else "")),
            ("mirror batches, each a second step", f"{x['mirrored']}"),
            ("parameters, off by over 0.01 learning rates",
             f"{x['parameters']}, {x['strayed']} (limit {STRAYED_AT_KINKS if x['model'] == 'MMGCN' else FLIPPED if x['twins'] else STRAYED:.1%}; farthest {x['farthest']:.2g})"),
            (f"users evaluated, another Recall@{K}", f"{x['users']}, {differ}"),
            ("other lists, all near-ties", f"{len(x['near_ties'])}; scores off by {x['score_gap']:.2g} of their mass at most (limit {ROUNDING:g})"),
            (f"Recall@{K} at the end", "  ".join(f"{k} {v:.4f}" for k, v in x["last"].items()))]
    return rows


def compared(path, folder, dtype):
    """-> (run, data, outcome)"""
    run = Run(path)
    data = D.load(folder, M.reads_features(run.baseline_settings()))
    replay = Replay(run, data, dtype).all()
    return run, data, summary(replay)


def show(name, x):
    print(f"{name}: {x['model']} on {x['data']}")
    print("\n".join(f"  {a:46s} {b}" for a, b in table(x)))
    for f in x["flips"][:10]:
        print("  flipped: " + flip_text(f))
    for f in x["near_ties"][:10]:
        print("  near-tie: " + tie_text(f))
    for text in x["wrong"][:20]:
        print("  WRONG " + text)


def flip_text(f):
    return "epoch {epoch}, step {step}, row {row}, user {user}: item {chosen}, here {ours}; {gap:.2g} of the mass".format(**f)


def tie_text(f):
    return "epoch {epoch}, user {user}; {gap:.2g} of the mass".format(**f)


def plant(path, folder, dtype):
    """Name of each fault -> the first things that were reported of it."""
    run, data, x = compared(path, folder, dtype)
    show(os.path.basename(path) + ", as it is", x)
    out = {"none": x["wrong"]}
    for name, spoiled in plants(run, data).items():
        out[name] = Replay(spoiled, data, dtype).all().wrong[:3]
        print(f"  {'found ' if out[name] else 'MISSED'} {name}: {out[name][0] if out[name] else 'nothing was reported'}")
    return out


def markdown(x):
    names = list(x["runs"])
    lines = ["# Whole runs against the PyTorch baseline", "",
             "`bench/parity.sh` records runs of `ccdrec train` and repeats them with the mathematics of `bench/pytorch` in " + x["dtype"] + " (docs/run-format.md says",
             "what is recorded and what is compared). ccdrec " + x["program"] + ", PyTorch " + x["torch"] + "; data: " + x["runs"][names[0]]["data"] + ".", "",
             "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    columns = [table(x["runs"][n]) for n in names]
    lines += [f"| {columns[0][r][0]} | " + " | ".join(c[r][1] for c in columns) + " |" for r in range(len(columns[0]))]
    lines += ["", "## Flipped curricular negatives", ""]
    lines += [f"- {n}: {flip_text(f)}" for n in names for f in x["runs"][n]["flips"]] or ["None."]
    lines += ["", "## Users with near-ties", ""]
    lines += [f"- {n}: {tie_text(f)}" for n in names for f in x["runs"][n]["near_ties"]] or ["None."]
    wrong = [f"- {n}: {w}" for n in names for w in x["runs"][n]["wrong"]]
    lines += ["", "## Disagreements", ""] + (wrong or ["None."])
    if x.get("planted"):
        lines += ["", "## Planted faults", "", "A small record spoiled in one place each; the first thing that was reported.", "", "| fault | reported |", "|---|---|"]
        lines += [f"| {n} | {w[0] if w else 'nothing'} |" for n, w in x["planted"].items()]
    return "\n".join(lines) + "\n"


def main():
    parser = Parser(description="Repeats recorded runs with the baseline's mathematics and compares them.")
    parser.add_argument("runs", nargs="*", help="records of `ccdrec train --record`")
    parser.add_argument("--data", help="the data folder of the runs")
    parser.add_argument("--also", nargs=2, action="append", default=[], metavar=("RUN", "FOLDER"), help="a record of another folder")
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--plant", nargs=2, metavar=("RUN", "FOLDER"), help="spoil this record, one fault at a time: each must be reported")
    parser.add_argument("--report", metavar="STEM", help="write STEM.md and STEM.json")
    parser.add_argument("--threads", type=int, default=0)
    o = parser.parse_args()
    if o.runs and not o.data or not (o.runs or o.also or o.plant):
        parser.error("give records with their --data, or --plant")
    if not 0 <= o.threads <= 4096:
        raise UserError(f"--threads is {o.threads}, expected 0 to 4096")
    if o.report:                    # before anything is computed
        folder = os.path.dirname(os.path.abspath(o.report))
        if not os.access(folder, os.W_OK):
            raise UserError(f"--report {o.report}: {folder} is no folder that can be written to")
    if o.threads:
        torch.set_num_threads(o.threads)
    dtype = getattr(torch, o.dtype)
    out = dict(dtype=o.dtype, torch=torch.__version__, program="", runs={})
    for path, folder in [(path, o.data) for path in o.runs] + o.also:
        run, _, x = compared(path, folder, dtype)
        name = os.path.basename(path).split(".")[0]
        out["program"], out["runs"][name] = run.about["program"], {"data": run.about["data"], "settings": run.settings, **x}
        show(name, out["runs"][name])
    if o.plant:
        out["planted"] = plant(*o.plant, dtype)
    if o.report:
        with open(o.report + ".json", "w") as f:
            json.dump(out, f, indent=1)
            f.write("\n")
        with open(o.report + ".md", "w") as f:
            f.write(markdown(out))
    wrong = sum(len(x["wrong"]) for x in out["runs"].values())
    missed = [n for n, w in out.get("planted", {}).items() if (n == "none") == bool(w)]
    if wrong or missed:
        print(f"DISAGREE: {wrong} differences" + (f"; planted faults not seen, or seen where none is: {', '.join(missed)}" if missed else ""))
        sys.exit(1)
    print("agree")


if __name__ == "__main__":
    run_main(main)
