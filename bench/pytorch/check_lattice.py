"""Checks of LATTICE (lattice.py), of RealHNS (realhns.py) and of MCDRec's graph (dgd.py): properties that the specification names, planted mistakes."""
import math
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

import data as D
import dgd
import golden_results as G
import hard as H
import lattice
import models as M
import realhns
import train
from checking import report, small_data

OF_GRAPH = ("modal_weight", "trs.weight", "trs.bias")


def check_properties(golden_file):
    for name in ("lattice", "lattice_three_modalities", "lattice_two_layers", "lattice_negative_row_sum", "ccdrec_lattice"):
        p, graphs, *rest = G.arguments(*golden_file(f"{name}.case"))
        s = rest[-1]
        S = lattice.item_graph(p, graphs.latent, s.lambda_coeff)
        total = M.step(p, graphs, *rest, G.DenseOps)["loss.total"]
        (g,) = torch.autograd.grad(total, [p["modal_weight"]])
        report(f"{name}: gradient of theta sums to", abs(g.sum().item()), 1e-15)
        scaled = SimpleNamespace(**{**vars(graphs.latent), "values": {m: 3 * K for m, K in S.values.items()}, "weight": S.weight})
        report(f"{name}: S of learned values times 3 is off by", (lattice.item_graph(p, scaled, s.lambda_coeff).value - S.value).abs().max().item(), 1e-15)
        later = lattice.as_constant(S, graphs.latent)
        report(f"{name}: S of the values kept is off by", (lattice.item_graph(p, later, s.lambda_coeff).value - S.value).abs().max().item(), 0)
        graphs.latent = later
        total = M.step(p, graphs, *rest, G.DenseOps)["loss.total"]
        grads = dict(zip(p, torch.autograd.grad(total, list(p.values()), allow_unused=True)))
        trained = [n for n, g in grads.items() if n.endswith(OF_GRAPH) or n in M.feature_names(p) if g is not None]
        report(f"{name}: graph parameters that have a gradient later in the epoch", sum(s.model == "LATTICE" or n == "modal_weight" for n in trained), 0)
        report(f"{name}: an estimator's projections without one", (s.model == "CCDRec") * (len(trained) != 3 * len(rest[2])), 0)
    s = M.settings(model="LATTICE", learning_rate=0.01)
    report("learning rate at epochs 0, 25, 50", max(abs(lattice.learning_rate(s, e) - 0.01 * x) for e, x in ((0, 1), (25, math.sqrt(0.96)), (50, 0.96))), 1e-17)
    x = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 0]])
    lists = D.knn(x, 2, self_first=True)
    report("items missing from their own list, of equal ones, too", int(~(lists == torch.arange(5)[:, None]).any(1).all()), 0)
    report("a zero row's similarities", lattice.similarities(x, lists)[4].abs().max().item(), 0)


def check_epoch_files(golden_file):
    """What golden_epoch.py wrote, once more in float32."""
    a, about = golden_file("realhns_choice")
    t = lambda n: torch.tensor(a[n]) if a[n].dtype.kind == "f" else torch.tensor(a[n]).long()   # noqa: E731
    member = torch.zeros(len(a["h.users"]), len(a["h.items"]), dtype=torch.bool)
    member[tuple(t("train.index"))] = True
    score = (t("h.users") @ t("h.items").T).masked_fill(member | ~member.any(0), -math.inf)
    report("realhns: candidates that are others", (realhns.candidates(score, t("places")) != t("table")).sum().item(), 0)
    own, T = t("table")[t("batch.users")], int(about["top"])
    for theta, rank, items in zip(a["theta"], t("ranks"), t("items")):
        left = realhns.scores(t("h.users")[t("batch.users")], t("h.items")[t("batch.positives")], t("h.items")[own.clamp(min=0)], own >= 0, float(theta))
        report(f"realhns: choices at threshold {theta:.3g} that are others", (realhns.at_rank(left, own, T, rank, t("otherwise")) != items).sum().item(), 0)
    g = torch.Generator().manual_seed(1)
    report("realhns: cohesion", abs((realhns.cluster(t("cluster.items"), t("cluster.initial"), g) ** 2).sum(1).mean().item() - a["cohesion"][0]), 1e-6)
    s = M.settings(sampler="realhns", ndi=False, cns=False)
    report("realhns: thresholds of epochs 6, 14, 24, 28", max(abs(realhns.threshold(1, e, s) - x) for e, x in ((6, .23), (14, .40), (24, .81), (28, 1))), 5e-3)
    report("realhns: shares of epochs 5, 6, 7, 8, 20", max(abs(realhns.share(e, s) - x) for e, x in ((5, 0), (6, 1 / 8), (7, 1 / 8), (8, 2 / 8), (20, 1))), 0)
    a, about = golden_file("dgd")
    (u, i), U, I = t("edges"), len(a["param.user_embedding.weight"]), len(a["x"])   # noqa: E741
    weight = dgd.edge_weights(t("param.user_embedding.weight"), t("x"), u, i, float(about["tau"]))
    report("dgd: weights of edges", (weight - t("weight")).abs().max().item(), 1e-15)
    plain, kept = torch.ones(len(u), dtype=torch.float64), t("kept")
    (_, value), (_, freedom) = dgd.graph(plain[kept], u[kept], i[kept], U, I), D.user_item_graph(u[kept], i[kept], U, I)
    report("dgd: with tau 0 against FREEDOM's graph", (value - freedom).abs().max().item(), 0)


