"""Checks of the baseline itself: python check.py [golden | numbers | differences | hard | lattice | mcdrec | others | data | forms | graph | compile | parity | race]. Prints the largest deviations, exits 1 on failure.

golden       the golden cases once more in float32, against their float64 results, in units of the tolerances of the manifest
numbers      the reference implementation's losses, gradients and scores of specification baselines.md 12 (every model, Adam)
differences  float64 gradients against central differences, for the cases of a list, every trained element
hard         hard negatives and Mirror Gradient (check_hard.py): MixGCF as published against its short form, what is drawn and chosen, the forms, planted mistakes
lattice      LATTICE, RealHNS and MCDRec's graph (check_lattice.py): named properties, golden files of an epoch's decisions, planted mistakes
mcdrec       MCDRec (check_mcdrec.py): its U-Net in two forms, schedule, finite differences, planted mistakes
others       BM3, SLMRec and MMGCN (check_others.py): named properties, central differences, planted mistakes, the forms
data         ids and mapping files of a data folder; that mistakes are answered by one sentence
forms        the forms of train.py against one another: same losses and parameters for the same draws, replayed rows against dense Adam
graph        the step recorded as a CUDA graph, replayed without one: whole epochs with a short last batch, and captures that fail
compile      that torch.compile is tried with arguments like those of the steps
parity       records written by the form published, repeated by parity.py: right ones agree, planted faults are reported
race         what race.py makes of rounds whose ratios, medians and times are known
"""
import json
import math
import os
import sys
from types import SimpleNamespace

import numpy as np
import torch

import check_others
import data as D
import golden_results as G
import graph_step
import lattice
import metrics
import models as M
import safetensors_io as st
import train
import tuned
from check_compile import check_compile
from check_data import check_data
from check_graph import check_graph_step
from check_hard import check_hard
from check_lattice import check_lattice
from check_mcdrec import check_mcdrec
from check_parity import Recorded, check_parity
from checking import apart, failed, gap, report, small_data
from mistakes import UserError, run as run_main

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import race   # noqa: E402
import race_report   # noqa: E402
FOLDER = os.path.join(HERE, "..", "..", "tests", "golden")


def by_row(mass, x):
    return (mass if x.ndim == 1 else mass[..., None]).astype(np.float64)


def deviation(got, want, s):
    """kind of array -> (largest deviation in units of the tolerance, name of that array)"""
    worst = {}
    for n, x in got.items():
        x, y = x.double().numpy().reshape(want[n].shape), want[n].astype(np.float64)
        if n.startswith("new."):
            g, mass = want[f"grad.{n[4:]}"], by_row(want[f"mass.grad.{n[4:]}"], x)
            compared = (np.abs(g) >= 1e-6 * mass)
            if not compared.any():
                continue
            ratio = (np.abs(x - y) / (1e-6 * np.abs(y) + 1e-2 * s.learning_rate))[compared].max()
            kind = "new"
        else:
            mass = by_row(want["mass.loss.total" if n.startswith("loss.") else f"mass.{n}"], x)
            kind = "gradient" if n.startswith("grad.") else "pool" if n.startswith("pool.") else "forward"
            unit = {"gradient": 1e-5, "pool": 1e-6, "forward": 1e-6}[kind] * mass
            off = np.abs(x - y)
            ratio = np.where(off == 0, 0, off / np.where(unit > 0, unit, 1e-300)).max()
        if not ratio <= worst.get(kind, (-1, ""))[0]:
            worst[kind] = (float(ratio), n)
    return worst


def golden_file(name):
    """-> (arrays, metadata)"""
    return st.load(os.path.join(FOLDER, f"{name}.safetensors"))


def check_golden():
    with open(os.path.join(FOLDER, "manifest.json")) as f:
        about_cases = json.load(f)["cases"]
    worst = {}
    for name, about in about_cases.items():
        arrays, metadata = golden_file(f"{name}.case")
        want, _ = golden_file(f"{name}.want")
        s = M.settings(**about["settings"])
        everything = about.get("everything", False)
        if about["kind"] == "step":
            got = G.step_result(arrays, metadata, torch.float32, everything)
        else:
            got, _ = G.reverse_result(arrays, metadata, torch.float32, everything)
        assert set(got) == {n for n in want if not n.startswith("mass.")}, name
        for kind, (ratio, n) in deviation(got, want, s).items():
            if not ratio <= worst.get(kind, (-1, ""))[0]:
                worst[kind] = (ratio, f"{name}: {n}")
    for kind, (ratio, where) in sorted(worst.items()):
        report(f"float32 against golden, {kind}, worst at {where}", ratio, 1)


