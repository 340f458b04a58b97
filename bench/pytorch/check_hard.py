"""Checks of hard negatives (hard.py) and of Mirror Gradient (mirror.py): the tests that negative_sampling.md 11 names, and planted mistakes."""
import math
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

import golden_hard
import golden_results as G
import hard as H
import mirror
import models as M
import train
from checking import apart, gap, report, small_data

MIXED = ("lightgcn_mixgcf", "lightgcn_mixgcf_three_layers", "freedom_mixgcf", "freedom_mixgcf_reg0", "freedom_mixgcf_omega1", "ccdrec_dma_mixgcf")
P, Q = "user_embedding.weight", "item_id_embedding.weight"


# ------------------------------------------------------------------------------------------- MixGCF: short form against published

def short_form(h_u, v_p, v_n, alpha, omega):
    """negative_sampling.md 6.3, by hand: loss with its weight, gradients of h_u (B,d), of the positives' and of the chosen items' layers (L+1,B,d)."""
    w = (1 - alpha)[..., None] / len(v_p)
    away = (w * (v_p - v_n)).sum(0)                       # h_p - h_n
    delta = (h_u * away).sum(1)
    c = -omega * torch.sigmoid(-delta) / len(h_u)
    loss = omega * (delta.neg().clamp(min=0) + torch.log1p(torch.exp(-delta.abs()))).mean()
    return loss, c[:, None] * away, c[:, None] * w * h_u, -c[:, None] * w * h_u


def through_graph(A, S, users, positives, hard, g_u, g_p, g_n, U, with_S):
    """6.3: one accumulator a layer, Z_l = G_l + A^T Z_{l+1}; what the layers of the items gather together goes back through S as well."""
    L = len(g_p) - 1
    acc = torch.zeros(L + 1, len(A), g_u.shape[1], dtype=g_u.dtype)
    for l in range(L + 1):
        acc[l].index_add_(0, users, g_u / (L + 1))
        acc[l].index_add_(0, U + positives, g_p[l])
        acc[l].index_add_(0, U + hard[l], g_n[l])
    Z = acc[L]
    for l in range(L - 1, -1, -1):
        Z = acc[l] + A.T @ Z
    return Z, (S.T @ acc.sum(0)[U:] if with_S else None)


def check_short_form(golden_file):
    for name in ("lightgcn_mixgcf", "lightgcn_mixgcf_three_layers", "freedom_mixgcf", "freedom_mixgcf_omega1"):
        p, graphs, batch, diffusion, modalities, s = G.arguments(*golden_file(f"{name}.case"))
        ops, _ = G.watching()
        if s.model == "LightGCN":                         # in a graph that is not symmetric, too, the way back takes the transpose
            graphs.user_item = graphs.user_item * torch.linspace(0.5, 1.5, len(graphs.user_item), dtype=torch.float64)
        r = M.represent(p, graphs, diffusion, modalities, s, ops)
        out = M.losses(r, batch, diffusion, s)
        got = torch.autograd.grad(out["loss.bpr_hard"], [p[P], p[Q]])
        with torch.no_grad():
            at = lambda items: torch.stack([v[i] for v, i in zip(r.layers, items)])   # noqa: E731
            h_u = r.users[batch.users]
            loss, *g = short_form(h_u, at(batch.positives.expand_as(batch.hard.items)), at(batch.hard.items), batch.hard.alpha, s.omega)
            Z, back = through_graph(graphs.user_item, graphs.item_item, batch.users, batch.positives, batch.hard.items, *g, len(p[P]), s.model == "FREEDOM")
            want = Z[:len(p[P])], Z[len(p[P]):] + (back if back is not None else 0)
        report(f"{name}: short form against published, loss", (out["loss.bpr_hard"] - loss).abs().item(), 1e-10)
        report(f"{name}: short form against published, gradients of P and Q", max((x - y).abs().max().item() for x, y in zip(got, want)), 1e-10)
    for name in MIXED:                                    # the mean of the layers is the item
        p, graphs, batch, diffusion, modalities, s = G.arguments(*golden_file(f"{name}.case"))
        r = M.represent(p, graphs, diffusion, modalities, s, G.DenseOps)
        report(f"{name}: mean of the layers against the items", (sum(r.layers) / len(r.layers) - r.items).abs().max().item(), 1e-14)


