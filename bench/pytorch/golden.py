"""Writes the golden cases: inputs as float32 values, results by autograd in float64 (stored float32, losses float64).

    python golden.py [--out ../../tests/golden]

For each case NAME: NAME.case.safetensors (docs/step-format.md) and NAME.want.safetensors with the arrays of the result and with
`mass.<array>`, the scale rounding errors are measured by, one value per row: the array's shape without the last dimension (a vector: shape
(1)). mass.loss.total (1) serves all loss terms; new.* have none. manifest.json holds SHA-256 and CRC-32 of every file. A second run of the
same PyTorch writes the same bytes; on another processor sums may differ in the last bit of a float64, and files that differ by no more stay.

Mass of a forward array: the same sums with absolute values (layers, projections, softmax-weighted values, dot products), the largest of
a row.
Mass of a gradient: sum over k of |dL/dy_k| |dy_k/dtheta|, y_k the elements of all rows on their way into a loss term, each use by itself
(h_u once with the positive and once with each negative, and so on). For everything linear between the row and the parameter that is the
sum of the absolute values of the terms; inside the estimator, where terms cancel once more, it is a lower bound. It is never 0 where
opposite terms cancel, as in the biases of FREEDOM's modality branch. Again the largest of a row.
Pools: a row's mass is the sum of its absolute terms in the last reverse step.
"""
import argparse
import functools
import hashlib
import json
import os
import zlib
from types import SimpleNamespace

import numpy as np
import torch

import data as D
import models as M
import safetensors_io as st

TOLERANCE = {
    "forward": "1e-6 * mass (loss.*: 1e-6 * mass.loss.total)",
    "gradient": "1e-5 * mass",
    "new": "1e-6 * |new| + 1e-2 * learning_rate, only where |grad| >= 1e-6 * mass.grad (or mass.grad is 0)",
    "pool": "1e-6 * mass",
}
SEED = 20250


# -------------------------------------------------------------------------------------------------------------- a case

class Maker:
    """Random float32 arrays of one case, from its own stream (NumPy's PCG64: the same on every machine)."""

    def __init__(self, name):
        self.rng = np.random.default_rng([SEED, *name.encode()])

    def normal(self, shape, scale=1.0):
        return (scale * self.rng.standard_normal(shape)).astype(np.float32)

    def uniform(self, shape, bound):
        return self.rng.uniform(-bound, bound, shape).astype(np.float32)

    def interactions(self, U, I, lonely_item, greedy_user, density):
        """Distinct pairs; `lonely_item` has none; `greedy_user` has every item but one (and the lonely one is that one, if both)."""
        member = self.rng.random((U, I)) < density
        member[np.arange(U), self.rng.integers(0, I, U)] = True
        member[self.rng.integers(0, U, I), np.arange(I)] = True
        if greedy_user:
            member[0] = True
            member[0, I - 1] = False
        if lonely_item:
            member[:, I - 1] = False
        return member

    def negatives(self, member, users):
        return np.array([self.rng.choice(np.flatnonzero(~member[u])) for u in users])

    def parameters(self, U, I, d, widths, s):
        p = {"user_embedding.weight": self.normal((U, d), 0.3), "item_id_embedding.weight": self.normal((I, d), 0.3)}
        if s.model in ("FREEDOM", "CCDRec"):
            for m, f in widths.items():
                p[f"{m}_embedding.weight"] = self.normal((I, f))
                p[f"{m}_trs.weight"], p[f"{m}_trs.bias"] = (self.uniform(shape, 1 / np.sqrt(f)) for shape in ((d, f), (d,)))
        if s.model == "CCDRec":
            for w in "qkv":
                p[f"estimator.w_{w}.weight"] = self.normal((d, d), np.sqrt(1 / d))
        return p