def section_12():
    """The setting of baselines.md 12."""
    U, I, d = 4, 5, 4
    train = np.array([(0, 0), (0, 1), (0, 2), (1, 1), (1, 3), (2, 0), (2, 3), (3, 2)])
    i = np.arange(I)[:, None]
    X = {"image": 1.5 + np.sin(1.3 * i + 0.7 * np.arange(3) + 0.5 * i * np.arange(3)),
         "text": 1.5 + np.cos(0.9 * i + 1.1 * np.arange(2) + 0.3 * i * np.arange(2))}
    X = {m: torch.tensor(x) for m, x in X.items()}

    def number(n, *shape):
        return torch.tensor(0.5 * np.sin(1 + n + 0.9 * np.arange(np.prod(shape)))).reshape(shape)

    p = {"user_embedding.weight": number(0, U, d), "item_id_embedding.weight": number(1, I, d),
         "modal_weight": torch.tensor([0.7, -0.1], dtype=torch.float64),
         "image_embedding.weight": X["image"], "image_trs.weight": number(4, 3, d).T.contiguous(), "image_trs.bias": number(5, d),
         "text_embedding.weight": X["text"], "text_trs.weight": number(6, 2, d).T.contiguous(), "text_trs.bias": number(7, d)}
    dense = lambda graph, n: torch.zeros(n, n, dtype=torch.float64).index_put_(tuple(graph[0]), graph[1].double())   # noqa: E731
    latent = SimpleNamespace(learned=lattice.learned_lists(p, list(X), 2), frozen=lattice.frozen_lists(X, 2), values=None, weight=None)
    symmetric, row = (dense(f(train[:, 0], train[:, 1], U, I), U + I) for f in (D.user_item_graph, D.row_graph))
    return train, p, {m: SimpleNamespace(user_item=row if m == "LATTICE" else symmetric, item_item=dense(D.item_graph(X, k=2), I), latent=latent)
                      for m in ("BPR", "LightGCN", "FREEDOM", "LATTICE")}