def check_reductions(golden_file):
    """With alpha 0 and one item at all layers MixGCF is DNS; both are the random term with that item as the random negative."""
    a, metadata = golden_file("freedom_mixgcf_plain.case")
    p, graphs, batch, diffusion, modalities, s = G.arguments(a, metadata)

    def result(**changes):
        other = SimpleNamespace(**{**vars(s), **changes})
        out = M.step(p, graphs, batch, diffusion, modalities, other, G.DenseOps)
        grads = torch.autograd.grad(out["loss.bpr_hard" if H.used(other) else "loss.bpr"], [p[n] for n in M.trained(p, s)], allow_unused=True)
        return [g for g in grads if g is not None]

    mixed, dns = result(), result(sampler="dns")
    report("MixGCF of one candidate, unmixed, against DNS, gradients", max((x - y).abs().max().item() for x, y in zip(mixed, dns)), 1e-13)
    batch.negatives, items = batch.hard.items[:1], diffusion.items
    diffusion.items = torch.unique(torch.cat([batch.positives, batch.negatives.flatten(), items]))
    plain = result(sampler="none", omega=0.5)
    report("the same against plain BPR, gradients", max((x - y / 2).abs().max().item() for x, y in zip(mixed, plain)), 1e-13)


# ----------------------------------------------------------------------------------------------------------- choices and draws

def check_chosen():
    g = torch.Generator().manual_seed(3)
    r = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)   # noqa: E731
    B, N, L, I, d = 300, 16, 2, 500, 8   # noqa: E741
    h_u, layers, positives = r(B, d), r(L + 1, I, d), torch.randint(0, I, (B,), generator=g)
    candidates = torch.randint(0, I, (B, N), generator=g)
    best = H.ranked(h_u, layers, candidates)[..., 0]
    for draw in range(2):
        alpha = torch.rand(L + 1, B, generator=g, dtype=torch.float64)
        report(f"MixGCF, choices that the mixture {draw + 1} changes", (H.mixed_choice(h_u, layers, positives, candidates, alpha) != best).sum().item(), 0)
    report("DNS of one candidate that is not that candidate", (H.ranked(h_u, layers, candidates[:, :1])[0, :, 0] != candidates[:, 0]).sum().item(), 0)
    everything = torch.arange(I).expand(B, I)
    report("DNS of all items that is not their arg-max", (H.ranked(h_u, layers[:1], everything)[0, :, 0] != (h_u @ layers[0].T).argmax(1)).sum().item(), 0)
    for N in (8, 32):                                     # the winner's place in the user's ranking: 100/(N+1) percent of the way down
        candidates = torch.randint(0, I, (B, N), generator=g)
        chosen = H.ranked(h_u, layers[:1], candidates)[0, :, 0]
        score = h_u @ layers[0].T
        share = ((score > score.gather(1, chosen[:, None])).sum(1) + 0.5) / I
        report(f"DNS of {N}: standard errors between its mean place and 1/(N+1)", ((share.mean() - 1 / (N + 1)).abs() / (share.std() / math.sqrt(B))).item(), 4)