def make_step(name, setting, U=9, I=11, d=8, B=7, widths=None, t=1, curricular=None, lonely_item=False, greedy_user=False,
              duplicates=False, wide_index=False, density=0.3):
    """curricular: None, "index" or "frozen". -> (arrays, metadata) of the case."""
    k, s = Maker(name), M.settings(**setting)
    widths = widths if widths is not None else {"image": 5, "text": 6}
    member = k.interactions(U, I, lonely_item, greedy_user, density)
    pairs = np.argwhere(member)
    a = {f"param.{n}": x for n, x in k.parameters(U, I, d, widths, s).items()}

    index = np.int64 if wide_index else np.int32
    if s.model != "BPR":
        kept = pairs
        if s.model != "LightGCN":     # pruned: a part of the edges, values from the degrees of what was kept
            kept = pairs[np.sort(k.rng.choice(len(pairs), int(0.6 * len(pairs)), replace=False))]
        ij, value = D.user_item_graph(kept[:, 0], kept[:, 1], U, I)
        a["graph.user_item.index"], a["graph.user_item.value"] = ij.numpy().astype(index), value.numpy()
    if s.model in ("FREEDOM", "CCDRec"):
        features = {m: torch.tensor(a[f"param.{m}_embedding.weight"]) for m in widths}
        ij, value = D.item_graph(features, k=3, image_weight=0.3)
        a["graph.item_item.index"], a["graph.item_item.value"] = ij.numpy().astype(index), value.numpy()

    rows = k.rng.integers(0, len(pairs), B)
    if duplicates:                    # one pair twice, one user with other items, one item with other users
        rows[1] = rows[0]
        rows[2] = k.rng.choice(np.flatnonzero(pairs[:, 0] == pairs[rows[0], 0]))
        rows[3] = k.rng.choice(np.flatnonzero(pairs[:, 1] == pairs[rows[0], 1]))
    if greedy_user:
        rows[0] = 0                   # pairs are ordered: user 0's first
    users, positives = pairs[rows].T
    negatives = np.stack([k.negatives(member, users) for _ in range(s.n_neg)])
    if duplicates:                    # a negative equal to another row's positive, and two equal negatives
        b = next(b for b in range(B) for c in range(B) if not member[users[b], positives[c]])
        negatives[0, b] = next(positives[c] for c in range(B) if not member[users[b], positives[c]])
        b, c = next((b, c) for b in range(B) for c in range(b) if not member[users[b], negatives[0, c]])
        negatives[0, b] = negatives[0, c]
    if lonely_item:
        negatives[0, B - 1] = I - 1
    a.update({"batch.users": users.astype(index), "batch.positives": positives.astype(index), "batch.negatives": negatives.astype(index)})
    if curricular == "index":
        a["batch.curricular"] = k.negatives(member, users).astype(index)
    if curricular == "frozen":
        a["batch.frozen"] = k.normal((B, d), 0.3)
    if M.needs_projection(s):
        items = np.unique(np.concatenate([positives, negatives.ravel()]))
        a["diffusion.items"] = items.astype(index)
        if M.diffuses(s):
            a["diffusion.t"] = k.rng.integers(0, s.timesteps, len(items)).astype(index)
            a["diffusion.noise"] = k.normal((len(items), d))
    if t > 1:                         # moments of a run under way; rows never reached have none, as they would
        for n in M.trained({n[6:]: None for n in a if n.startswith("param.")}, s):
            shape = a[f"param.{n}"].shape
            m, v = k.normal(shape, 1e-2), k.normal(shape, 1e-2) ** 2
            if len(shape) == 2:
                m[0], v[0] = 0, 0
            a[f"adam.m.{n}"], a[f"adam.v.{n}"] = m, v
    metadata = {"format": "ccdrec-step", "version": "1", "settings": json.dumps(setting, sort_keys=True), "t": str(t),
                "modalities": json.dumps(list(widths) if s.model in ("FREEDOM", "CCDRec") else [])}
    return a, metadata


def make_reverse(name, setting, I=11, d=8, widths=None):
    k, s = Maker(name), M.settings(**setting)
    widths = widths if widths is not None else {"text": 6}
    p = k.parameters(1, I, d, widths, s)
    del p["user_embedding.weight"]
    a = {f"param.{n}": x for n, x in p.items()}
    a["noise.start"], a["noise.steps"] = k.normal((I, d)), k.normal((s.timesteps, I, d))
    return a, {"format": "ccdrec-reverse", "version": "1", "settings": json.dumps(setting, sort_keys=True),
               "modalities": json.dumps(list(widths))}


