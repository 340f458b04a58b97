"""LATTICE's arrays of the golden cases, and the list of its cases (docs/step-format.md, "LATTICE's graphs").

A case of an epoch's first batch has the learned graph's neighbours alone: K_m and w follow from the parameters and have gradients. A case of a later
batch has K_m and w of parameters a little apart from its own, as the first batch's are; that K_m is given is what makes it one.
"""
from types import SimpleNamespace

import numpy as np
import torch

import data as D
import lattice


def nearest_first(y, k):
    """(I,k): each row itself, then its nearest others, as the program orders them."""
    index = D.knn(y, k, self_first=True)
    similarity = lattice.similarities(y, index)
    similarity[index == torch.arange(len(y))[:, None]] = torch.inf
    return index.gather(1, similarity.argsort(dim=1, descending=True, stable=True))


def farthest(y, k, row):
    """The k items least similar to one: with them alone its row sum is below 0."""
    y = torch.nn.functional.normalize(y, dim=1)
    return torch.topk(y @ y[row], k, largest=False).indices


def graph_arrays(k, a, widths, s, later, opposed, index_type, neighbours=3):
    """graph.* of a case, by the case's own Maker k. `opposed`: item 1 lists its opposites, so that s is 0 there."""
    p = {n[6:]: torch.tensor(x).double() for n, x in a.items() if n.startswith("param.")}
    if later:                         # of the parameters before the steps since the epoch began
        for n in ["modal_weight", *(f"{m}_trs.{x}" for m in widths for x in ("weight", "bias"))]:
            p[n] = p[n] + torch.tensor(k.normal(p[n].shape, 0.05))
    out, learned = {}, {}
    for m in widths:
        x = p[f"{m}_embedding.weight"]
        frozen, O = lattice.frozen_list(x, nearest_first(x, neighbours))
        learned[m] = nearest_first(lattice.all_projected(p, m), neighbours)
        if opposed:
            learned[m][1] = farthest(lattice.all_projected(p, m), neighbours, 1)
        out[f"graph.learned.{m}.index"], out[f"graph.frozen.{m}.index"] = (x.numpy().astype(index_type) for x in (learned[m], frozen))
        out[f"graph.frozen.{m}.value"] = O.numpy().astype(np.float32)
    K, w = learned_values(p, learned)
    sums = sum(x * y.sum(1) for x, y in zip(w, K.values()))
    assert bool((sums[1] < -0.2) if opposed else (sums > 0.2).all()) and sums.abs().min() > 0.2, "a row sum too close to 0 for float32"
    return {**out, **(constants(K, w) if later else {})}


def learned_values(p, learned):
    """K_m of the lists and w, by these parameters."""
    return {m: lattice.similarities(lattice.all_projected(p, m), index) for m, index in learned.items()}, torch.softmax(p["modal_weight"], 0)


def constants(K, w):
    return {**{f"graph.learned.{m}.value": x.detach().numpy().astype(np.float32) for m, x in K.items()},
            "graph.modal_weight": w.detach().numpy().astype(np.float32)}


def from_arrays(a, modalities):
    """The namespace `latent` (lattice.py) of a case's tensors; None where it has no such graph."""
    if not modalities or f"graph.learned.{modalities[0]}.index" not in a:
        return None
    of = lambda name: {m: a[f"graph.{name.format(m)}"] for m in modalities}   # noqa: E731
    index, value = of("frozen.{}.index"), of("frozen.{}.value")
    later = "graph.modal_weight" in a
    return SimpleNamespace(learned=of("learned.{}.index"), frozen={m: (index[m], value[m]) for m in modalities},
                             values=of("learned.{}.value") if later else None, weight=a["graph.modal_weight"] if later else None)


# ------------------------------------------------------------------------------------------------------------- the list

ONE, THREE = {"text": 6}, {"audio": 6, "image": 5, "text": 5}
SPARSE = dict(U=13, I=12, d=4, B=2, density=0.05)       # batches that do not reach all rows


def setting(**more):
    """Rows of a case are fewer than its configured batch size only where the case is about that."""
    return dict(model="LATTICE", train_batch_size=7, reg_weight=0.05) | more


