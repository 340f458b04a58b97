"""BM3 (baselines.md 7): users and items are brought near to what a dropout left of each other; no negatives. Gradients by autograd.

Targets are constants: rows of the step's own representations and projections with elements masked. That kept elements are divided by the share kept
cancels in a cosine and is left out. One mask for each row of a matrix and step: equal ids in a batch have equal masks.

Shapes: U users, I items, d width, B batch rows, n items that are projected. What a step draws (`diffusion`, as in models.py):
    items  (n) ascending, the batch's positives among them
    masks  users, items and each modality's name -> (B,d) bool, True where the target's element is kept; None: nothing is masked
"""
from types import SimpleNamespace

import torch

LOSSES = ("user_item", "modality", "reg")
NEGATIVES = False


def constants(p):
    return []


def initial(sizes, features, s, draw):
    (U, I), d = sizes, s.embedding_size
    p = {"user_embedding.weight": draw.xavier_uniform(U, d), "item_id_embedding.weight": draw.xavier_uniform(I, d)}
    p["predictor.weight"], p["predictor.bias"] = draw.xavier_normal(d, d), draw.default_bias(d, d)
    for m, x in features.items():
        p[f"{m}_embedding.weight"] = x.clone()
        p[f"{m}_trs.weight"], p[f"{m}_trs.bias"] = draw.xavier_normal(d, x.shape[1]), draw.default_bias(x.shape[1], d)
    return p


def propagated(p, graphs, s, ops):
    """H_u (U,d), H_i (I,d): the item table is added to what the propagation made of it."""
    P, Q = p["user_embedding.weight"], p["item_id_embedding.weight"]
    H = ops.propagate(graphs.user_item, torch.cat([P, Q]), s.n_ui_layers)
    return H[:len(P)], H[len(P):] + Q


def represent(p, graphs, diffusion, modalities, s, ops):
    users, items = propagated(p, graphs, s, ops)
    projection = {m: ops.project(p, m, diffusion.items) for m in modalities}
    predict = lambda table, index: ops.map_rows([table], index, p["predictor.weight"], p["predictor.bias"])   # noqa: E731
    return SimpleNamespace(users=users, items=items, projection=projection, predict=predict, latent=None)


def cosine(x, y, tap=lambda x: x):
    """(B): of each row of x with a constant row. What x is divided by is a use of its own."""
    norm = lambda x: torch.linalg.vector_norm(x, dim=1).clamp(min=1e-8)   # noqa: E731
    return (tap(x) * y).sum(1) / (norm(tap(x)) * norm(y))


def target(table, index, mask):
    """(B,d) constants"""
    x = table.detach().index_select(0, index)
    return x if mask is None else x * mask


def regulariser(r, batch, tap):
    """Of all rows of the propagated tables; lengths, not squares, over the number of items."""
    norm = torch.linalg.vector_norm
    return (norm(tap(r.users)) + norm(tap(r.items))) / len(r.items)


def losses(r, batch, diffusion, s, tap=lambda x: x):
    u, p = batch.users, batch.positives
    at = getattr(diffusion, "at", None)                  # where the batch's positives are among diffusion.items
    if at is None:
        at = torch.searchsorted(diffusion.items, p.contiguous())
    mask = lambda of: None if diffusion.masks is None else diffusion.masks[of]   # noqa: E731
    user, item = target(r.users, u, mask("users")), target(r.items, p, mask("items"))
    apart = lambda x, y: 1 - cosine(x, y, tap).mean()   # noqa: E731
    views = 0
    for m, h in r.projection.items():
        o = r.predict(h, at)
        views = views + apart(o, item) + apart(o, target(h, at, mask(m)))
    return {"user_item": apart(r.predict(r.users, u), item) + apart(r.predict(r.items, p), user), "modality": s.cl_weight * views,
            "reg": s.reg_weight * regulariser(r, batch, tap)}


def final_tables(p, graphs, s, ops):
    users, items = propagated(p, graphs, s, ops)
    return [ops.map_rows([x], None, p["predictor.weight"], p["predictor.bias"]) for x in (users, items)]


# ---------------------------------------------------------------------------------------------------------------- masks

def unpacked(words, d):
    """(B,w) words of 16 bits -> (B,d) bool: bit e % 16 of word e // 16 is element e, the rest of the last word nothing."""
    bits = words[..., None] >> torch.arange(16, device=words.device) & 1
    return bits.flatten(1)[:, :d].bool()


def packed(mask, beyond=0):
    """(B,d) bool -> (B,w) words; `beyond` (B,16 w - d) bits for what lies beyond d, else 0."""
    B, d = mask.shape
    bits = torch.zeros(B, -(-d // 16) * 16, dtype=torch.int64)
    bits[:, :d], bits[:, d:] = mask, beyond
    return (bits.view(B, -1, 16) << torch.arange(16)).sum(2)


def masks_from(arrays, modalities, d, prefix="mask."):
    """`masks` of arrays (B,w) by name; None where there are none."""
    names = ["users", "items", *modalities]
    if prefix + names[0] not in arrays:
        return None
    return {n: unpacked(arrays[prefix + n].long(), d) for n in names}