def make_selection():
    """similar_negative.safetensors: rankings of the curricular selection (spec 5), by dot product in `pool` and by cosine in `cosine.pool`. `order`
    (B,C): a row's admissible candidates, best first, then -1: what a drawn rank below min(k, admissible) means. Row 0: every candidate is the
    user's own, its negative is taken. Row 1: fewer admissible than k. Row 2: all equally similar. Dot products are exact in float32."""
    k, (U, I, d, B, C), top = Maker("similar_negative"), (6, 14, 3, 9, 18), 6
    candidates = np.sort(k.rng.integers(0, I, C))
    a = {"pool": np.round(4 * k.normal((I, d))) / np.float32(4), "cosine.pool": k.normal((I, d))}
    users, positives = np.array([0, 1, 2, 3, 4, 5, 2, 3, 1]), k.rng.integers(0, I, B)
    positives[2] = np.setdiff1d(np.arange(I), candidates)[0]      # the row of equals; no other row's similarities change with it
    positives[3:] = np.where(positives[3:] == positives[2], candidates[0], positives[3:])
    member = k.rng.random((U, I)) < 0.25
    member[0, candidates] = True
    member[1] = True
    member[1, np.unique(candidates)[-3:]] = False                 # duplicates count twice
    for pool in a.values():
        pool[positives[2]] = 0
        pool[candidates[-1]] = pool[candidates[0]]                # two items with one row
    for of in ("", "cosine."):
        order = np.full((B, C), -1, np.int32)
        pool = a[of + "pool"].astype(np.float64)
        for b in range(B):
            score = [float((pool[positives[b]] * pool[c]).sum()) for c in candidates]
            if of:
                score = [x / max(float(np.sqrt((pool[c] * pool[c]).sum())), 1e-12) for x, c in zip(score, candidates)]
                gaps = np.diff(np.unique(score))
                assert not (gaps < 1e-4).any(), "cosines too close for float32"
            allowed = [c for c in range(C) if not member[users[b], candidates[c]]]
            best = sorted(allowed, key=lambda c: (-score[c], c))
            order[b, :len(best)] = candidates[best]
            assert b != 2 or len(set(score)) == 1 and len(best) > top
        a[of + "order"] = order
    admissible = (order >= 0).sum(1)
    assert admissible[0] == 0 and 0 < admissible[1] < top and len(np.unique(candidates)) < C
    a.update({"candidates": candidates, "train.index": np.argwhere(member).T, "batch.users": users, "batch.positives": positives,
              "batch.negatives": 100 + np.arange(B)})         # no items: one taken in error shows
    a = {n: x.astype(np.int32 if x.dtype.kind == "i" else np.float32) for n, x in a.items()}
    return a, {"format": "ccdrec-selection", "version": "1", "k": str(top)}


# ------------------------------------------------------------------------------------------------------------ its result

def arguments(arrays, metadata, dtype=torch.float64):
    """-> (p, graphs, batch, diffusion, modalities, settings) of models.step, from a case's arrays; p's trained tensors want gradients."""
    s = M.settings(**json.loads(metadata["settings"]))
    modalities = json.loads(metadata["modalities"])
    a = {n: torch.tensor(x).to(dtype if x.dtype.kind == "f" else torch.int64) for n, x in arrays.items()}
    p = {n[6:]: x for n, x in a.items() if n.startswith("param.")}
    for n in M.trained(p, s):
        p[n].requires_grad_(True)
    U = len(p["user_embedding.weight"]) if "user_embedding.weight" in p else 0
    I = len(p["item_id_embedding.weight"])

    def dense(which, n):
        if f"graph.{which}.index" in a:
            return torch.zeros(n, n, dtype=dtype).index_put_(tuple(a[f"graph.{which}.index"]), a[f"graph.{which}.value"], accumulate=True)

    graphs = SimpleNamespace(user_item=dense("user_item", U + I), item_item=dense("item_item", I))
    batch = SimpleNamespace(**{n: a.get(f"batch.{n}") for n in ("users", "positives", "negatives", "curricular", "frozen")})
    diffusion = SimpleNamespace(**{n: a.get(f"diffusion.{n}") for n in ("items", "t", "noise")})
    if diffusion.items is not None:
        drawn = torch.cat([batch.positives, batch.negatives.flatten()])
        diffusion.count = (drawn[None] == diffusion.items[:, None]).sum(1)
    return p, graphs, batch, diffusion, modalities, s


class DenseOps(M.Ops):
    """Products with dense matrices: tiny cases, any dtype, and batched gradients."""
    propagate = staticmethod(functools.partial(M.propagate, mm=torch.mm))
    item_mm = staticmethod(torch.mm)


def watching():
    """DenseOps that remember: -> (ops, namespace of layers [Ego_0 .. Ego_L] and Hhat, None where the model has none)."""
    seen = SimpleNamespace(layers=[], Hhat=None)

    class Watching(DenseOps):
        @staticmethod
        def propagate(A, ego, L):
            seen.layers = [ego]
            for _ in range(L):
                seen.layers.append(A @ seen.layers[-1])
            return sum(seen.layers) / (L + 1)

        @staticmethod
        def item_mm(S, x):
            seen.Hhat = S @ x
            return seen.Hhat

    return Watching, seen


