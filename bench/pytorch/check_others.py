"""Checks of BM3, SLMRec and MMGCN (bm3.py, slmrec.py, mmgcn.py): the published golden numbers, named properties, planted mistakes."""
import math
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

import bm3
import data as D
import golden_results as G
import mmgcn
import models as M
import slmrec
from checking import report

# ------------------------------------------------------------------------------------------------- numbers of baselines.md 12

MMGCN_12 = """W_mlp 0 +3.550281e-05 1.191674e-04
b_mlp 1 +2.947584e-06 4.269272e-05
C_1 2 -3.734351e-05 1.594345e-04 C_1 17 -2.954581e-05 4.162506e-05
A_1 3 -2.966866e-07 1.641704e-04 A_1 18 +1.422576e-04 1.399406e-04
a_1 4 +6.822453e-05 1.568032e-04 a_1 19 +1.109392e-04 1.662037e-04
Z_1 5 -1.713906e-05 6.159364e-04 Z_1 20 -1.498535e-04 3.630499e-04
z_1 6 +3.668828e-04 1.170638e-03 z_1 21 +7.769438e-04 7.862469e-04
C_2 7 -9.866416e-05 5.014265e-04 C_2 22 +1.237217e-05 4.957367e-05
A_2 8 -1.996458e-03 1.287110e-03 A_2 23 -1.900634e-04 4.433588e-04
a_2 9 -1.705652e-03 1.718332e-03 a_2 24 -1.233512e-03 2.566718e-03
Z_2 10 +2.981988e-03 8.569197e-03 Z_2 25 -6.180019e-03 1.017371e-02
z_2 11 +5.583985e-03 1.387360e-02 z_2 26 -3.932989e-03 2.925213e-03
C_3 12 +4.421090e-03 9.670844e-03 C_3 27 -1.274113e-02 9.863121e-03
A_3 13 -1.932794e-02 8.686594e-03 A_3 28 +2.523826e-05 6.349980e-03
a_3 14 -1.647898e-02 1.165423e-02 a_3 29 -2.328280e-03 4.279467e-03
Z_3 15 -4.680891e-03 2.383010e-02 Z_3 30 -3.614865e-02 3.095392e-02
z_3 16 -2.264520e-02 2.335554e-02 z_3 31 -1.373783e-03 9.275829e-03"""
SLMREC_12 = ((-2.607044e-03, 3.721853e-02), (-3.764120e-03, 8.280120e-02), (-9.796535e-03, 5.136874e-02), (-5.341819e-03, 1.223422e-02),
             (7.046008e-03, 2.811534e-02), (6.095998e-03, 1.101520e-02), (9.906271e-04, 9.060410e-03), (-1.544553e-02, 9.146362e-03),
             (4.371817e-02, 8.905035e-02), (3.623286e-02, 2.124186e-02), (1.269700e-03, 2.294032e-02), (1.720525e-03, 2.865790e-02),
             (-4.346480e-03, 1.631637e-02), (0, 0), (2.257034e-02, 5.998925e-02), (2.328011e-02, 6.526137e-02), (7.431479e-02, 3.246267e-02),
             (-9.434640e-02, 6.679703e-02), (-4.762540e-02, 4.953016e-02), (0, 0))
BM3_12 = {"user_embedding.weight": (1.818519e-01, 2.035460e-01), "item_id_embedding.weight": (4.967109e-01, 5.405491e-01), "predictor.weight": (-8.394906, 6.352792),
          "predictor.bias": (-5.200725, 4.503105), "image_trs.weight": (9.003451, 10.89089), "image_trs.bias": (1.713153, 3.414715),
          "text_trs.weight": (5.505224e-02, 7.338654e-02), "text_trs.bias": (-1.276182e-01, 1.629844e-01), "image_embedding.weight": (-4.115830e-01, 7.115856e-01),
          "text_embedding.weight": (7.274715e-03, 1.785856e-02)}


def number(n, *shape):
    """Parameter number n in the (in,out) layout of the document."""
    return torch.tensor(0.5 * np.sin(1 + n + 0.9 * np.arange(np.prod(shape)))).reshape(shape)


def linear(name, n, n_in, n_out):
    return {f"{name}.weight": number(n, n_in, n_out).T.contiguous(), f"{name}.bias": number(n + 1, n_out)}