def check_band():
    """RealHNS in the forms: the same candidates of the same representations, one of the best that are left, or a uniform item."""
    data = small_data(np.random.default_rng(3))
    setting = dict(model="LightGCN", embedding_size=8, sampler="realhns", realhns_p_max=60.0, realhns_candidates=20, realhns_clusters=6, realhns_top=0.2)
    users = torch.arange(data.U)
    positives = torch.tensor([data.items_of(u)[0] for u in range(data.U)])
    tables = []
    for name, form in train.FORMS.items():
        f = form(data, M.settings(**setting), compile="off")
        g = torch.Generator().manual_seed(7)
        H_u, H_i = (torch.randn(n, 8, generator=g) for n in (data.U, data.I))
        f.representations = lambda H=(H_u, H_i): H
        f.choose_band(5)                                  # epoch 6 of the specification
        band = f.band
        places = realhns.draw_places(data.I, f.s, torch.Generator().manual_seed(9))
        tables.append(f.band_table(H_u, H_i, places))
        report(f"realhns, {name}: share and threshold of the epoch", abs(band.share - 1 / 8) + abs(band.threshold - 0.23 * band.cohesion), 1e-9)
        r, batch, T = SimpleNamespace(users=H_u, items=H_i), SimpleNamespace(users=users, positives=positives), realhns.n_best(20, f.s)
        score = (H_u[users][:, None] * H_i[band.table.clamp(min=0)]).sum(2).masked_fill(band.table < 0, -math.inf)
        best = band.table.gather(1, torch.topk(score, T, dim=1).indices)
        band.share, band.threshold = 1.0, 2.0
        drawn = torch.stack([f.choose_from_band(r, batch) for _ in range(60)], 1)
        other = ~(drawn[..., None] == best[:, None]).any(2)
        report(f"realhns, {name}: items drawn that are none of the best {T}", other[(band.table >= 0).sum(1) >= T].sum().item(), 0)
        report(f"realhns, {name}: best items that are never drawn", (~(best[:, :, None] == drawn[:, None]).any(2))[(band.table >= 0).sum(1) >= T].sum().item(), 0)
        band.threshold = -1.01
        drawn = torch.stack([f.choose_from_band(r, batch) for _ in range(60)], 1)
        full = [u for u in range(data.U) if len(data.items_of(u)) == len(data.train_items)]
        bad = [u for u in range(data.U) if u not in full and np.isin(drawn[u].numpy(), data.items_of(u)).any()]
        report(f"realhns, {name}: users who get an item of their own where nothing is left, or never another", len(bad) + (len(torch.unique(drawn)) < len(data.train_items)), 0)
        band.threshold = 0.1
        unit = lambda x: torch.nn.functional.normalize(x, dim=-1)   # noqa: E731
        like = (unit(H_i[positives])[:, None] * unit(H_i[band.table.clamp(min=0)])).sum(2)
        left = ((like <= 0.1) & (band.table >= 0)).any(1)
        drawn = torch.stack([f.choose_from_band(r, batch) for _ in range(30)], 1)
        alike = (unit(H_i[positives])[:, None] * unit(H_i[drawn])).sum(2)
        report(f"realhns, {name}: items too like the positive", (alike[left] > 0.1 + 1e-6).sum().item(), 0)
    report("realhns: candidates of the forms that differ", sum((x != tables[0]).sum().item() for x in tables[1:]), 0)


# -------------------------------------------------------------------------------------------------------------- planted mistakes