def reached(graphs, batch, U, L, wrapped):
    """What a batch reaches: ([(N) mask of the rows of Ego_l that are read, l = 0..L], (I) mask of those of Hhat)."""
    items = [batch.positives, batch.negatives.flatten()] + ([batch.curricular] if batch.curricular is not None else [])
    rows = torch.zeros(len(graphs.user_item), dtype=torch.bool)
    rows[batch.users], rows[U + torch.cat(items)] = True, True
    layers = [rows]
    for _ in range(L):
        layers.insert(0, layers[0] | (graphs.user_item[layers[0]] != 0).any(0))
    return layers, layers[0 if wrapped else L][U:]


def inner_arrays(out, seen):
    """name -> tensor of the step's graph: the arrays between parameters and losses that have a gradient in the result."""
    inner = {n: x for n, x in out.items() if n.startswith(("h.", "projection.")) or n in ("e_t", "e0_hat")}
    if seen.Hhat is not None:
        inner["hhat"] = seen.Hhat
    return {**inner, "ego.0": seen.layers[0]}


def estimator_arrays(e_t, projections, tau, W_q, W_k, W_v):
    """Normalised tokens (n,K,d), attention (n,K,K), sum_c w_c x_c (n,d), and the masses of a row of each."""
    d = e_t.shape[1]
    token = torch.stack([e_t, *projections, tau.expand_as(e_t)], 1)
    x = torch.nn.functional.layer_norm(token, (d,), eps=1e-5)
    q, k = x @ W_q.T, x @ W_k.T
    a = torch.softmax(q @ k.transpose(1, 2) / np.sqrt(d), dim=2)
    w = a.mean(1, keepdim=True)
    rstd = (token.var(-1, correction=0, keepdim=True) + 1e-5).rsqrt()
    score = (x.abs() @ W_q.T.abs()) @ (x.abs() @ W_k.T.abs()).transpose(1, 2) / np.sqrt(d)
    mass = {"x": (token.abs() + token.abs().mean(-1, keepdim=True)) * rstd, "a": a * (1 + score), "s": (w @ x.abs()).squeeze(1)}
    return {"x": x, "a": a, "s": (w @ x).squeeze(1)}, mass


def step_result(arrays, metadata, dtype=torch.float64, everything=False):
    """name -> tensor: the result of a step as docs/step-format.md lists it; `everything`: all of it, else without what watching() sees."""
    p, graphs, batch, diffusion, modalities, s = arguments(arrays, metadata, dtype)
    ops, seen = watching() if everything else (DenseOps, None)
    out = M.step(p, graphs, batch, diffusion, modalities, s, ops)
    names = M.trained(p, s)
    inner = inner_arrays(out, seen) if everything else {}
    grads = torch.autograd.grad(out["loss.total"], [p[n] for n in names] + list(inner.values()), allow_unused=True)
    out.update({f"grad.{n}": g for n, g in zip(inner, grads[len(names):])})
    if everything:
        L, wrapped = len(seen.layers) - 1, s.model == "CCDRec"
        layers, of_hhat = reached(graphs, batch, len(p["user_embedding.weight"]), L, wrapped)
        # rows that are not reached are zero in the result; Ego_0 is the tables themselves where nothing is put in their place
        out.update({f"ego.{l}": x * rows[:, None] if l or wrapped else x for l, (x, rows) in enumerate(zip(seen.layers, layers))})
        if seen.Hhat is not None:
            out["hhat"] = seen.Hhat * of_hhat[:, None]
        out.update({f"score.{n[2:]}": (out["h.users"] * x).sum(-1) for n, x in out.items() if n.startswith("h.") and n != "h.users"})
        if "e_t" in out:
            out["schedule.sqrt_abar"], out["schedule.sqrt_1m_abar"] = M.noise_levels(s.timesteps, s.noise_schedule, dtype, out["e_t"].device)
            tau = M.time_table(s.timesteps, out["e_t"].shape[1], dtype, out["e_t"].device)[diffusion.t]
            of_estimator, _ = estimator_arrays(out["e_t"], [out[f"projection.{m}"] for m in modalities], tau, *M.estimator_weights(p))
            out.update({f"estimator.{n}": x for n, x in of_estimator.items()})
    t = int(metadata["t"])
    for n, g in zip(names, grads):
        g = torch.zeros_like(p[n]) if g is None else g
        m, v = (torch.tensor(arrays[f"adam.{x}.{n}"]).to(dtype) if f"adam.{x}.{n}" in arrays else torch.zeros_like(g) for x in "mv")
        out[f"grad.{n}"] = g
        out[f"new.{n}"] = M.adam(p[n], g, m, v, t, s.learning_rate)[0]
    return {n: x.detach() for n, x in out.items()}


