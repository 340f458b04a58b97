"""The golden cases: their list, and the random float32 arrays of each (docs/step-format.md). What comes of them: golden_results.py."""
import json
import sys

import numpy as np
import torch

import data as D
import golden_lattice
import golden_mcdrec
import golden_others
import models as M

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
        if M.backbone(s) == "LATTICE":
            p["modal_weight"] = self.normal((len(widths),), 0.5)
        if M.has_features(s):
            for m, f in widths.items():
                p[f"{m}_embedding.weight"] = self.normal((I, f))
                p[f"{m}_trs.weight"], p[f"{m}_trs.bias"] = (self.uniform(shape, 1 / np.sqrt(f)) for shape in ((d, f), (d,)))
        if M.has_estimator(s) and s.estimator == "unet":
            p.update(golden_mcdrec.parameters(self))
        elif M.has_estimator(s):
            for w in "qkv":
                p[f"estimator.w_{w}.weight"] = self.normal((d, d), np.sqrt(1 / d))
        return p


def rows_of(k, member, pairs, n_neg, B, duplicates, greedy_user, lonely_item):
    """users (B), positives (B), negatives (n_neg,B) of a batch"""
    rows = k.rng.integers(0, len(pairs), B)
    if duplicates:                    # one pair twice, one user with other items, one item with other users
        rows[1] = rows[0]
        rows[2] = k.rng.choice(np.flatnonzero(pairs[:, 0] == pairs[rows[0], 0]))
        rows[3] = k.rng.choice(np.flatnonzero(pairs[:, 1] == pairs[rows[0], 1]))
    if greedy_user:
        rows[0] = 0                   # pairs are ordered: user 0's first
    users, positives = pairs[rows].T
    if n_neg == 0:
        return users, positives, None
    negatives = np.stack([k.negatives(member, users) for _ in range(n_neg)])
    if duplicates:                    # a negative equal to another row's positive, and two equal negatives
        b = next(b for b in range(B) for c in range(B) if not member[users[b], positives[c]])
        negatives[0, b] = next(positives[c] for c in range(B) if not member[users[b], positives[c]])
        b, c = next((b, c) for b in range(B) for c in range(b) if not member[users[b], negatives[0, c]])
        negatives[0, b] = negatives[0, c]
    if lonely_item:
        negatives[0, B - 1] = member.shape[1] - 1
    return users, positives, negatives


def add_moments(k, a, s):
    """Moments of a run under way; rows never reached have none, as they would."""
    for n in M.trained({n[6:]: None for n in a if n.startswith("param.")}, s):
        shape = a[f"param.{n}"].shape
        m, v = k.normal(shape, 1e-2), k.normal(shape, 1e-2) ** 2
        if len(shape) == 2:
            m[0], v[0] = 0, 0
        a[f"adam.m.{n}"], a[f"adam.v.{n}"] = m, v


def make_step(*about, **shape):
    """-> (arrays, metadata) of the case."""
    return begun_step(*about, **shape)[:2]


def begun_step(name, setting, **shape):
    if setting["model"] in M.OWN:
        return golden_others.begun_step(sys.modules[__name__], name, setting, **shape)
    return begun_ranked(name, setting, **shape)


def begun_ranked(name, setting, U=9, I=11, d=8, B=7, widths=None, t=1, curricular=None, lonely_item=False, greedy_user=False,
               duplicates=False, wide_index=False, density=0.3, later=False, opposed=False, masked=False, salt=""):
    """curricular: None, "index" or "frozen". later, opposed: of LATTICE (golden_lattice.py). masked, salt: of the U-Net (golden_mcdrec.py). -> (arrays, metadata, the case's Maker, (U,I) bool: who has what)."""
    k, s = Maker(name + salt), M.settings(**setting)
    widths = widths if widths is not None else {"image": 5, "text": 6}
    member = k.interactions(U, I, lonely_item, greedy_user, density)
    pairs = np.argwhere(member)
    a = {f"param.{n}": x for n, x in k.parameters(U, I, d, widths, s).items()}

    index = np.int64 if wide_index else np.int32
    if s.model != "BPR":
        kept = pairs
        if M.prunes(s):               # a part of the edges, values from the degrees of what was kept
            kept = pairs[np.sort(k.rng.choice(len(pairs), int(0.6 * len(pairs)), replace=False))]
        graph = D.row_graph if M.backbone(s) == "LATTICE" else D.user_item_graph
        ij, value = golden_mcdrec.weighted_graph(k, kept, U, I) if s.model == "MCDRec" else graph(kept[:, 0], kept[:, 1], U, I)
        a["graph.user_item.index"], a["graph.user_item.value"] = ij.numpy().astype(index), value.numpy()
    if M.backbone(s) == "LATTICE":
        a.update(golden_lattice.graph_arrays(k, a, widths, s, later, opposed, index))
    elif M.has_features(s):
        features = {m: torch.tensor(a[f"param.{m}_embedding.weight"]) for m in widths}
        ij, value = D.item_graph(features, k=3, image_weight=0.3)
        a["graph.item_item.index"], a["graph.item_item.value"] = ij.numpy().astype(index), value.numpy()

    users, positives, negatives = rows_of(k, member, pairs, s.n_neg, B, duplicates, greedy_user, lonely_item)
    a.update({"batch.users": users.astype(index), "batch.positives": positives.astype(index), "batch.negatives": negatives.astype(index)})
    if curricular == "index":
        a["batch.curricular"] = k.negatives(member, users).astype(index)
    if curricular == "frozen":
        a["batch.frozen"] = k.normal((B, d), 0.3)
    if M.needs_projection(s):
        items = np.arange(I) if M.of_all_items(s) else np.unique(np.concatenate([positives, negatives.ravel()]))
        a["diffusion.items"] = items.astype(index)
        if M.diffuses(s):
            a["diffusion.t"] = k.rng.integers(0, s.timesteps, len(items)).astype(index)
            a["diffusion.noise"] = k.normal((len(items), d))
            if masked:
                a["mask.unet"] = golden_mcdrec.mask(k, len(items), s)
    if t > 1:
        add_moments(k, a, s)
    metadata = {"format": "ccdrec-step", "version": "1", "settings": json.dumps(setting, sort_keys=True), "t": str(t),
                "modalities": json.dumps(list(widths) if M.has_features(s) else [])}
    if M.backbone(s) == "LATTICE":
        metadata.update(epoch="1", step="2" if later else "0")
    return a, metadata, k, member


def make_reverse(name, setting, I=11, d=8, widths=None, salt=""):
    k, s = Maker(name + salt), M.settings(**setting)
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
EVERYTHING = ("ccdrec_everything", "freedom_everything", "reverse_everything", "lattice_everything", "ccdrec_lattice_everything", *golden_mcdrec.EVERYTHING)   # every array of the result
SPARSE = golden_lattice.SPARSE
STEPS.update({
    "ccdrec_everything": (dict(model="CCDRec", reg_weight=0.05, timesteps=4, n_mm_layers=2), dict(curricular="index", widths={"text": 3}, **SPARSE)),
    "freedom_everything": (dict(model="FREEDOM", reg_weight=0.05, n_neg=2), dict(widths={"text": 3}, **SPARSE)),
    **golden_lattice.STEPS,
    **golden_mcdrec.STEPS,
    **golden_others.STEPS,
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
    **golden_mcdrec.REVERSES,
}
