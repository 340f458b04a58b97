"""The golden cases of hard negatives (hard.py) and of Mirror Gradient (mirror.py), and the file of choices. Formats: docs/step-format.md.

A case's hard items are chosen among N candidates by float64 scores of its own representations, so that it is a step that training could take.
Mirror Gradient is two cases: NAME_mg_first with the metadata `gradient` = alpha1, NAME_mg_second with -alpha2, whose parameters, moments and
step are what the first one left (rounded to float32) and whose diffusion, curricular and hard negatives are drawn again.
"""
import math

import numpy as np
import torch

import golden_cases as C
import golden_lattice
import golden_mcdrec
import golden_others
import golden_results as R
import hard as H
import models as M

# ------------------------------------------------------------------------------------------------------- hard negatives

def choose(k, a, metadata, member, candidates=4):
    """The arrays hard.* of a case. Of one candidate: all layers of MixGCF take it, with alpha 0."""
    p, graphs, batch, diffusion, modalities, s = R.arguments(a, metadata)
    r = M.represent(p, graphs, diffusion, modalities, s, R.DenseOps)
    drawn = torch.tensor(np.stack([k.negatives(member, batch.users) for _ in range(candidates)], 1))
    tables = r.layers if s.sampler == "mixgcf" else r.items[None]
    best = H.ranked(r.users[batch.users], tables, drawn)[..., 0].numpy()
    if s.sampler == "popularity":     # whatever was drawn
        best = drawn[:, 0].numpy()[None]
    out = {"hard.items": best.astype(a["batch.users"].dtype)}
    if s.sampler == "mixgcf":
        out["hard.alpha"] = k.rng.random(best.shape).astype(np.float32) if candidates > 1 else np.zeros(best.shape, np.float32)
    return out


def make_step(name, setting, candidates=4, **shape):
    a, metadata, k, member = C.begun_step(name, setting, **shape)
    if "sampler" in setting:
        a.update(choose(k, a, metadata, member, candidates))
        if setting["sampler"] == "mixgcf" and candidates > 1:
            assert (a["hard.items"] != a["hard.items"][0]).any(), f"{name}: all layers choose the same items"
    return a, metadata


# ------------------------------------------------------------------------------------------------------ Mirror Gradient

def make_mirrored(name, setting, factors, **shape):
    """-> [(name, arrays, metadata)] of the two passes of a mirror batch."""
    a, metadata, k, member = C.begun_step(name, setting, **shape)
    s, t = M.settings(**setting), int(metadata["t"])
    passes = []
    for n, (which, factor) in enumerate(zip(("first", "second"), factors)):
        a, metadata = dict(a), {**metadata, "gradient": repr(factor), "t": str(t + n)}
        if n:                                             # what the first pass left, and new draws
            p, *rest = R.arguments(*passes[0][1:])
            loss = M.step(p, *rest, R.DenseOps)["loss.total"]
            names = M.trained(p, s)
            for x, g in zip(names, torch.autograd.grad(loss, [p[x] for x in names], allow_unused=True)):
                g = torch.zeros_like(p[x]) if g is None else factors[0] * g
                before = [torch.tensor(a[f"adam.{y}.{x}"]).double() if t > 1 else torch.zeros_like(g) for y in "mv"]
                after = M.adam(p[x].detach(), g, *before, t, s.learning_rate, weight_decay=s.weight_decay)
                for y, value in zip((f"param.{x}", f"adam.m.{x}", f"adam.v.{x}"), after):
                    a[y] = value.numpy().astype(np.float32)
            a.update(golden_others.redrawn(k, a, metadata))
            latent = rest[0].latent
            if latent is not None and latent.values is None:       # S of the first pass is what the second one has
                a.update(golden_lattice.constants(*golden_lattice.learned_values(p, latent.learned)))
            if "diffusion.t" in a:
                a["diffusion.t"] = k.rng.integers(0, s.timesteps, len(a["diffusion.t"])).astype(a["diffusion.t"].dtype)
                a["diffusion.noise"] = k.normal(a["diffusion.noise"].shape)
            if "batch.curricular" in a:
                a["batch.curricular"] = k.negatives(member, a["batch.users"]).astype(a["batch.users"].dtype)
        if s.sampler != "none":
            a.update(choose(k, a, metadata, member))
        passes.append((f"{name}_mg_{which}", a, metadata))
    return passes


# ---------------------------------------------------------------------------------------------------------- the choices