def step_mass(arrays, metadata, everything=False):
    """name -> tensor: the masses of the result's arrays (none for new.*)."""
    p, graphs, batch, diffusion, modalities, s = arguments(arrays, metadata)
    taps = []

    def tap(x):
        y = x.view_as(x)
        taps.append(y)
        return y

    ops, seen = watching() if everything else (DenseOps, None)
    out = M.step(p, graphs, batch, diffusion, modalities, s, ops, tap)
    to = {**{n: p[n] for n in M.trained(p, s)}, **(inner_arrays(out, seen) if everything else {})}
    taps = [y for y in taps if y.requires_grad]
    mass = {f"mass.grad.{n}": torch.zeros_like(x) for n, x in to.items()}
    for y, g in zip(taps, torch.autograd.grad(out["loss.total"], taps, retain_graph=True)):
        one = torch.diag(g.flatten()).view(-1, *g.shape)      # row k: element k of the gradient alone
        for n, terms in zip(to, torch.autograd.grad(y, list(to.values()), one, retain_graph=True, allow_unused=True, is_grads_batched=True)):
            if terms is not None:
                mass[f"mass.grad.{n}"] += terms.abs().sum(0)

    with torch.no_grad():                                     # the forward sums with absolute values
        p = {n: x.detach() for n, x in p.items()}
        P, Q, u = p["user_embedding.weight"].abs(), p["item_id_embedding.weight"].abs(), batch.users
        if out_projections := {n: None for n in out if n.startswith("projection.")}:
            for m in modalities:
                x, w, b = (p[f"{m}_{n}"].abs() for n in ("embedding.weight", "trs.weight", "trs.bias"))
                out_projections[f"projection.{m}"] = x[diffusion.items] @ w.T + b
            mass.update({f"mass.{n}": x for n, x in out_projections.items()})
        users, items = P, Q
        if s.model != "BPR":
            Hhat = Q
            for _ in range(s.n_mm_layers if s.model != "LightGCN" else 0):
                Hhat = graphs.item_item @ Hhat
            ego = Hhat if s.model == "CCDRec" else Q
            if "e_t" in out:
                keep, blur = M.noise_levels(s.timesteps, s.noise_schedule, torch.float64, Q.device)
                t = diffusion.t
                mass["mass.e_t"] = keep[t][:, None] * Q[diffusion.items] + blur[t][:, None] * diffusion.noise.abs()
                tau = M.time_table(s.timesteps, Q.shape[1], torch.float64, Q.device)[t]
                mass["mass.e0_hat"] = estimate_mass(out["e_t"], [out[n] for n in out_projections], tau, *M.estimator_weights(p))
                if s.dma:
                    ego = ego.clone()
                    ego[diffusion.items] = (1 - s.mu) * Hhat[diffusion.items] + s.mu * mass["mass.e0_hat"]
            H = ops.propagate(graphs.user_item, torch.cat([P, ego]), s.n_ui_layers)
            users, items = H[:len(P)], H[len(P):] + (Hhat if s.model != "LightGCN" else 0)
        rows = {"h.users": users[u], "h.positives": items[batch.positives], "h.negatives": items[batch.negatives]}
        if "h.curricular" in out:
            rows["h.curricular"] = items[batch.curricular]
        mass.update({f"mass.{n}": x for n, x in rows.items()})
        if everything:
            L, wrapped = s.n_ui_layers, s.model == "CCDRec"
            layers, of_hhat = reached(graphs, batch, len(P), L, wrapped)
            mass.update({f"mass.ego.{l}": x * reach[:, None] if l or wrapped else x for l, (x, reach) in enumerate(zip(seen.layers, layers))})
            if seen.Hhat is not None:
                mass["mass.hhat"] = Hhat * of_hhat[:, None]
            mass.update({f"mass.score.{n[2:]}": (rows["h.users"] * x).sum(-1) for n, x in rows.items() if n != "h.users"})
            if "e_t" in out:
                _, of_estimator = estimator_arrays(out["e_t"], [out[n] for n in out_projections], tau, *M.estimator_weights(p))
                mass.update({f"mass.estimator.{n}": x for n, x in of_estimator.items()})
        # losses: a log-sigmoid changes at most as much as its argument, whose mass is that of the dot products
        dots = lambda c: (rows["h.users"] * (rows["h.positives"] + c)).sum(-1).mean()   # noqa: E731
        last = batch.frozen.abs() if batch.frozen is not None else rows.get("h.curricular")
        omega = s.omega if s.model == "CCDRec" and last is not None else 0.0
        mass["mass.loss.bpr"] = out["loss.bpr"] + (1 - omega) * dots(rows["h.negatives"])
        mass["mass.loss.bpr_curricular"] = out["loss.bpr_curricular"] + (omega * dots(last) if omega else 0)
        mass["mass.loss.align"] = out["loss.align"] * 2
        if "e_t" in out:
            gap = (out["e_t"] - out["e_t"]) + Q[diffusion.items] + mass["mass.e0_hat"]
            mass["mass.loss.align"] = s.lambda_dm * (diffusion.count[:, None] * gap ** 2).sum() / diffusion.count.sum() / gap.shape[1]
        mass["mass.loss.reg"] = out["loss.reg"]
        if s.model in ("FREEDOM", "CCDRec") and s.reg_weight > 0:
            at = torch.searchsorted(diffusion.items, torch.cat([batch.positives[None], batch.negatives]))
            for h in out_projections.values():
                mass["mass.loss.reg"] = mass["mass.loss.reg"] + s.reg_weight * (rows["h.users"] * (h[at[0]] + h[at[1:]])).sum(-1).mean()
        mass["mass.loss.total"] = sum(mass[f"mass.loss.{n}"] for n in ("bpr", "bpr_curricular", "align", "reg"))
    for n in ("bpr", "bpr_curricular", "align", "reg"):
        del mass[f"mass.loss.{n}"]
    mass = {n: (x.amax(-1, keepdim=x.dim() == 1) if x.dim() else x).detach() for n, x in mass.items()}
    if everything and "e_t" in out:                           # each number of a schedule by itself
        mass["mass.schedule.sqrt_abar"], mass["mass.schedule.sqrt_1m_abar"] = keep, blur
    return mass