def wrapped(**more):
    return setting(model="CCDRec", backbone="LATTICE") | more


STEPS = {
    "lattice": (setting(), dict(duplicates=True, wide_index=True)),
    "lattice_later": (setting(), dict(later=True, t=7)),
    "lattice_moments": (setting(learning_rate=0.00095), dict(t=59, greedy_user=True, lonely_item=True)),
    "lattice_one_modality": (setting(), dict(widths=ONE)),
    "lattice_one_modality_later": (setting(), dict(widths=ONE, later=True)),
    "lattice_three_modalities": (setting(lambda_coeff=0.6), dict(widths=THREE)),
    "lattice_two_layers": (setting(n_mm_layers=2, lambda_coeff=0.7), dict(lonely_item=True)),
    "lattice_two_layers_later": (setting(n_mm_layers=2, n_ui_layers=3), dict(later=True, duplicates=True)),
    "lattice_two_negatives": (setting(n_neg=2), dict(t=7)),
    "lattice_last_batch": (setting(train_batch_size=64, reg_weight=0.5), dict(later=True, B=5)),
    "lattice_reg0": (setting(reg_weight=0.0), dict(widths=ONE)),
    "lattice_fixed_features": (setting(train_features=False), dict(t=7)),
    "lattice_negative_row_sum": (setting(lambda_coeff=0.5), dict(opposed=True)),
    "lattice_everything": (setting(n_mm_layers=2, n_neg=2, train_batch_size=4), dict(widths={"image": 4, "text": 3}, **SPARSE)),
    "ccdrec_lattice": (wrapped(), dict(curricular="index", duplicates=True)),
    "ccdrec_lattice_first_epoch": (wrapped(), dict(widths=ONE)),
    "ccdrec_lattice_later": (wrapped(n_mm_layers=2, reg_weight=0.0), dict(curricular="index", later=True, t=7)),
    "ccdrec_lattice_dma": (wrapped(ndi=False, cns=False, n_neg=2), dict(later=True, lonely_item=True)),
    "ccdrec_lattice_fixed_features": (wrapped(train_features=False), dict(curricular="index", widths=ONE, later=True)),
    "ccdrec_lattice_everything": (wrapped(timesteps=4, train_batch_size=2), dict(curricular="index", widths={"text": 3}, **SPARSE)),
    "ccdrec_mcdrec": (dict(model="CCDRec", backbone="MCDRec", reg_weight=0.05), dict(curricular="index", widths=ONE, t=7)),
}
dns, mixgcf = dict(sampler="dns", n_candidates=4), dict(sampler="mixgcf", n_candidates=4)
realhns = dict(sampler="realhns", realhns_candidates=4)
HARD = {
    "lattice_dns": (setting(**dns), dict(duplicates=True)),
    "lattice_mixgcf": (setting(**mixgcf), dict(later=True, lonely_item=True)),
    "lattice_mixgcf_two_layers": (setting(n_mm_layers=2, n_neg=2, omega=0.7, **mixgcf), dict(t=7, widths=ONE)),
    "lattice_realhns": (setting(omega=0.9, **realhns), dict(later=True)),
    "freedom_realhns": (dict(model="FREEDOM", reg_weight=0.05, **realhns), dict(widths=ONE)),
    "ccdrec_lattice_dma_dns": (wrapped(ndi=False, cns=False, **dns), dict(duplicates=True)),
    "ccdrec_lattice_dma_mixgcf": (wrapped(ndi=False, cns=False, **mixgcf), dict(duplicates=True, later=True)),
}
MIRROR = {
    "lattice": (setting(use_mg=True), (1, -0.2), dict(t=7)),
    "lattice_later": (setting(use_mg=True, alpha1=0.5, alpha2=0.3), (0.5, -0.3), dict(t=7, later=True, widths=ONE)),
    "ccdrec_lattice": (wrapped(use_mg=True), (1, -0.2), dict(t=7, curricular="index", widths=ONE)),
}
NOT_YET = ()             # words in the names of the cases that `ccdrec step` cannot run yet