def make_choices():
    """hard_choice.safetensors: what DNS and MixGCF choose. All sums are exact in float32 and float64, so that equal scores are equal in both.

    choice.candidates (B,N), choice.h.users (B,d) (rows of one user are equal), choice.layers (L+1,I,d): `choice.items` (L+1,B) is the winner of each row in each table, of equals
    the one drawn first; `choice.order` (L+1,B,N) all candidates, best first: DNS with top_m takes one of the first top_m (a candidate drawn
    twice stands there twice). DNS is this with one table, their mean: `pooled.table` (1,I,d), `pooled.items` (1,B), `pooled.order` (1,B,N).
    Whatever the draws are, with enough of them: train.index (2,nnz) by user, batch.users (B), `all.order` (L+1,B,I) the admissible items (in
    training, not the user's own), best first, then -1; where two score the same, `all.score` (L+1,B,I) says so. Row 0: a user without a vector (every
    candidate is equal). Row 1: one candidate alone, N times. Row 2: a user with one admissible item. Rows 3 and 4: candidates that tie.
    popularity.share (U,I) F64: P(j) of each user among the items he lacks, with the metadata `power`; popularity.count (I)."""
    k, (U, I, d, B, N, L) = C.Maker("hard_choice"), (7, 13, 4, 9, 6, 2)
    quarters = lambda *shape: np.round(4 * k.normal(shape)) / np.float32(4)   # noqa: E731
    member = k.rng.random((U, I)) < 0.3
    member[np.arange(U), np.arange(U)] = True
    member[6] = True
    member[6, 4] = False                                  # one admissible item
    member[:, I - 1] = False                              # in nobody's training: never a candidate
    member[0, 4] = member[1, 2:4] = True
    users, positives = np.array([0, 1, 6, 2, 3, 4, 5, 2, 1]), np.zeros(B, np.int64)
    h, layers = quarters(U, d), quarters(L + 1, I, d)
    h[0] = 0
    h_u = h[users]
    in_training = member.any(0)
    candidates = np.stack([k.rng.choice(np.flatnonzero(~member[u] & in_training), N) for u in users])
    candidates[1] = candidates[1, 0]
    for b in (3, 4):                                      # the second candidate is the best in every layer, the fourth, another item, as good
        free = np.flatnonzero(~member[users[b]] & in_training)
        candidates[b, [1, 3]] = free[:2] if b == 3 else free[[-1, -2]]
    for b in (4, 3):
        first, second = candidates[b, [1, 3]]
        layers[:, first] = layers[:, second] = np.sign(h_u[b]) * 4
    layers[:, :, 0] += 0.0                                # no negative zeros
    for b, u in enumerate(users):
        positives[b] = k.rng.choice(np.flatnonzero(member[u]))
    t = lambda x: torch.tensor(x, dtype=torch.float64)   # noqa: E731
    draws, drawn = [k.rng.integers(0, 64, (L + 1, B)) / 64 for _ in range(2)], torch.tensor(candidates)
    order = H.ranked(t(h_u), t(layers), drawn).numpy()
    for alpha in draws:                                   # as published, whatever the mixture
        assert np.array_equal(H.mixed_choice(t(h_u), t(layers), positives, drawn, t(alpha)).numpy(), order[..., 0])
    pooled = (layers.astype(np.float64).sum(0) / 4).astype(np.float32)[None]      # a power of two, not L + 1: exact, and the order is the mean's
    pooled_order = H.ranked(t(h_u), t(pooled), drawn).numpy()
    score = np.einsum("bd,lid->lbi", h_u.astype(np.float64), layers.astype(np.float64))
    admissible = ~member[users] & in_training
    everything = np.argsort(np.where(admissible, -score, math.inf), axis=2, kind="stable")
    all_score = np.take_along_axis(score, everything, 2)
    beyond = np.arange(I) >= admissible.sum(1)[:, None]
    a = {"choice.candidates": candidates, "choice.h.users": h_u, "choice.layers": layers, "choice.positives": positives, "choice.order": order,
         "choice.items": order[..., 0], "pooled.table": pooled, "pooled.order": pooled_order, "pooled.items": pooled_order[..., 0],
         "train.index": np.argwhere(member).T, "batch.users": users, "all.order": np.where(beyond, -1, everything),
         "all.score": np.where(beyond, 0, all_score)}
    equal_but_other = (order[:, :, :1] != order) & (np.take_along_axis(score, order, 2) == np.take_along_axis(score, order[..., :1], 2))
    assert equal_but_other[:, [0, 3, 4]].any(2).all() and admissible[2].sum() == 1 and len(np.unique(order[..., 0].T, axis=0)) > 4
    count = member.sum(0)
    share = H.popularity(torch.tensor(count), 0.75).numpy() * ~member
    a["popularity.count"] = count
    a = {n: x.astype(np.int32 if x.dtype.kind == "i" else np.float32) for n, x in a.items()}
    a["popularity.share"] = share / share.sum(1, keepdims=True)
    return a, {"format": "ccdrec-choice", "version": "1", "power": "0.75"}


# ------------------------------------------------------------------------------------------------------------- the list