def estimate_mass(e_t, projections, tau, W_q, W_k, W_v):
    """Absolute terms of sum_c (mean_r a_rc) (token_c W_v), per item and component."""
    d = e_t.shape[1]
    token = torch.nn.functional.layer_norm(torch.stack([e_t, *projections, tau.expand_as(e_t)], 1), (d,), eps=1e-5)
    a = torch.softmax((token @ W_q.T) @ (token @ W_k.T).transpose(1, 2) / np.sqrt(d), dim=2)
    return (a.mean(1, keepdim=True) @ token.abs()).squeeze(1) @ W_v.T.abs()


def reverse_result(arrays, metadata, dtype=torch.float64, everything=False):
    p, _, _, _, modalities, s = arguments(arrays, metadata, dtype)
    p = {n: x.detach() for n, x in p.items()}
    noise = torch.tensor(arrays["noise.steps"]).to(dtype)
    all_items = torch.arange(len(p["item_id_embedding.weight"]))
    projections = [M.Ops.project(p, m, all_items) for m in modalities]
    steps = iter(range(1, 1 + s.timesteps))
    mass, x0, mass_x0 = {0: None}, {}, {}

    def estimator(e, h, tau, *w):          # notes the mass of the state each call leads to: |A| mass(x0) + |B| |e| (+ sigma |z|)
        j = next(steps)
        t, c = s.timesteps - j + 1, M.schedule(s.timesteps, s.noise_schedule, s.noise_prediction_form)
        x0[t], mass_x0[t] = M.estimate(e, h, tau, *w), estimate_mass(e, h, tau, *w)
        mass[j] = abs(c.A[t]) * mass_x0[t] + c.B[t] * e.abs() + c.sigma[t] * noise[t - 1].abs()
        return x0[t]

    start = torch.tensor(arrays["noise.start"]).to(dtype)
    pools = M.reverse(p, projections, s, start, lambda t: noise[t - 1], estimator)
    keep, blur = M.noise_levels(s.timesteps, s.noise_schedule, dtype, start.device)
    mass[0] = keep[-1] * p["item_id_embedding.weight"].abs() + blur[-1] * start.abs()
    out = {f"pool.{j}": x for j, x in enumerate(pools)}
    of_out = {f"mass.pool.{j}": mass[n].amax(-1) for j, n in enumerate(M.pool_steps(s.timesteps))}
    if everything:
        c, T = M.schedule(s.timesteps, s.noise_schedule, s.noise_prediction_form), range(1, 1 + s.timesteps)
        numbers = {n: torch.tensor(x[1:], dtype=dtype) for n, x in (("a", c.A), ("b", c.B), ("sigma", c.sigma))}
        numbers.update(sqrt_abar=keep, sqrt_1m_abar=blur)
        out.update({"x0": torch.stack([x0[t] for t in T]), **{f"schedule.{n}": x for n, x in numbers.items()}})
        of_out.update({"mass.x0": torch.stack([mass_x0[t].amax(-1) for t in T]), **{f"mass.schedule.{n}": x.abs() for n, x in numbers.items()}})
    return out, of_out