def planted():
    """name -> (case, patch)"""
    on = mock.patch.object
    graph, normalize, reg = lattice.item_graph, torch.nn.functional.normalize, lattice.square_reg

    def rebuilt(change):
        """item_graph with its pieces changed: change(K, w, latent, s_i, s_j, lambda) -> learned and frozen value of a modality"""
        def wrong(p, latent, lambda_coeff):
            S = graph(p, latent, lambda_coeff)
            parts = [change(S.values[m], w, latent.frozen[m][1], S.scale[:, None], lattice.at_columns(S.scale, latent.learned[m]), lambda_coeff)
                     for m, w in zip(latent.learned, S.weight)]
            S.value = torch.cat([x for x, _ in parts] + [y for _, y in parts], 1)
            return S
        return lambda: (on(M.Ops, "latent_graph", staticmethod(wrong)))

    def constant(p, latent, lambda_coeff):
        S = graph(p, latent, lambda_coeff)
        S.value = S.value.detach()
        return S

    def recomputed(p, latent, lambda_coeff):
        return graph(p, SimpleNamespace(**{**vars(latent), "values": None}), lambda_coeff)

    def whole_rows(h_u, h_p, h_n, B0):
        return reg(h_u, h_p, h_n, len(h_u))

    return {
        "lambda weights the learned part": ("lattice_three_modalities", rebuilt(lambda K, w, O, si, sj, c: (c * w * si * K * sj, (1 - c) * w * O))),
        "the frozen part without w": ("lattice", rebuilt(lambda K, w, O, si, sj, c: ((1 - c) * w * si * K * sj, c / 2 * O))),
        "rows divided by their sums": ("lattice", rebuilt(lambda K, w, O, si, sj, c: ((1 - c) * w * si * si * K, c * w * O))),
        "the scale without a gradient": ("lattice", rebuilt(lambda K, w, O, si, sj, c: ((1 - c) * w * si.detach() * K * sj.detach(), c * w * O))),
        "K without a gradient": ("lattice", rebuilt(lambda K, w, O, si, sj, c: ((1 - c) * w * si * K.detach() * sj, c * w * O))),
        "no gradient through S": ("lattice_moments", lambda: on(M.Ops, "latent_graph", staticmethod(constant))),
        "S of the step's own parameters in a later batch": ("lattice_later", lambda: on(M.Ops, "latent_graph", staticmethod(recomputed))),
        "a scale of negative sums": ("lattice_negative_row_sum", lambda: on(lattice, "scale", lambda c: c.abs().rsqrt())),
        "Z added as it is": ("lattice", lambda: on(M.F, "normalize", lambda x, **k: x if len(x) == 11 and x.shape[1] == 8 and k.get("eps") == 1e-12 and x.requires_grad else normalize(x, **k))),
        "the regulariser by the rows there are": ("lattice_last_batch", lambda: on(lattice, "square_reg", whole_rows)),
        "the regulariser of every negative": ("lattice_two_negatives", lambda: on(lattice, "square_reg", lambda u, p, n, B: reg(u, p, [math.sqrt(len(n)) * x for x in n], B))),
        "a norm that is not squared": ("lattice", lambda: on(lattice, "square_reg", lambda u, p, n, B: (u.norm() + p.norm() + n[0].norm()) / B)),
        "RealHNS as a random negative": ("lattice_realhns", lambda: on(H, "used", lambda s: False)),
        "the fusion with Z of length 1": ("ccdrec_lattice", lambda: on(M, "item_part", unit_part)),
    }


item_part = M.item_part


def unit_part(*about):
    _, beside, S = item_part(*about)
    return beside, beside, S


def check_planted(golden_file, deviation):
    """Each mistake, made in this program, must move some array of its case beyond the tolerances."""
    for name, (case, patch) in planted().items():
        a, metadata = golden_file(f"{case}.case")
        want, _ = golden_file(f"{case}.want")
        s = M.settings(**G.json.loads(metadata["settings"]))
        right = max(deviation(G.step_result(a, metadata), want, s).values())[0]
        with patch():
            got = G.step_result(a, metadata)
        ratio = max(deviation({n: x for n, x in got.items() if n in want}, want, s).values())[0]
        report(f"planted, {case}: {name}: not seen (beyond the tolerance {ratio:.3g} times, {right:.2g} without)", not (ratio > 3 and right < 1), 0)


def check_lattice(golden_file, deviation):
    check_properties(golden_file)
    check_epoch_files(golden_file)
    check_band()
    check_planted(golden_file, deviation)