dns, mixgcf = dict(sampler="dns", n_candidates=4), dict(sampler="mixgcf", n_candidates=4)
popularity, dma = dict(sampler="popularity"), dict(model="CCDRec", ndi=False, cns=False)
HARD = {
    "bpr_popularity": (dict(model="BPR", reg_weight=0.1, **popularity), dict(duplicates=True)),
    "bpr_dns": (dict(model="BPR", reg_weight=0.1, n_neg=2, **dns), dict(t=7, wide_index=True)),
    "lightgcn_dns": (dict(model="LightGCN", reg_weight=0.1, **dns), dict(duplicates=True, lonely_item=True)),
    "lightgcn_dns_two_negatives": (dict(model="LightGCN", reg_weight=0.0, n_neg=2, omega=0.7, **dns), dict(t=7, greedy_user=True)),
    "lightgcn_mixgcf": (dict(model="LightGCN", reg_weight=0.1, **mixgcf), dict(duplicates=True, lonely_item=True)),
    "lightgcn_mixgcf_three_layers": (dict(model="LightGCN", reg_weight=0.0, n_ui_layers=3, n_neg=2, **mixgcf), dict(t=7, greedy_user=True)),
    "freedom_popularity": (dict(model="FREEDOM", reg_weight=0.05, **popularity), dict(widths=C.ONE)),
    "freedom_dns": (dict(model="FREEDOM", reg_weight=0.05, **dns), dict(B=8)),
    "freedom_dns_reg0": (dict(model="FREEDOM", reg_weight=0.0, n_neg=2, **dns), dict(lonely_item=True)),
    "freedom_dns_omega1": (dict(model="FREEDOM", reg_weight=0.05, omega=1.0, **dns), dict(widths=C.ONE, duplicates=True)),
    "freedom_mixgcf": (dict(model="FREEDOM", reg_weight=0.05, **mixgcf), dict(B=8)),
    "freedom_mixgcf_reg0": (dict(model="FREEDOM", reg_weight=0.0, n_mm_layers=2, omega=0.9, **mixgcf), dict(t=7, lonely_item=True, greedy_user=True)),
    "freedom_mixgcf_plain": (dict(model="FREEDOM", reg_weight=0.05, sampler="mixgcf", n_candidates=1), dict(candidates=1, widths=C.ONE)),
    "freedom_mixgcf_omega1": (dict(model="FREEDOM", reg_weight=0.0, omega=1.0, **mixgcf), dict(widths=C.ONE)),
    "ccdrec_dma_dns": (dict(**dma, **dns), dict(duplicates=True)),
    "ccdrec_dma_dns_two_negatives": (dict(**dma, n_neg=2, reg_weight=0.05, omega=0.7, **dns), dict(widths=C.ONE)),
    "ccdrec_dma_mixgcf": (dict(**dma, **mixgcf), dict(duplicates=True)),
    "ccdrec_backbone_dns": (dict(**dma, dma=False, **dns), dict(widths=C.ONE)),
    **golden_lattice.HARD, **golden_mcdrec.HARD,
}
MIRROR = {   # alpha1 and -alpha2 as the metadata have them
    "bpr": (dict(model="BPR", reg_weight=0.1, use_mg=True), (1, -0.2), dict(t=7, duplicates=True)),
    "freedom": (dict(model="FREEDOM", reg_weight=0.05, use_mg=True, alpha1=0.5, alpha2=0.3), (0.5, -0.3), dict(t=7)),
    "ccdrec": (dict(model="CCDRec", use_mg=True), (1, -0.2), dict(t=7, curricular="index", widths=C.ONE)),
    "ccdrec_first_step": (dict(model="CCDRec", use_mg=True), (1, -0.2), dict(widths=C.ONE)),
    "freedom_mixgcf": (dict(model="FREEDOM", reg_weight=0.05, use_mg=True, **mixgcf), (1, -0.2), dict(t=7, widths=C.ONE)),
    "lightgcn_dns": (dict(model="LightGCN", reg_weight=0.1, use_mg=True, **dns), (1, -0.2), dict(t=7)),
    **golden_lattice.MIRROR, **golden_mcdrec.MIRROR, **golden_others.MIRROR,
}


def cases():
    """name -> (settings, function that makes the case): all of the above"""
    out = {n: (setting, lambda n=n, x=setting, y=shape: make_step(n, x, **y)) for n, (setting, shape) in HARD.items()}
    for n, (setting, factors, shape) in MIRROR.items():
        for name, arrays, metadata in make_mirrored(n, setting, factors, **shape):
            out[name] = setting, lambda a=arrays, m=metadata: (a, m)
    return out


def settings_of(case):
    return {**{n: x[0] for n, x in HARD.items()}, **{f"{n}_mg_{which}": x[0] for n, x in MIRROR.items() for which in ("first", "second")}}[case]