def check_draws():
    """No sampler returns an item that its user has or that nobody has; popularity draws as it should; top_m draws each of the m best."""
    data = small_data(np.random.default_rng(3))
    users = torch.arange(data.U)
    member = torch.zeros(data.U, data.I, dtype=torch.bool)
    member[torch.from_numpy(data.pair_u), torch.from_numpy(data.pair_i)] = True
    occurs = member.any(0)
    full = member[:, occurs].all(1)                       # a user with everything has no negative at all
    for name, form in train.FORMS.items():
        for sampler in ("popularity", "dns", "mixgcf"):
            f = form(data, M.settings(model="LightGCN", embedding_size=8, sampler=sampler, n_candidates=5, top_m=3), compile="off")
            batch = SimpleNamespace(users=users, positives=torch.zeros_like(users))
            r = M.represent(f.p, f.graphs, None, [], f.s, f.ops)
            drawn = torch.cat([f.choose_hard(r, batch).items for _ in range(20)])
            bad = (member[users.expand_as(drawn), drawn] | ~occurs[drawn]) & ~full
            report(f"{name}, {sampler}: hard negatives that their user has, or nobody", bad.sum().item(), 0)
        f = form(data, M.settings(model="BPR", embedding_size=8, sampler="popularity"), compile="off")
        u, n = 3, 4000
        drawn = f.draw_popular(torch.full((n,), u))
        share = torch.from_numpy(np.bincount(data.train_i, minlength=data.I) ** 0.75) * ~member[u] * occurs
        want = n * share / share.sum()
        got = torch.bincount(drawn, minlength=data.I)
        many = want > 0
        square, freedom = ((got - want)[many] ** 2 / want[many]).sum().item(), int(many.sum()) - 1
        report(f"{name}, popularity: chi-square of {n} draws, {freedom} degrees of freedom", square, freedom + 3.9 * math.sqrt(2 * freedom))
        report(f"{name}, popularity: draws of items without a share", got[~many].sum().item(), 0)
        f = form(data, M.settings(model="BPR", embedding_size=8, sampler="dns", n_candidates=4, top_m=2), compile="off")
        given = f.draw_negatives(users, 4)
        f.draw_negatives = lambda users, n: given
        r = M.represent(f.p, f.graphs, None, [], f.s, f.ops)
        best = H.ranked(r.users, r.items[None], given.T)[0]
        seen = torch.stack([f.choose_hard(r, batch).items[0] for _ in range(40)])
        report(f"{name}, DNS of the best two: rows that take another, or one alone",
               (~((seen == best[:, 0]) | (seen == best[:, 1])).all(0) | ~(seen == best[:, 0]).any(0) | ~(seen == best[:, 1]).any(0)).sum().item(), 0)