# ------------------------------------------------------------------------------------------------------------- the list

ONE, THREE = {"text": 6}, {"audio": 6, "image": 5, "text": 5}
TINY = dict(U=6, I=7, d=4, B=4, widths={"text": 3})
STEPS = {
    "bpr": (dict(model="BPR", reg_weight=0.1), dict(duplicates=True, wide_index=True)),
    "bpr_two_negatives": (dict(model="BPR", reg_weight=0.1, n_neg=2), dict(t=7)),
    "lightgcn": (dict(model="LightGCN", reg_weight=0.1), dict(duplicates=True, lonely_item=True)),
    "lightgcn_three_layers": (dict(model="LightGCN", reg_weight=0.0, n_ui_layers=3, n_neg=2), dict(t=7, greedy_user=True)),
    "freedom": (dict(model="FREEDOM", reg_weight=0.05), dict(wide_index=True, B=8)),
    "freedom_reg0": (dict(model="FREEDOM", reg_weight=0.0), dict(lonely_item=True)),
    "freedom_one_modality_fixed": (dict(model="FREEDOM", reg_weight=0.05, train_features=False), dict(widths=ONE, duplicates=True)),
    "freedom_three_modalities": (dict(model="FREEDOM", reg_weight=0.05, n_neg=2, n_mm_layers=2), dict(widths=THREE)),
    "freedom_moments": (dict(model="FREEDOM", reg_weight=0.05), dict(t=7, greedy_user=True, lonely_item=True, widths=ONE)),
    "ccdrec": (dict(model="CCDRec"), dict(curricular="index", U=10, I=12, wide_index=True)),
    "ccdrec_first_epoch": (dict(model="CCDRec"), dict(widths=ONE)),
    "ccdrec_dma": (dict(model="CCDRec", ndi=False, cns=False, n_neg=2), dict(widths=ONE)),
    "ccdrec_dma_ndi_frozen": (dict(model="CCDRec", cns=False, ndi_negative="pool"), dict(curricular="frozen")),
    "ccdrec_dma_ndi_index": (dict(model="CCDRec", cns=False, ndi_negative="index"), dict(curricular="index", widths=ONE)),
    "ccdrec_dma_cns": (dict(model="CCDRec", ndi=False), dict(curricular="index", **TINY)),
    "ccdrec_ndi_cns": (dict(model="CCDRec", dma=False), dict(curricular="index", **TINY)),
    "ccdrec_ndi_frozen": (dict(model="CCDRec", dma=False, cns=False), dict(curricular="frozen", **TINY)),
    "ccdrec_cns": (dict(model="CCDRec", dma=False, ndi=False), dict(curricular="index", **TINY)),
    "ccdrec_fixed_features": (dict(model="CCDRec", train_features=False), dict(curricular="index", widths=ONE)),
    "ccdrec_modality_loss": (dict(model="CCDRec", reg_weight=0.05), dict(curricular="index", widths=ONE)),
    "ccdrec_two_negatives": (dict(model="CCDRec", n_neg=2), dict(curricular="index", I=12, widths=ONE)),
    "ccdrec_duplicates": (dict(model="CCDRec"), dict(curricular="index", duplicates=True, B=10, widths=ONE)),
    "ccdrec_lonely_item_greedy_user": (dict(model="CCDRec"), dict(curricular="index", lonely_item=True, greedy_user=True, widths=ONE)),
    "ccdrec_moments": (dict(model="CCDRec"), dict(curricular="index", t=7, widths=ONE)),
    "ccdrec_one_modality_T5": (dict(model="CCDRec", timesteps=5), dict(curricular="index", widths=ONE)),
    "ccdrec_three_modalities": (dict(model="CCDRec"), dict(curricular="index", widths=THREE)),
    "ccdrec_T1": (dict(model="CCDRec", timesteps=1), dict(curricular="index", widths=ONE)),
    "ccdrec_cosine_weights": (dict(model="CCDRec", noise_schedule="cosine", mu=0.3, omega=0.5, lambda_dm=2.0, n_mm_layers=2, n_ui_layers=1),
                              dict(curricular="index", widths={"text": 12}, duplicates=True)),
}
EVERYTHING = ("ccdrec_everything", "freedom_everything", "reverse_everything")   # every array of the result, in small cases
SPARSE = dict(U=13, I=12, d=4, B=2, density=0.05)                                # batches that do not reach all rows
STEPS.update({
    "ccdrec_everything": (dict(model="CCDRec", reg_weight=0.05, timesteps=4, n_mm_layers=2), dict(curricular="index", widths={"text": 3}, **SPARSE)),
    "freedom_everything": (dict(model="FREEDOM", reg_weight=0.05, n_neg=2), dict(widths={"text": 3}, **SPARSE)),
})
REVERSES = {
    "reverse_T1": (dict(model="CCDRec", timesteps=1), dict()),
    "reverse_T1_three_modalities": (dict(model="CCDRec", timesteps=1), dict(widths=THREE)),
    "reverse_T5": (dict(model="CCDRec", timesteps=5), dict()),
    "reverse_T5_three_modalities": (dict(model="CCDRec", timesteps=5), dict(widths=THREE)),
    "reverse_T20": (dict(model="CCDRec", timesteps=20), dict()),
    "reverse_T20_three_modalities": (dict(model="CCDRec", timesteps=20), dict(widths=THREE)),
    "reverse_T5_cosine": (dict(model="CCDRec", timesteps=5, noise_schedule="cosine"), dict()),
    "reverse_everything": (dict(model="CCDRec", timesteps=4), dict(I=5, d=4, widths={"text": 3})),
    "reverse_T5_noise_form": (dict(model="CCDRec", timesteps=5, noise_prediction_form=True), dict()),
}


