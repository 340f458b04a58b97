"""SLMRec (baselines.md 6, task FAC): contrasts of users with items and of an item's views; two modalities, no negatives. Gradients by autograd.

Three propagations share the users' table: of the item table and of the two modalities' projections. The raw features are constants, their rows
of length 1 (`graphs.features`, name -> (I,F)). The first modality has the visual place in the formulas, the second the textual one.

Shapes: U users, I items, N = U + I, d width, B batch rows.
"""
from types import SimpleNamespace

import torch
import torch.nn.functional as F

LOSSES = ("main", "ssl_1", "ssl_2")
NEGATIVES = False


def constants(p):
    return [n for n in p if n.endswith("_embedding.weight") and n not in ("user_embedding.weight", "item_id_embedding.weight")]


def unit_features(p, modalities):
    """What `graphs.features` is."""
    return {m: F.normalize(p[f"{m}_embedding.weight"].detach(), dim=1, eps=1e-12) for m in modalities}


def initial(sizes, features, s, draw):
    (U, I), d = sizes, s.embedding_size
    p = {"user_embedding.weight": draw.xavier_uniform(U, d), "item_id_embedding.weight": draw.xavier_uniform(I, d)}
    for m, x in features.items():
        p[f"{m}_embedding.weight"] = x.clone()
    maps = {f"{m}_dense": (x.shape[1], d) for m, x in features.items()}
    maps.update({"fuse_user": (3 * d, d), "fuse_item": (3 * d, d)})
    maps.update({f"ssl.g{j}": (d, d if j < 4 else d // 2) for j in range(1, 6)})
    for name, (n_in, n_out) in maps.items():
        p[f"{name}.weight"], p[f"{name}.bias"] = draw.xavier_uniform(n_out, n_in), draw.default_bias(n_in, n_out)
    return p


def mapped(p, name, x):
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def tables(p, graphs, s, ops):
    """[H_i, H_v, H_t], each (N,d)"""
    starts = [p["item_id_embedding.weight"], *(mapped(p, f"{m}_dense", graphs.features[m]) for m in graphs.modalities)]
    return ops.propagate_views(graphs.user_item, p["user_embedding.weight"], starts, s.n_ui_layers)


def represent(p, graphs, diffusion, modalities, s, ops):
    return SimpleNamespace(p=p, H=tables(p, graphs, s, ops), U=len(p["user_embedding.weight"]), ops=ops, latent=None)


def nce(X, Y, temperature, tap=lambda x: x):
    """In-batch InfoNCE of the rows of X (B,k) with those of Y: row b's own partner against all. The own partner is a use of its own."""
    S = tap(X) @ tap(Y).T / temperature
    return (torch.logsumexp(S, 1) - (tap(X) * tap(Y)).sum(1) / temperature).mean()


def contrasts(r, batch):
    """[(X, Y)] of main, ssl_1, ssl_2."""
    p, u, i = r.p, batch.users, r.U + batch.positives
    unit = lambda x: F.normalize(x, dim=1, eps=1e-12)   # noqa: E731
    users = r.ops.map_rows(r.H, u, p["fuse_user.weight"], p["fuse_user.bias"])
    items = r.ops.map_rows(r.H, i, p["fuse_item.weight"], p["fuse_item.bias"])
    own, first, second = (x.index_select(0, i) for x in r.H)
    x1 = mapped(p, "ssl.g1", own)
    x4 = mapped(p, "ssl.g4", mapped(p, "ssl.g3", x1))
    return [(unit(users), unit(items)), (x1, mapped(p, "ssl.g2", first)), (x4, mapped(p, "ssl.g5", second))]


def losses(r, batch, diffusion, s, tap=lambda x: x):
    main, of_first, of_second = contrasts(r, batch)
    return {"main": nce(*main, s.temp, tap), "ssl_1": s.ssl_alpha * nce(*of_first, s.ssl_temp, tap), "ssl_2": s.ssl_alpha * nce(*of_second, s.ssl_temp, tap)}


def final_tables(p, graphs, s, ops):
    H, U = tables(p, graphs, s, ops), len(p["user_embedding.weight"])
    return [ops.map_rows([x[rows] for x in H], None, p[f"{name}.weight"], p[f"{name}.bias"])
            for name, rows in (("fuse_user", slice(U)), ("fuse_item", slice(U, None)))]