def parameters_12(model, X):
    """-> (p, name -> (sum, norm) of its gradient)"""
    U, I, d = 4, 5, 4
    if model == "MMGCN":
        p, numbers = {"id_embedding": number(100, U + I, d)}, {}
        for line in MMGCN_12.split("\n"):
            words = line.split()
            for at in range(0, len(words), 4):
                numbers[int(words[at + 1])] = tuple(map(float, words[at + 2:at + 4]))
        p.update(linear("image.mlp", 0, 3, 6))
        for m, c, frozen, first in (("image", 6, 101, 2), ("text", 2, 102, 17)):
            p[f"{m}.preference"] = number(frozen, U, c)
            for k, n in ((1, c), (2, d), (3, d)):
                p[f"{m}.conv{k}.weight"] = number(first, n, n)
                p.update(linear(f"{m}.linear{k}", first + 1, n, d) | linear(f"{m}.g{k}", first + 3, n + d, d))
                first += 5
        names = [n for n in p if n not in mmgcn.constants(p)]
        return p, dict(zip(names, (numbers[n] for n in range(32))))
    p = {"user_embedding.weight": number(0, U, d), "item_id_embedding.weight": number(1, I, d)}
    if model == "BM3":
        return p | linear("predictor", 2, d, d) | linear("image_trs", 4, 3, d) | linear("text_trs", 6, 2, d), BM3_12
    p.update(linear("image_dense", 2, 3, d) | linear("text_dense", 4, 2, d) | linear("fuse_user", 6, 3 * d, d) | linear("fuse_item", 8, 3 * d, d))
    for j in range(1, 6):
        p.update(linear(f"ssl.g{j}", 8 + 2 * j, d, d if j < 4 else d // 2))
    return p, dict(zip(p, SLMREC_12))


def setting_12(model, train, X):
    """-> (p, graphs, batch, diffusion, modalities, settings, expected gradients) of section 12"""
    U, I, d = 4, 5, 4
    p, expected = parameters_12(model, X)
    p.update({f"{m}_embedding.weight": x.clone() for m, x in X.items()})
    ij, value = (D.mean_graph if model == "MMGCN" else D.user_item_graph)(train[:, 0], train[:, 1], U, I)
    if model == "MMGCN":                                     # 1/3 in double: its gradients are small differences
        value = 1 / torch.bincount(ij[0]).double()[ij[0]]
    graph = torch.zeros(U + I, U + I, dtype=torch.float64).index_put_(tuple(ij), value.double())
    graphs = SimpleNamespace(user_item=graph, modalities=list(X), features=slmrec.unit_features(p, X))
    users, positives = torch.tensor(train).T
    batch = SimpleNamespace(users=users, positives=positives, negatives=torch.tensor([[3, 4, 3, 0, 4, 1, 2, 1]]))
    kept = lambda rows: (rows[:, None] + 2 * torch.arange(d)) % 3 != 0   # noqa: E731
    diffusion = SimpleNamespace(items=torch.unique(positives), masks={"users": kept(users), **{n: kept(positives) for n in ("items", *X)}})
    own = dict(BM3=dict(n_ui_layers=2), SLMRec=dict(ssl_alpha=0.5, ssl_temp=0.2), MMGCN={})[model]
    s = M.settings(model=model, **own, **({} if model == "SLMRec" else dict(reg_weight=0.1)))
    return p, graphs, batch, diffusion, list(X), s, expected


def check_numbers(train, X):
    expected = {"MMGCN": (0.726190, (.34094, .29881, .33329, .31007, .30841)), "SLMRec": (4.180918, (.41684, .41750, .42061, .42970, .43205)),
                "BM3": (11.492500, (.80489, .36591, .61188, .56421, .41985))}
    for model, (loss, scores) in expected.items():
        p, *rest, s, grads = setting_12(model, train, X)
        assert set(grads) == set(M.trained(p, s)), model
        q = {n: x.clone().requires_grad_(n in grads) for n, x in p.items()}
        out = M.step(q, *rest, s, G.DenseOps)
        report(f"{model} loss", abs(out["loss.total"].item() / loss - 1), 1e-6)
        got = torch.autograd.grad(out["loss.total"], [q[n] for n in grads])
        worst = max((max(abs(g.sum().item() - a), abs(g.norm().item() - b)) / max(g.norm().item(), 1e-6), n) for n, g, (a, b) in zip(grads, got, grads.values()))
        report(f"{model} gradients (sum and norm, relative to the norm), worst {worst[1]}", worst[0], 5e-5)          # f_u of SLMRec is 3e-5 off: eight rows that nearly cancel, in float32
        H_u, H_i = M.final_tables(q, rest[0], s, ops=G.DenseOps)
        score = H_u[0] @ H_i.T
        report(f"{model} scores", ((torch.sigmoid(score) if model == "SLMRec" else score) - torch.tensor(scores)).abs().max().item(), 1e-5)