def check_numbers():
    train, p, graphs_of = section_12()
    negatives = torch.tensor([[3, 4, 3, 0, 4, 1, 2, 1]])
    users, positives = torch.tensor(train).T
    batch = SimpleNamespace(users=users, positives=positives, negatives=negatives, curricular=None, frozen=None)
    diffusion = SimpleNamespace(items=torch.arange(5), t=None, noise=None, count=None)
    P, Q = "user_embedding.weight", "item_id_embedding.weight"
    expected = {
        "BPR": (0.817655, {P: (-5.541046e-03, 2.195013e-01), Q: (9.656326e-03, 1.990503e-01)},
                (.32909, -.12614, -.10286, .31062, -.45424)),
        "LightGCN": (0.734198, {P: (-1.397883e-02, 3.889015e-02), Q: (-1.072613e-02, 3.104115e-02)},
                     (.15046, -.02487, -.00309, .06754, -.07070)),
        "FREEDOM": (0.766051, {P: (-1.679581e-02, 6.148044e-02), Q: (-1.422440e-02, 7.618169e-02),
                               "image_trs.weight": (-5.802508e-03, 9.365006e-03), "image_trs.bias": (0, 0),
                               "text_trs.weight": (-1.415401e-03, 1.242801e-02), "text_trs.bias": (0, 0),
                               "image_embedding.weight": (0, 8.223162e-03), "text_embedding.weight": (0, 6.646470e-03)},
                    (.22917, -.08019, -.05842, .04887, -.11936)),
        "LATTICE": (0.832647, {P: (-1.970643e-02, 1.311960e-01), Q: (-1.439756e-01, 9.249043e-02),
                               "image_trs.weight": (3.190239e-02, 1.282414e-02), "image_trs.bias": (8.755558e-03, 5.133977e-03),
                               "text_trs.weight": (-1.717488e-02, 1.322649e-02), "text_trs.bias": (-7.384699e-03, 8.439907e-03),
                               "modal_weight": (0, 2.31208e-03 * math.sqrt(2)),
                               "image_embedding.weight": (1.179522e-03, 3.637770e-03), "text_embedding.weight": (1.008316e-03, 7.937304e-03)},
                    (.55983, -.43197, -.35904, .44214, -.60428)),
    }
    for model, (loss, grads, scores) in expected.items():
        s, graphs = M.settings(model=model, reg_weight=0.1, train_batch_size=8), graphs_of[model]
        q = {n: x.clone().requires_grad_(True) for n, x in p.items() if n in grads}
        out = M.step(q, graphs, batch, diffusion, ["image", "text"], s, G.DenseOps)
        report(f"{model} loss", abs(out["loss.total"].item() - loss), 1e-6)
        got = torch.autograd.grad(out["loss.total"], [q[n] for n in grads])
        worst = max(max(abs(g.sum().item() - a), abs(g.norm().item() - b)) / max(g.norm().item(), 1e-6) for g, (a, b) in zip(got, grads.values()))
        report(f"{model} gradients (sum and norm, relative to the norm)", worst, 1e-5)
        H_u, H_i = M.final_tables(q, graphs, s, ops=G.DenseOps)
        report(f"{model} scores", (H_u[0] @ H_i.T - torch.tensor(scores)).abs().max().item(), 1e-5)
    check_others.check_numbers(train, {m: p[f"{m}_embedding.weight"] for m in ("image", "text")})
    check_latent_numbers(q, graphs, got[list(grads).index("modal_weight")])
    theta, m, v = torch.ones((), dtype=torch.float64), 0.0, 0.0
    for t, (g, want) in enumerate(((0.3, 0.9990000000), (0.0, 0.9983299418), (-0.1, 0.9980408065)), 1):
        theta, m, v = M.adam(theta, torch.tensor(g, dtype=torch.float64), m, v, t, 1e-3)
        report(f"Adam step {t}", abs(theta.item() - want), 1e-10)
    theta, m, v = torch.ones((), dtype=torch.float64), 0.0, 0.0
    for t, (g, want) in enumerate(((0.3, 0.9990000000), (0.0, 0.9983296940), (-0.1, 0.9980400692)), 1):
        theta, m, v = M.adam(theta, g + 1e-4 * theta, m, v, t, 1e-3)
        report(f"Adam step {t} with weight decay", abs(theta.item() - want), 1e-10)
    hit = torch.tensor([[True, False, True, False, False]])
    got = metrics.metrics(hit, torch.tensor([3]), ks=(2, 5))
    for name, want in {"Recall@5": .6667, "Precision@5": .4, "NDCG@5": .7039, "MAP@5": .5556, "MAP@2": .5}.items():
        report(f"metric {name}", abs(got[name] - want), 5e-5)
    plain = metrics.metrics_per_user(np.array([[7, 1, 8, 2, 3]]), [[7, 8, 9]], ks=(2, 5))
    report("metrics per user against vectorised", max(abs(plain[n] - got[n]) for n in got), 1e-12)