def check_hard_forms():
    """The forms of train.py against one another for the same draws, hard negatives and mirror batches among them."""
    dns, dma = dict(sampler="dns"), dict(ndi=False, cns=False)
    for model, setting in (("BPR", dict(sampler="popularity")), ("LightGCN", dns), ("LightGCN", dict(sampler="mixgcf", use_mg=True)),
                           ("FREEDOM", dict(reg_weight=0.05, sampler="mixgcf")), ("FREEDOM", dict(reg_weight=0.05, use_mg=True, alpha2=0.3, **dns)),
                           ("CCDRec", dict(**dma, **dns)), ("CCDRec", dict(use_mg=True)), ("BPR", dict(use_mg=True, beta=2)),
                           ("LATTICE", dict(reg_weight=0.05, sampler="mixgcf", use_mg=True)), ("LATTICE", dict(sampler="realhns")),
                           ("CCDRec", dict(backbone="LATTICE", use_mg=True))):
        rng = np.random.default_rng(7)
        data, B, steps = small_data(rng), 16, 12
        forms = {n: form(data, M.settings(model=model, train_batch_size=B, embedding_size=16, timesteps=6, **setting), compile="off")
                 for n, form in train.FORMS.items()}
        s = forms["tuned"].s
        losses, taken, t = {n: [] for n in forms}, 0, torch.as_tensor
        for j in range(steps):
            if s.beta * 2 == j and forms["tuned"].graphs.latent is not None:       # an epoch begins, with a mirror batch
                for f in forms.values():
                    f.after_epoch()
                    f.graphs.latent.built = None
            rows = rng.integers(0, len(data.train_u), B)
            drawn = lambda *shape: t(rng.integers(0, data.I, shape))   # noqa: E731
            batch = SimpleNamespace(users=t(data.train_u[rows]), positives=t(data.train_i[rows]), negatives=drawn(1, B), curricular=None, frozen=None)
            tables = s.n_ui_layers + 1 if s.sampler == "mixgcf" and model != "BPR" else 1
            passes = mirror.passes(j, s)
            taken += len(passes)
            draws = []
            for _ in passes:
                d = train.Published.draw_diffusion(forms["published"], batch)
                hard = H.given(drawn(tables, B), torch.rand(tables, B) if s.sampler == "mixgcf" else None)
                draws.append((d, hard, drawn(B) if model == "CCDRec" and s.cns else None))
            for n, f in forms.items():
                batch.curricular, left = draws[0][2], list(draws)
                f.j, f.draw_diffusion = j, lambda b, left=left: left[0][0]
                batch.draw_again = (lambda left=left: left[0][2]) if draws[0][2] is not None else None

                def choose_hard(r, batch, left=left):
                    return left[0][1]

                def optimise(d, factor, left=left, f=f):
                    type(f).optimise(f, d, factor)
                    left.pop(0)

                f.choose_hard, f.optimise = choose_hard, optimise
                losses[n].append(float(f.run_batch(batch, None)))
        for f in forms.values():
            f.after_epoch()
        label = f"{model} {setting}"
        report(f"{label}: steps of Adam", abs(forms["tuned"].steps - taken) + abs(forms["published"].steps - mirror.steps(steps, s)), 0)
        for n in ("tuned", "tuned-rows"):
            report(f"{label}: {n}, losses", gap(losses["published"], losses[n]), 1e-6)
            report(f"{label}: {n}, parameters apart", apart(forms["published"], forms[n], taken), 1e-3)


def check_whole_epochs():
    """Epochs of every form with a sampler and with mirror batches: they run, and the number of steps is right (8 batches, 11 steps)."""
    data = small_data(np.random.default_rng(5))
    for name, form in train.FORMS.items():
        for model, setting in (("FREEDOM", dict(sampler="mixgcf", use_mg=True, reg_weight=0.01)), ("CCDRec", dict(use_mg=True, dtau=1, tau_end=1, timesteps=4)),
                               ("CCDRec", dict(ndi=False, cns=False, sampler="dns", n_neg=2, use_mg=True, timesteps=4)), ("BPR", dict(sampler="popularity")),
                               ("LATTICE", dict(sampler="realhns", realhns_start=1, realhns_clusters=5, realhns_p_max=40.0)), ("LATTICE", dict(use_mg=True)),
                               ("CCDRec", dict(backbone="MCDRec", dgd="direct", timesteps=4)), ("CCDRec", dict(backbone="LATTICE", use_mg=True, dtau=1, tau_end=1, timesteps=4))):
            B = -(-len(data.train_u) // 8)
            f = form(data, M.settings(model=model, train_batch_size=B, embedding_size=8, n_candidates=4, **setting), compile="off")
            losses = [x for e in range(3) for x in f.epoch(e)]
            wrong = abs(f.steps - 3 * (11 if f.s.use_mg else 8)) + abs(len(losses) - 24) + (not np.isfinite(losses).all())
            report(f"{name}, {model} {setting}: three epochs of 8 batches, steps or losses wrong", wrong, 0)


# -------------------------------------------------------------------------------------------------------------- Mirror Gradient

def check_mirror(golden_file):
    """The two cases of a mirror batch against torch.optim.Adam with gradients scaled in place, which keeps its own moments and counts its own steps."""
    for name, (setting, (first, second), shape) in golden_hard.MIRROR.items():
        passes = [G.arguments(*golden_file(f"{name}_mg_{which}.case")) for which in ("first", "second")]
        (a, metadata), s = golden_file(f"{name}_mg_first.case"), passes[0][-1]
        leaves = {n: passes[0][0][n].detach().clone().requires_grad_(True) for n in M.trained(passes[0][0], s)}
        optimizer = torch.optim.Adam(leaves.values(), lr=s.learning_rate)
        for n, x in leaves.items():
            m, v = (torch.tensor(a[f"adam.{y}.{n}"]).double() if f"adam.m.{n}" in a else torch.zeros_like(x) for y in "mv")
            optimizer.state[x] = dict(step=torch.tensor(float(metadata["t"]) - 1), exp_avg=m, exp_avg_sq=v)
        want = {}
        for (p, *rest), factor in zip(passes, (first, second)):
            loss = M.step({**{n: x.detach() for n, x in p.items()}, **leaves}, *rest, G.DenseOps)["loss.total"]
            for x, g in zip(leaves.values(), torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)):
                x.grad = torch.zeros_like(x) if g is None else factor * g
            optimizer.step()
        want, _ = golden_file(f"{name}_mg_second.want")
        off = max(((x.detach() - torch.tensor(want[f"new.{n}"]).double()).abs() / (1e-6 * x.detach().abs() + 1e-2 * s.learning_rate)
                   * (torch.tensor(want[f"grad.{n}"]).abs() > 1e-6 * torch.tensor(want[f"mass.grad.{n}"]).reshape(-1, *[1] * (x.dim() - 1)))).max().item()
                  for n, x in leaves.items())
        report(f"mirror batch, {name}: both passes in float64 against the second case", off, 1)
    s = M.settings(model="BPR", use_mg=True)
    report("mirror: 8 batches are 11 steps, 9 are 12", abs(mirror.steps(8, s) - 11) + abs(mirror.steps(9, s) - 12), 0)