def stored(x, name):
    """Losses: one float64 value; the rest float32."""
    x = x.detach().double().numpy()
    return x.reshape(1) if name.removeprefix("mass.").startswith("loss.") else x.astype(np.float32)


def holds(path, arrays, metadata):
    """A file is there already, with the same arrays but for rounding in float64: other processors add in other orders. Such a file stays."""
    if not os.path.exists(path):
        return False
    old, about = st.load(path)

    def equal(x, y):
        if x.dtype != y.dtype or x.shape != y.shape or x.dtype.kind != "f":
            return x.dtype == y.dtype and np.array_equal(x, y)
        return np.allclose(x, y, rtol=1e-7 if x.dtype == np.float32 else 1e-13, atol=1e-15)

    return about == metadata and set(old) == set(arrays) and all(equal(old[n], np.asarray(x)) for n, x in arrays.items())


def written(out, manifest, file, arrays, metadata):
    """Writes a file, unless it is there, and its checksums into the manifest. -> bytes"""
    path = os.path.join(out, file)
    if not holds(path, arrays, metadata):
        st.save(path, arrays, metadata)
    with open(path, "rb") as f:
        raw = f.read()
    manifest["files"][file] = hashlib.sha256(raw).hexdigest()
    manifest["crc32"][file] = f"{zlib.crc32(raw):08x}"
    return len(raw)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Writes the golden cases of tests/golden.")
    parser.add_argument("--out", default=os.path.join(here, "..", "..", "tests", "golden"))
    out = parser.parse_args().out
    torch.set_num_threads(1)
    os.makedirs(out, exist_ok=True)
    manifest = {"torch": torch.__version__, "numpy": np.__version__, "seed": SEED, "tolerance": TOLERANCE, "files": {}, "crc32": {}, "cases": {}}
    total = 0
    for name, (setting, shape) in {**STEPS, **REVERSES}.items():
        everything = name in EVERYTHING
        if name in STEPS:
            arrays, metadata = make_step(name, setting, **shape)
            want, mass = step_result(arrays, metadata, everything=everything), step_mass(arrays, metadata, everything)
        else:
            arrays, metadata = make_reverse(name, setting, **shape)
            want, mass = reverse_result(arrays, metadata, everything=everything)
        missing = [n for n in want if not n.startswith(("new.", "loss.")) and f"mass.{n}" not in mass]
        assert not missing, missing
        result = {n: stored(x, n) for n, x in {**want, **mass}.items()}
        files = {f"{name}.case.safetensors": (arrays, metadata),
                 f"{name}.want.safetensors": (result, {"format": metadata["format"] + "-result", "version": "1"})}
        for file, (content, about) in files.items():
            total += written(out, manifest, file, content, about)
        manifest["cases"][name] = {"kind": "step" if name in STEPS else "reverse", "settings": setting}
        if everything:
            manifest["cases"][name]["everything"] = True
        if name in STEPS:
            print(f"{name:32s} loss {want['loss.total'].item():.9f}")
    total += written(out, manifest, "similar_negative.safetensors", *make_selection())
    with open(os.path.join(out, "manifest.json"), "w") as f:
        json.dump(manifest, f, indent=1, sort_keys=True)
        f.write("\n")
    print(f"{len(manifest['cases'])} cases, {len(manifest['files'])} files, {total / 1e3:.0f} KB, in {os.path.normpath(out)}")


if __name__ == "__main__":
    main()