def check_latent_numbers(p, graphs, g_theta):
    """LATTICE's S and the gradient of theta of section 12, and S by the dense formulas of 8.2. Rows of either sign of c are looked at, too."""
    S = torch.tensor([[0.507044, 0.015025, 0.136359, 0.341950, 0], [0, 0.516791, 0.483208, 0, 0], [0, 0.483208, 0.516791, 0, 0],
                      [0.341950, 0, 0, 0.509718, 0.150788], [0, 0.274328, 0, 0.124995, 0.601663]])
    with torch.no_grad():
        lists = lattice.item_graph(p, graphs.latent, 0.9)
        dense = latent_dense(p, graphs.latent, 0.9)
        from_lists = torch.zeros_like(dense).index_put_((torch.arange(5)[:, None].expand_as(lists.column), lists.column), lists.value, accumulate=True)
    report("LATTICE item matrix", (from_lists - S).abs().max().item(), 1e-6)
    report("LATTICE item matrix, lists against dense formulas", (from_lists - dense).abs().max().item(), 1e-15)
    report("LATTICE gradient of theta", (g_theta - torch.tensor([2.31208e-03, -2.31208e-03])).abs().max().item(), 1e-8)
    c = torch.tensor([4.0, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(lattice.scale(c).sum(), c)
    report("LATTICE scale of row sums above, at and below 0", (lattice.scale(c) - torch.tensor([0.5, 0, 0])).abs().max().item() + (g - torch.tensor([-1 / 16, 0, 0])).abs().max().item(), 0)


def latent_dense(p, latent, lambda_coeff):
    """S (I,I) as 8.2 writes it, from whole matrices and knn of the features: the second way of computing it."""
    def knn(y, index):
        y = y / y.norm(dim=1, keepdim=True)
        return torch.zeros(len(y), len(y), dtype=y.dtype).scatter(1, index, (y @ y.T).gather(1, index))

    def lap(C):
        s = C.sum(1) ** -0.5
        return torch.diag(s) @ C @ torch.diag(s)

    w = torch.softmax(p["modal_weight"], 0)
    K = [knn(lattice.all_projected(p, m), index) for m, index in latent.learned.items()]
    O = [lap(knn(p[f"{m}_embedding.weight"], index)) for m, (index, _) in latent.frozen.items()]
    return (1 - lambda_coeff) * lap(sum(x * y for x, y in zip(w, K))) + lambda_coeff * sum(x * y for x, y in zip(w, O))


def check_differences():
    for name in ("bpr_two_negatives", "lightgcn_three_layers", "freedom_three_modalities", "ccdrec", "ccdrec_modality_loss", "ccdrec_dma_ndi_frozen",
                 "bpr_dns", "lightgcn_dns_two_negatives", "lightgcn_mixgcf", "freedom_popularity", "freedom_mixgcf_reg0", "ccdrec_dma_dns",
                 "ccdrec_dma_mixgcf", "lattice", "lattice_later", "lattice_two_layers", "lattice_negative_row_sum", "lattice_mixgcf_two_layers",
                 "ccdrec_lattice", "ccdrec_lattice_dma_dns", "mcdrec", "mcdrec_weights", "mcdrec_mixgcf"):
        arrays, metadata = golden_file(f"{name}.case")
        grads = G.step_result(arrays, metadata)
        p, *rest = G.arguments(arrays, metadata)
        s, worst, n = rest[-1], 0.0, 0
        with torch.no_grad():
            for k in M.trained(p, s):
                flat, g = p[k].view(-1), grads[f"grad.{k}"].view(-1)
                for j in range(len(flat)):
                    x, h, f = flat[j].item(), 1e-5, []
                    for y in (x + h, x - h):
                        flat[j] = y
                        f.append(M.step(p, *rest, G.DenseOps)["loss.total"].item())
                    flat[j] = x
                    worst, n = max(worst, abs((f[0] - f[1]) / (2 * h) - g[j].item())), n + 1
        largest = max(g.abs().max().item() for k, g in grads.items() if k.startswith("grad."))
        report(f"central differences, {name}, {n} elements, off by", worst / largest, 1e-8)


def check_choice():
    """Curricular negatives are drawn uniformly from the k most similar admissible candidates, whatever the form and however few there are."""
    d, C, B, draws = 8, 60, 6, 6000     # k = 6
    for name in ("published", "tuned"):
        f = train.FORMS[name](small_data(np.random.default_rng(3)), M.settings(model="CCDRec", embedding_size=d, timesteps=2, kappa=0.1), compile="off")
        g = torch.Generator().manual_seed(5)
        pool, candidates = torch.randn(f.data.I, d, generator=g), torch.randperm(f.data.I, generator=g)[:C]
        seen = torch.rand(B, C, generator=g) < 0.3
        seen[1], seen[2] = True, False                # none admissible; all
        seen[3, 3:], seen[4, 1:] = True, True         # fewer than k, one at most
        seen[3, :3], seen[4, 0] = False, False
        positives = torch.arange(B)
        sim = pool[positives].double() @ pool[candidates].double().T
        best = [sorted(torch.nonzero(~seen[b])[:, 0].tolist(), key=lambda c: -sim[b, c])[:6] for b in range(B)]
        ranked = torch.where(seen, -math.inf, sim)
        every = [f.one_of_top(ranked, 6, torch.full((B,), r)).tolist() for r in range(6)]
        report(f"choice, {name}: rows whose ranks are not the best, each once", sum(sorted(x[b] for x in every[:len(best[b])]) != sorted(best[b]) for b in range(B)), 0)
        if name == "published":                       # there rank r is the r-th hardest
            report(f"choice, {name}: ranks out of order", sum([x[b] for x in every[:len(best[b])]] != best[b] for b in range(B)), 0)
        drawn = torch.stack([f.pick(pool, positives, candidates, seen, torch.full((B,), -1)) for _ in range(draws)])
        other, square = 0, []
        for b in range(B):
            count = {int(i): int(n) for i, n in zip(*torch.unique(drawn[:, b], return_counts=True))}
            want = {int(candidates[c]) for c in best[b]} or {-1}
            other += count.keys() != want
            square.append(sum((n - draws / len(want)) ** 2 / (draws / len(want)) for n in count.values()))
        report(f"choice, {name}: rows whose draws are not exactly the wanted items", other, 0)
        report(f"choice, {name}: chi-square of {draws} draws, worst row", max(square), 25.7)     # 5 degrees of freedom: once in 10,000


def check_forms():
    check_choice()
    for model, setting, steps in (("BPR", {}, 12), ("LightGCN", {}, 12), ("FREEDOM", dict(reg_weight=0.05), 12), ("FREEDOM", dict(reg_weight=0.0), 12),
                                  ("CCDRec", {}, 40), ("CCDRec", dict(train_features=False), 12),
                                  ("LATTICE", dict(reg_weight=0.05), 24), ("LATTICE", dict(n_mm_layers=2, n_neg=2, train_features=False), 12),
                                  ("CCDRec", dict(backbone="LATTICE", reg_weight=0.05), 24), ("CCDRec", dict(backbone="MCDRec"), 12),
                                  ("MCDRec", dict(estimator="attention", reg_weight=0.05), 12), ("MCDRec", dict(mrd=False, reg_weight=0.05), 12),
                                  ("MCDRec", dict(embedding_size=64, learning_rate=1e-5), 3)):     # of the U-Net few steps and small ones: replay.py
        rng = np.random.default_rng(7)
        data = small_data(rng)
        forms, B = {}, 16
        for name, form in train.FORMS.items():
            forms[name] = form(data, M.settings(**{**dict(model=model, train_batch_size=B, embedding_size=16, timesteps=6), **setting}), compile="off")
        label = f"{model} {setting or ''}"
        ij, value = D.user_item_graph(data.pair_u[::2], data.pair_i[::2], data.U, data.I)
        N = data.U + data.I
        latent = M.backbone(forms["tuned"].s) == "LATTICE"
        if M.prunes(forms["tuned"].s):
            for f in forms.values():
                f.graphs.user_item = f.coo(ij, value, N) if f.name == "published" else D.csr(ij, value, N, N)
        losses = {name: [] for name in forms}
        for k in range(steps):
            if latent and k % 8 == 0:              # an epoch begins, with another learning rate
                for f in forms.values():
                    f.after_epoch()
                    f.set_rate(lattice.learning_rate(f.s, k))
                    f.graphs.latent.built = None
                if k == 16:                        # after an evaluation, which has made its graph
                    forms["tuned"].evaluate("valid")
            rows = rng.integers(0, len(data.train_u), B)
            t = lambda a: torch.as_tensor(a)   # noqa: E731
            batch = SimpleNamespace(users=t(data.train_u[rows]), positives=t(data.train_i[rows]), negatives=t(rng.integers(0, data.I, (forms["tuned"].s.n_neg, B))),
                                    curricular=t(rng.integers(0, data.I, B)) if k else None, frozen=None)
            d = forms["published"].draw_diffusion(batch)
            for name, f in forms.items():
                losses[name].append(f.update(batch, d).item())
        for f in forms.values():
            f.after_epoch()
        for name in ("tuned", "tuned-rows"):
            report(f"{label}: {name} against published, losses of {steps} steps", gap(losses["published"], losses[name]), 1e-6)
            report(f"{label}: {name} against published, share of parameters apart", apart(forms["published"], forms[name], steps), 1e-3)
        if model == "CCDRec":
            p = forms["tuned"]
            start, noise = torch.randn(data.I, 16), torch.randn(7, data.I, 16)
            tuned.CHAIN_BLOCK = 13     # several blocks
            pools = p.reverse_process(start, lambda t: noise[t])
            everything = torch.arange(data.I)
            plain = M.reverse(p.p, [M.Ops.project(p.p, m, everything) for m in p.modalities], p.s, start, lambda t: noise[t])
            report(f"{label}: reverse chain in blocks against plain", max((x - y).abs().max().item() for x, y in zip(pools, plain)), 2e-5)
            p.pools = plain
            forms["published"].pools, forms["published"].p = plain, p.p
            # one row per occurrence, as in the CUDA graph, against distinct items
            t_of, noise_of = torch.randint(0, 6, (data.I,)), torch.randn(data.I, 16)
            d.t, d.noise = t_of[d.items], noise_of[d.items]
            repeated = graph_step.repeated_rows(p, batch, lambda items: (t_of, noise_of))
            grads = []
            for which, ops in ((d, p.ops), (repeated, graph_step.repeated_ops(p.ops, repeated))):
                r = M.represent(p.p, p.graphs, which, p.modalities, p.s, ops)
                leaves = [x for n, x in p.p.items() if x.requires_grad and n not in p.tables and n != "modal_weight"]      # S is a constant here
                loss = M.losses(r, batch, which, p.s)["loss.total"]
                grads.append([loss, *torch.autograd.grad(loss, leaves)])
            report(f"{label}: repeated rows against distinct, loss and gradients", max((x - y).abs().max().item() for x, y in zip(*grads)), 1e-6)
            # curricular sampling: masks agree, and what is drawn is admissible and among the k most similar
            q, candidates = forms["published"], p.draw_candidates().repeat(3)[:14]
            total = int((data.start[batch.users + 1] - data.start[batch.users]).sum())
            seen = p.seen(batch.users, candidates, total)
            report(f"{label}: masks of candidates", (seen != q.member[batch.users][:, candidates]).sum().item(), 0)
            c = p.pick(plain[1], batch.positives, candidates, seen, torch.full_like(batch.users, -1))
            bad = [j for j in range(B) if (c[j] == -1) != bool(seen[j].all()) or c[j] >= 0 and q.member[batch.users[j], c[j]]]
            report(f"{label}: inadmissible draws", len(bad), 0)
        else:
            forms["published"].p = forms["tuned"].p
        for split in ("valid", "test"):
            x, y = forms["published"].evaluate(split), forms["tuned"].evaluate(split)
            report(f"{label}: metrics on {split}", max(abs(x[n] - y[n]) for n in x), 1e-9)


def check_memory():
    """What race.py notes of a process: from a text, and of one that maps 200 MB of a file and writes 100 MB of its own."""
    text = "Name:\tx\nVmHWM:\t  500000 kB\nVmRSS:\t  450000 kB\nRssAnon:\t  200000 kB\nRssFile:\t  240000 kB\nRssShmem:\t       0 kB\n"
    got = race.memory_of(text)
    report("race: memory of a status", max(abs(got["peak_rss_mb"] - 512), abs(got["peak_anonymous_mb"] - 266.24)), 1e-9)
    try:
        race.memory_of("Name:\tx\nVmHWM:\t1 kB\n")
        refused = False
    except SystemExit:
        refused = True
    report("race: a status without the pages of files is refused", not refused, 0)
    program = ("import mmap, os, sys, tempfile\nf = tempfile.TemporaryFile(dir=os.getcwd())\nf.truncate(200 * 10 ** 6)\nm = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n"
               "sum(m[k] for k in range(0, len(m), 4096))\nown = bytearray(b'x') * 10 ** 8\ndel own\nprint('{}', flush=True)\nsys.stdin.read()\n")
    p = race.Participant("a process", [sys.executable, "-c", program], dict(os.environ))
    try:
        got = p.memory_mb()
    finally:
        p.kill()
    report("race: resident set of a process, 300 MB and itself", abs(got["peak_rss_mb"] - 315), 15)
    report("race: anonymous memory of it, 100 MB freed and itself", abs(got["peak_anonymous_mb"] - 110), 10)


def check_race():
    check_memory()

    def participant(name, seconds, recall, peak, anonymous):
        rounds = [dict(seconds_train=s, phases=dict(evaluation=0.5 * s, forward=0.25 * s), **{"valid_Recall@20": r}) for s, r in zip(seconds, recall)]
        work = dict(forward=dict(flop=6e9, bytes=2e9, roots=1e9), evaluation=dict(flop=1e15, bytes=1e15, roots=0))   # the evaluation is no part of an epoch
        return dict(name=name, ready=dict(seconds_load=1, seconds_setup=2, work=work, users=1, items=1, train=1, build=""), rounds=rounds, walls=seconds, peak_rss_mb=peak, peak_anonymous_mb=anonymous, peak_cuda_mb=None, notes=[])

    ours = participant("ccdrec", [9, 1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4, 0.5], 100, 75)
    theirs = participant("published", [50, 8, 18, 30, 28], [0.1, 0.15, 0.2, 0.25, 0.35], 400, 250)
    ceilings = dict(fma_gflop_s=10, memory_gb_s=4, root_and_division_g_s=2)
    table = race_report.summary(dict(case="CCDRec", participants=[ours, theirs]), ceilings)
    row, x = table["rows"]
    want = [(x["ratio"]["median"], 8.5), (x["ratio"]["min"], 7), (x["ratio"]["max"], 10), (x["train"]["median"], 23), (row["phases"]["forward"], 0.625),
            (x["ratio_evaluation"]["median"], 8.5), (table["goal"], 0.35), (row["reached"]["epochs"], 4), (row["reached"]["seconds"], 22.5),
            (x["reached"]["epochs"], 5), (x["memory_share"], 0.3), (table["in_turn"], 0.6 + 0.5 + 0.5), (row["share_of_fma"], 6 / 2.5 / 10)]
    report("race: medians, ratios, time to the same recall", max(abs(a - b) for a, b in want), 1e-12)
    met = {what: ok for what, _, _, ok in race_report.targets([table])}
    report("race: targets", sum([met.pop("CCDRec: epoch, published over ccdrec") is not True, met.pop("CCDRec: evaluation, published over ccdrec") is not True,
                                 met.pop("CCDRec: memory of ccdrec over published") is not True, len(met)]), 0)
    lines = race_report.markdown(dict(name="x", what="", command="", machine=dict(cpu="", cores=2, isa="", memory_bytes=0, os=""), ceilings=ceilings | dict(gemm_gflop_s=1), threads=2,
                               load=0, device="cpu", with_targets=True, results=[dict(case="CCDRec", participants=[ours, theirs])])).splitlines()
    report("race: both figures of memory in the table", sum("| 400 | 250 |" in x for x in lines) != 1 or sum("| 100 | 75 |" in x for x in lines) != 1, 0)
    for p in (ours, theirs):
        p["old"] = p.pop("peak_anonymous_mb")            # a report of before
    old = race_report.summary(dict(case="CCDRec", participants=[ours, theirs]), ceilings)["rows"][1]
    report("race: a report without anonymous memory", abs(old["memory_share"] - 0.25), 1e-12)
    theirs["peak_anonymous_mb"], ours["peak_anonymous_mb"] = 200, 75      # 0.375 of it; of the resident set it would be a quarter
    report("race: memory is judged without the pages of files", race_report.targets([race_report.summary(dict(case="CCDRec", participants=[ours, theirs]), ceilings)])[2][3], 0)
    theirs["rounds"][2]["seconds_train"] = theirs["rounds"][4]["seconds_train"] = 2      # now the median ratio is 4.5: missed
    missed = race_report.targets([race_report.summary(dict(case="CCDRec", participants=[ours, theirs]), ceilings)])[0]
    report("race: a missed target", missed[3], 0)
    bound = race_report.bounds([race_report.summary(dict(case="CCDRec", participants=[ours, theirs]), ceilings)])
    report("race: what bounds it", len(bound) != 1 or "takes 1.6 s here" not in bound[0] or "would be 3.12 and 8.33 times" not in bound[0], 0)


def main():
    torch.set_num_threads(1)
    checks = dict(golden=check_golden, numbers=check_numbers, differences=check_differences, data=check_data, forms=check_forms, graph=check_graph_step, compile=check_compile, race=check_race,
                  parity=lambda: (check_parity(), check_others.check_parity(Recorded)), hard=lambda: check_hard(golden_file, deviation),
                  lattice=lambda: check_lattice(golden_file, deviation), mcdrec=lambda: check_mcdrec(golden_file, deviation), others=lambda: check_others.check_others(golden_file, deviation))
    unknown = [name for name in sys.argv[1:] if name not in checks]
    if unknown:
        raise UserError(f"unknown check {unknown[0]!r}, expected some of {', '.join(checks)}")
    for name in sys.argv[1:] or checks:
        checks[name]()
    if failed:
        raise SystemExit(f"{len(failed)} checks failed")


if __name__ == "__main__":
    run_main(main)
