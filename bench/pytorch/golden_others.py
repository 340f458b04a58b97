"""The golden cases of BM3, SLMRec and MMGCN: their list, the arrays of each, and the mass of the loss (docs/step-format.md; golden_results.py says what a mass is).

Masks of BM3 are words of 16 bits, a row for each row of the batch; what lies beyond d in the last word is chance. MMGCN maps a modality first in
the cases where its `mlp` names it, whatever its width.
"""
import json

import numpy as np
import torch

import bm3
import data as D
import mmgcn
import models as M
import slmrec


# -------------------------------------------------------------------------------------------------------------- a case

def parameters(k, U, I, d, widths, s, mlp, latent):
    """Values of the size that training has, larger where the start is small; biases are not zero."""
    linear = lambda name, n_in, n_out: {f"{name}.weight": k.normal((n_out, n_in), n_in ** -0.5), f"{name}.bias": k.uniform((n_out,), 0.3)}   # noqa: E731
    p = {f"{m}_embedding.weight": k.normal((I, f)) for m, f in widths.items()}
    if s.model == "MMGCN":
        p["id_embedding"] = k.normal((U + I, d), 0.5)
        for m, f in widths.items():
            c = latent if m in mlp else f
            if m in mlp:
                p.update(linear(f"{m}.mlp", f, c))
            p[f"{m}.preference"] = k.normal((U, c))
            for j, n in ((1, c), (2, d), (3, d)):
                p[f"{m}.conv{j}.weight"] = k.normal((n, n), 1.5 * n ** -0.5)
                p.update(linear(f"{m}.linear{j}", n, d) | linear(f"{m}.g{j}", n + d, d))
        return p
    p.update({"user_embedding.weight": k.normal((U, d), 0.3), "item_id_embedding.weight": k.normal((I, d), 0.3)})
    if s.model == "BM3":
        p.update(linear("predictor", d, d))
        for m, f in widths.items():
            p.update(linear(f"{m}_trs", f, d))
        return p
    for m, f in widths.items():
        p.update(linear(f"{m}_dense", f, d))
    p.update(linear("fuse_user", 3 * d, d) | linear("fuse_item", 3 * d, d))
    for j in range(1, 6):
        p.update(linear(f"ssl.g{j}", d, d if j < 4 else d // 2))
    return p


def begun_step(C, name, setting, U=9, I=11, d=8, B=7, widths=None, t=1, masks=True, kept=0.5, mlp=(), latent=6, lonely_item=False, greedy_user=False,
               duplicates=False, wide_index=False, density=0.3, zero_row=False, blank=False):
    """C: golden_cases. kept: how often a mask's bit is 1. zero_row: an item of the batch without features. blank: a row whose mask keeps nothing."""
    k, s = C.Maker(name), M.settings(**setting)
    widths = widths if widths is not None else {"image": 5, "text": 6}
    member = k.interactions(U, I, lonely_item, greedy_user, density)
    pairs = np.argwhere(member)
    p = parameters(k, U, I, d, widths, s, mlp, latent)
    index = np.int64 if wide_index else np.int32
    ij, value = (D.mean_graph if s.model == "MMGCN" else D.user_item_graph)(pairs[:, 0], pairs[:, 1], U, I)
    users, positives, negatives = C.rows_of(k, member, pairs, s.n_neg, B, duplicates, greedy_user, lonely_item)
    if zero_row:
        for m in widths:
            p[f"{m}_embedding.weight"][positives[0]] = 0
    a = {f"param.{n}": x for n, x in p.items()}
    a["graph.user_item.index"], a["graph.user_item.value"] = ij.numpy().astype(index), value.numpy()
    a.update({"batch.users": users.astype(index), "batch.positives": positives.astype(index)})
    if s.n_neg:
        a["batch.negatives"] = negatives.astype(index)
    if M.has_masks(s) and masks:
        a.update(drawn_masks(k, a, list(widths), kept, blank))
    if t > 1:
        C.add_moments(k, a, s)
    metadata = {"format": "ccdrec-step", "version": "1", "settings": json.dumps(setting, sort_keys=True), "t": str(t), "modalities": json.dumps(list(widths))}
    if s.model == "MMGCN":
        assert nearest_kink(a, metadata) > 1e-5, f"{name}: a leaky ReLU too close to 0 for float32"
    return a, metadata, k, member


def drawn_masks(k, a, modalities, kept=0.5, blank=False):
    """mask.* of a batch: rows of equal ids are equal."""
    (U, d), I = a["param.user_embedding.weight"].shape, len(a["param.item_id_embedding.weight"])
    out = {}
    for n in ("users", "items", *modalities):
        rows, of = (U, a["batch.users"]) if n == "users" else (I, a["batch.positives"])
        keep, beyond = torch.tensor(k.rng.random((rows, d)) < kept), torch.tensor(k.rng.random((rows, -d % 16)) < 0.5)
        if blank and n != "users":
            keep[of[-1]] = False
        out[f"mask.{n}"] = bm3.packed(keep, beyond)[of].numpy().astype(np.int32)
    return out


def redrawn(k, a, metadata):
    """What a second pass of Mirror Gradient draws again."""
    return drawn_masks(k, a, json.loads(metadata["modalities"])) if "mask.users" in a else {}


def nearest_kink(a, metadata):
    """The smallest absolute value that enters a leaky ReLU."""
    import golden_results as R
    p, graphs, batch, diffusion, modalities, s = R.arguments(a, metadata)
    least, relu = [], mmgcn.F.leaky_relu
    try:
        mmgcn.F.leaky_relu = lambda x: (least.append(x[x != 0].abs().min().item()), relu(x))[1]
        M.represent(p, graphs, diffusion, modalities, s, R.DenseOps)
    finally:
        mmgcn.F.leaky_relu = relu
    return min(least)


# --------------------------------------------------------------------------------------------------------- mass of the loss

def loss_mass(p, graphs, batch, diffusion, modalities, s, ops):
    """Of the whole loss: what its sums are with absolute values."""
    with torch.no_grad():
        p = {n: x.detach() for n, x in p.items()}
        return {"BM3": bm3_mass, "SLMRec": slmrec_mass, "MMGCN": mmgcn_mass}[s.model](p, graphs, batch, diffusion, modalities, s, ops)


def linear_mass(p, name, x):
    return x.abs() @ p[f"{name}.weight"].abs().T + p[f"{name}.bias"].abs()


def bm3_mass(p, graphs, batch, diffusion, modalities, s, ops):
    own = bm3.represent(p, graphs, diffusion, modalities, s, ops)
    P, Q = p["user_embedding.weight"].abs(), p["item_id_embedding.weight"].abs()
    H = ops.propagate(graphs.user_item, torch.cat([P, Q]), s.n_ui_layers)
    mass = bm3.SimpleNamespace(users=H[:len(P)], items=H[len(P):] + Q,
                               projection={m: linear_mass(p, f"{m}_trs", p[f"{m}_embedding.weight"][diffusion.items]) for m in modalities})
    at = torch.searchsorted(diffusion.items, batch.positives.contiguous())
    length = lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True)   # noqa: E731

    def term(o, mass_o, x, mass_x, of):
        x, mass_x = (y if diffusion.masks is None else y * diffusion.masks[of] for y in (x, mass_x))
        some = length(x) > 0
        return 1 + (mass_o * mass_x * some / (length(o) * length(x).clamp(min=1e-300))).sum(1).mean()

    u, i = batch.users, batch.positives
    predicted = lambda table, mass, index: (own.predict(table, index), linear_mass(p, "predictor", mass[index]))   # noqa: E731
    user, item = (own.users[u], mass.users[u], "users"), (own.items[i], mass.items[i], "items")
    total = term(*predicted(own.users, mass.users, u), *item) + term(*predicted(own.items, mass.items, i), *user)
    for m, h in own.projection.items():
        o = predicted(h, mass.projection[m], at)
        total = total + s.cl_weight * (term(*o, *item) + term(*o, h[at], mass.projection[m][at], m))
    norm = torch.linalg.vector_norm
    return total + s.reg_weight * (norm(mass.users) + norm(mass.items)) / len(Q)


def slmrec_mass(p, graphs, batch, diffusion, modalities, s, ops):
    r = slmrec.represent(p, graphs, diffusion, modalities, s, ops)
    P, U = p["user_embedding.weight"].abs(), r.U
    starts = [p["item_id_embedding.weight"].abs(), *(linear_mass(p, f"{m}_dense", graphs.features[m]) for m in modalities)]
    H = ops.propagate_views(graphs.user_item, P, starts, s.n_ui_layers)
    u, i = batch.users, U + batch.positives
    beside = lambda index: torch.cat([x[index] for x in H], 1)   # noqa: E731
    users, items = linear_mass(p, "fuse_user", beside(u)), linear_mass(p, "fuse_item", beside(i))
    x1 = linear_mass(p, "ssl.g1", H[0][i])
    x4 = linear_mass(p, "ssl.g4", linear_mass(p, "ssl.g3", x1))
    signed = {n: ops.map_rows(r.H, rows, p[f"{n}.weight"], p[f"{n}.bias"]).norm(dim=1, keepdim=True) for n, rows in (("fuse_user", u), ("fuse_item", i))}
    masses = [(users / signed["fuse_user"], items / signed["fuse_item"]), (x1, linear_mass(p, "ssl.g2", H[1][i])), (x4, linear_mass(p, "ssl.g5", H[2][i]))]
    total = 0
    for n, (X, Y), (mass_X, mass_Y) in zip(slmrec.LOSSES, slmrec.contrasts(r, batch), masses):
        weight, temperature = (1, s.temp) if n == "main" else (s.ssl_alpha, s.ssl_temp)
        of_S = (mass_X @ Y.abs().T + X.abs() @ mass_Y.T) / temperature
        total = total + weight * (slmrec.nce(X, Y, temperature) + of_S.amax(1).mean())
    return total


def mmgcn_mass(p, graphs, batch, diffusion, modalities, s, ops):
    """Rows of R: the absolute terms of each branch's last sums."""
    r = mmgcn.represent(p, graphs, diffusion, modalities, s, ops)
    R, last = torch.cat([r.users, r.items]), {}

    class Watching(ops):
        @classmethod
        def messages(cls, graphs, m, k, x, C):
            last[m] = x, C
            return super().messages(graphs, m, k, x, C)

    mmgcn.represent(p, graphs, diffusion, modalities, s, Watching)
    mass = torch.zeros_like(R)
    for m, (x, C) in last.items():
        h = graphs.user_item @ (x.abs() @ C.abs())
        y = linear_mass(p, f"{m}.linear3", x) + p["id_embedding"].abs()
        mass += linear_mass(p, f"{m}.g3", torch.cat([h, y], 1)) / len(last)
    U = len(r.users)
    of_u, of_p = mass[batch.users], mass[U + batch.positives]
    h_u, h_p = R[batch.users], R[U + batch.positives]
    both = lambda x, y, of_x, of_y: (x.abs() * of_y + of_x * y.abs()).sum(-1).mean()   # noqa: E731
    out = M.losses(r, batch, diffusion, s)
    negatives = U + batch.negatives
    return out["loss.total"] + both(h_u, h_p, of_u, of_p) + both(h_u, R[negatives], of_u, mass[negatives])


# ------------------------------------------------------------------------------------------------------------- the list

ONE, THREE = {"text": 6}, {"audio": 6, "image": 5, "text": 5}


def bm3_case(**more):
    return dict(model="BM3", reg_weight=0.1) | more


def slmrec_case(**more):
    return dict(model="SLMRec", ssl_alpha=0.5, ssl_temp=0.5, temp=0.5) | more


def mmgcn_case(**more):
    return dict(model="MMGCN", reg_weight=0.1) | more


STEPS = {
    "bm3": (bm3_case(), dict(duplicates=True)),
    "bm3_unmasked": (bm3_case(n_ui_layers=2), dict(masks=False, duplicates=True)),
    "bm3_moments": (bm3_case(n_ui_layers=2, cl_weight=0.7), dict(t=7, lonely_item=True, greedy_user=True)),
    "bm3_one_modality": (bm3_case(reg_weight=0.01), dict(widths=ONE, wide_index=True)),
    "bm3_three_modalities": (bm3_case(n_ui_layers=2), dict(widths=THREE, kept=0.7)),
    "bm3_two_words": (bm3_case(), dict(widths={"image": 3}, d=20, U=7, I=6, B=4)),
    "bm3_blank_mask": (bm3_case(cl_weight=1.5), dict(blank=True, widths=ONE)),
    "bm3_reg0": (bm3_case(reg_weight=0.0), dict(widths=ONE, duplicates=True)),
    "bm3_fixed_features": (bm3_case(train_features=False), dict(duplicates=True, t=7)),
    "slmrec": (slmrec_case(), dict(duplicates=True)),
    "slmrec_moments": (slmrec_case(), dict(t=7, lonely_item=True, greedy_user=True)),
    "slmrec_zero_features": (slmrec_case(n_ui_layers=2), dict(zero_row=True, wide_index=True)),
    "slmrec_defaults": (dict(model="SLMRec"), dict(d=6)),
    "slmrec_no_decay": (slmrec_case(weight_decay=0.0, n_ui_layers=1, ssl_alpha=0.05, ssl_temp=0.3), dict(t=7, duplicates=True)),
    "mmgcn": (mmgcn_case(), dict(mlp=("image",), d=4, duplicates=True)),
    "mmgcn_moments": (mmgcn_case(), dict(mlp=("image",), d=4, t=7, lonely_item=True, greedy_user=True)),
    "mmgcn_one_modality": (mmgcn_case(), dict(widths=ONE, d=6)),
    "mmgcn_one_mapped": (mmgcn_case(reg_weight=0.0), dict(widths={"image": 9}, mlp=("image",), latent=4, d=4, wide_index=True)),
    "mmgcn_three_modalities": (mmgcn_case(), dict(widths=THREE, mlp=("audio", "image"), latent=4, d=4)),
    "mmgcn_two_negatives": (mmgcn_case(n_neg=2), dict(mlp=("image",), d=4, t=7, duplicates=True)),
}
MIRROR = {
    "bm3": (bm3_case(use_mg=True), (1, -0.2), dict(t=7)),
    "slmrec": (slmrec_case(use_mg=True, alpha1=0.5, alpha2=0.3), (0.5, -0.3), dict(t=7)),
    "mmgcn": (mmgcn_case(use_mg=True), (1, -0.2), dict(t=7, mlp=("image",), latent=4, d=4)),
}
