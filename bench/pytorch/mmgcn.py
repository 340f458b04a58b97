"""MMGCN (baselines.md 5): a network of three layers on the user-item graph for each modality, their outputs averaged. Gradients by autograd.

The tables of nodes and of users' preferences are constants, as in the released programs, and so are the raw features. The graph is the mean over a
node's neighbours (data.mean_graph), not symmetric. A modality is mapped to a width of its own first where the parameters have <m>.mlp.

Shapes: U users, I items, N = U + I, d width, c what a modality enters with, B batch rows.
"""
from types import SimpleNamespace

import torch
import torch.nn.functional as F

LOSSES = ("bpr", "reg")
NEGATIVES = True
MAPPED_ABOVE = 1024           # columns of a modality
VISUAL = ("image", "visual", "vision")


def constants(p):
    return [n for n in p if n == "id_embedding" or n.endswith((".preference", "_embedding.weight"))]


def initial(sizes, features, s, draw):
    (U, I), d = sizes, s.embedding_size
    p = {"id_embedding": draw.xavier_normal(U + I, d)}
    for m, x in features.items():
        c = x.shape[1]
        p[f"{m}_embedding.weight"] = x.clone()
        if c > MAPPED_ABOVE:
            c = s.mmgcn_latent
            p[f"{m}.mlp.weight"], p[f"{m}.mlp.bias"] = draw.uniform((c, x.shape[1]), x.shape[1] ** -0.5), draw.default_bias(x.shape[1], c)
        p[f"{m}.preference"] = draw.xavier_normal(U, c)
        for k in (1, 2, 3):
            n_in = c if k == 1 else d
            p[f"{m}.conv{k}.weight"] = draw.xavier_normal(n_in, n_in)
            p[f"{m}.linear{k}.weight"], p[f"{m}.linear{k}.bias"] = draw.xavier_normal(d, n_in), draw.default_bias(n_in, d)
            both = n_in + d
            p[f"{m}.g{k}.weight"] = draw.xavier_normal(d, both) if k == 1 else draw.uniform((d, both), both ** -0.5)
            p[f"{m}.g{k}.bias"] = draw.default_bias(both, d)
    return p


def item_start(p, m):
    """(I,c): what the items of a modality start from."""
    x = p[f"{m}_embedding.weight"]
    return F.linear(x, p[f"{m}.mlp.weight"], p[f"{m}.mlp.bias"]) if f"{m}.mlp.weight" in p else x


def start(p, graphs, m):
    """x_1 (N,c): rows of length 1."""
    return F.normalize(torch.cat([p[f"{m}.preference"], item_start(p, m)]), dim=1, eps=1e-12)


def branch(p, graphs, m, ops):
    """(N,d)"""
    x = ops.start(p, graphs, m)
    for k in (1, 2, 3):
        h = F.leaky_relu(ops.messages(graphs, m, k, x, p[f"{m}.conv{k}.weight"]))
        y = F.leaky_relu(F.linear(x, p[f"{m}.linear{k}.weight"], p[f"{m}.linear{k}.bias"])) + p["id_embedding"]
        x = F.leaky_relu(F.linear(torch.cat([h, y], 1), p[f"{m}.g{k}.weight"], p[f"{m}.g{k}.bias"]))
    return x


def represent(p, graphs, diffusion, modalities, s, ops):
    U = len(p[f"{graphs.modalities[0]}.preference"])
    R = sum(branch(p, graphs, m, ops) for m in graphs.modalities) / len(graphs.modalities)
    return SimpleNamespace(p=p, modalities=graphs.modalities, users=R[:U], items=R[U:], latent=None)


def constant_reg(r, batch):
    """Of the constant tables: over the rows (user, positive) and (user, negative), the latter a mean over the negatives, and of the visual preferences."""
    U, ID, neg = len(r.users), r.p["id_embedding"], batch.negatives
    square = lambda rows: (ID[rows] ** 2).sum()   # noqa: E731
    rows = 2 * square(batch.users) + square(U + batch.positives) + square(U + neg) / len(neg)
    out = rows / (2 * len(batch.users) * ID.shape[1])
    visual = [m for m in r.modalities if m in VISUAL]
    return out + (r.p[f"{visual[0]}.preference"] ** 2).mean() if visual else out


def losses(r, batch, diffusion, s, tap=lambda x: x):
    row = lambda table, index: table.index_select(0, index)   # noqa: E731
    h_u, h_p = row(r.users, batch.users), row(r.items, batch.positives)
    dot = lambda a, b: (tap(a) * tap(b)).sum(1)   # noqa: E731
    bpr = sum(F.softplus(dot(h_u, row(r.items, n)) - dot(h_u, h_p)).mean() for n in batch.negatives) / len(batch.negatives)
    return {"bpr": bpr, "reg": s.reg_weight * constant_reg(r, batch)}


def final_tables(p, graphs, s, ops):
    r = represent(p, graphs, None, graphs.modalities, s, ops)
    return r.users, r.items