# -------------------------------------------------------------------------------------------------------------- planted mistakes

def planted():
    """name -> (case, patch): what a program could get wrong; the case must show it."""
    def term(change):
        def wrong(r, batch, h_u, h_p, s, ranking, tap):
            return change(r, batch, h_u, h_p, s, ranking)
        return mock.patch.object(H, "term", wrong)

    def vectors(r, batch):
        return (torch.stack([v[batch.positives] for v in r.layers]), torch.stack([v[n] for v, n in zip(r.layers, batch.hard.items)]),
                batch.hard.alpha[..., None])

    softplus = lambda x: torch.nn.functional.softplus(x).mean()   # noqa: E731

    def mixed(make):                                      # make(v_p, v_n, alpha) -> h_n
        def change(r, batch, h_u, h_p, s, ranking):
            v_p, v_n, a = vectors(r, batch)
            h_n = make(v_p, v_n, a)
            return softplus((h_u * (h_n - v_p.mean(0))).sum(1)), {"h.hard": h_n}
        return term(change)

    def dns(make):
        def change(r, batch, h_u, h_p, s, ranking):
            return make(r, batch, h_u, h_p, ranking), {"h.hard": r.items[batch.hard.items[0]]}
        return term(change)

    adam, losses, represent = M.adam, M.losses, M.represent
    weights = lambda c: mock.patch.object(M, "losses", lambda *a, **k: c(losses(*a, **k)))   # noqa: E731

    def reweighted(out):                                  # 1 BPR(r) + omega BPR(hard)
        out["loss.total"] = out["loss.total"] + out["loss.bpr"]
        return out

    def layers(change):
        def wrong(p, graphs, diffusion, modalities, s, ops=M.Ops):
            r = represent(p, graphs, diffusion, modalities, s, ops)
            r.layers = change(r, p, graphs)
            return r
        return mock.patch.object(M, "represent", wrong)

    return {
        "positive detached in the mixture": ("lightgcn_mixgcf", mixed(lambda p, n, a: (a * p.detach() + (1 - a) * n).mean(0))),
        "alpha and 1 - alpha exchanged": ("lightgcn_mixgcf", mixed(lambda p, n, a: ((1 - a) * p + a * n).mean(0))),
        "one alpha for all layers": ("freedom_mixgcf", mixed(lambda p, n, a: (a[:1] * p + (1 - a[:1]) * n).mean(0))),
        "no positive mixing": ("freedom_mixgcf", mixed(lambda p, n, a: n.mean(0))),
        "layers added and not averaged": ("lightgcn_mixgcf", mixed(lambda p, n, a: (a * p + (1 - a) * n).sum(0))),
        "the first layer's item at all layers": ("lightgcn_mixgcf_three_layers", term(lambda r, batch, h_u, *rest: (softplus((h_u * (sum(
            (a[:, None] - 1) * (v[batch.positives] - v[batch.hard.items[0]]) for v, a in zip(r.layers, batch.hard.alpha)) / len(r.layers))).sum(1)), {}))),
        "item graph left out of the layers": ("freedom_mixgcf", layers(lambda r, p, graphs: [x - graphs.item_item @ p[Q] for x in r.layers])),
        "item graph added to layer 0 alone": ("ccdrec_dma_mixgcf", layers(
            lambda r, p, graphs: [r.layers[0], *(x - graphs.item_item @ p[Q] for x in r.layers[1:])])),
        "hard negative detached": ("bpr_dns", dns(lambda r, b, h_u, h_p, ranking: ranking(h_u, h_p, r.items[b.hard.items[0]].detach()))),
        "positive and hard negative exchanged": ("bpr_popularity", dns(lambda r, b, h_u, h_p, ranking: ranking(h_u, r.items[b.hard.items[0]], h_p))),
        "sum over the rows instead of their mean": ("freedom_dns", dns(lambda r, b, h_u, h_p, ranking: len(h_u) * ranking(h_u, h_p, r.items[b.hard.items[0]]))),
        "layer 0 instead of the final items": ("lightgcn_dns", dns(lambda r, b, h_u, h_p, ranking: ranking(h_u, h_p, r.Q[b.hard.items[0]]))),
        "1 - omega forgotten": ("ccdrec_dma_dns", weights(reweighted)),
        "alpha2 with a plus": ("bpr_mg_second", mock.patch.object(M, "adam", lambda p, g, m, v, t, lr: adam(p, -g, m, v, t, lr))),
        "alpha2 forgotten": ("freedom_mg_second", mock.patch.object(M, "adam", lambda p, g, m, v, t, lr: adam(p, g / 0.3, m, v, t, lr))),
        "a raw reversed update": ("ccdrec_mg_second", mock.patch.object(M, "adam", lambda p, g, m, v, t, lr: (p - lr * g, m, v))),
        "moments of their own for the second pass": ("lightgcn_dns_mg_second", mock.patch.object(
            M, "adam", lambda p, g, m, v, t, lr: adam(p, g, 0 * m, 0 * v, 1, lr))),
        "t not advanced": ("bpr_mg_second", mock.patch.object(M, "adam", lambda p, g, m, v, t, lr: adam(p, g, m, v, t - 1, lr))),
    }


def check_planted(golden_file, deviation):
    """Each mistake, made in this program, must move some array of its case beyond the tolerances."""
    for name, (case, patch) in planted().items():
        a, metadata = golden_file(f"{case}.case")
        want, _ = golden_file(f"{case}.want")
        s = M.settings(**golden_hard.settings_of(case))
        right = max(deviation(G.step_result(a, metadata), want, s).values())[0]
        with patch:
            got = G.step_result(a, metadata)
        ratio = max(deviation(got, want, s).values())[0]
        report(f"planted, {case}: {name}: not seen (beyond the tolerance {ratio:.3g} times, {right:.2g} without)", not (ratio > 3 and right < 1), 0)


def check_hard(golden_file, deviation):
    check_short_form(golden_file)
    check_reductions(golden_file)
    check_chosen()
    check_draws()
    check_mirror(golden_file)
    check_hard_forms()
    check_whole_epochs()
    check_planted(golden_file, deviation)
